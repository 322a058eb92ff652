"""Means with intervals, and tests of differences; clips, or groups of clips, are the units.

Clips of one scene or one production resemble each other, so they are no independent units:
`by_group` turns the scores of clips into means of groups, which the other functions take. All
intervals are of 95 %. `docs/scoring.md` has how often the intervals cover the mean, and why
`t_interval` is the one in tables.
"""

import math
from collections.abc import Callable, Sequence
from functools import cache
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

NORMAL = NormalDist()
NODES = np.polynomial.legendre.leggauss(128)
Curve = Callable[[np.ndarray], np.ndarray]


class Interval(NamedTuple):
    """A mean over units, and its 95 % interval."""

    mean: float
    low: float
    high: float


class Equivalence(NamedTuple):
    """p of two one-sided tests, and the power that so many units with that deviation give."""

    p: float
    power: float


def _units(values: np.ndarray, least: int, what: str) -> np.ndarray:
    """(K,) finite values in double precision, at least `least`; else ValueError."""
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or len(values) < least or not np.isfinite(values).all():
        some = "one finite value a clip" if least == 1 else f"{least} or more finite values"
        raise ValueError(f"{what} needs {some}, not {values}")
    return values


def by_group(values: np.ndarray, groups: Sequence[str]) -> np.ndarray:
    """Means of the clips of each group, in the sorted order of the groups' names.

    `values` are (K,) scores of clips, or (K, S) of clips and seeds; `groups` are the K names of
    the clips' groups. Returns (G,) or (G, S). ValueError if the lengths differ or there is no clip.
    """
    values, groups = np.asarray(values, dtype=np.float64), np.asarray(groups)
    if groups.ndim != 1 or not groups.size or values.shape[:1] != groups.shape:
        raise ValueError(
            f"{values.shape} values and {groups.shape} groups must be of the same clips"
        )
    return np.stack([values[groups == name].mean(0) for name in np.unique(groups)])


def t_interval(values: np.ndarray) -> Interval:
    """Mean over units with Student's interval.

    `values` (K,) are finite, one per unit; the interval of a single unit has no width, because
    nothing is known about it. ValueError if there is no value or one is not finite.

    Source: Student, Biometrika 6(1), 1908.
    """
    values = _units(values, 1, "an interval")
    mean, reach = float(values.mean()), 0.0
    if len(values) > 1:
        reach = t_quantile(0.975, len(values) - 1) * _error(values)
    return Interval(mean, mean - reach, mean + reach)


def _error(values: np.ndarray) -> float:
    """The standard error of a mean."""
    return float(values.std(ddof=1)) / math.sqrt(len(values))


def bootstrap(
    values: np.ndarray, n: int = 10_000, seed: int = 0, weights: np.ndarray | None = None
) -> Interval:
    """Mean over clips with its 95 % percentile bootstrap interval.

    For clips of unequal weight; for few clips it is too narrow. `values` (K,) are finite, one per
    clip; the interval of a single clip has no width. Each of the `n` resamples draws K clips with
    replacement, and the same seed gives the same interval.
    `weights` (K,) are above 0; None weights all clips equally.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993.
    """
    values = _units(values, 1, "a bootstrap")
    if weights is not None and not np.min(weights) > 0:
        raise ValueError(f"the weights of clips must be above 0, not {weights}")
    low, high = np.percentile(_resampled(values, n, seed, weights), [2.5, 97.5])
    return Interval(float(np.average(values, weights=weights)), float(low), float(high))


