"""Training on images and on clips: `tune`, `finetune`, and what both of them do.

An image is a clip of one frame, so both stages train on windows. The state is carried from one
window of a clip to the next, without its history. Interrupted training resumes from the last
checkpoint, also in the middle of an epoch, with the same result.
"""

import zlib
from dataclasses import replace
from pathlib import Path

import torch

from salema import data
from salema.files import SCRATCH, SalemaError, atomic
from salema.model import weights
from salema.model.efficientnet import Lite, imagenet_lite
from salema.model.layers import FIRST_DECODER, imagenet_encoder
from salema.model.network import SaliencyModel
from salema.params import LITE, RATES, Params, Placement, choose
from salema.train import ranks
from salema.train.checkpoints import Checkpoints
from salema.train.job import Job
from salema.train.learner import Learner, Row

# `train` -> the first layer that trains.
FIXED = {"memory": 62, "decoder": FIRST_DECODER, "upper": 17, "all": 0}


@ranks.joined()
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
    torch.manual_seed(params.seed + zlib.crc32(run.encode()))
    network = start or new_static(params)
    frozen = freeze(network, settings.train)
    job = Job(params, run, settings, *clips_of(params, params.data.tune), init, card.seen, frozen)
    return train(network, job)


@ranks.joined()
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
    torch.manual_seed(params.seed + zlib.crc32(run.encode()))
    network = with_placement(start, placement)
    frozen = freeze(network, settings.train if placement.static == "tuned" else "memory")
    job = Job(params, run, settings, *clips_of(params, sets), path, card.seen, frozen)
    return train(network, job)


def freeze(network: SaliencyModel, train: str) -> SaliencyModel | None:
    """Let only these layers (see `FIXED`) and the memories train.

    Returns the network where its encoder is an EfficientNet that does not train: its features are
    computed once. The convolution that mixes them belongs to the decoder.
    """
    network.layers[: FIXED[train]].requires_grad_(False)
    if train not in ("decoder", "memory") or not isinstance(network.layers[0], Lite):
        return None
    network.layers[0].mix.requires_grad_(train == "decoder")
    return network


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
    if params.model.encoder in LITE:
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


def train(network: SaliencyModel, job: Job) -> Path:
    """Train from the start or from a checkpoint; write the weights and losses.

    SIGTERM and SIGINT write a checkpoint and raise KeyboardInterrupt(number, what is kept).
    """
    if ranks.count() > job.settings.batch:
        what = f"{ranks.count()} processes for a batch of {job.settings.batch}: {job.run}"
        ranks.stop(f"{what} (start at most {job.settings.batch}, or raise its batch)")
    epochs, parts = job.settings.epochs, job.parts()
    folder = SCRATCH / "training" / job.key(parts)
    kept = Checkpoints(folder, job.params.guards.checkpoint_minutes)
    with kept.signals():
        learner = Learner(network, job, kept)
        kept.describe(job.run, parts)
        if saved := kept.newest(epochs):
            learner.load_state_dict(saved)
        learner.announce()
        while len(learner.history) < epochs:
            learner.one_epoch()
            kept.save(learner.state_dict())
    card = weights.Card(job.run, job.all_seen(), job.described(), learner.kept())
    return write(job.params, learner.best or learner.result(), card, learner.history)


def write(params: Params, network: SaliencyModel, card: weights.Card, history: list[Row]) -> Path:
    """Write weights.safetensors and losses.csv of the run that the card names."""
    path = params.weights_file(card.run)
    if ranks.rank():
        return path
    weights.save(network, path, card)
    rows = [list(history[0]) if history else ["epoch", "train_loss", "val_loss"]]
    for row in history:  # an empty cell where there is no validation loss
        rows.append(["" if value is None else f"{value:.6g}" for value in row.values()])
    with atomic(path.with_name("losses.csv")) as part:
        part.write_text("".join(f"{','.join(row)}\n" for row in rows), newline="")
    return path
