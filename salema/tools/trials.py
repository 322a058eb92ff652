"""Maps by trained weights under several conditions, scored clip by clip and frame by frame."""

import hashlib
import json
import math
import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import cv2
import numpy as np

from salema import data
from salema.data import Clip
from salema.files import SalemaError, atomic
from salema.model import weights
from salema.model.layers import SIGMOID
from salema.model.network import SaliencyModel
from salema.params import Params, Placement
from salema.predict.predictor import Predictor, is_cut
from salema.score import controls, protocols
from salema.score.negatives import Negatives
from salema.score.protocols import METRICS, Protocol
from salema.train import loop
from salema.train.features import FeatureCache

KEPT = ("nss", "cc")  # metrics that are kept frame by frame
CODE = ("score", "predict", "tools/trials.py")  # what scores depend on beside the weights
BEFORE = 0.2  # seconds between the frames whose difference is the motion
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
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # threads of workers wait for others'
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

    def of_prior(self, prior: np.ndarray, clips: list[Clip]) -> Iterator[tuple[dict, Curves]]:
        """As `of`, of one map (h, w) for all frames."""
        for clip in clips:
            maps = np.broadcast_to(prior, (len(self.wanted(clip)), *prior.shape))
            yield _row(*self._submit("as it is", clip, maps))

    def wanted(self, clip: Clip) -> range:
        """The frames that are scored."""
        return range(0, clip.n_frames, self.protocol.every * self.params.evaluate.every)

    def _submit(self, test: str, clip: Clip, maps: np.ndarray) -> tuple[dict, Future]:
        task = (clip, self.wanted(clip), maps, self.protocol.name, self.negatives[clip.name])
        about = {"tested": test, "clip": clip.name, "group": clip.group}
        return about, self.workers.submit(_scored, *task)

    def _score(
        self,
        network: SaliencyModel,
        tests: list[Test],
        clips: list[Clip],
        cache: data.FrameCache | FeatureCache,
    ) -> Iterator[tuple[dict, Curves]]:
        waiting: list[tuple[dict, Future]] = []
        maker = Maker(network)
        for clip in clips:
            frames = cache.frames(clip)
            for test in tests:
                maps = maker.maps(test, clip, frames)[:: self.wanted(clip).step]
                waiting.append(self._submit(test.name, clip, maps))
            maker.forget()
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


class Maker:
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
        if test.after == SIGMOID:  # an average of the maps
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


def where(clips: list[Clip], params: Params) -> dict[str, np.ndarray]:
    """What each scored frame is like, float32 arrays over the frames of all clips in order.

    time: seconds since the clip began; since_cut: since the last cut, or the clip's beginning;
    motion: mean absolute difference of the pixels to those of 0.2 s before, of 255; spread: mean
    distance of the fixations to their mean, in diagonals of the frame (NaN without gaze).
    """
    cache = data.study_cache(tuple(params.crossvalidate.model.size))
    rules = protocols.get(params.evaluate.protocols[0], params.crossvalidate.clips)
    rows = []
    for clip in clips:
        frames, fps = cache.frames(clip), clip.fps or 30.0
        cuts = [0, *(t for t in range(1, len(frames)) if is_cut(*frames[t - 1 : t + 1]))]
        for index in range(0, clip.n_frames, rules.every * params.evaluate.every):
            before = frames[max(0, index - max(1, round(BEFORE * fps)))].astype(np.float32)
            motion = float(np.abs(frames[index] - before).mean())
            since = (index - max(cut for cut in cuts if cut <= index)) / fps
            rows.append((index / fps, since, motion, _spread(clip, index)))
    names = ("time", "since_cut", "motion", "spread")
    return dict(zip(names, np.float32(rows).reshape(-1, len(names)).T, strict=True))


def _spread(clip: Clip, index: int) -> float:
    (points,) = clip.fixations(index, index + 1)
    if not len(points):
        return math.nan
    apart = points[:, :2] - points[:, :2].mean(0)
    return float(np.linalg.norm(apart, axis=1).mean()) / math.hypot(*clip.size)
