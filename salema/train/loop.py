"""One training loop for images and clips.

An image is a clip of one frame, so both stages walk over windows: `tune` over windows of one
frame, `finetune` over windows of `bptt_frames` with the state carried (and detached) from one
to the next. What is random is seeded by (seed, run, epoch), so a run that was interrupted
continues from its last whole epoch to the same weights.
"""

import copy
import csv
import hashlib
import json
import subprocess
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from salema import data as datasets
from salema.files import SCRATCH, SalemaError, atomic
from salema.media.threads import ahead
from salema.model import weights
from salema.model.efficientnet import imagenet_lite
from salema.model.layers import FIRST_DECODER, imagenet_encoder
from salema.model.network import SaliencyModel, State, pick_device, pick_precision
from salema.params import Finetune, Params, Training, Tune, choose
from salema.train.losses import Adversary, window_loss
from salema.train.windows import Window, clip_windows, image_windows

CODE = ("files.py", "params.py", "media", "data", "model", "train")  # what training depends on
THAW = {2: 50, 3: FIRST_DECODER, 4: 17, 5: 0}  # epoch -> first layer that trains from then on


def tune(params: Params, run: str) -> Path:
    """Train a static network on images; returns the weights file.

    Raises:
        SalemaError: No such run under `tune`, its data are missing, or what it starts from
            does not fit.
    """
    settings = params.tune[choose(run, params.tune, "run of tune")]
    size = params.model.size
    step = 2 * params.model.step
    if settings.half_epochs and any(side % step for side in size):
        raise SalemaError(f"tune.{run}.half_epochs needs sides in {step}s, not {size} (change one)")
    clips = _clips(params, params.data.tune, "train")
    job = Job(params, run, settings, clips, _clips(params, params.data.tune, "val"))
    start = None if settings.init is None else job.start_from(Path(settings.init), any_size=True)
    if start is not None and start.placement.recurrence != "none":
        raise SalemaError(f"{settings.init} holds a memory, tune.{run} is static (mend init)")

    def fresh() -> SaliencyModel:
        model = start
        if start is None:
            static = weights.PLACEMENTS["static"]
            model = SaliencyModel(params.model, static, params.model.branches)
            if params.model.encoder == "imagenet":
                imagenet_encoder(model.layers, params.model.std)
            if params.model.encoder == "efficientnet-lite0":
                imagenet_lite(model.layers[0], params.model.std)
        if settings.train == "decoder":
            model.layers[:FIRST_DECODER].requires_grad_(False)
        return model

    return job.run_to_the_end(fresh)


def finetune(
    params: Params, run: str, init: str | Path | None = None, dataset: str | None = None
) -> Path:
    """Train a placement on clips from the static weights; returns the weights file.

    Args:
        params: The study's.
        run: A name under `placements`.
        init: Weights to start from, instead of static's: a placement fine-tuned on one set
            may go on to another.
        dataset: The set to train on, instead of `data.finetune`.

    Raises:
        SalemaError: No such placement, no static weights, or the data are missing.
    """
    placement = params.placements[choose(run, params.placements, "placement")]
    settings = params.finetune
    own = {"learning_rate": placement.learning_rate,
           "fresh_learning_rate": placement.fresh_learning_rate}  # fmt: skip
    own = {name: rate for name, rate in own.items() if rate is not None}
    settings = settings.model_copy(update=own)
    start = Path(init or params.run_folder("static") / "weights.safetensors")
    sets = [choose(dataset, datasets.DATASETS, "data set")] if dataset else params.data.finetune
    if placement.static == "plain":
        job, static = None, weights.read(start)
    else:
        job = Job(params, run, settings, _clips(params, sets, "train"), _clips(params, sets, "val"))
        job.thaw = placement.thaw
        static = job.start_from(start)

    def fresh() -> SaliencyModel:
        model = SaliencyModel(static.config, placement)
        # What a placement makes of its own; one that goes on keeps what it has learned.
        own = {f"layers.{layer}.{kind}" for layer in placement.fresh for kind in ("weight", "bias")}
        own |= {f"memories.{layer}.alpha_logit" for layer in placement.after}
        own = set() if static.placement == placement else own
        kept = {key: tensor for key, tensor in static.state_dict().items() if key not in own}
        model.load_state_dict(kept, strict=False)
        model.layers.requires_grad_(placement.static == "tuned")
        return model

    if job is None:
        card = copy.copy(static.card)
        card.run = run
        torch.manual_seed(params.seed)
        return _write(params, run, fresh(), card, [])
    return job.run_to_the_end(fresh)


