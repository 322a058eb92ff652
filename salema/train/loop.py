"""The training loop of images and clips: `tune`, `finetune`, epochs, steps, checkpoints.

An image is a clip of one frame, so both stages train on windows. The state is carried from one
window of a clip to the next, without its history. All random numbers are seeded by (seed, run,
epoch), so interrupted training resumes from the last completed epoch with the same result.
"""

import copy
import hashlib
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from salema import data
from salema.files import SCRATCH, SalemaError, atomic
from salema.media.threads import ahead
from salema.model import weights
from salema.model.device import pick_device, pick_precision
from salema.model.efficientnet import imagenet_lite
from salema.model.layers import FIRST_DECODER, imagenet_encoder
from salema.model.network import SaliencyModel, State
from salema.params import RATES, Finetune, Params, Placement, Training, Tune, choose
from salema.train.losses import Adversary, window_loss
from salema.train.optimizer import after_epoch, after_step, make_optimizer, make_schedule, thaw
from salema.train.windows import Reader, Window, clip_windows, image_windows

CODE = ("files.py", "params.py", "media", "data", "model", "train")  # what training depends on
FIXED = {"decoder": FIRST_DECODER, "upper": 17, "all": 0}  # `train` -> first layer that trains

Row = dict[str, float | None]  # of losses.csv


def tune(params: Params, run: str) -> Path:
    """Train a static network on images, write its weights and losses; return the weights file."""
    settings = params.tune[choose(run, params.tune, "run of tune")]
    size, step = params.model.size, 2 * params.model.step
    if settings.half_epochs and any(side % step for side in size):
        raise SalemaError(f"tune.{run}.half_epochs needs sides in {step}s, not {size} (change one)")
    start, card, init = None, weights.Card(), settings.init
    if init is not None:
        init = params.weights_file(init) if init in params.tune else Path(init)
        start, card = _read(init, params, run)
        start.config = start.config.model_copy(update={"size": size})
        if start.placement.recurrence != "none":
            what = f"{init} has a recurrence, tune.{run} is static"
            raise SalemaError(f"{what} (change tune.{run}.init)")
    job = Job(params, run, settings, *clips_of(params, params.data.tune), init, card.seen)
    torch.manual_seed(params.seed + zlib.crc32(run.encode()))
    network = start or new_static(params)
    network.layers[: FIXED[settings.train]].requires_grad_(False)
    return train(network, job)


def finetune(
    params: Params, run: str, init: str | Path | None = None, dataset: str | None = None
) -> Path:
    """Train a placement on clips, write its weights and losses; return the weights file.

    Training starts from the weights of the run `placement.start`. A run with `static: plain` is
    written without training, and so is one on a set that `data.continued` lacks. A weights file
    `init` or a `dataset` instead of those of the placement make a run of its own, "<run>-<sets>".
    """
    placement = params.placements[choose(run, params.placements, "placement")]
    named, missing = dataset or placement.data, False
    sets = [choose(named, data.DATASETS, "data set")] if named else params.data.finetune
    if init or dataset:
        run = "-".join([run, *sets])
        if run in params.runs:
            raise SalemaError(f"{run} is a run of the study (rename it in runs)")
        params = params.model_copy(update={"placements": params.placements | {run: placement}})
    elif placement.data:
        missing = placement.data not in params.data.continued
    path = Path(init or params.weights_file(placement.start))
    start, card = _read(path, params, run)
    if placement.static == "plain" or missing:
        torch.manual_seed(params.seed)
        return write(params, with_placement(start, placement), replace(card, run=run), [])
    if start.config.size != params.model.size:
        here = f"profile {params.profile} trains at {params.model.size}"
        raise SalemaError(f"{path} is for {start.config.size}, {here} (use the same model.size)")
    own = placement.model_dump(include=RATES, exclude_none=True)
    settings = params.finetune.model_copy(update=own)
    job = Job(params, run, settings, *clips_of(params, sets), path, card.seen)
    torch.manual_seed(params.seed + zlib.crc32(run.encode()))
    network = with_placement(start, placement)
    network.layers.requires_grad_(placement.static == "tuned")
    return train(network, job)


