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
import hashlib
import json
import math
import multiprocessing
import os
import zlib
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import cv2
import numpy as np
import torch

from salema import data
from salema.data import Clip
from salema.files import SalemaError, atomic
from salema.model import weights
from salema.model.network import SaliencyModel
from salema.params import Params, Placement
from salema.predict.predictor import Predictor
from salema.score import controls, protocols
from salema.score.negatives import Negatives
from salema.score.protocols import METRICS, Protocol
from salema.train import loop
from salema.train.features import FeatureCache
from salema.train.job import Job

COLUMNS = ("arm", "row", "seed", "fold", "rate", "tested", "clip", "group", "frames", *METRICS)
KEPT = ("nss", "cc")  # metrics that are kept frame by frame
CODE = ("score", "predict", "tools/crossvalidate.py")  # what scores depend on beside the weights
PUT_IN = {"ema30": 30, "ema61": 61}  # averages that are put into the row without a memory
Curves = dict[str, list[float]]  # metric -> one value a scored frame


@dataclass(frozen=True)
class Test:
    """How maps are made from trained weights: as trained, or with one thing changed."""

    name: str
    alone: bool = False  # each frame is a clip of its own
    after: int | None = None  # an average is put in behind this layer
    alpha: float | None = None  # its weight of the newest frame, or
    tau: float | None = None  # its time constant in seconds
    control: str | None = None  # of the maps; see `score.controls`


def crossvalidate(params: Params) -> Path:
    """Run both arms; returns the table of scores, `reports/<profile>/arms.csv`.

    Writes `arms.npz` beside it: NSS and CC frame by frame, as float16.
    """
    study = params.crossvalidate
    clips = _clips(params) if study.clips else []
    rows: list[dict] = []
    curves: dict[str, list[float]] = {}
    with Scoring(params, clips) as scoring:
        for row, curve in _arms(params, clips, scoring):
            for metric in KEPT:
                name = "|".join(str(row[key]) for key in ("arm", "row", "seed", "tested", "clip"))
                curves[f"{name}|{metric}"] = np.float16(curve[metric])
            rows.append(row)
    target = params.report_folder / "arms.csv"
    with atomic(target) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows({k: f"{v:.6f}" if k in METRICS else v for k, v in r.items()} for r in rows)
    with atomic(target.with_suffix(".npz")) as part, part.open("wb") as file:
        np.savez_compressed(file, **curves)
    return target


def _clips(params: Params) -> list[Clip]:
    """Every clip of the set that has ground truth."""
    name = params.crossvalidate.clips
    facts = data.SETS[name]
    splits = [split for split in facts.splits if split not in facts.unannotated]
    return [clip for split in splits for clip in data.load(params.root, name, split)]


def _arms(params: Params, clips: list[Clip], scoring: "Scoring") -> Iterator[tuple[dict, Curves]]:
    study = params.crossvalidate
    statics = {seed: _static(params, seed) for seed in study.seeds}
    averages = [
        Test(f"ema{layer} tau {tau:g}", after=layer, tau=tau)
        for tau in study.taus
        for layer in study.after
    ]
    names = [name for name in controls.NAMES if name not in ("ema", "mean")]
    changed = [Test(f"{n} tau {tau:g}", control=n, tau=tau) for tau in study.taus for n in names]
    changed += [Test("mean", control="mean", tau=1.0)] if study.taus else []
    for seed, path in statics.items():
        about = {"arm": "A", "row": "static", "seed": seed, "fold": "", "rate": ""}
        for found in scoring.of(path, [Test("as trained"), *averages, *changed], clips):
            yield about | found[0], found[1]
    folds = data.folds(clips, study.folds) if study.rows else []
    for row in study.rows:
        placement = study.placements.get(row) or params.placements[row]
        tests = [Test("as trained")]
        if placement.recurrence == "none":
            tests += [Test(f"with {name}", after=n, alpha=0.1) for name, n in PUT_IN.items()]
        else:
            tests.append(Test("frames alone", alone=True))
        for number, fold in enumerate(folds):
            rate = _rate(params, row, folds, number, statics[study.seeds[0]])
            for seed in study.seeds:
                rest = [clip for other in folds if other is not fold for clip in other]
                run = f"{row}-fold{number + 1}-seed{seed}"
                path = _train(params, run, row, statics[seed], seed, rate, rest, [])
                about = {"arm": "B", "row": row, "seed": seed, "fold": number + 1, "rate": rate}
                for found in scoring.of(path, tests, fold):
                    yield about | found[0], found[1]


def _params(params: Params, run: str, seed: int, **update: object) -> tuple[Params, str]:
    """The parameters of one training of the arms, and the name of its run."""
    study = params.crossvalidate
    return params.model_copy(update={"seed": seed, "model": study.model, **update}), f"arms/{run}"


def _static(params: Params, seed: int) -> Path:
    """The weights of a static network that is tuned on photographs."""
    study, settings = params.crossvalidate, params.crossvalidate.static
    own, run = _params(params, f"static-seed{seed}", seed)
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
    placement = study.placements.get(row) or params.placements[row]
    settings = study.finetune.model_copy(update={"learning_rate": rate})
    own, name = _params(params, run, seed)
    own = own.model_copy(update={"placements": {name: placement}})
    start, card = weights.read(static)
    torch.manual_seed(seed + zlib.crc32(row.encode()))
    network = loop.with_placement(start, placement)
    frozen = loop.freeze(network, settings.train)
    job = Job(own, name, settings, clips, val, static, card.seen, frozen, order="arms")
    return loop.train(network, job)


