"""How well a saliency map predicts where people looked: one pure function a metric.

| metric | compares with | chance | perfect | better |
|---|---|---|---|---|
| `auc_judd` | fixations against all other pixels | 0.5 | 1 | higher |
| `auc_shuffled` | fixations against fixations of other clips | 0.5 | 1 | higher |
| `nss` | fixations | 0 | unbounded | higher |
| `cc` | density | 0 | 1 | higher |
| `sim` | density | above 0 | 1 | higher |
| `kld` | density | above 0 | 0 | lower |

A saliency map is (H, W) of any real scale: every metric is the same for `a * map + b`
with a > 0. Places (fixations, negatives) are (H, W), True or nonzero where somebody
fixated, or (N,) flat indices `y * W + x`, in which a pixel may come twice and then counts
twice. A density is (H, W) >= 0, the blurred fixations.

Degenerate input is decided here, once: a constant map scores AUC 0.5, NSS 0.0, CC 0.0,
and the SIM and KLD of the uniform distribution; a constant density is the uniform
distribution too. No fixation, no negative, a blank density, a shape that differs, NaN
and infinity raise ValueError. Nothing here returns NaN.

The AUCs are exact (the Mann-Whitney statistic; a tie counts half), without sorting the
map: pixels are counted in bins, and only those that share a bin with a fixation are
compared one by one.
"""

from typing import NamedTuple

import numpy as np

EPSILON = 2.2e-16
"""Added to both distributions of `kld`; the step of a double, as in the field's code."""
_BINS = 1 << 14


def _values(saliency: np.ndarray, name: str = "saliency map") -> np.ndarray:
    """(H, W) of any number type -> flat float32 or float64, known to be finite."""
    saliency = np.asarray(saliency)
    if saliency.ndim != 2 or not saliency.size:
        raise ValueError(f"a {name} must be (H, W) and not empty, not {saliency.shape}")
    if saliency.dtype != np.float32:
        saliency = saliency.astype(np.float64)
    values = saliency.ravel()
    low, high = values.min(), values.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ValueError(f"a {name} must be finite; this one has NaN or infinite values")
    with np.errstate(over="ignore"):
        return values if np.isfinite(high - low) else values / 4


def _unit(values: np.ndarray) -> np.ndarray:
    """Min-max to [0, 1] in double precision; a constant map becomes zero everywhere."""
    low, high = float(values.min()), float(values.max())
    unit = values.astype(np.float64)
    unit -= low
    if high > low:
        unit /= high - low
    return unit


def _places(where: np.ndarray, shape: tuple[int, int], name: str) -> np.ndarray:
    """(H, W) mask or (N,) flat indices -> flat indices, at least one."""
    where = np.asarray(where)
    if where.ndim == 2:
        if where.shape != shape:
            raise ValueError(f"{name} {where.shape} and map {shape} must have one shape")
        where = np.flatnonzero(where)
    elif where.ndim != 1 or (where.size and not np.issubdtype(where.dtype, np.integer)):
        raise ValueError(
            f"{name} must be (H, W) or (N,) flat indices, not {where.dtype} {where.shape}"
        )
    elif where.size and not (where.min() >= 0 and where.max() < shape[0] * shape[1]):
        raise ValueError(f"{name} must be flat indices inside the map {shape}")
    if not where.size:
        raise ValueError(f"at least one pixel is needed as {name}; there is none")
    return where


