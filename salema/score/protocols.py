"""Definitions of the metrics by name: one map gets a different score under each protocol.

    exact        our own: exact areas under the ROC curve at the clip's own size
    dhf1k        the MATLAB code of the DHF1K benchmark
    salema2019   the Python code of SalEMA's authors
    hevc33-peer  the published scores of other models on HEVC33
    ntire26      the challenges NTIRE 2026 and AIM 2024 on video saliency

A table in `docs/scoring.md` compares them line by line. `Protocol.negatives` draws the negatives
of one clip (see `negatives`; small, for a worker), and `Protocol.score` scores one frame.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import chain
from typing import NamedTuple

import cv2
import numpy as np

from salema.data.clip import Clip
from salema.data.gaze import Size, inside
from salema.data.sets import SETS
from salema.media.image import fit
from salema.params import choose
from salema.score import metrics, negatives
from salema.score.negatives import Negatives, Places, Pool, generator, halve, to_cells
from salema.score.roc import auc_splits, auc_trapezoid, read_map

NAMES = ("exact", "dhf1k", "salema2019", "hevc33-peer", "ntire26")
METRICS = {"auc_judd": "AUC-J", "auc_shuffled": "s-AUC"}  # key -> name in tables
METRICS |= {"nss": "NSS", "cc": "CC", "sim": "SIM", "kld": "KLD"}
Scores = dict[str, float]


class _Frame(NamedTuple):
    """One checked frame: it has a fixation, and all sizes fit."""

    saliency: np.ndarray  # float32 or float64, any size
    fixations: np.ndarray
    density: np.ndarray | None
    size: Size
    grid: Size
    negatives: np.ndarray | None
    generator: np.random.Generator

    def cells(self, grid: Size) -> np.ndarray:
        """Flat indices on `grid`, one per fixation."""
        return to_cells(*self.fixations[:, :2].T, self.size, grid)


@dataclass(frozen=True)
class Protocol:
    """One definition of the metrics."""

    name: str
    grid: Callable[[Size], Size]  # clip -> the size on which maps and fixations are compared
    draw: Callable[[Pool, str, Size, np.random.Generator], Places]  # the negatives of a clip
    measure: Callable[[_Frame], Scores]
    every: int = 1  # distance between two scored frames
    own_density: bool = False  # whether it blurs the fixations itself and needs no density
    whole_set: bool = False  # whether negatives come from all clips of the set, scored or not
    pool_frames: int = 1_000_000  # of a clip in the pool, evenly spaced; at most all
    # None takes the mean over the frames of each clip, then over the clips; a number takes the
    # mean over all frames, or over that many drawn at random.
    frame_limit: int | None = None

    def pool(self, clips: Sequence[Clip]) -> Pool:
        """The fixations of the clips from which negatives are drawn."""
        found = {}
        for clip in clips:
            count = min(self.pool_frames, clip.n_frames)
            frames = np.linspace(0, clip.n_frames - 1, count).round().astype(int).tolist()
            found[clip.name] = clip.size, [next(clip.fixations(k, k + 1)) for k in frames]
        return Pool(found)

    def negatives(self, pool: Pool, clip: str, seed: int = 0) -> Negatives:
        """The negatives of one clip in s-AUC."""
        grid = self.grid(pool.size[clip])
        random = generator(seed, self.name, clip)
        return Negatives(clip, seed, grid, self.draw(pool, clip, grid, random))

    def score(
        self,
        saliency: np.ndarray,
        fixations: np.ndarray,
        density: np.ndarray | None,
        size: Size,
        negatives: Negatives | None = None,
        frame: int = 0,
    ) -> Scores | None:
        """The metrics of one frame; None for a frame without fixations.

        `saliency` is (h, w) of any size and scale, `size` is (H, W) of the clip, `fixations` are
        (N, 3) x, y in pixels and observer, `density` is (H, W) >= 0, and `frame` counts from 0.
        There is no auc_shuffled without negatives, and no cc, sim and kld without a density or
        with a blank one (`hevc33-peer` makes its own). ValueError if the map is not finite, or if
        sizes do not fit.
        """
        size, saliency = (int(size[0]), int(size[1])), np.asarray(saliency)
        fixations, grid = np.asarray(fixations, np.float64), self.grid(size)
        fixations = fixations[inside(fixations, size)]
        read_map(saliency)
        if density is not None and np.shape(density) != size:
            raise ValueError(f"density {np.shape(density)} and clip {size} must have one size")
        negatives = negatives or Negatives("", 0, grid, [np.zeros(0, np.int32)])
        if negatives.grid != grid:
            raise ValueError(f"negatives on {negatives.grid}, but this clip's grid is {grid}")
        if not len(fixations):
            return None
        density = density if density is not None and np.any(density) else None
        others = negatives.at(frame) if len(negatives.at(frame)) else None
        random = generator(negatives.seed, self.name, negatives.clip, frame)
        kind = np.float32 if saliency.dtype == np.float32 else np.float64
        saliency = np.ascontiguousarray(saliency, kind)
        found = self.measure(_Frame(saliency, fixations, density, size, grid, others, random))
        return {key: float(found[key]) for key in METRICS if key in found} or None

    def aggregate(self, clips: Mapping[str, Sequence[Scores | None]], seed: int = 0) -> Scores:
        """Scores of frames, clip by clip -> one mean per metric.

        A frame without a score in a metric does not enter the mean of that metric. A metric
        that no frame has is left out.
        """
        totals = {}
        for key in METRICS:
            by_clip = [[f[key] for f in clips[name] if f and key in f] for name in sorted(clips)]
            pooled = [np.mean(values) for values in by_clip if values]
            if self.frame_limit is not None:
                pooled = list(chain(*by_clip))
                if len(pooled) > self.frame_limit:
                    pooled = generator(seed, self.name).permutation(pooled)[: self.frame_limit]
            if len(pooled):
                totals[key] = float(np.mean(pooled))
        return totals


def get(name: str, dataset: str | None = None) -> Protocol:
    """The protocol of this name; the authors of `salema2019` treat sets of shots differently."""
    match choose(name, NAMES, "protocol"):
        case "exact":
            few = {"whole_set": True, "pool_frames": 20}  # this bounds the time of reading
            return Protocol(name, _whole, negatives.draw_fixations, _exact, **few)
        case "dhf1k":
            return Protocol(name, _whole, negatives.draw_frames, _dhf1k, frame_limit=50_000)
        case "salema2019":
            shots = dataset is not None and bool(SETS[dataset].parts)
            draw = partial(negatives.draw_clips, n=10 if shots else 40)
            return Protocol(name, _half, draw, partial(_salema2019, by_area=shots))
        case "ntire26":
            return Protocol(name, _whole, negatives.draw_fixations, _ntire26, pool_frames=0)
    draw = negatives.draw_once
    return Protocol(name, _longest_320, draw, _peer, 5, own_density=True, whole_set=True)


def _whole(size: Size) -> Size:
    return size


def _half(size: Size) -> Size:
    return round(size[0] / 2), round(size[1] / 2)


def _longest_320(size: Size) -> Size:
    longest = max(size)
    return round(size[0] * 320 / longest), round(size[1] * 320 / longest)


def _exact(frame: _Frame) -> Scores:
    """The map, linearly resized to the clip, against fixated pixels and the official map."""
    saliency = fit(frame.saliency, frame.size, cv2.INTER_LINEAR)
    fixated = np.unique(frame.cells(frame.grid))
    return metrics.score_frame(saliency, fixated, frame.density, frame.negatives)


@lru_cache(maxsize=8)
def _bicubic(length: int, target: int) -> np.ndarray:
    """(target, length) weights of MATLAB's `imresize`: Keys' cubic with a = -0.5.

    The kernel is widened for shrinking, which avoids aliasing; the edge is mirrored.

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
    cells = np.arange(target)[:, None] * length + np.minimum(taps, 2 * length - 1 - taps)
    return np.bincount(cells.ravel(), weights.ravel(), target * length).reshape(target, length)