def _read(path: Path, params: Params, run: str) -> tuple[SaliencyModel, weights.Card]:
    """The weights file that a run starts from, which must not be the one that it writes."""
    if path.resolve() == params.weights_file(run).resolve():
        raise SalemaError(f"{path} is the file that {run} writes (start from a copy of it)")
    return weights.read(path)


def new_static(params: Params) -> SaliencyModel:
    """A static network with random weights, or with ImageNet's in its encoder."""
    network = SaliencyModel(params.model, Placement(recurrence="none"), params.model.branches)
    if params.model.encoder == "imagenet":
        imagenet_encoder(network.layers, params.model.std)
    if params.model.encoder == "efficientnet-lite0":
        imagenet_lite(network.layers[0], params.model.std)
    return network


def with_placement(start: SaliencyModel, placement: Placement) -> SaliencyModel:
    """A network with this placement and the weights of `start`.

    Alphas, `fresh` layers and memories that `start` lacks are new, unless the placements are the
    same: then training continues with all weights.
    """
    network = SaliencyModel(start.config, placement)
    known = start.state_dict()
    if not placement.same_network(start.placement):
        new = {f"layers.{layer}.{kind}" for layer in placement.fresh for kind in ("weight", "bias")}
        new |= {f"memories.{layer}.alpha_logit" for layer in placement.after}
        known = {name: tensor for name, tensor in known.items() if name not in new}
    network.load_state_dict(known, strict=False)
    return network


def clips_of(params: Params, sets: list[str]) -> tuple[list[data.Clip], list[data.Clip]]:
    """The training and the validation clips of some data sets."""
    if not sets:
        raise SalemaError(f"profile {params.profile} names no data set to train on (set `data`)")
    return tuple(
        [clip for name in sets for clip in data.load(params.root, name, split)]
        for split in ("train", "val")
    )


@dataclass(frozen=True)
class Job:
    """What determines one training: its settings, its clips, the weights it starts from."""

    params: Params
    run: str
    settings: Training
    clips: list[data.Clip]
    val: list[data.Clip]
    start: str | Path | None = None  # the weights file that training starts from
    seen: dict[str, list[str]] = field(default_factory=dict)  # clips that it was trained on

    @cached_property
    def cache(self) -> data.FrameCache:
        """Frames and maps of the clips at the model's size."""
        return data.study_cache(tuple(self.params.model.size))

    def windows(self, epoch: int | None) -> Iterator[Reader]:
        """Functions that read the windows of an epoch, from 0; None is validation."""
        clips = self.val if epoch is None else self.clips
        rng = np.random.default_rng([self.params.seed, zlib.crc32(self.run.encode()), epoch or 0])
        make = image_windows if isinstance(self.settings, Tune) else clip_windows
        return make(clips, self.cache, self.settings, rng, epoch)

    def described(self) -> dict:
        """The parameters of the run, for the card and the key."""
        shared = self.params.model_dump(include={"seed", "profile", "model"})
        placement = self.params.placements.get(self.run)  # its epochs are in the settings
        shared["placement"] = placement and placement.model_dump(exclude={"epochs"})
        return shared | {"settings": self.settings.model_dump()}

    def key(self) -> str:
        """A hash of everything that determines the run, except for the number of epochs."""
        described = self.described()
        if self.settings.schedule != "one-cycle":  # each step of which depends on that number
            described["settings"].pop("epochs")
        both = [*self.clips, *self.val]
        clips = [(c.dataset, c.name, c.n_frames, self.cache.identity(c)) for c in both]
        digest = hashlib.sha256(json.dumps([described, clips, self.seen]).encode())
        package = Path(__file__).parents[1]
        files = [p for n in CODE for p in sorted(package.glob(f"{n}/*.py")) or [package / n]]
        for path in files if self.start is None else [*files, Path(self.start)]:
            digest.update(path.read_bytes())
        return f"{self.run}-{digest.hexdigest()[:16]}"

    def all_seen(self) -> dict[str, list[str]]:
        """Data set -> names of the clips that the trained weights have seen, earlier or here."""
        names = {name: set(clips) for name, clips in self.seen.items()}
        for clip in self.clips:
            names.setdefault(clip.dataset, set()).add(clip.name)
        return {name: sorted(clips) for name, clips in names.items()}


