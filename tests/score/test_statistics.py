"""Bootstrap intervals over clips, and the sign-flip test."""

import math
from itertools import product

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


def test_a_sign_flip_test_counts_all_patterns_that_are_as_far_from_0():
    assert statistics.sign_flip([3.0, 2.0], [1.0, 1.0]) == 2 / 4  # 3 and -3 of 3, 1, -1, -3
    random = np.random.default_rng(0)
    a, b = random.normal(0.5, 1.0, 8), np.zeros(8)
    by_hand = [abs(np.dot(a, signs)) >= abs(a.sum()) - 1e-9 for signs in product((1, -1), repeat=8)]
    assert statistics.sign_flip(a, b) == np.mean(by_hand) == statistics.sign_flip(b, a)


def test_a_sign_flip_test_has_its_least_p_for_one_sign_and_1_for_no_difference():
    assert statistics.sign_flip(np.arange(1, 11) / 10, np.zeros(10)) == 2 / 1024
    assert statistics.sign_flip(np.ones(20), np.zeros(20), seed=1) < 0.001  # drawn patterns
    for count in (1, 10, 20):
        assert statistics.sign_flip(np.ones(count), np.ones(count)) == 1


def test_drawn_sign_flips_depend_on_the_seed_and_come_close_to_the_normal_p():
    random = np.random.default_rng(0)
    a = random.normal(0.1, 1.0, 200)
    a += 0.1 - a.mean()
    found = statistics.sign_flip(a, 0 * a, seed=1)
    assert found == statistics.sign_flip(a, 0 * a, seed=1) != statistics.sign_flip(a, 0 * a, seed=2)
    z = abs(a.mean()) / (np.mean(a**2) / 200) ** 0.5
    assert found == pytest.approx(math.erfc(z / 2**0.5), abs=0.02)


@pytest.mark.parametrize(("a", "b"), [([], []), ([1.0], [np.nan]), ([1.0], [1.0, 2.0])])
def test_a_sign_flip_test_needs_finite_values_of_the_same_clips(a, b):
    with pytest.raises(ValueError, match="finite values of the same clips"):
        statistics.sign_flip(a, b)