def _density(density: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """(H, W) >= 0, not blank -> flat, finite."""
    values = _values(density, "density")
    if np.shape(density) != shape:
        raise ValueError(f"density {np.shape(density)} and map {shape} must have one shape")
    if values.min() < 0:
        raise ValueError(f"a density must not be negative; this one reaches {values.min():g}")
    if values.max() == 0:
        raise ValueError("a density must not be blank; this one is zero everywhere")
    return values


def count_below(
    values: np.ndarray, thresholds: np.ndarray, unit: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """For each threshold: how many values lie below it, and how many equal it.

    Exact, and linear in the number of values: rounding to a bin keeps the order, so a
    lower bin is below; inside the bins that hold a threshold the values themselves decide.

    Args:
        values: (P,) float, finite.
        thresholds: (M,) sorted, distinct, each one of `values`.
        unit: The values min-max scaled, where the caller has them already.

    Returns:
        Two (M,) integer arrays.
    """
    unit = _unit(values) if unit is None else unit
    bins = (unit * (_BINS - 1)).astype(np.uint16)
    low, high = float(values.min()), float(values.max())
    marks = thresholds.astype(np.float64) - low  # the very operations that made `unit`
    marks = marks / (high - low) if high > low else marks
    marks = (marks * (_BINS - 1)).astype(np.uint16)
    counts = np.bincount(bins, minlength=_BINS)
    shared = np.zeros(_BINS, dtype=bool)
    shared[marks] = True
    counts[shared] = 0
    close = values[shared[bins]]
    left = np.searchsorted(thresholds, close)
    equal = thresholds[np.minimum(left, len(thresholds) - 1)] == close
    below = np.cumsum(counts)[marks]
    below += np.cumsum(np.bincount(left + equal, minlength=len(thresholds) + 1))[:-1]
    return below, np.bincount(left[equal], minlength=len(thresholds))


def auc(positives: np.ndarray, negatives: np.ndarray) -> float:
    """Probability that a positive is above a negative, a tie counting half.

    Args:
        positives: (N,) finite, at least one.
        negatives: (M,) finite, at least one.

    Source: Mann and Whitney, Annals of Mathematical Statistics 18(1), 1947.
    """
    ordered = np.sort(negatives)
    below = np.searchsorted(ordered, positives, side="left").sum()
    upto = np.searchsorted(ordered, positives, side="right").sum()
    return float((below + upto) / 2 / (len(positives) * len(negatives)))


def _auc_judd(values: np.ndarray, unit: np.ndarray, places: np.ndarray) -> float:
    fixated = np.sort(values[np.unique(places)])
    n_negatives = len(values) - len(fixated)
    if not n_negatives:
        raise ValueError("at least one pixel must be left without a fixation; there is none")
    thresholds, repeats = np.unique(values[places], return_counts=True)
    below, ties = count_below(values, thresholds, unit)
    left = np.searchsorted(fixated, thresholds, side="left")
    right = np.searchsorted(fixated, thresholds, side="right")
    wins = (below - left) + (ties - (right - left)) / 2
    return float(repeats @ wins / (len(places) * n_negatives))


def _nss(unit: np.ndarray, places: np.ndarray) -> float:
    centred = unit - unit.mean()
    deviation = np.sqrt(centred @ centred / len(centred))
    return float(centred[places].mean() / deviation) if unit.any() else 0.0


def _cc(unit: np.ndarray, target: np.ndarray) -> float:
    if not (unit.any() and target.any()):
        return 0.0
    a, b = unit - unit.mean(), target - target.mean()
    return float(np.clip((a @ b) / np.sqrt((a @ a) * (b @ b)), -1, 1))


def _distribution(values: np.ndarray) -> np.ndarray:
    """Sum to one; a map without any mass is the uniform distribution."""
    total = values.sum()
    return values / total if total > 0 else np.full(values.shape, 1 / values.size)


def _sim(p: np.ndarray, q: np.ndarray) -> float:
    return float(np.minimum(p, q).sum())


def _kld(p: np.ndarray, q: np.ndarray) -> float:
    support = np.flatnonzero(q)
    p, q = (p, q) if len(support) == len(q) else (p[support], q[support])
    return float(q @ np.log(q / (p + EPSILON) + EPSILON))


def auc_judd(saliency: np.ndarray, fixations: np.ndarray) -> float:
    """Area under the ROC curve, fixated pixels against all pixels nobody fixated.

    Args:
        saliency: (H, W), any real scale; only the order of its pixels matters.
        fixations: (H, W) bool, or (N,) flat indices.

    Returns:
        The exact area in [0, 1]: 0.5 is chance, higher is better. (The usual trapezoid
        over the thresholds at n fixations lies about 1 / (2n) above it.)

    Raises:
        ValueError: Not finite, the shapes differ, no pixel or every pixel is fixated.

    Source: Judd et al., ICCV 2009; Riche et al., ICCV 2013.
    """
    values = _values(saliency)
    return _auc_judd(values, _unit(values), _places(fixations, saliency.shape, "fixations"))


def auc_shuffled(saliency: np.ndarray, fixations: np.ndarray, negatives: np.ndarray) -> float:
    """Area under the ROC curve, fixated pixels against places fixated in other clips.

    A map that only knows that people look at the centre gains nothing. WHICH other
    fixations are the negatives is part of a protocol (`salema.protocols`).

    Args:
        saliency: (H, W), any real scale; only the order of its pixels matters.
        fixations: (H, W) bool, or (N,) flat indices.
        negatives: (H, W) bool, or (M,) flat indices; may overlap the fixations.

    Returns:
        The exact area in [0, 1]: 0.5 is chance, higher is better.

    Raises:
        ValueError: Not finite, the shapes differ, no fixation or no negative.

    Source: Tatler, Baddeley and Gilchrist, Vision Research 45(5), 2005.
    """
    values, shape = _values(saliency), np.shape(saliency)
    places = _places(fixations, shape, "fixations")
    return auc(values[places], values[_places(negatives, shape, "negatives")])


def nss(saliency: np.ndarray, fixations: np.ndarray) -> float:
    """Normalized scanpath saliency: mean z-scored saliency at the fixations.

    Args:
        saliency: (H, W), any real scale; only its shape matters.
        fixations: (H, W) bool, or (N,) flat indices.

    Returns:
        NSS in standard deviations (of the population of pixels). 0 is chance; higher is
        better. A constant map scores 0.0: it ranks no pixel above another.

    Raises:
        ValueError: Not finite, the shapes differ, or no pixel is fixated.

    Source: Peters et al., Vision Research 45(18), 2005.
    """
    values = _values(saliency)
    return _nss(_unit(values), _places(fixations, np.shape(saliency), "fixations"))


def cc(saliency: np.ndarray, density: np.ndarray) -> float:
    """Pearson's correlation of map and density over all pixels.

    Args:
        saliency: (H, W), any real scale.
        density: (H, W) >= 0.

    Returns:
        In [-1, 1]: 0 is chance, higher is better; 0.0 where either is constant.

    Raises:
        ValueError: Not finite, the shapes differ, or the density is blank or negative.

    Source: Le Meur, Le Callet and Barba, Vision Research 47(19), 2007.
    """
    values = _values(saliency)
    return _cc(_unit(values), _unit(_density(density, np.shape(saliency))))


def sim(saliency: np.ndarray, density: np.ndarray) -> float:
    """Similarity: what the two share as distributions, sum of min(p, q).

    Both are min-max scaled to [0, 1] and then divided by their sum.

    Args:
        saliency: (H, W), any real scale; a constant map is the uniform distribution.
        density: (H, W) >= 0.

    Returns:
        In [0, 1]; higher is better, 1 only for equal distributions.

    Raises:
        ValueError: Not finite, the shapes differ, or the density is blank or negative.

    Source: Judd, Durand and Torralba, MIT technical report 2012-001.
    """
    values = _values(saliency)
    target = _unit(_density(density, np.shape(saliency)))
    return _sim(_distribution(_unit(values)), _distribution(target))


def kld(saliency: np.ndarray, density: np.ndarray, *, minmax: bool = True) -> float:
    """Kullback-Leibler divergence of the map from the density, in nats.

    sum of q * log(q / (p + eps) + eps) with q the density, p the map, eps = 2.2e-16.

    Args:
        saliency: (H, W), any real scale; a constant map is the uniform distribution.
        density: (H, W) >= 0.
        minmax: Scale both to [0, 1] before they are divided by their sums, as `sim` does,
            so that only the map's shape matters. False takes them as they are (peers that
            predict a probability): then the map must not be negative either.

    Returns:
        0 for equal distributions; lower is better, 36 at worst.

    Raises:
        ValueError: Not finite, the shapes differ, the density is blank or negative, or
            the map is negative with `minmax=False`.

    Source: Kullback and Leibler, Annals of Mathematical Statistics 22(1), 1951.
    """
    values = _values(saliency)
    target = _density(density, np.shape(saliency))
    if minmax:
        return _kld(_distribution(_unit(values)), _distribution(_unit(target)))
    if values.min() < 0:
        raise ValueError(f"without min-max a map must be >= 0; this one reaches {values.min():g}")
    p, q = values.astype(np.float64), target.astype(np.float64)
    return _kld(_distribution(p / (p.max() or 1)), _distribution(q / q.max()))


def score_frame(
    saliency: np.ndarray,
    fixations: np.ndarray,
    density: np.ndarray | None = None,
    negatives: np.ndarray | None = None,
) -> dict[str, float]:
    """All metrics of one frame at once: the same numbers, the work shared.

    Args:
        saliency: (H, W), any real scale.
        fixations: (H, W) bool, or (N,) flat indices.
        density: (H, W) >= 0; without it there is no cc, sim and kld.
        negatives: (H, W) bool, or (M,) flat indices; without it there is no auc_shuffled.

    Returns:
        auc_judd, auc_shuffled, nss, cc, sim, kld, in this order, less what has no ground
        truth.

    Raises:
        ValueError: As the metrics one by one.
    """
    values, shape = _values(saliency), np.shape(saliency)
    unit, places = _unit(values), _places(fixations, shape, "fixations")
    scores = {"auc_judd": _auc_judd(values, unit, places)}
    if negatives is not None:
        others = values[_places(negatives, shape, "negatives")]
        scores["auc_shuffled"] = auc(values[places], others)
    scores["nss"] = _nss(unit, places)
    if density is not None:
        target = _unit(_density(density, shape))
        p, q = _distribution(unit), _distribution(target)
        scores |= {"cc": _cc(unit, target), "sim": _sim(p, q), "kld": _kld(p, q)}
    return scores


class Interval(NamedTuple):
    """A mean over clips and the 95 % interval in which resampled means lie."""

    mean: float
    low: float
    high: float


def bootstrap(values: np.ndarray, n: int = 10_000, seed: int = 0) -> Interval:
    """Mean over clips with its 95 % percentile bootstrap interval.

    Args:
        values: (K,) one value a clip; with K = 1 the interval is that value.
        n: Number of resamples of K clips.
        seed: The same seed gives the same interval.

    Raises:
        ValueError: There is no clip, or a value is not finite.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or not values.size or not np.isfinite(values).all():
        raise ValueError(f"one finite value a clip is needed, not {values.shape}")
    generator = np.random.default_rng(seed)
    block = max(1, 2_000_000 // len(values))  # resamples at a time: bounds the memory
    means = np.concatenate(
        [
            values[generator.integers(len(values), size=(min(block, n - at), len(values)))].mean(1)
            for at in range(0, n, block)
        ]
    )
    low, high = np.percentile(means, [2.5, 97.5])
    return Interval(float(values.mean()), float(low), float(high))


def paired_bootstrap(a: np.ndarray, b: np.ndarray, n: int = 10_000, seed: int = 0) -> Interval:
    """Mean of a - b over the same clips, with its 95 % interval.

    Two models differ on these clips where the interval leaves out zero.

    Args:
        a: (K,) one value a clip.
        b: (K,) the other model's, clip for clip.
        n: Number of resamples.
        seed: The same seed gives the same interval.

    Raises:
        ValueError: The lengths differ, there is no clip, or a value is not finite.
    """
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if a.shape != b.shape:
        raise ValueError(f"paired values need the same clips: {a.shape} and {b.shape}")
    return bootstrap(a - b, n, seed)