def train(network: SaliencyModel, job: Job) -> Path:
    """Train from the start or from a checkpoint; write the weights and losses."""
    learner = Learner(network, job)
    checkpoint = SCRATCH / "training" / job.key() / "checkpoint.pt"
    saved = torch.load(checkpoint, weights_only=True) if checkpoint.exists() else None
    if saved is not None and saved["epoch"] <= job.settings.epochs:  # not of longer training
        learner.load_state_dict(saved)
        tqdm.write(f"{job.run}: resuming after epoch {learner.epoch}")
    while learner.epoch < job.settings.epochs:
        learner.one_epoch()
        with atomic(checkpoint) as part:
            torch.save(learner.state_dict(), part)
    card = weights.Card(job.run, job.all_seen(), job.described(), learner.kept())
    return write(job.params, learner.best or learner.result(), card, learner.history)


def write(params: Params, network: SaliencyModel, card: weights.Card, history: list[Row]) -> Path:
    """Write weights.safetensors and losses.csv of the run that the card names."""
    path = params.weights_file(card.run)
    weights.save(network, path, card)
    rows = [list(history[0]) if history else ["epoch", "train_loss", "val_loss"]]
    for row in history:  # an empty cell where there is no validation loss
        rows.append(["" if value is None else f"{value:.6g}" for value in row.values()])
    with atomic(path.with_name("losses.csv")) as part:
        part.write_text("".join(f"{','.join(row)}\n" for row in rows), newline="")
    return path


