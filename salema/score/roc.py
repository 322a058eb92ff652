"""Areas under ROC curves: exact by ranks, and by thresholds as in the field's older code.

The exact area is the Mann-Whitney statistic, in which a tie counts half. It needs no sorted
map: pixels are counted in bins, and only those that share a bin with a fixation are sorted.
All passes work on blocks that stay in the processor's cache.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

_BINS = 1 << 14
_BLOCK = 1 << 14


class Map(NamedTuple):
    """A flat map, and the offset and scale to [0, 1]; `scale` is 0 if the map is constant."""

    values: np.ndarray
    low: float
    scale: float

    def blocks(self) -> Iterator[np.ndarray]:
        """The values in parts that fit into the cache."""
        return (self.values[at : at + _BLOCK] for at in range(0, len(self.values), _BLOCK))

    def units(self) -> Iterator[np.ndarray]:
        """The same parts, min-max scaled to double precision; the caller may overwrite them."""
        for block in self.blocks():
            unit = block.astype(np.float64)
            unit -= self.low
            unit *= self.scale
            yield unit


def read_map(saliency: np.ndarray, name: str = "saliency map") -> Map:
    """(H, W) of any number type -> flat float32 or float64; ValueError if it is not finite."""
    saliency = np.asarray(saliency)
    if saliency.ndim != 2 or not saliency.size:
        raise ValueError(f"a {name} must be (H, W) and not empty, not {saliency.shape}")
    values = saliency.ravel()
    if values.dtype != np.float32:
        values = values.astype(np.float64)
    low, high = float(values.min()), float(values.max())
    span = high - low
    if not np.isfinite(span):
        raise ValueError(f"a {name} must be finite; this one reaches from {low} to {high}")
    if span < 1e-30:  # single precision would not hold 1 / span
        values = values.astype(np.float64)
    return Map(values, low, 1 / span if span > 1e-300 else 0.0)


def _bins(values: np.ndarray, image: Map) -> np.ndarray:
    """Values -> bins in the same order; the root spreads the many pixels close to zero.

    Rounding keeps the order in single precision too, which is twice as fast.
    """
    kind = values.dtype.type
    roots = values - kind(image.low)
    roots *= kind(image.scale)
    np.sqrt(roots, out=roots)
    roots *= _BINS - 1
    return roots.astype(np.intp)


def count_below(image: Map, thresholds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Number of pixels below and equal to each of (M,) sorted, unique values of the map; exact.

    Bins keep the order, so that bins without a threshold are only counted. Pixels that share a
    bin with a threshold are sorted.
    """
    thresholds = thresholds.astype(image.values.dtype)
    marks = _bins(thresholds, image)
    shared = np.zeros(_BINS, dtype=bool)
    shared[marks] = True
    counts, close = np.zeros(_BINS, dtype=np.int64), []
    for values in image.blocks():
        bins = _bins(values, image)
        counts += np.bincount(bins, minlength=_BINS)
        close.append(values[shared.take(bins)])
    ordered = np.sort(np.concatenate(close))
    left, right = (np.searchsorted(ordered, thresholds, side=side) for side in ("left", "right"))
    counts[shared] = 0
    return left + np.cumsum(counts)[marks], right - left


def auc(positives: np.ndarray, negatives: np.ndarray) -> float:
    """Probability that one of (N,) positives is above one of (M,) negatives; a tie counts half.

    Source: Mann and Whitney, Annals of Mathematical Statistics 18(1), 1947.
    """
    ordered = np.sort(negatives)
    below = np.searchsorted(ordered, positives, side="left").sum()
    upto = np.searchsorted(ordered, positives, side="right").sum()
    return float((below + upto) / 2 / (len(positives) * len(negatives)))


def auc_against_rest(image: Map, places: np.ndarray) -> float:
    """Exact area of (N,) places against all other pixels; ValueError if there are none."""
    fixated = np.sort(image.values[np.unique(places)])
    n_negatives = len(image.values) - len(fixated)
    if not n_negatives:
        raise ValueError("at least one pixel must be left without a fixation; there is none")
    thresholds, repeats = np.unique(image.values[places], return_counts=True)
    below, ties = count_below(image, thresholds)
    left, right = (np.searchsorted(fixated, thresholds, side=side) for side in ("left", "right"))
    wins = (below - left) + (ties - (right - left)) / 2
    return float(repeats @ wins / (len(places) * n_negatives))


def auc_trapezoid(image: Map, places: np.ndarray, n_negatives: int | None = None) -> float:
    """The usual AUC-Judd: a threshold at the value of each fixation, then the trapezoid.

    `places` are (N,) flat indices, not all pixels; `n_negatives` divides the false alarms (None:
    the pixels less N). The area lies about 1 / (2 N) above the exact one. Tied pixels are false
    alarms, which is why the older codes add noise to a map. A constant map scores 0.5.
    """
    n, pixels = len(places), len(image.values)
    if image.values.min() == image.values.max():
        return 0.5
    thresholds, which = np.unique(image.values[places], return_inverse=True)
    below, _ = count_below(image, thresholds)
    found = np.arange(1, n + 1)
    alarms = (pixels - np.sort(below[which])[::-1] - found) / (n_negatives or pixels - n)
    return float(np.trapezoid(np.r_[0, found / n, 1], np.r_[0, alarms, 1]))


def auc_splits(
    positives: np.ndarray, negatives: np.ndarray, random: np.random.Generator, *, matlab: bool
) -> float:
    """The usual s-AUC: thresholds 0, 0.1, 0.2, ... and 100 draws of N negatives each.

    `positives` are (N,) and `negatives` (M,) values of a map in [0, 1]; if M < N, every draw takes
    all of them. `matlab` uses a threshold equal to the largest value (a range in MATLAB includes
    its end, in Python it does not), and divides the false alarms by the number of drawn negatives.
    SalEMA's Python divides by N even if M < N: the rate then stays below 1 up to the last point.
    """
    draws = min(len(positives), len(negatives))
    order = random.random((100, len(negatives))).argpartition(draws - 1, axis=1)[:, :draws]
    drawn = negatives[order]
    thresholds = np.r_[np.inf, np.arange(10, -1, -1) * 0.1, -np.inf]
    used = matlab | (thresholds < np.maximum(positives.max(), drawn.max(axis=1))[:, None])
    thresholds = thresholds.astype(positives.dtype)
    hits = (positives[:, None] >= thresholds).mean(axis=0) * used
    alarms = (drawn[..., None] >= thresholds).sum(axis=1) * used
    alarms = alarms / (draws if matlab else len(positives))
    alarms[:, -1] = 1
    return float(np.trapezoid(hits, alarms, axis=1).mean())