def _clips(params: Params, sets: list[str], split: str) -> list[datasets.Clip]:
    clips = [clip for name in sets for clip in datasets.load(params.root, name, split)]
    if not clips and split == "train":
        raise SalemaError(f"no training clips of {sets} under {params.root} (see `salema index`)")
    return clips


@dataclass
class Job:
    """One training: what it reads, how it learns, where it can be continued from."""

    params: Params
    run: str
    settings: Training
    clips: list[datasets.Clip]
    val: list[datasets.Clip]
    seen: dict[str, list[str]] = field(default_factory=dict)  # clips of earlier stages
    start: str = ""  # hash of the weights it starts from
    thaw: bool = False

    def __post_init__(self) -> None:
        self.cache = datasets.study_cache(tuple(self.params.model.size))

    def start_from(self, path: Path, any_size: bool = False) -> SaliencyModel:
        """Weights to go on from; what they saw, this run's weights have seen.

        Args:
            path: The weights file.
            any_size: Whether weights for another size may go on at this one.

        Raises:
            SalemaError: The file cannot be read, or is for another size.
        """
        model = weights.read(path)
        if any_size:
            model.config = model.config.model_copy(update={"size": self.params.model.size})
        if model.config.size != self.params.model.size:
            raise SalemaError(
                f"{path} is for {model.config.size}, profile {self.params.profile} trains at "
                f"{self.params.model.size} (make model.size the same)"
            )
        self.seen = dict(model.card.seen)
        self.start = hashlib.sha256(path.read_bytes()).hexdigest()
        return model

    def run_to_the_end(self, fresh: object) -> Path:
        """Train the model that `fresh()` makes, or continue; write weights and losses."""
        torch.manual_seed(self.params.seed + zlib.crc32(self.run.encode()))
        learner = Learner(fresh(), self)
        checkpoint = SCRATCH / "training" / self.key() / "checkpoint.pt"
        saved = torch.load(checkpoint, weights_only=True) if checkpoint.exists() else None
        if saved is not None and saved["epoch"] <= self.settings.epochs:  # not of a longer run
            learner.load_state_dict(saved)
            tqdm.write(f"{self.run}: continuing after epoch {learner.epoch}")
        while learner.epoch < self.settings.epochs:
            learner.one_epoch()
            with atomic(checkpoint) as part:
                torch.save(learner.state_dict(), part)
        card = weights.Card(run=self.run, seen=self._all_seen(), params=self._described(),
                            metrics=learner.history[-1], commit=_commit())  # fmt: skip
        return _write(self.params, self.run, learner.result(), card, learner.history)

    def windows(self, epoch: int, split: str) -> Iterator[Window]:
        """The windows of an epoch; those of "val" are the same every time and not changed."""
        rng = np.random.default_rng([self.params.seed, zlib.crc32(self.run.encode()), epoch])
        clips = self.clips if split == "train" else self.val
        make = image_windows if isinstance(self.settings, Tune) else clip_windows
        return make(clips, self.cache, self.settings, rng, epoch if split == "train" else None)

    def key(self) -> str:
        """A hash of everything that determines the run, but how long it is."""
        described = self._described()
        if self.settings.schedule != "one-cycle":  # whose every step knows the last
            described["settings"].pop("epochs")
        listed = [(c.dataset, c.name, c.n_frames, self.cache.identity(c))
                  for c in [*self.clips, *self.val]]  # fmt: skip
        digest = hashlib.sha256(json.dumps([described, listed, self.start, self.seen]).encode())
        package = Path(__file__).parents[1]
        for path in sorted(
            p for name in CODE for p in [package / name, *package.glob(f"{name}/*")]
        ):
            if path.suffix == ".py":
                digest.update(path.read_bytes())
        return f"{self.run}-{digest.hexdigest()[:16]}"

    def _described(self) -> dict:
        placement = self.params.placements.get(self.run)
        return {"seed": self.params.seed, "profile": self.params.profile,
                "model": self.params.model.model_dump(), "settings": self.settings.model_dump(),
                "placement": placement and placement.model_dump()}  # fmt: skip

    def _all_seen(self) -> dict[str, list[str]]:
        names = {name: set(clips) for name, clips in self.seen.items()}
        for clip in self.clips:
            names.setdefault(clip.dataset, set()).add(clip.name)
        return {name: sorted(clips) for name, clips in names.items()}


