"""Which definition of the metrics, by name: one map scores differently under each.

| | `exact` | `dhf1k` | `salema2019` | `hevc33-peer` |
|---|---|---|---|---|
| grid | the clip | the clip | half the clip | longest side 320 |
| map to the grid | linear | bicubic | linear, halved, 8-bit | area or linear |
| fixations | pixels | pixels | pixels | one by one |
| AUC-J | ranks | trapezoid, jitter | trapezoid, jitter | ranks |
| s-AUC against | 10,000 fixations of other clips | 10 frames of any clip, per frame | \
a frame of each of 40 other clips | every fixation of all other clips, once |
| s-AUC | ranks | 100 splits, steps of .1 | 100 splits, steps of .1 | ranks |
| NSS deviation | population | N - 1 | population | population |
| density | official | official | official, halved | blurred here |
| KLD (ours but in the last) | after min-max | after min-max | after min-max | as it is |
| frames | all | all | all | every 5th |
| mean over | frames, then clips | 50,000 frames at most | frames, then clips | frames, then clips |

`negatives.Pool` gathers the fixations of all clips in one light pass; `negatives` draws
what one clip is compared with (small: send it to a worker); `score` takes one frame.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache, partial
from typing import Literal, NamedTuple

import numpy as np

from salema.files import SalemaError
from salema.score import metrics
from salema.score.negatives import (
    Cells,
    Negatives,
    Pool,
    Size,
    draw_fixations,
    draw_frames,
    draw_once,
    generator,
    inside,
    to_cells,
)
from salema.score.roc import auc_splits, auc_trapezoid, read_map

NAMES = ("exact", "dhf1k", "salema2019", "hevc33-peer")
METRICS = ("auc_judd", "auc_shuffled", "nss", "cc", "sim", "kld")
Scores = dict[str, float]


class _Frame(NamedTuple):
    """One frame, checked: somebody fixated it, and what is there fits together."""

    saliency: np.ndarray
    fixations: np.ndarray
    density: np.ndarray | None
    size: Size
    grid: Size
    others: np.ndarray | None
    generator: np.random.Generator

    def cells(self, size: Size | None = None) -> np.ndarray:
        """Flat indices on the grid (or on `size`), one a fixation."""
        return to_cells(*self.fixations[:, :2].T, self.size, size or self.grid)


@dataclass(frozen=True)
class Protocol:
    """One definition of the metrics.

    `mean` tells how frames become one number ("clips": each clip's mean over its frames,
    then the mean over clips; "frames": over all frames, `frame_limit` of them at most), and
    `every` how far it is from one scored frame to the next. With `own_density` it blurs the
    fixations itself, and takes no density. With `whole_set` a clip's negatives come from all
    clips of its set, also those that are not scored.
    """

    name: str
    summary: str
    grid: Callable[[Size], Size]
    draw: Callable[[Pool, str, Size, np.random.Generator], Cells]
    measure: Callable[[_Frame], Scores]
    every: int = 1
    own_density: bool = False
    whole_set: bool = False
    mean: Literal["clips", "frames"] = "clips"
    frame_limit: int | None = None

    def frames(self, n_frames: int) -> range:
        """Which frames of a clip are scored."""
        return range(0, n_frames, self.every)

    def negatives(self, pool: Pool, clip: str, seed: int = 0) -> Negatives:
        """What the fixations of one clip are compared with in s-AUC."""
        grid = self.grid(pool.size(clip))
        drawn = self.draw(pool, clip, grid, generator(seed, self.name, clip))
        return Negatives(clip, seed, grid, *drawn)

    def score(
        self,
        saliency: np.ndarray,
        fixations: np.ndarray,
        density: np.ndarray | None,
        size: Size,
        negatives: Negatives | None = None,
        frame: int = 0,
    ) -> Scores | None:
        """The metrics of one frame.

        Args:
            saliency: (h, w), any size and scale.
            fixations: (N, 3) x, y in pixels of the clip, observer.
            density: (H, W) >= 0, or None.
            size: (H, W) of the clip.
            negatives: This clip's, by this protocol.
            frame: The frame's number in the clip, from 0.

        Returns:
            None where nobody fixated the frame. Else `METRICS`, less those without a ground
            truth: auc_shuffled without negatives, cc, sim and kld without a density or with
            a blank one (`hevc33-peer` makes its own).

        Raises:
            ValueError: The map is not finite, or sizes do not fit.
        """
        size = (int(size[0]), int(size[1]))
        fixations, grid = inside(fixations, size), self.grid(size)
        read_map(saliency)
        if density is not None and np.shape(density) != size:
            raise ValueError(f"density {np.shape(density)} and clip {size} must have one size")
        if negatives is not None and negatives.grid != grid:
            raise ValueError(f"negatives on {negatives.grid}, but this clip's grid is {grid}")
        if not len(fixations):
            return None
        clip, seed = (negatives.clip, negatives.seed) if negatives is not None else ("", 0)
        others = negatives.at(frame) if negatives is not None else ()
        scores = self.measure(
            _Frame(
                np.asarray(saliency),
                fixations,
                density if density is not None and np.any(density) else None,
                size,
                grid,
                others if len(others) else None,
                generator(seed, self.name, clip, frame),
            )
        )
        return {key: float(scores[key]) for key in METRICS if key in scores} or None

    def aggregate(self, clips: Mapping[str, Sequence[Scores | None]], seed: int = 0) -> Scores:
        """Scores of frames, clip by clip -> one number a metric.

        What a frame has no score of does not enter that metric's mean; a metric that no
        frame has is left out.
        """
        totals = {}
        for key in METRICS:
            by_clip = [
                np.array([frame[key] for frame in clips[name] if frame and key in frame])
                for name in sorted(clips)
            ]
            by_clip = [values for values in by_clip if len(values)]
            if not by_clip:
                continue
            if self.mean == "clips":
                totals[key] = float(np.mean([values.mean() for values in by_clip]))
                continue
            pooled = np.concatenate(by_clip)
            if self.frame_limit is not None and len(pooled) > self.frame_limit:
                pooled = generator(seed, self.name).permutation(pooled)[: self.frame_limit]
            totals[key] = float(pooled.mean())
        return totals


def get(name: str, dataset: str | None = None) -> Protocol:
    """The protocol of this name; a data set matters only where the authors had two scripts.

    Raises:
        SalemaError: There is no such protocol.
    """
    match name:
        case "exact":
            summary = "ours: exact AUCs at the clip's own size"
            return Protocol(name, summary, _whole, draw_fixations, _exact)
        case "dhf1k":
            return Protocol(
                name,
                "the DHF1K benchmark's MATLAB definitions",
                _whole,
                draw_frames,
                _dhf1k,
                mean="frames",
                frame_limit=50_000,
            )
        case "salema2019":
            shots = dataset in ("Hollywood-2", "UCF-sports")
            return Protocol(
                name,
                "the authors' Python of 2019: all maps halved, thresholds, 100 splits",
                _half,
                partial(_draw_salema2019, clips=10 if shots else 40),
                partial(_salema2019, by_area=shots),
            )
        case "hevc33-peer":
            summary = "the published peers on HEVC33: every 5th frame, longest side 320"
            return Protocol(name, summary, _longest_320, draw_once, _peer, every=5,
                            own_density=True, whole_set=True)  # fmt: skip
    near = get_close_matches(name, NAMES, n=1, cutoff=0)
    raise SalemaError(f"unknown protocol {name!r} (did you mean {near[0]!r}? {', '.join(NAMES)})")


# exact


def _whole(size: Size) -> Size:
    return size


def _resize(saliency: np.ndarray, size: Size, *, shrink_by_area: bool = False) -> np.ndarray:
    import cv2  # lazily: it is slow to import

    if saliency.shape == size:
        return saliency
    kind = np.float32 if saliency.dtype == np.float32 else np.float64
    by_area = shrink_by_area and saliency.shape[0] >= size[0] and saliency.shape[1] >= size[1]
    return cv2.resize(
        np.ascontiguousarray(saliency, kind),
        size[::-1],
        interpolation=cv2.INTER_AREA if by_area else cv2.INTER_LINEAR,
    )


def _exact(frame: _Frame) -> Scores:
    """The map, linearly resized to the clip, against fixated pixels and the official map."""
    saliency = _resize(frame.saliency, frame.size)
    return metrics.score_frame(saliency, np.unique(frame.cells()), frame.density, frame.others)


# dhf1k


@lru_cache(maxsize=8)
def _bicubic(length: int, target: int) -> np.ndarray:
    """(target, length) weights of MATLAB's `imresize`: Keys' cubic, a = -0.5.

    Widened when it shrinks, so that nothing aliases; the edge is mirrored.

    Source: Keys, IEEE Transactions on Acoustics, Speech and Signal Processing 29(6), 1981.
    """
    scale = target / length
    narrow = min(scale, 1.0)
    centre = (np.arange(target) + 0.5) / scale - 0.5
    reach = int(np.ceil(2 / narrow)) + 1
    taps = np.floor(centre)[:, None].astype(int) + np.arange(-reach, reach + 1)
    x = np.abs(narrow * (centre[:, None] - taps))
    near, far = 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    weights = np.where(x <= 1, near, np.where(x < 2, far, 0))
    weights /= weights.sum(axis=1, keepdims=True)
    taps %= 2 * length
    matrix = np.zeros((target, length))
    rows = np.broadcast_to(np.arange(target)[:, None], taps.shape)
    np.add.at(matrix, (rows, np.minimum(taps, 2 * length - 1 - taps)), weights)
    return matrix


def _dhf1k(frame: _Frame) -> Scores:
    """MATLAB's ways: bicubic, noise of 1e-7 against ties, thresholds, N - 1.

    Differs: the benchmark reads 8-bit maps; here a map keeps the precision it comes with.
    """
    saliency = frame.saliency.astype(np.float64)
    if saliency.shape != frame.size:
        rows, columns = (_bicubic(*n) for n in zip(saliency.shape, frame.size, strict=True))
        flat = saliency.min() == saliency.max()  # rounding would give it an order of pixels
        saliency = np.full(frame.size, saliency[0, 0]) if flat else rows @ saliency @ columns.T
    fixated, pixels = np.unique(frame.cells()), saliency.size
    scores = metrics.score_frame(saliency, fixated, frame.density)
    scores["nss"] *= np.sqrt((pixels - 1) / pixels)
    if saliency.min() < saliency.max():
        noise = frame.generator.random(saliency.shape)
        scores["auc_judd"] = auc_trapezoid(read_map(_to_one(saliency) + noise * 1e-7), fixated)
    if frame.others is not None:
        values = _to_one(saliency).ravel()
        scores["auc_shuffled"] = auc_splits(
            values[fixated], values[frame.others], frame.generator, last=True
        )
    return scores


def _to_one(saliency: np.ndarray) -> np.ndarray:
    """Min-max scaled, in the map's own precision; a constant map becomes zero."""
    low, high = saliency.min(), saliency.max()
    return (saliency - low) / (high - low) if high > low else np.zeros_like(saliency)


