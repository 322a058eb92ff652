"""Areas under ROC curves: counting, ranks, and the older thresholds."""

import numpy as np
import pytest
import reference_metrics as reference

from salema.score import roc


def frame(kind, seed=0, shape=(60, 80), n=40):
    """A map of some kind and its fixations (mask)."""
    random = np.random.default_rng(seed)
    saliency = random.random(shape)
    if kind == "8-bit":
        saliency = np.round(saliency * 255)
    elif kind == "three levels":
        saliency = np.floor(saliency * 3)
    elif kind == "mostly zero":
        saliency = np.where(saliency > 0.9, saliency, 0)
    fixations = np.zeros(shape, dtype=bool)
    fixations.ravel()[random.choice(saliency.size, n, replace=False)] = True
    return saliency, fixations


def test_auc_is_the_share_of_pairs_won_and_a_tie_is_half_a_win():
    assert roc.auc(np.array([2.0]), np.array([2.0, 2.0, 1.0, 3.0])) == 2 / 4
    assert roc.auc(np.array([3.0, 0.0]), np.array([1.0, 2.0, 3.0])) == 2.5 / 6


@pytest.mark.parametrize("kind", ["float", "8-bit", "three levels", "mostly zero"])
@pytest.mark.parametrize("shift", [0.0, 1e9, -3.0])
def test_counting_in_bins_equals_comparing_every_pixel(kind, shift):
    saliency, fixations = frame(kind, shape=(150, 300))  # more pixels than a block holds
    saliency = saliency + shift
    thresholds = np.unique(saliency[fixations])
    below, ties = roc.count_below(roc.read_map(saliency), thresholds)
    assert below.tolist() == [np.sum(saliency < threshold) for threshold in thresholds]
    assert ties.tolist() == [np.sum(saliency == threshold) for threshold in thresholds]


def test_thresholds_that_share_a_bin_are_told_apart():
    saliency = np.repeat(np.arange(64.0), 100).reshape(80, 80) * 1e-9
    saliency[-1, -1] = 1.0  # everything else falls into the first bins
    thresholds = np.unique(saliency)[[0, 1, 63, 64]]
    below, ties = roc.count_below(roc.read_map(saliency), thresholds)
    assert below.tolist() == [0, 100, 6300, 6399]
    assert ties.tolist() == [100, 100, 99, 1]


def test_the_trapezoid_lies_half_a_fixation_above_the_exact_area():
    gaps = []
    for seed in range(40):
        saliency, fixations = frame("float64", seed, n=15)
        trapezoid = roc.auc_trapezoid(roc.read_map(saliency), np.flatnonzero(fixations))
        assert trapezoid == pytest.approx(reference.judd_trapezoid(saliency, fixations))
        exact = roc.auc_against_rest(roc.read_map(saliency), np.flatnonzero(fixations))
        gaps.append(trapezoid - exact)
    assert np.mean(gaps) == pytest.approx(1 / (2 * 15), rel=0.1)


@pytest.mark.parametrize("kind", ["8-bit", "three levels", "mostly zero"])
def test_the_trapezoid_treats_ties_as_the_literal_form_does(kind):
    saliency, fixations = frame(kind)
    assert roc.auc_trapezoid(roc.read_map(saliency), np.flatnonzero(fixations)) == pytest.approx(
        reference.judd_trapezoid(saliency, fixations)
    )


def test_split_auc_equals_the_literal_form_where_a_split_is_all_there_is():
    random = np.random.default_rng(0)
    positives, negatives = random.random(9), np.append(random.random(4), 0.5)
    area = roc.auc_splits(positives, negatives, random, matlab=True)
    steps = np.arange(11) * 0.1
    assert area == pytest.approx(reference.split_roc(positives, negatives, steps))


def test_python_divides_by_the_number_of_fixations_also_where_negatives_are_fewer():
    random = np.random.default_rng(0)
    positives, negatives = np.array([0.95, 0.85, 0.35, 0.15]), np.array([0.55])
    # Without ties the false-alarm rate is 0, then 1/4 and not 1, and 1 at the last point.
    hits, alarms = [0, 1, 2, 2, 3, 4, 4], [0, 0, 0, 1, 1, 1, 4]
    by_hand = np.trapezoid(np.array(hits) / 4, np.array(alarms) / 4)
    area = roc.auc_splits(positives, negatives, random, matlab=False)
    literal = reference.split_roc(positives, negatives, np.arange(10) * 0.1, divisor=4)
    assert area == pytest.approx(by_hand) == pytest.approx(literal)
    assert roc.auc_splits(positives, negatives, random, matlab=True) == pytest.approx(0.5)


def test_the_trapezoid_counts_a_repeated_place_each_time():
    image = roc.read_map(np.array([[4.0, 3.0, 2.0, 1.0]]))
    # Thresholds 4, 4, 2: hits 1/3, 2/3, 1 and alarms 0, -1, 0 of 2.
    expected = (1 / 3 + 2 / 3) / 2 * -0.5 + (2 / 3 + 1) / 2 * 0.5 + 1
    assert roc.auc_trapezoid(image, np.array([0, 2, 0]), 2) == pytest.approx(expected)


def test_only_matlab_uses_a_threshold_at_the_largest_value():
    positives, negatives = np.array([1.0, 1.0]), np.array([0.95, 0.0])
    random = np.random.default_rng(0)
    upto_nine = reference.split_roc(positives, negatives, np.arange(10) * 0.1)
    upto_one = reference.split_roc(positives, negatives, np.arange(11) * 0.1)
    assert upto_nine < upto_one
    assert roc.auc_splits(positives, negatives, random, matlab=False) == pytest.approx(upto_nine)
    assert roc.auc_splits(positives, negatives, random, matlab=True) == pytest.approx(upto_one)


def test_split_auc_averages_over_draws():
    random = np.random.default_rng(0)
    positives, negatives = random.random(10) ** 0.5, random.random(1000)
    literal = [
        reference.split_roc(positives, random.choice(negatives, 10, False), np.arange(11) * 0.1)
        for _ in range(2000)
    ]
    error = np.std(literal) / 100**0.5
    areas = [roc.auc_splits(positives, negatives, random, matlab=True) for _ in range(20)]
    assert np.mean(areas) == pytest.approx(np.mean(literal), abs=error)
    assert np.std(areas) == pytest.approx(error, rel=0.5)