class Learner:
    """Model, optimizer and schedule of one training, with everything that a pause needs."""

    def __init__(self, model: SaliencyModel, job: Job) -> None:
        self.job, self.settings = job, job.settings
        self.device = pick_device("auto")
        self.model = model.to(self.device).to(memory_format=torch.channels_last)
        self.mixed = pick_precision(self.settings.precision, self.device) == "bf16"
        self.optimizer = _optimizer(self.model, self.settings)
        self.epoch, self.steps = 0, 0
        self.history: list[dict[str, float]] = []
        self.average = copy.deepcopy(self.model) if self.settings.average else None
        self.adversary = None
        if self.settings.loss == "bce-adversarial":
            self.adversary = Adversary(self.settings, job.params.model.size, self.device)
        steps = self.settings.epochs * sum(1 for _ in job.windows(0, "train"))
        if self.adversary is not None:
            steps = (steps + 1) // 2  # every other one is the judge's
        self.scheduler = _scheduler(self.optimizer, self.settings, steps)

    # ------------------------------------------------------------------ an epoch

    def one_epoch(self) -> None:
        """Train on every window once, then look at the validation loss."""
        torch.manual_seed(
            zlib.crc32(f"{self.job.params.seed} {self.job.run} {self.epoch}".encode())
        )
        if self.job.thaw:
            first = min((layer for e, layer in THAW.items() if self.epoch + 1 >= e), default=62)
            for index, layer in enumerate(self.model.layers):
                layer.requires_grad_(index >= first)
        self.model.train()
        losses = []
        windows = list(self.job.windows(self.epoch, "train"))
        bar = tqdm(ahead((w.load() for w in windows), 4), total=len(windows), disable=None,
                   desc=f"{self.job.run} {self.epoch + 1}/{self.settings.epochs}")  # fmt: skip
        state = None
        for window in bar:
            state = None if window.fresh else state
            loss, state = self._step(window, state)
            losses.append(loss)
        self.epoch += 1
        row = {"epoch": self.epoch, "train_loss": float(np.mean(losses)), "val_loss": self._val()}
        row |= {f"alpha_{layer}": alpha for layer, alpha in self.model.alphas().items()}
        self.history.append(row)
        if isinstance(self.scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
            self.scheduler.step(row["val_loss"])
        self._finite(row["train_loss"])

    def _finite(self, values: Tensor | float) -> None:
        """Raises SalemaError unless they all are: maps before their loss, and the loss."""
        if not bool(torch.isfinite(torch.as_tensor(values)).all()):
            raise SalemaError(f"the loss of {self.job.run} is not finite (lower learning_rate)")

    def _step(self, window: Window, state: State | None) -> tuple[float, State]:
        frames, targets = window.tensors(self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.mixed):
            maps, state = self.model(frames, state)
        self._finite(maps)
        if self.adversary is not None:
            images = self.model.normalise(frames.flatten(0, 1)).float()
            loss = self.adversary.loss(
                maps.flatten(0, 1), targets.flatten(0, 1), images, self.steps
            )
        else:
            loss = window_loss(maps, targets, self.settings)
        self.steps += 1
        if self.adversary is None or loss.requires_grad:
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            if self.settings.clip_norm is not None:
                norm = self.settings.clip_norm * frames.shape[1]
                nn.utils.clip_grad_norm_(self.model.parameters(), norm)
            self.optimizer.step()
            one_cycle = isinstance(self.scheduler, torch.optim.lr_scheduler.OneCycleLR)
            if one_cycle and self.scheduler.last_epoch < self.scheduler.total_steps - 1:
                self.scheduler.step()
            self._follow()
        return float(loss.detach()) / frames.shape[1], state.detach()

    def _follow(self) -> None:
        """The average of the weights follows them; faster at the start."""
        if self.average is None:
            return
        decay = min(self.settings.average, (1 + self.steps) / (10 + self.steps))
        with torch.no_grad():
            pairs = zip(self.average.state_dict().values(), self.model.state_dict().values(),
                        strict=True)  # fmt: skip
            for slow, fast in pairs:
                slow.lerp_(fast, 1 - decay) if slow.is_floating_point() else slow.copy_(fast)

    @torch.no_grad()
    def _val(self) -> float:
        model = self.average or self.model
        model.eval()
        losses, state = [], None
        for window in ahead(w.load() for w in self.job.windows(0, "val")):
            frames, targets = window.tensors(self.device)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.mixed):
                maps, state = model(frames, None if window.fresh else state)
            self._finite(maps)
            losses.append(float(window_loss(maps, targets, self.settings)) / frames.shape[1])
        return float(np.mean(losses)) if losses else float("nan")

    # ------------------------------------------------------------------ pauses

    def result(self) -> SaliencyModel:
        """The trained model: the averaged weights where an average was kept."""
        return self.average or self.model

    def state_dict(self) -> dict:
        """Everything that the next epoch depends on."""
        return {
            "model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler and self.scheduler.state_dict(),
            "average": self.average and self.average.state_dict(),
            "adversary": self.adversary and self.adversary.state_dict(),
            "epoch": self.epoch, "steps": self.steps, "history": self.history,
        }  # fmt: skip

    def load_state_dict(self, state: dict) -> None:
        """Continue from what `state_dict` gave."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.epoch, self.steps, self.history = state["epoch"], state["steps"], state["history"]
        if self.scheduler is not None:
            self.scheduler.load_state_dict(state["scheduler"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        if self.adversary is not None:
            self.adversary.load_state_dict(state["adversary"])


def _optimizer(model: SaliencyModel, settings: Training) -> torch.optim.Optimizer:
    """Groups: alphas, what starts anew with this placement, the encoder, and the rest."""
    names = tuple(f"layers.{layer}." for layer in model.placement.fresh)
    known = tuple(f"layers.{layer}." for layer in range(FIRST_DECODER))
    alphas, fresh, encoder, rest = [], [], [], []
    for name, parameter in model.named_parameters():
        if name.endswith("alpha_logit"):
            alphas.append(parameter)
        elif name.startswith(known) and getattr(settings, "encoder_learning_rate", None):
            encoder.append(parameter)
        else:
            (fresh if name.startswith(("memories.", *names)) else rest).append(parameter)
    rate, decay = settings.learning_rate, settings.weight_decay
    groups = [{"params": rest, "lr": rate, "weight_decay": decay}]
    if encoder:
        slow = settings.encoder_learning_rate
        groups.append({"params": encoder, "lr": slow, "weight_decay": decay})
    if isinstance(settings, Finetune):
        fast = settings.fresh_learning_rate or rate
        groups.append({"params": fresh, "lr": fast, "weight_decay": decay})
        groups.append({"params": alphas, "lr": settings.alpha_learning_rate, "weight_decay": 0.0})
    groups = [group for group in groups if group["params"]]
    match settings.optimizer:
        case "adam":
            return torch.optim.Adam(groups, fused=True)
        case "adamw":
            return torch.optim.AdamW(groups, fused=True)
        case "sgd":
            return torch.optim.SGD(groups, momentum=0.9, nesterov=True)
        case "adagrad":
            return torch.optim.Adagrad(groups)


def _scheduler(
    optimizer: torch.optim.Optimizer, settings: Training, steps: int
) -> torch.optim.lr_scheduler.LRScheduler | None:
    """The schedule of the learning rate, for so many steps of this optimizer in all."""
    match settings.schedule:
        case "one-cycle":
            rates = [group["lr"] for group in optimizer.param_groups]
            return torch.optim.lr_scheduler.OneCycleLR(
                optimizer, rates, total_steps=steps + 1, pct_start=0.15
            )
        case "plateau":
            return torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=5)
    return None


def _write(
    params: Params, run: str, model: SaliencyModel, card: weights.Card, history: list[dict]
) -> Path:
    folder = params.run_folder(run)
    path = folder / "weights.safetensors"
    weights.save(model, path, card)
    columns = list(history[0]) if history else ["epoch", "train_loss", "val_loss"]
    with atomic(folder / "losses.csv") as part, part.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(
            {k: v if k == "epoch" else f"{v:.6g}" for k, v in row.items()} for row in history
        )
    return path


def _commit() -> str:
    """The commit of the clone that this runs in, or nothing."""
    try:
        done = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True)
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
