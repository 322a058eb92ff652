"""Intervals over clips and groups, and tests of differences; SciPy is the outside oracle."""

import math
from itertools import product

import numpy as np
import pytest
from scipy import stats

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


def test_a_paired_interval_sees_a_difference_that_two_intervals_hide():
    random = np.random.default_rng(0)
    a = random.normal(2.0, 1.0, 50)
    b = a - 0.1 + random.normal(0, 0.1, 50)
    one, other = statistics.t_interval(a), statistics.t_interval(b)
    assert one.low < other.high
    difference = statistics.t_interval(a - b)
    assert difference.mean == pytest.approx(a.mean() - b.mean())
    assert 0 < difference.low < difference.mean < difference.high


def test_one_clip_has_an_interval_without_width():
    assert statistics.bootstrap(np.array([0.7])) == (0.7, 0.7, 0.7)
    assert statistics.t_interval(np.array([0.7])) == (0.7, 0.7, 0.7)


@pytest.mark.parametrize("values", [[], [1.0, np.nan], [[1.0]]])
def test_an_interval_needs_finite_values(values):
    with pytest.raises(ValueError, match="one finite value a clip"):
        statistics.bootstrap(np.array(values))
    with pytest.raises(ValueError, match="one finite value a clip"):
        statistics.t_interval(np.array(values))


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
    assert statistics.sign_flip(a) == np.mean(by_hand)


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


@pytest.mark.parametrize("df", [1, 2, 9, 32, 5000])
def test_students_t_is_that_of_scipy(df):
    for t in (-1.0, 0.0, 0.3, 2.0, 6.0):
        assert statistics.t_tail(t, df) == pytest.approx(stats.t.sf(t, df), rel=1e-9)
    for p in (0.95, 0.975):
        assert statistics.t_quantile(p, df) == pytest.approx(stats.t.ppf(p, df), rel=1e-9)


def test_students_interval_of_sleep_has_the_published_ends():
    """Student's own hours of sleep gained by ten patients, 1908."""
    gained = [1.2, 2.4, 1.3, 1.3, 0.0, 1.0, 1.8, 0.8, 4.6, 1.4]
    found = statistics.t_interval(gained)
    assert found == pytest.approx((1.58, 0.70, 2.46), abs=0.005)


def test_students_interval_covers_the_mean_of_ten_normal_values_and_percentiles_do_not():
    random = np.random.default_rng(0)
    covered = {"t": 0, "percentile": 0}
    for _ in range(1000):
        values = random.normal(size=10)
        t, drawn = statistics.t_interval(values), statistics.bootstrap(values, 500)
        covered["t"] += t.low <= 0 <= t.high
        covered["percentile"] += drawn.low <= 0 <= drawn.high
    assert 930 < covered["t"] < 970 and covered["percentile"] < 925


def test_bca_follows_skewness_and_agrees_with_scipy():
    values = np.random.default_rng(0).lognormal(size=15)
    found, theirs = statistics.bca(values, 40_000), stats.bootstrap((values,), np.mean, rng=0)
    assert found.mean == pytest.approx(values.mean())
    assert found[1:] == pytest.approx(theirs.confidence_interval, rel=0.02)
    assert found.low > statistics.bootstrap(values, 40_000).low + 0.03
    assert found == statistics.bca(values, 40_000) != statistics.bca(values, 40_000, seed=1)
    assert statistics.bca([2.0, 2.0, 2.0]) == (2.0, 2.0, 2.0)
    with pytest.raises(ValueError, match="3 or more finite values"):
        statistics.bca([1.0, 2.0])


def test_clips_of_a_group_count_as_one():
    assert statistics.by_group([1.0, 5.0, 3.0], ["b", "a", "b"]).tolist() == [5.0, 2.0]
    seeds = statistics.by_group([[1, 2], [5, 6], [3, 6]], ["b", "a", "b"])
    assert seeds.tolist() == [[5, 6], [2, 4]]
    for values, groups in (([1.0], ["a", "b"]), ([], []), (1.0, ["a"])):
        with pytest.raises(ValueError, match="must be of the same clips"):
            statistics.by_group(values, groups)