def _dhf1k(frame: _Frame) -> Scores:
    """As in MATLAB: bicubic, noise of 1e-7 against ties, thresholds, N - 1.

    Differs: the benchmark reads 8-bit maps; here a map keeps its own precision.
    """
    saliency = frame.saliency.astype(np.float64)
    if saliency.shape != frame.size:
        rows, columns = (_bicubic(*n) for n in zip(saliency.shape, frame.size, strict=True))
        flat = saliency.min() == saliency.max()  # rounding would give it an order of pixels
        saliency = np.full(frame.size, saliency[0, 0]) if flat else rows @ saliency @ columns.T
    fixated, pixels = np.unique(frame.cells(frame.grid)), saliency.size
    scores = metrics.score_frame(saliency, fixated, frame.density)
    scores["nss"] *= np.sqrt((pixels - 1) / pixels)
    unit = _to_one(saliency)
    if saliency.min() < saliency.max():  # the noise is relative to a map of 8 bits, at any scale
        noise = frame.generator.random(saliency.shape) * 1e-7
        scores["auc_judd"] = auc_trapezoid(read_map(unit * 255 + noise), fixated)
    return scores | _split_auc(frame, unit, fixated, matlab=True)


def _split_auc(frame: _Frame, unit: np.ndarray, fixated: np.ndarray, matlab: bool) -> Scores:
    """The s-AUC of 100 splits, if there are negatives."""
    if frame.negatives is None:
        return {}
    values = unit.ravel()
    positives, others = values[fixated], values[frame.negatives]
    return {"auc_shuffled": auc_splits(positives, others, frame.generator, matlab=matlab)}