def _resampled(
    values: np.ndarray, n: int, seed: int, weights: np.ndarray | None = None
) -> np.ndarray:
    """(n,) means of resamples of (K,) values."""
    random, means = np.random.default_rng(seed), []
    step = max(1, 2_000_000 // len(values))  # resamples in one block: this bounds the memory
    for done in range(0, n, step):
        drawn = random.integers(len(values), size=(min(step, n - done), len(values)))
        if weights is None:
            means.append(values[drawn].mean(1))
        else:
            means.append((values * weights)[drawn].sum(1) / weights[drawn].sum(1))
    return np.concatenate(means)


def sign_flip(first: np.ndarray, second: np.ndarray | float = 0.0, seed: int = 0) -> float:
    """Two-sided p of the sign-flip test of a mean difference over the same units.

    `first` and `second` are (K,) values of two models; without `second`, `first` are differences.
    If neither model were better, each difference would be as likely with the opposite sign. p is
    the share of sign patterns whose mean is at least as far from 0 as the observed mean: of all
    patterns for up to 14 units, beyond that of the observed one and 10,000 drawn by the seed.
    ValueError if the lengths (K,) differ, if there is no unit, or if a value is not finite.

    Source: Fisher, The Design of Experiments, 1935.
    """
    first, second = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    second = np.full_like(first, second) if second.ndim == 0 else second
    if first.shape != second.shape or not first.size or not np.isfinite(first - second).all():
        raise ValueError(f"sign flips need finite values of the same clips: {first}, {second}")
    difference = first - second
    if len(difference) <= 14:
        bits = np.arange(2 ** len(difference))[:, None] >> np.arange(len(difference)) & 1
    else:
        random = np.random.default_rng(seed)
        bits = random.integers(2, size=(10_001, len(difference)), dtype=np.int8)
        bits[0] = 0  # the observed pattern
    sums = np.abs((1 - 2 * bits) @ difference)
    return float(np.mean(sums >= sums[0] - 1e-12 * np.abs(difference).sum()))


def bca(values: np.ndarray, n: int = 10_000, seed: int = 0) -> Interval:
    """Mean over units with its bias-corrected and accelerated bootstrap interval.

    `values` (K,) are finite, one per unit, K >= 3 (else ValueError). It follows the skewness of the
    values, but is too narrow for few units, as all plain bootstraps are. The same seed gives the
    same interval, which has no width if all values are equal.

    Source: Efron, Journal of the American Statistical Association 82(397), 1987.
    """
    values = _units(values, 3, "a BCa bootstrap")
    mean, deviations = float(values.mean()), values - values.mean()
    if np.ptp(values) == 0:
        return Interval(mean, mean, mean)
    means = _resampled(values, n, seed)
    below = (np.sum(means < mean) + np.sum(means <= mean)) / (2 * n)
    bias = NORMAL.inv_cdf(min(max(below, 1 / n), 1 - 1 / n))
    # The jackknife's deviations are those of the values, divided by K - 1.
    skew = float(np.sum(deviations**3) / (6 * np.sum(deviations**2) ** 1.5))
    shifted = [bias + NORMAL.inv_cdf(q) for q in (0.025, 0.975)]
    ends = [100 * NORMAL.cdf(bias + z / (1 - skew * z)) for z in shifted]
    return Interval(mean, *np.percentile(means, ends).tolist())


def hierarchical(
    values: np.ndarray, groups: Sequence[str], n: int = 10_000, seed: int = 0
) -> Interval:
    """Mean over groups and seeds with its bootstrap interval, which covers both.

    `values` (K, S) are finite scores, or differences, of K clips by S trainings; `groups` are the K
    names of the clips' groups. The mean is over clips in a group, then over groups and seeds. Each
    of the `n` resamples draws groups and seeds with replacement; a drawn seed counts for all
    groups, because one training scores many of them. The percentiles are widened, as `t_interval`
    is, for the number of groups, but not of seeds: of S seeds, the interval sees (S - 1) / S of the
    variance between trainings only, and of one seed nothing of it. ValueError if sizes
    differ, for fewer than 2 groups, or if a value is not finite.

    Source: Owen, Annals of Applied Statistics 1(2), 2007 (the draws); Hesterberg, The American
    Statistician 69(4), 2015 (the percentiles).
    """
    means = by_group(values, groups)
    if means.ndim != 2 or len(means) < 2 or not means.size or not np.isfinite(means).all():
        raise ValueError(f"(clips, seeds) finite values of 2 groups are needed, not {means.shape}")
    count, seeds = means.shape
    random = np.random.default_rng(seed)
    weights = random.multinomial(count, np.full(count, 1 / count), n) / count
    weights_of_seeds = random.multinomial(seeds, np.full(seeds, 1 / seeds), n) / seeds
    drawn = np.einsum("ng,gs,ns->n", weights, means, weights_of_seeds, optimize=True)
    widened = math.sqrt(count / (count - 1)) * t_quantile(0.975, count - 1)
    ends = [100 * NORMAL.cdf(-widened), 100 * NORMAL.cdf(widened)]
    return Interval(float(means.mean()), *np.percentile(drawn, ends).tolist())


def holm(p_values: Sequence[float]) -> np.ndarray:
    """(M,) p of M tests -> (M,) adjusted p in the same order.

    Where an adjusted p is below 0.05, the chance of any false finding among the M tests is below
    0.05. ValueError if there is none, or if one is outside [0, 1].

    Source: Holm, Scandinavian Journal of Statistics 6(2), 1979.
    """
    p = np.asarray(p_values, dtype=np.float64)
    if p.ndim != 1 or not p.size or not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"p-values must be in [0, 1], at least one, not {p}")
    order, adjusted = np.argsort(p, kind="stable"), np.empty_like(p)
    steps = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted[order] = np.minimum(steps, 1)
    return adjusted


