"""Means over clips with bootstrap intervals, and a test of differences; clips are the units."""

from typing import NamedTuple

import numpy as np


class Interval(NamedTuple):
    """A mean over clips, and the range of 95 % of the means of resampled clips."""

    mean: float
    low: float
    high: float


def bootstrap(
    values: np.ndarray, n: int = 10_000, seed: int = 0, weights: np.ndarray | None = None
) -> Interval:
    """Mean over clips with its 95 % percentile bootstrap interval.

    `values` (K,) are finite, one per clip; the interval of a single clip has no width. Each of the
    `n` resamples draws K clips with replacement, and the same seed gives the same interval.
    `weights` (K,) are above 0; None weights all clips equally.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or not values.size or not np.isfinite(values).all():
        raise ValueError(f"a bootstrap needs one finite value a clip, not {values}")
    if weights is not None and not np.min(weights) > 0:
        raise ValueError(f"the weights of clips must be above 0, not {weights}")
    random, means = np.random.default_rng(seed), []
    step = max(1, 2_000_000 // len(values))  # resamples in one block: this bounds the memory
    for done in range(0, n, step):
        drawn = random.integers(len(values), size=(min(step, n - done), len(values)))
        if weights is None:
            means.append(values[drawn].mean(1))
        else:
            means.append((values * weights)[drawn].sum(1) / weights[drawn].sum(1))
    low, high = np.percentile(np.concatenate(means), [2.5, 97.5])
    return Interval(float(np.average(values, weights=weights)), float(low), float(high))


def paired_bootstrap(a: np.ndarray, b: np.ndarray, n: int = 10_000, seed: int = 0) -> Interval:
    """Mean of a - b, (K,) values of two models on the same clips, with its 95 % interval."""
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if a.shape != b.shape:
        raise ValueError(f"paired values must be of the same clips, not {a.shape} and {b.shape}")
    return bootstrap(a - b, n, seed)


def sign_flip(first: np.ndarray, second: np.ndarray, seed: int = 0) -> float:
    """Two-sided p of the sign-flip test of a mean difference over the same clips.

    If neither model were better, each difference would be as likely with the opposite sign. p is
    the share of sign patterns whose mean is at least as far from 0 as the observed mean: of all
    patterns for up to 14 clips, beyond that of the observed one and 10,000 drawn by the seed.
    ValueError if the lengths (K,) differ, if there is no clip, or if a value is not finite.

    Source: Fisher, The Design of Experiments, 1935.
    """
    first, second = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
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