def _to_one(saliency: np.ndarray) -> np.ndarray:
    """Min-max scaled, in the map's own precision; a constant map becomes zero."""
    low, high = saliency.min(), saliency.max()
    return (saliency - low) / (high - low) if high > low else np.zeros_like(saliency)


def _gray(values: np.ndarray) -> np.ndarray:
    """A map in [0, 1] in 8 bits, as written to a file."""
    return np.round(values.astype(np.float64) * 255).astype(np.uint8)


def _salema2019(frame: _Frame, by_area: bool) -> Scores:
    """Maps stretched to 8 bits and resized to the clip; then all maps and the fixations halved.

    Differs: a frame without fixations is not scored (the original makes the clip's mean NaN).
    """
    way = cv2.INTER_AREA if by_area else cv2.INTER_LINEAR
    gray = fit(_gray(_to_one(frame.saliency)), frame.size, way)
    points = np.zeros(frame.size, np.uint8)
    points.flat[frame.cells(frame.size)] = 255
    fixated = np.flatnonzero(halve(points))
    if not len(fixated):  # on the last column of an odd width, which halving drops
        return {}
    gray = halve(gray).astype(np.float32)
    noise = frame.generator.random(gray.shape) * 1e-7
    if gray.min() < gray.max():  # single precision drops the noise above gray level 1
        gray = (gray + noise).astype(np.float32)
    density = frame.density
    density = None if density is None else halve(_gray(density / max(1.0, density.max())))
    density = density if density is not None and density.any() else None
    scores, unit = metrics.score_frame(gray, fixated, density), _to_one(gray)
    scores["auc_judd"] = auc_trapezoid(read_map(unit), fixated)
    return scores | _split_auc(frame, unit, fixated, matlab=False)


def _ntire26(frame: _Frame) -> Scores:
    """Stretched to [0, 1], then resized to the clip; each fixation counts.

    Resizing can raise the minimum of a map above 0; SIM does not subtract it again. The script
    divides the false alarms by the number of pixels less 2 (it counts the coordinates of a
    fixation where it means the fixations), whatever the number of fixations.

    Differs: the challenge reads 8-bit maps; here a map keeps its own precision. A frame without
    fixations is not scored (the script fails).
    """
    saliency = fit(_to_one(frame.saliency), frame.size, cv2.INTER_LINEAR)
    density = None if frame.density is None else _to_one(frame.density)
    density = density if density is not None and density.any() else None
    cells = frame.cells(frame.grid)
    scores = metrics.score_frame(saliency, cells, density)
    scores["auc_judd"] = auc_trapezoid(read_map(saliency), cells, saliency.size - 2)
    if density is not None:
        scores["sim"] = metrics.sim(saliency, density, minmax=False)
        del scores["kld"]
    return scores


@lru_cache(maxsize=8)
def _gaussians(length: int) -> np.ndarray:
    """(length, length): a Gaussian of sigma 320 / 33 cells around each cell, cut at the edge."""
    cell = np.arange(length)
    return np.exp(-0.5 * ((cell[:, None] - cell) / (320 / 33)) ** 2)


def _peer(frame: _Frame) -> Scores:
    """Each fixation counts, also the second in a cell; the density is their blurred sum."""
    shrunk = all(old >= new for old, new in zip(frame.saliency.shape, frame.grid, strict=True))
    saliency = fit(frame.saliency, frame.grid, cv2.INTER_AREA if shrunk else cv2.INTER_LINEAR)
    cells = frame.cells(frame.grid)
    row, column = np.divmod(cells, frame.grid[1])
    density = _gaussians(frame.grid[0])[:, row] @ _gaussians(frame.grid[1])[column]
    scores = metrics.score_frame(saliency, cells, density, frame.negatives)
    scores["kld"] = metrics.kld(saliency, density, minmax=bool(saliency.min() < 0))
    return scores