def equivalence(differences: np.ndarray, margin: float) -> Equivalence:
    """Whether a mean difference is shown to be within -margin and +margin: two one-sided t tests.

    `differences` (K,) are finite, one per unit, K >= 2; `margin` is above 0, in their units (else
    ValueError). p below 0.05 shows it; a p above shows neither equivalence nor a difference. The
    power is the chance of p < 0.05 for K units with this standard deviation if the true difference
    is 0; where it is low, a p above 0.05 was to be expected.

    Source: Schuirmann, Journal of Pharmacokinetics and Biopharmaceutics 15(6), 1987.
    """
    differences = _units(differences, 2, "an equivalence test")
    _above_0(margin)
    mean, error, units = abs(float(differences.mean())), _error(differences), len(differences)
    if error == 0:
        return Equivalence(float(mean >= margin), 1.0)
    p = t_tail((margin - mean) / error, units - 1)  # the larger of the two
    return Equivalence(p, _power(units, margin / (error * math.sqrt(units))))


def needed(sd: float, margin: float, power: float = 0.8) -> int:
    """The least number of units for which `equivalence` has this power at a true difference of 0.

    `sd` is the standard deviation of the differences between units, in the unit of `margin`; both
    are above 0, and `power` is in (0, 1) (else ValueError).
    """
    _above_0(margin)
    if not (sd > 0 and math.isfinite(sd) and 0 < power < 1):
        raise ValueError(f"sd must be above 0 and the power in (0, 1), not {sd} and {power}")
    high = 2
    while _power(high, margin / sd) < power:
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _power(middle, margin / sd) >= power else (middle, high)
    return high


def _above_0(margin: float) -> None:
    if not (margin > 0 and math.isfinite(margin)):
        raise ValueError(f"a margin of equivalence must be above 0, not {margin}")


def _integral(function: Curve, low: float, high: float) -> float:
    """By 128 points of Gauss and Legendre."""
    (nodes, weights), half = NODES, (high - low) / 2
    return half * float(weights @ function(low + half * (nodes + 1)))


def _power(units: int, margin: float) -> float:
    """The power of `equivalence`, with the margin in standard deviations: exact.

    For a sample deviation u (true one 1), it is the chance that a mean lies within the margin less
    the reach of the tests, averaged over the density of u, of which df * u^2 is chi-squared.
    """
    df, root = units - 1, math.sqrt(units)
    reach = t_quantile(0.95, df)

    def chance(u: np.ndarray) -> np.ndarray:
        log = math.log(2) + df / 2 * math.log(df / 2) - math.lgamma(df / 2)
        density = np.exp(log + (df - 1) * np.log(u) - df / 2 * u**2)
        within = np.maximum(margin * root - reach * u, 0) / math.sqrt(2)
        return density * [math.erf(x) for x in within]

    low, high = max(0.0, 1 - 8 / math.sqrt(df)), 1 + 8 / math.sqrt(df)
    high = min(high, margin * root / reach)
    return _integral(chance, low, high) if high > low else 0.0


def t_tail(t: float, df: int) -> float:
    """The chance that Student's t with `df` >= 1 degrees of freedom is above `t`."""
    if t < 0:
        return 1 - t_tail(-t, df)
    log = math.lgamma((df + 1) / 2) - math.lgamma(df / 2) - math.log(math.pi) / 2
    low = math.atan(t / math.sqrt(df))  # t = sqrt(df) * tan(angle)
    high = min(math.pi / 2, low + 12 / math.sqrt(df))
    return _integral(lambda angle: np.exp(log + (df - 1) * np.log(np.cos(angle))), low, high)


@cache
def t_quantile(p: float, df: int) -> float:
    """The value below which Student's t is with a chance of `p` in [0.5, 1)."""
    low, high = 0.0, 1.0
    while t_tail(high, df) > 1 - p:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if t_tail(middle, df) > 1 - p else (low, middle)
    return high
