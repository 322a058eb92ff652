"""Bootstrap intervals over clips."""

import numpy as np
import pytest

from salema.score import statistics


def test_a_bootstrap_gives_the_mean_and_the_normal_interval():
    values = np.random.default_rng(0).normal(2.0, 0.5, 400)  # two blocks of resamples
    interval = statistics.bootstrap(values, seed=3)
    error = values.std() / 400**0.5
    assert interval.mean == pytest.approx(values.mean())
    assert interval.low == pytest.approx(values.mean() - 1.96 * error, abs=0.1 * error)
    assert interval.high == pytest.approx(values.mean() + 1.96 * error, abs=0.1 * error)
    assert interval == statistics.bootstrap(values, seed=3)
    assert interval != statistics.bootstrap(values, seed=4)


def test_a_paired_bootstrap_sees_a_difference_that_two_intervals_hide():
    random = np.random.default_rng(0)
    a = random.normal(2.0, 1.0, 50)
    b = a - 0.1 + random.normal(0, 0.1, 50)
    one, other = statistics.bootstrap(a), statistics.bootstrap(b)
    assert one.low < other.high
    difference = statistics.paired_bootstrap(a, b)
    assert difference.mean == pytest.approx(a.mean() - b.mean())
    assert 0 < difference.low < difference.mean < difference.high


def test_one_clip_has_an_interval_without_width():
    assert statistics.bootstrap(np.array([0.7])) == (0.7, 0.7, 0.7)


@pytest.mark.parametrize("values", [[], [1.0, np.nan], [[1.0]]])
def test_a_bootstrap_needs_finite_values(values):
    with pytest.raises(ValueError, match="one finite value a clip"):
        statistics.bootstrap(np.array(values))


def test_a_paired_bootstrap_needs_the_same_clips():
    with pytest.raises(ValueError, match=r"same clips, not \(2,\) and \(3,\)"):
        statistics.paired_bootstrap(np.zeros(2), np.zeros(3))


def test_weights_count_a_clip_more_often():
    values, equal = np.array([1.0, 5.0, 2.0]), np.array([7, 7, 7])
    assert statistics.bootstrap(values, weights=equal) == statistics.bootstrap(values)
    assert statistics.bootstrap(values, weights=np.array([3, 1, 4])).mean == 2.0
    with pytest.raises(ValueError, match="weights of clips must be above 0"):
        statistics.bootstrap(values, weights=np.array([3, 1, 0]))
