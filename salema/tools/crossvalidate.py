"""The two arms of the study: is it the memory, and is a simple one as good as a complex one?

The clips of one set are cut into folds by group, so that no clip is predicted by weights that saw
its scene or its people. Nothing is trained twice: a training resumes, scores are kept with a hash
of all that they depend on, and both may be deleted at any moment.

    arm A  a static network, tuned on photographs alone, with averages put into it, on every clip
    arm B  rows that are trained on all folds but one and tested on that one, for each seed

Each row of arm B is tested as it was trained and on frames alone (its memory is emptied before each
frame); the row without a memory is tested with an average put into it instead. So training with a
memory and testing with one are told apart.
"""

import csv
import zlib
from collections.abc import Iterator
from itertools import chain, product
from pathlib import Path

import numpy as np
import torch

from salema import data
from salema.data import Clip
from salema.data.sets import annotated
from salema.files import atomic
from salema.model import weights
from salema.model.layers import SIGMOID
from salema.params import Params, Placement, choose
from salema.score import controls
from salema.score.protocols import METRICS
from salema.tools.trials import KEPT, Curves, Scoring, Test, where
from salema.train import loop
from salema.train.job import Job

COLUMNS = ("arm", "row", "seed", "fold", "rate", "tested", "clip", "group", "frames", *METRICS)
PUT_IN = {"ema30": 30, "ema61": 61}  # averages that are put into the row without a memory


def crossvalidate(params: Params) -> Path:
    """Run both arms; returns the table of scores, `reports/<profile>/arms.csv`.

    Writes `arms.npz` beside it: NSS and CC of each scored frame as float16, in the order of the
    table, whose column `frames` says how many belong to a row; NaN without gaze. Its other arrays
    are those of `where`, in the order of the clips of the static rows.
    """
    study = params.crossvalidate
    clips = _clips(params) if study.clips else []
    rows: list[dict] = []
    curves: dict[str, list[float]] = {metric: [] for metric in KEPT}
    folds = data.folds(clips, study.folds) if clips else []
    with Scoring(params, clips) as scoring:
        for row, curve in _arms(params, folds, scoring):
            for metric in KEPT:
                curves[metric] += curve[metric]
            rows.append(row)
    curves |= where(list(chain(*folds)), params)
    target = params.report_folder / "arms.csv"
    with atomic(target) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows({k: f"{v:.6f}" if k in METRICS else v for k, v in r.items()} for r in rows)
    with atomic(target.with_suffix(".npz")) as part, part.open("wb") as file:
        np.savez_compressed(file, **{k: np.float16(values) for k, values in curves.items()})
    return target


def _clips(params: Params) -> list[Clip]:
    """Every clip of the set that has ground truth."""
    name = params.crossvalidate.clips
    return [c for split in annotated(name) for c in data.load(params.root, name, split)]


def _arms(
    params: Params, folds: list[list[Clip]], scoring: Scoring
) -> Iterator[tuple[dict, Curves]]:
    """The rows of both arms, each with its metrics frame by frame."""
    study = params.crossvalidate
    for number, fold in enumerate(folds):
        prior = _prior(params, [clip for other in folds if other is not fold for clip in other])
        about = {"arm": "A", "row": "centre-prior", "seed": "", "fold": number + 1, "rate": ""}
        for found in scoring.of_prior(prior, fold):
            yield about | found[0], found[1]
    statics = {seed: _static(params, seed) for seed in study.seeds}
    for seed, path in statics.items():
        about = {"arm": "A", "row": "static", "seed": seed, "fold": "", "rate": ""}
        tests = _averages(params, first=seed == study.seeds[0])
        for found in chain.from_iterable(scoring.of(path, tests, fold) for fold in folds):
            yield about | found[0], found[1]
    for row, (number, fold) in product(study.rows, enumerate(folds)):
        tests = [Test("as trained"), Test("frames alone", alone=True)]
        if _placement(params, row).recurrence == "none":
            tests[1:] = [Test(f"with {name}", after=n, alpha=0.1) for name, n in PUT_IN.items()]
        rate = _rate(params, row, folds, number, statics[study.seeds[0]])
        rest = [clip for other in folds if other is not fold for clip in other]
        for seed in study.seeds:
            run = f"{row}-fold{number + 1}-seed{seed}"
            path = _train(params, run, row, statics[seed], seed, rate, rest, [])
            about = {"arm": "B", "row": row, "seed": seed, "fold": number + 1, "rate": rate}
            for found in scoring.of(path, tests, fold):
                yield about | found[0], found[1]