class Scoring:
    """Maps of trained weights, scored in worker processes; what is known is read again."""

    def __init__(self, params: Params, clips: list[Clip]) -> None:
        self.params, self.study = params, params.crossvalidate
        self.protocol = protocols.get(params.evaluate.protocols[0], self.study.clips)
        pool = self.protocol.pool(clips)
        self.negatives = {
            clip.name: self.protocol.negatives(pool, clip.name, params.seed) for clip in clips
        }
        package = Path(__file__).parents[1]
        files = [sorted(package.glob(f"{name}/*.py")) or [package / name] for name in CODE]
        self.code = b"".join(path.read_bytes() for path in chain(*files))

    def __enter__(self) -> "Scoring":
        context = multiprocessing.get_context("spawn")  # a fork of a process with threads may hang
        self.workers = ProcessPoolExecutor(os.cpu_count() or 1, mp_context=context)
        return self

    def __exit__(self, *_: object) -> None:
        self.workers.shutdown(cancel_futures=True)

    def of(self, path: Path, tests: list[Test], clips: list[Clip]) -> Iterator[tuple[dict, Curves]]:
        """One row of scores, and its metrics frame by frame, for each test and clip."""
        network, card = weights.read(path)
        if leaked := {c.name for c in clips} & set(card.seen.get(clips[0].dataset, [])):
            raise SalemaError(f"{path} was trained on {min(leaked)}, which it is tested on")
        settings = repr((tests, self.params.evaluate, [(c.name, c.group) for c in clips]))
        digest = hashlib.sha256(path.read_bytes() + self.code + settings.encode()).hexdigest()
        kept = path.with_name(f"scores-{digest[:16]}.json")
        if not kept.exists():
            cache = data.study_cache(tuple(network.config.size))
            if loop.freeze(network, "decoder"):
                cache = FeatureCache(cache, network)
            found = list(self._score(network, tests, clips, cache))
            with atomic(kept) as part:
                part.write_text(json.dumps(found), encoding="utf-8")
        yield from json.loads(kept.read_text(encoding="utf-8"))

    def _score(
        self,
        network: SaliencyModel,
        tests: list[Test],
        clips: list[Clip],
        cache: data.FrameCache | FeatureCache,
    ) -> Iterator[tuple[dict, Curves]]:
        waiting: list[tuple[dict, Future]] = []
        makers = Makers(network)
        for clip in clips:
            frames = cache.frames(clip)
            every = self.protocol.every * self.params.evaluate.every
            wanted = range(0, clip.n_frames, every)
            for test in tests:
                maps = makers.maps(test, clip, frames)[::every]
                task = (clip, wanted, maps, self.protocol.name, self.negatives[clip.name])
                about = {"tested": test.name, "clip": clip.name, "group": clip.group or clip.name}
                waiting.append((about, self.workers.submit(_scored, *task)))
            makers.forget()
            while len(waiting) > 4 * len(tests):
                yield _row(*waiting.pop(0))
        for item in waiting:
            yield _row(*item)


def _row(about: dict, future: Future) -> tuple[dict, Curves]:
    curves = future.result()
    means = {metric: float(np.nanmean(curves[metric])) for metric in METRICS}
    return about | {"frames": len(curves["nss"])} | means, curves


def _scored(
    clip: Clip, wanted: range, maps: np.ndarray, protocol: str, negatives: Negatives
) -> Curves:
    """The metrics of the wanted frames of a clip, from their maps; NaN without gaze."""
    cv2.setNumThreads(1)
    rules: Protocol = protocols.get(protocol, clip.dataset)
    curves: Curves = {metric: [] for metric in METRICS}
    for index, saliency in zip(wanted, maps, strict=True):
        (points,) = clip.fixations(index, index + 1)
        (density,) = (None,) if rules.own_density else clip.maps(index, index + 1)
        found = rules.score(saliency, points, density, clip.size, negatives, index) or {}
        for metric in METRICS:
            curves[metric].append(found.get(metric, math.nan))
    return curves


class Makers:
    """The maps of a clip by one network, as each test wants them."""

    def __init__(self, network: SaliencyModel) -> None:
        self.network = network
        self.placed: dict[int | None, Predictor] = {None: Predictor(network)}
        self.forget()

    def forget(self) -> None:
        """The next maps are of another clip."""
        self.trained: np.ndarray | None = None  # maps as trained, which several tests change

    def maps(self, test: Test, clip: Clip, frames: np.ndarray) -> np.ndarray:
        """Float32 maps (T, H, W) of all frames (or features) of a clip."""
        if test.after is None and test.control is None and test.alone:
            return self._computed(self.placed[None], frames, in_time=False)
        if self.trained is None:
            self.trained = self._computed(self.placed[None], frames)
        if test.after is None and test.control is None:
            return self.trained
        alpha = test.alpha or controls.alpha_of(test.tau, clip.fps or 30.0)
        if test.control:
            return controls.control(test.control, self.trained, alpha)
        if test.after == 61:  # an average of the maps
            return controls.control("ema", self.trained, alpha)
        if test.after not in self.placed:
            placement = Placement(recurrence="ema", after=[test.after], alpha=0.5)
            self.placed[test.after] = Predictor(loop.with_placement(self.network, placement))
        predictor = self.placed[test.after]
        memory = predictor.prepared.memories[str(test.after)]
        memory.alpha_logit.fill_(math.log(alpha / (1 - alpha)))
        return self._computed(predictor, frames)

    @staticmethod
    def _computed(predictor: Predictor, frames: np.ndarray, in_time: bool = True) -> np.ndarray:
        predictor.reset()
        steps = range(0, len(frames), predictor.chunk)
        parts = (np.asarray(frames[start : start + predictor.chunk]) for start in steps)
        return np.concatenate([predictor.compute(part, in_time) for part in parts])