# salema2019


def _half(size: Size) -> Size:
    return round(size[0] / 2), round(size[1] / 2)


def _halve(grey: np.ndarray) -> np.ndarray:
    """uint8 (H, W) -> half the size, linear: a pixel is the mean of four."""
    import cv2  # lazily: it is slow to import

    return cv2.resize(grey, (0, 0), fx=0.5, fy=0.5)


def _grey(values: np.ndarray) -> np.ndarray:
    """To 8 bits, as written to a file; min-max first where it does not lie in [0, 1]."""
    values = np.asarray(values, dtype=np.float64)
    values = values if values.min() >= 0 and values.max() <= 1 else _to_one(values)
    return np.round(values * 255).astype(np.uint8)


def _draw_salema2019(
    pool: Pool, clip: str, grid: Size, random: np.random.Generator, clips: int
) -> Cells:
    """One frame of each of `clips` other clips, laid over one another in 8 bits and halved."""
    import cv2

    size = pool.size(clip)
    others = [name for name in pool.names if name != clip and len(pool.frames(name))]
    chosen = random.choice(len(others), min(clips, len(others)), replace=False)
    total = np.zeros(size, np.float32)
    for number in chosen:
        frames = pool.frames(others[number])
        rows = pool.rows(frames[random.integers(len(frames))])
        shape = pool.size(others[number])
        points = np.zeros(shape, np.float32)
        points.flat[pool.cells(rows, shape)] = 255
        if shape != size:
            points = cv2.resize(points, size[::-1], interpolation=cv2.INTER_AREA)
        total += points
    mean = (total / max(1, len(chosen))).astype(np.uint8)
    return (np.flatnonzero(_halve(mean)).astype(np.int32),)


