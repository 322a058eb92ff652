"""Areas under ROC curves: exact by ranks, and by thresholds as the field's older code has them.

The exact area is the Mann-Whitney statistic, in which a tie counts half. It needs no sorted
map: pixels are counted in bins, and only those that share a bin with a fixation are sorted.
Passes go over blocks that stay in the processor's cache.
"""

from typing import NamedTuple

import numpy as np

_BINS = 1 << 14
_BLOCK = 1 << 14


class Map(NamedTuple):
    """A flat map and what brings it to [0, 1]; `scale` is 0 where the map is constant."""

    values: np.ndarray
    low: float
    scale: float

    def unit(self, block: slice, scratch: np.ndarray) -> np.ndarray:
        """Part of the map, min-max scaled, in double precision, written into `scratch`."""
        values = self.values[block]
        unit = scratch[: len(values)]
        unit[:] = values
        unit -= self.low
        unit *= self.scale
        return unit

    def blocks(self) -> list[slice]:
        """The whole map, piece by piece."""
        return [slice(at, at + _BLOCK) for at in range(0, len(self.values), _BLOCK)]

    @staticmethod
    def scratch(count: int) -> np.ndarray:
        """Room for so many blocks: memory that is used again stays in the cache."""
        return np.empty((count, _BLOCK))


def read_map(saliency: np.ndarray, name: str = "saliency map") -> Map:
    """(H, W) of any number type -> flat float32 or float64, known to be finite."""
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


def _bins(values: np.ndarray, image: Map, scratch: tuple[np.ndarray, ...] = ()) -> np.ndarray:
    """Values -> bins in the same order; the root spreads the crowd of nearly zero pixels.

    Rounding keeps the order in single precision too, and that is twice as fast.
    """
    n = len(values)
    roots, bins = scratch or (np.empty(n, values.dtype), np.empty(n, np.intp))
    roots, bins = roots[:n], bins[:n]
    np.subtract(values, values.dtype.type(image.low), out=roots)
    roots *= values.dtype.type(image.scale)
    np.sqrt(roots, out=roots)
    roots *= _BINS - 1
    bins[:] = roots
    return bins


def count_below(image: Map, thresholds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each threshold: how many pixels lie below it, and how many equal it.

    Exact: bins keep the order, so of the bins without a threshold a count is enough. Only
    pixels that share a bin with a threshold are sorted.

    Args:
        image: The map.
        thresholds: (M,) values of the map, sorted, each once.

    Returns:
        Two (M,) integer arrays.
    """
    thresholds = thresholds.astype(image.values.dtype)
    marks = _bins(thresholds, image)
    shared = np.zeros(_BINS, dtype=bool)
    shared[marks] = True
    counts, close = np.zeros(_BINS, dtype=np.int64), []
    scratch = np.empty(_BLOCK, image.values.dtype), np.empty(_BLOCK, np.intp)
    for block in image.blocks():
        values = image.values[block]
        bins = _bins(values, image, scratch)
        counts += np.bincount(bins, minlength=_BINS)
        close.append(values[shared.take(bins)])
    ordered = np.sort(np.concatenate(close))
    left, right = (np.searchsorted(ordered, thresholds, side=side) for side in ("left", "right"))
    counts[shared] = 0
    return left + np.cumsum(counts)[marks], right - left


def auc(positives: np.ndarray, negatives: np.ndarray) -> float:
    """Probability that one of (N,) positives is above one of (M,) negatives, ties half.

    Source: Mann and Whitney, Annals of Mathematical Statistics 18(1), 1947.
    """
    ordered = np.sort(negatives)
    below = np.searchsorted(ordered, positives, side="left").sum()
    upto = np.searchsorted(ordered, positives, side="right").sum()
    return float((below + upto) / 2 / (len(positives) * len(negatives)))


def auc_against_rest(image: Map, places: np.ndarray) -> float:
    """Exact area, (N,) places against all pixels that are not among them.

    Raises:
        ValueError: Every pixel is.
    """
    fixated = np.sort(image.values[np.unique(places)])
    n_negatives = len(image.values) - len(fixated)
    if not n_negatives:
        raise ValueError("at least one pixel must be left without a fixation; there is none")
    thresholds, repeats = np.unique(image.values[places], return_counts=True)
    below, ties = count_below(image, thresholds)
    left = np.searchsorted(fixated, thresholds, side="left")
    right = np.searchsorted(fixated, thresholds, side="right")
    wins = (below - left) + (ties - (right - left)) / 2
    return float(repeats @ wins / (len(places) * n_negatives))


def auc_trapezoid(image: Map, places: np.ndarray) -> float:
    """The usual AUC-Judd: a threshold at each fixated pixel's value, then the trapezoid.

    Lies about 1 / (2 N) above the exact area. Tied pixels are taken for false alarms, which
    is why its users add a little noise to a map; a constant map scores 0.5.

    Args:
        image: The map.
        places: (N,) flat indices, each once, not all pixels.
    """
    n, pixels = len(places), len(image.values)
    if image.values.min() == image.values.max():
        return 0.5
    thresholds, which = np.unique(image.values[places], return_inverse=True)
    below, _ = count_below(image, thresholds)
    found = np.arange(1, n + 1)
    alarms = (pixels - np.sort(below[which])[::-1] - found) / (pixels - n)
    return float(np.trapezoid(np.r_[0, found / n, 1], np.r_[0, alarms, 1]))


def auc_splits(
    positives: np.ndarray, negatives: np.ndarray, random: np.random.Generator, *, last: bool
) -> float:
    """The usual s-AUC: thresholds 0, .1, .2 ... and 100 draws of N negatives each.

    Args:
        positives: (N,) values of a map in [0, 1].
        negatives: (M,) values; with M < N all of them, each time.
        random: Draws.
        last: Whether a threshold that equals the largest value drawn is used (a range in
            MATLAB holds its end, in Python it does not).
    """
    draws = min(len(positives), len(negatives))
    order = random.random((100, len(negatives))).argpartition(draws - 1, axis=1)[:, :draws]
    drawn = negatives[order]
    thresholds = np.r_[np.inf, np.arange(10, -1, -1) * 0.1, -np.inf]
    used = last | (thresholds < np.maximum(positives.max(), drawn.max(axis=1))[:, None])
    thresholds = thresholds.astype(positives.dtype)
    hits = (positives[:, None] >= thresholds).mean(axis=0) * used
    alarms = (drawn[..., None] >= thresholds).mean(axis=1) * used
    return float(np.trapezoid(hits, alarms, axis=1).mean())