def test_a_hierarchical_interval_holds_the_variance_of_groups_and_of_seeds():
    random, names = np.random.default_rng(0), np.arange(20)
    groups = np.tile(random.normal(1, 0.4, (20, 1)), 3)
    alone, t = statistics.hierarchical(groups, names), statistics.t_interval(groups[:, 0])
    assert alone == pytest.approx(t, abs=0.03)  # the widened percentiles
    spread = groups + np.array([-0.5, 0.0, 0.5])
    both = statistics.hierarchical(spread, names)
    assert both.mean == pytest.approx(alone.mean)
    # The variance of means of 3 drawn seeds, 1/18, is added to that of the groups.
    error = np.sqrt(groups[:, 0].var(ddof=1) / 20 + 1 / 18 * 20 / 19)
    assert both.high - both.low == pytest.approx(2 * stats.t.ppf(0.975, 19) * error, rel=0.1)
    twice = statistics.hierarchical(np.r_[spread, spread], np.r_[names, names])
    assert twice == both  # more clips of the same groups show nothing new
    for values, of in (([[1.0], [2.0]], ["a", "a"]), ([1.0, 2.0], ["a", "b"])):
        with pytest.raises(ValueError, match="finite values of 2 groups"):
            statistics.hierarchical(values, of)


def test_holm_multiplies_the_least_p_most_and_keeps_the_order():
    assert statistics.holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert statistics.holm([0.7, 0.6, 0.001]) == pytest.approx([1, 1, 0.003])
    for p in ([], [1.1], [np.nan]):
        with pytest.raises(ValueError, match=r"must be in \[0, 1\]"):
            statistics.holm(p)


def test_equivalence_is_the_larger_of_two_one_sided_t_tests():
    differences = np.random.default_rng(3).normal(-0.05, 0.2, 20)
    sides = [stats.ttest_1samp(differences, m, alternative=a).pvalue
             for m, a in ((-0.1, "greater"), (0.1, "less"))]  # fmt: skip
    assert statistics.equivalence(differences, 0.1).p == pytest.approx(max(sides))
    assert statistics.equivalence([0.05, 0.05], 0.1) == (0, 1)
    assert statistics.equivalence([0.3, 0.3], 0.1) == (1, 1)
    for values, margin in (([1.0], 0.1), ([1.0, np.nan], 0.1), ([1.0, 2.0], 0)):
        with pytest.raises(ValueError, match="equivalence"):
            statistics.equivalence(values, margin)


def test_the_power_of_equivalence_is_the_share_of_samples_that_show_it():
    samples = np.random.default_rng(0).normal(size=(2000, 10))
    one = samples[0] / samples[0].std(ddof=1)  # standard deviation 1, which the power is for
    shown = [statistics.equivalence(sample, 0.9).p < 0.05 for sample in samples]
    assert statistics.equivalence(one, 0.9).power == pytest.approx(np.mean(shown), abs=0.03)
    assert statistics.equivalence(one, 0.1).power < 1e-6


def test_the_needed_units_are_the_least_that_give_the_power():
    count = statistics.needed(0.3, 0.1)
    assert count == 79  # (1.645 + 1.282)^2 * 9 = 77, and a little for the estimated deviation
    unit = np.random.default_rng(0).normal(size=count)
    unit *= 0.3 / unit.std(ddof=1)
    assert statistics.equivalence(unit, 0.1).power >= 0.8
    less = unit[:-1] * 0.3 / unit[:-1].std(ddof=1)
    assert statistics.equivalence(less, 0.1).power < 0.8
    assert statistics.needed(0.001, 10.0) == 2
    for sd, margin, power in ((0, 0.1, 0.8), (1, -1, 0.8), (1, 0.1, 1)):
        with pytest.raises(ValueError, match="must be above 0"):
            statistics.needed(sd, margin, power)