def _salema2019(frame: _Frame, by_area: bool) -> Scores:
    """8-bit maps brought to the clip's size, then every map halved, the fixations too.

    Differs: a frame that nobody fixated is not scored (theirs makes the clip's mean NaN).
    """
    import cv2

    grey = _grey(frame.saliency)
    if grey.shape != frame.size:
        way = cv2.INTER_AREA if by_area else cv2.INTER_LINEAR
        grey = cv2.resize(grey, frame.size[::-1], interpolation=way)
    points = np.zeros(frame.size, np.uint8)
    points.flat[frame.cells(frame.size)] = 255
    fixated = np.flatnonzero(_halve(points))
    if not len(fixated):  # on the last column of an odd width, which halving drops
        return {}
    grey = _halve(grey).astype(np.float32)
    noise = frame.generator.random(grey.shape) * 1e-7
    if grey.min() < grey.max():  # single precision drops the noise above grey level 1
        grey = (grey + noise).astype(np.float32)
    density = None if frame.density is None else _halve(_grey(frame.density))
    if density is not None and not density.any():
        density = None
    scores = metrics.score_frame(grey, fixated, density)
    unit = _to_one(grey)
    scores["auc_judd"] = auc_trapezoid(read_map(unit), fixated)
    if frame.others is not None:
        values = unit.ravel()
        scores["auc_shuffled"] = auc_splits(
            values[fixated], values[frame.others], frame.generator, last=False
        )
    return scores


# hevc33-peer


def _longest_320(size: Size) -> Size:
    longest = max(size)
    return round(size[0] * 320 / longest), round(size[1] * 320 / longest)


@lru_cache(maxsize=8)
def _gaussians(length: int) -> np.ndarray:
    """(length, length): a Gaussian of sigma 320 / 33 cells about each cell, cut by the edge."""
    cell = np.arange(length)
    return np.exp(-0.5 * ((cell[:, None] - cell) / (320 / 33)) ** 2)


def _peer(frame: _Frame) -> Scores:
    """Each fixation counts, also the second in a cell; the density is their sum, blurred."""
    saliency = _resize(frame.saliency, frame.grid, shrink_by_area=True)
    cells = frame.cells()
    row, column = np.divmod(cells, frame.grid[1])
    density = _gaussians(frame.grid[0])[:, row] @ _gaussians(frame.grid[1])[column]
    scores = metrics.score_frame(saliency, cells, density, frame.others)
    scores["kld"] = metrics.kld(saliency, density, minmax=bool(saliency.min() < 0))
    return scores