def _prior(params: Params, clips: list[Clip]) -> np.ndarray:
    """The mean map of some clips, float32 (H, W): of each clip 20 frames that have gaze."""
    cache = data.study_cache(tuple(params.crossvalidate.model.size))
    total = np.zeros(cache.size)
    for clip in clips:
        maps = np.asarray(cache.maps(clip)[:: max(1, clip.n_frames // 20)], float)
        total += np.mean([map_ / max(map_.sum(), 1.0) for map_ in maps], axis=0)
    return np.float32(total / total.max())


def _averages(params: Params, first: bool) -> list[Test]:
    """Arm A's tests of a static network; those that take long only with the first seed."""
    study = params.crossvalidate
    tests = [
        Test(f"ema{layer} tau {tau:g}", after=layer, tau=tau)
        for tau, layer in product(study.taus, study.after)
        if first or layer == SIGMOID  # an average of the maps costs nothing
    ]
    names = [name for name in controls.NAMES if name not in ("ema", "mean")]
    if first and study.taus:
        pairs = product(study.taus[1::2], names)
        tests += [Test(f"{name} tau {tau:g}", control=name, tau=tau) for tau, name in pairs]
        tests.append(Test("mean", control="mean", tau=1.0))
    return [Test("as trained"), *tests]


def _placement(params: Params, row: str) -> Placement:
    known = params.placements | params.crossvalidate.placements
    return known[choose(row, known, "row of crossvalidate")]


def _params(params: Params, seed: int) -> Params:
    """The parameters of one training of the arms."""
    return params.model_copy(update={"seed": seed, "model": params.crossvalidate.model})


def _static(params: Params, seed: int) -> Path:
    """The weights of a static network that is tuned on photographs."""
    study, settings = params.crossvalidate, params.crossvalidate.static
    own, run = _params(params, seed), f"arms/static-seed{seed}"
    torch.manual_seed(seed)
    network = loop.new_static(own)
    frozen = loop.freeze(network, settings.train)
    job = Job(own, run, settings, *loop.clips_of(own, study.images), frozen=frozen)
    return loop.train(network, job)


def _rate(params: Params, row: str, folds: list[list[Clip]], test: int, static: Path) -> float:
    """The rate with the lowest loss on the fold after the test fold, which has no part in it."""
    study = params.crossvalidate
    inner = (test + 1) % len(folds)
    rest = [clip for i, fold in enumerate(folds) if i not in (test, inner) for clip in fold]
    losses = {}
    for rate in study.rates if len(study.rates) > 1 else []:
        run = f"{row}-fold{test + 1}-rate{rate:g}"
        path = _train(params, run, row, static, study.seeds[0], rate, rest, folds[inner])
        losses[rate] = weights.read(path)[1].metrics["val_loss"]
    return min(losses, key=losses.get) if losses else study.rates[0]


def _train(
    params: Params,
    run: str,
    row: str,
    static: Path,
    seed: int,
    rate: float,
    clips: list[Clip],
    val: list[Clip],
) -> Path:
    """Train a row on some clips; every row meets the same clips in the same order."""
    study = params.crossvalidate
    placement, name = _placement(params, row), f"arms/{run}"
    settings = study.finetune.model_copy(update={"learning_rate": rate})
    own = _params(params, seed).model_copy(update={"placements": {name: placement}})
    start, card = weights.read(static)
    torch.manual_seed(seed + zlib.crc32(row.encode()))
    network = loop.with_placement(start, placement)
    frozen = loop.freeze(network, settings.train)
    job = Job(own, name, settings, clips, val, static, card.seen, frozen, order="arms")
    return loop.train(network, job)