class Learner:
    """Network, optimizer and schedule of a job: epochs, steps and the state of a checkpoint."""

    def __init__(self, network: SaliencyModel, job: Job) -> None:
        self.job, self.settings = job, job.settings
        self._check_validation()
        self.device = pick_device("auto")
        self.network = network.to(self.device).to(memory_format=torch.channels_last)
        self.mixed = pick_precision(self.settings.precision, self.device) == "bf16"
        self.optimizer = make_optimizer(self.network, self.settings)
        self.epoch, self.steps = 0, 0
        self.history: list[Row] = []
        self.average = copy.deepcopy(self.network) if self.settings.average else None
        self.best = copy.deepcopy(self.network) if self.settings.keep == "best" else None
        parts = {"network": self.network, "optimizer": self.optimizer}
        parts |= {"average": self.average, "best": self.best}
        self.adversary = None
        steps = self.settings.epochs * sum(1 for _ in job.windows(0))
        if self.settings.loss == "bce-adversarial":
            rival = self.adversary = Adversary(self.settings, job.params.model.size, self.device)
            parts |= {"discriminator": rival.discriminator, "its_optimizer": rival.optimizer}
            steps = (steps + 1) // 2  # the discriminator takes every other one
        parts["schedule"] = self.schedule = make_schedule(self.optimizer, self.settings, steps)
        self.parts = {name: part for name, part in parts.items() if part is not None}

    def _check_validation(self) -> None:
        """An error where a setting chooses by validation clips and there are none.

        The val part of Hollywood-2 and UCF-sports holds their test clips, which choose nothing.
        """
        for key in ("schedule", "keep"):
            choice = getattr(self.settings, key)
            if choice in ("plateau", "best") and all(c.split != "val" for c in self.job.val):
                needs = f"{self.job.run} has no validation clips for {key}: {choice}"
                raise SalemaError(f"{needs} (choose another {key})")

    def one_epoch(self) -> None:
        """Train on every window once, then compute the validation loss."""
        run, seed = self.job.run, self.job.params.seed
        torch.manual_seed(zlib.crc32(f"{seed} {run} {self.epoch}".encode()))
        if isinstance(self.settings, Finetune) and self.network.placement.thaw:
            thaw(self.network, self.epoch)
        self.network.train()
        readers = list(self.job.windows(self.epoch))
        windows = ahead((read() for read in readers), 4)
        name = f"{run} {self.epoch + 1}/{self.settings.epochs}"
        losses, state = [], None
        for window in tqdm(windows, name, len(readers), disable=None):
            loss, state = self._step(window, None if window.first else state)
            losses.append(loss)
        self.epoch += 1
        row = {"epoch": self.epoch, "train_loss": float(np.mean(losses)), "val_loss": self._val()}
        row |= {f"alpha_{layer}": alpha for layer, alpha in self.network.alphas().items()}
        self.history.append(row)
        if self.best is not None and self.kept() is row:
            self.best.load_state_dict(self.result().state_dict())
        after_epoch(self.schedule, row["val_loss"])
        self._check_finite(row["train_loss"])

    def _step(self, window: Window, state: State | None) -> tuple[float, State]:
        """Train on a window; returns the loss per frame and the state after the window."""
        frames, targets = window.tensors(self.device)
        maps, state = self._maps(self.network, frames, state)
        if self.adversary is None:
            loss = window_loss(maps, targets, self.settings)
        else:
            images = self.network.normalise(frames.flatten(0, 1)).float()
            flat = maps.flatten(0, 1), targets.flatten(0, 1)
            loss = self.adversary.loss(*flat, images, self.steps)
        self.steps += 1
        if self.adversary is None or loss.requires_grad:
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            if self.settings.clip_norm is not None:
                norm = self.settings.clip_norm * frames.shape[1]
                nn.utils.clip_grad_norm_(self.network.parameters(), norm)
            self.optimizer.step()
            after_step(self.schedule)
            self._follow()
        return float(loss.detach()) / frames.shape[1], state.detach()

    def _maps(
        self, network: SaliencyModel, frames: Tensor, state: State | None
    ) -> tuple[Tensor, State]:
        """Maps of a window in the precision of the run; an error if one is not finite."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.mixed):
            maps, state = network(frames, state)
        self._check_finite(maps)  # here, because the BCE fails on values outside [0, 1]
        return maps, state

    def _check_finite(self, values: Tensor | float) -> None:
        if not bool(torch.isfinite(torch.as_tensor(values)).all()):
            raise SalemaError(f"the loss of {self.job.run} is not finite (lower learning_rate)")

    def _follow(self) -> None:
        """Move the average of the weights towards the weights; faster in the first steps."""
        if self.average is None:
            return
        decay = min(self.settings.average, (1 + self.steps) / (10 + self.steps))
        slow, fast = self.average.state_dict(), self.network.state_dict()
        with torch.no_grad():
            for name, tensor in slow.items():
                if tensor.is_floating_point():
                    tensor.lerp_(fast[name], 1 - decay)
                else:
                    tensor.copy_(fast[name])

    @torch.no_grad()
    def _val(self) -> float | None:
        """The mean loss per frame of the validation windows; None if there are none."""
        network = self.result().eval()
        losses, state = [], None
        for window in ahead(read() for read in self.job.windows(None)):
            frames, targets = window.tensors(self.device)
            maps, state = self._maps(network, frames, None if window.first else state)
            losses.append(float(window_loss(maps, targets, self.settings)) / frames.shape[1])
        return float(np.mean(losses)) if losses else None

    def result(self) -> SaliencyModel:
        """The trained network, or the average of its weights where one is kept."""
        return self.average or self.network

    def kept(self) -> Row:
        """The row of the epoch whose weights are kept: the last, or the first of the best."""
        if self.best is None:
            return self.history[-1]
        return min(self.history, key=lambda row: row["val_loss"])

    def state_dict(self) -> dict:
        """Everything that the next epoch depends on."""
        parts = {name: part.state_dict() for name, part in self.parts.items()}
        return parts | {"epoch": self.epoch, "steps": self.steps, "history": self.history}

    def load_state_dict(self, state: dict) -> None:
        """Continue from what `state_dict` returned."""
        for name, part in self.parts.items():
            part.load_state_dict(state[name])
        self.epoch, self.steps, self.history = state["epoch"], state["steps"], state["history"]
