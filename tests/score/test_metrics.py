"""Metrics: by hand first, then degenerate input, then against slow literal forms."""

from functools import partial

import numpy as np
import pytest
import reference_metrics as reference

from salema.score import metrics

NAMES = ("auc_judd", "auc_shuffled", "nss", "cc", "sim", "kld")


def at(*indices, shape=(2, 2)):
    mask = np.zeros(shape, dtype=bool)
    mask.ravel()[list(indices)] = True
    return mask


def frame(kind, seed=0, shape=(200, 300), n=40):
    """A map of some kind, its fixations (mask), a density and negatives (flat indices)."""
    random = np.random.default_rng(seed)
    saliency = random.random(shape)
    rows = np.linspace(-1, 1, shape[0])[:, None] ** 2
    if kind == "float32":
        saliency = saliency.astype(np.float32)
    elif kind == "8-bit":
        saliency = np.round(saliency * 255).astype(np.uint8)
    elif kind == "mostly zero":
        saliency = np.where(saliency > 0.9, saliency, 0).astype(np.float32)
    elif kind == "three levels":
        saliency = np.floor(saliency * 3).astype(np.float32)
    elif kind == "skewed":
        saliency = np.exp(40 * saliency - 50 * rows).astype(np.float32)
    elif kind == "outlier":
        saliency[0, 0] = 1e9
    elif kind == "a last bit apart":
        saliency = np.float32(1) + np.float32(2**-23) * np.floor(40 * saliency).astype(np.float32)
    elif kind == "tiny":
        saliency = (saliency * 1e-40).astype(np.float32)
    elif kind == "negative":
        saliency = -1000 * saliency
    fixations = at(*random.choice(saliency.size, n, replace=False), shape=shape)
    density = np.exp(-4 * rows) * random.random(shape)
    return saliency, fixations, density, random.integers(saliency.size, size=500)


KINDS = (
    *("float64", "float32", "8-bit", "mostly zero", "three levels", "skewed"),
    *("outlier", "a last bit apart", "tiny", "negative"),
)


def test_auc_judd_counts_the_pixels_below_a_fixation():
    saliency = np.array([[1, 2], [3, 4]])
    assert metrics.auc_judd(saliency, at(3)) == 1
    assert metrics.auc_judd(saliency, at(0)) == 0
    assert metrics.auc_judd(saliency, at(2)) == pytest.approx(2 / 3)
    assert metrics.auc_judd(saliency, at(2, 0)) == pytest.approx(1 / 4)


def test_a_tie_counts_half():
    assert metrics.auc_judd(np.array([[1, 2], [2, 3]]), at(1)) == pytest.approx(1.5 / 3)
    assert metrics.auc_shuffled(np.array([[2, 1], [2, 3]]), at(0), at(1, 2, 3)) == 0.5


def test_a_pixel_given_twice_counts_twice():
    saliency = np.array([[1, 2], [3, 4]])
    # Negatives are pixels 1 and 2; pixel 3 wins both, three times; pixel 0 loses both.
    assert metrics.auc_judd(saliency, np.array([3, 3, 3, 0])) == pytest.approx(3 / 4)
    nss = [metrics.nss(saliency, at(pixel)) for pixel in (0, 3)]
    assert metrics.nss(saliency, np.array([3, 3, 3, 0])) == pytest.approx((3 * nss[1] + nss[0]) / 4)


def test_auc_shuffled_compares_with_the_given_places_only():
    saliency = np.array([[1, 2], [3, 4]])
    assert metrics.auc_shuffled(saliency, at(2), at(0, 3)) == 0.5
    assert metrics.auc_shuffled(saliency, at(2), np.array([0, 0, 0, 3])) == 0.75
    assert metrics.auc_shuffled(saliency, at(2), at(2)) == 0.5


def test_nss_is_the_z_score_at_the_fixations():
    saliency = np.array([[0, 0], [0, 4]])  # mean 1, standard deviation sqrt(3)
    assert metrics.nss(saliency, at(3)) == pytest.approx(3**0.5)
    assert metrics.nss(saliency, at(0)) == pytest.approx(-(3**-0.5))
    assert metrics.nss(saliency, at(0, 1, 2, 3)) == pytest.approx(0)


def test_cc_of_a_scaled_map_is_one_and_of_its_negative_minus_one():
    density = np.array([[0.0, 1.0], [5.0, 2.0]])
    assert metrics.cc(3 * density - 7, density) == pytest.approx(1)
    assert metrics.cc(-density, density) == pytest.approx(-1)
    assert metrics.cc(np.array([[1, 1], [-1, -1]]), np.array([[0, 1], [0, 1]])) == 0


def test_sim_and_kld_by_hand():
    p, q = np.array([[0, 1, 3]]), np.array([[0, 3, 1]])
    assert metrics.sim(p, q) == pytest.approx(0.5)
    assert metrics.kld(p, q) == pytest.approx(0.75 * np.log(3) - 0.25 * np.log(3))
    assert metrics.sim(q + 9, q) == pytest.approx(1)
    assert metrics.kld(q + 9, q) == pytest.approx(0, abs=1e-12)


def test_kld_without_min_max_takes_the_map_as_it_is():
    p, q = np.array([[1, 3]]), np.array([[3, 1]])
    assert metrics.kld(p, q, minmax=False) == pytest.approx(0.5 * np.log(3))
    assert metrics.kld(p, q) == pytest.approx(-np.log(metrics.EPSILON), rel=1e-6)
    assert metrics.kld(np.zeros((1, 2)), q, minmax=False) == pytest.approx(
        0.75 * np.log(1.5) + 0.25 * np.log(0.5)
    )
    with pytest.raises(ValueError, match="without min-max a map must be >= 0"):
        metrics.kld(p - 2, q, minmax=False)


def test_sim_without_min_max_keeps_the_minimum_of_a_map():
    p, q = np.array([[1, 3]]), np.array([[3, 1]])
    assert metrics.sim(p, q, minmax=False) == pytest.approx(0.5)
    assert metrics.sim(p, q) == 0
    with pytest.raises(ValueError, match="without min-max a map must be >= 0"):
        metrics.sim(p - 2, q, minmax=False)


def test_the_epsilon_of_kld_is_matlabs():
    assert metrics.EPSILON == 2.0**-52


def test_a_share_of_the_uniform_distribution_bounds_the_kld_of_a_sharp_map():
    sharp, density = np.zeros((10, 10)), np.ones((10, 10))
    sharp[0, 0], density[9] = 1, 3
    target = density.ravel() - 1  # min-max scaled; 10 pixels
    p = 0.9 * sharp.ravel() + 0.1 / 100
    q = target / target.sum()
    seen = q > 0
    by_hand = np.sum(q[seen] * np.log(q[seen] / p[seen]))
    assert metrics.kld(sharp, density, uniform=0.1) == pytest.approx(by_hand)
    assert metrics.kld(sharp, density, uniform=0.01) < np.log(100 / 0.01) < 30
    assert metrics.kld(sharp, density) > 30
    assert metrics.kld(sharp, density, uniform=1.0) == pytest.approx(np.log(10))
    with pytest.raises(ValueError, match=r"uniform share of a map must be in \[0, 1\], not 2"):
        metrics.kld(sharp, density, uniform=2)


def test_information_gain_is_the_mean_log_ratio_of_two_distributions():
    p, q = np.array([[1, 3], [4, 0]]), np.array([[2, 2], [2, 2]])
    mixed = [0.9 * x / 8 + 0.1 / 4 for x in (1, 3, 4, 0)]
    by_hand = [np.log2(x / 0.25) for x in mixed]
    gain = partial(metrics.information_gain, p, prior=q, uniform=0.1)
    assert gain(at(2)) == pytest.approx(by_hand[2])
    assert gain(at(1, 2, 3)) == pytest.approx(sum(by_hand[1:]) / 3)
    assert gain(np.array([0, 0, 1])) == pytest.approx((2 * by_hand[0] + by_hand[1]) / 3)
    assert metrics.information_gain(7 * p, at(2), q, uniform=0.1) == pytest.approx(by_hand[2])
    # The share bounds what a zero costs, also where the map is not the only one that has zeros.
    assert metrics.information_gain(p, at(3), q) == pytest.approx(np.log2(0.01))
    assert metrics.information_gain(p, at(3), p) == 0
    assert metrics.information_gain(q, at(2), p) < 0


@pytest.mark.parametrize("kind", KINDS)
def test_information_gain_equals_a_slow_form(kind):
    saliency, fixations, density, _ = frame(kind)
    found = metrics.information_gain(saliency, fixations, density)
    assert found == pytest.approx(
        reference.information_gain(saliency, fixations, density), rel=1e-6
    )


def test_information_gain_of_a_map_without_mass_is_that_of_the_uniform_distribution():
    prior = np.array([[1.0, 2.0], [5.0, 0.0]])
    even = metrics.information_gain(np.ones((2, 2)), at(0, 2), prior)
    for value in (0.0, -3.0, 1e12):
        assert metrics.information_gain(np.full((2, 2), value), at(0, 2), prior) == even
    for bad, rule in ((np.ones((1, 2)), "must have one shape"), (prior * np.nan, "prior must be")):
        with pytest.raises(ValueError, match=rule):
            metrics.information_gain(prior, at(3), bad)
    with pytest.raises(ValueError, match=r"must be in \(0, 1\], not 0"):
        metrics.information_gain(prior, at(0), prior, uniform=0)


@pytest.mark.parametrize("value", [0, 0.3, -5, 1e12])
def test_a_constant_map_is_chance_and_the_uniform_distribution(value):
    density = np.array([[0.0, 1.0], [1.0, 2.0]])
    scores = metrics.score_frame(np.full((2, 2), value), at(1), density, at(0, 2))
    uniform = {
        "sim": 0.25 + 0.25 + 0.25,
        "kld": 2 * 0.25 * np.log(1.0) + 0.5 * np.log(2.0),
    }
    chance = {"auc_judd": 0.5, "auc_shuffled": 0.5, "nss": 0.0, "cc": 0.0}
    assert scores == pytest.approx(chance | uniform)


def test_a_constant_density_is_the_uniform_distribution():
    saliency, density = np.array([[0.0, 1.0], [1.0, 2.0]]), np.full((2, 2), 0.2)
    assert metrics.cc(saliency, density) == 0
    assert metrics.sim(saliency, density) == pytest.approx(0.75)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(3))
def test_aucs_are_exact(kind, seed):
    saliency, fixations, _, negatives = frame(kind, seed, n=(1, 40, 300)[seed])
    judd = metrics.auc_judd(saliency, fixations)
    assert judd == pytest.approx(reference.auc_judd(saliency, fixations), abs=1e-12)
    assert judd == pytest.approx(
        reference.auc_ranks(saliency[fixations], saliency[~fixations]), abs=1e-12
    )
    shuffled = metrics.auc_shuffled(saliency, fixations, negatives)
    assert shuffled == pytest.approx(
        reference.auc_shuffled(saliency, fixations, negatives), abs=1e-12
    )


@pytest.mark.parametrize("kind", KINDS)
def test_one_pass_gives_what_the_literal_definitions_give(kind):
    case = frame(kind, seed=7)
    assert metrics.score_frame(*case) == pytest.approx(reference.score_frame(*case), rel=1e-6)


@pytest.mark.parametrize("kind", ["float32", "8-bit", "negative"])
def test_one_pass_gives_what_the_single_functions_give(kind):
    saliency, fixations, density, negatives = frame(kind)
    assert metrics.score_frame(saliency, fixations, density, negatives) == {
        "auc_judd": metrics.auc_judd(saliency, fixations),
        "auc_shuffled": metrics.auc_shuffled(saliency, fixations, negatives),
        "nss": metrics.nss(saliency, fixations),
        "cc": metrics.cc(saliency, density),
        "sim": metrics.sim(saliency, density),
        "kld": metrics.kld(saliency, density),
    }


def test_what_has_no_ground_truth_is_left_out():
    saliency, fixations, density, negatives = frame("float32")
    assert list(metrics.score_frame(saliency, fixations)) == ["auc_judd", "nss"]
    assert list(metrics.score_frame(saliency, fixations, density, negatives)) == list(NAMES)


def test_scale_and_offset_of_a_map_do_not_matter():
    saliency, fixations, density, negatives = frame("8-bit", shape=(40, 50))
    scaled = saliency.astype(np.float32) * 0.25 - 17  # exact in single precision
    assert metrics.score_frame(scaled, fixations, density * 3, negatives) == pytest.approx(
        metrics.score_frame(saliency, fixations, density, negatives), rel=1e-9
    )


def test_a_mask_and_its_indices_are_the_same_places():
    saliency, fixations, _, _ = frame("float32", shape=(40, 50))
    indices = np.random.default_rng(0).permutation(np.flatnonzero(fixations))
    for metric in (metrics.auc_judd, metrics.nss):
        assert metric(saliency, indices) == pytest.approx(metric(saliency, fixations))
        assert metric(saliency, fixations.astype(np.uint8) * 255) == metric(saliency, fixations)


def test_inputs_are_not_changed():
    case = frame("float64", shape=(40, 50))
    before = [array.copy() for array in case]
    metrics.score_frame(*case)
    for array, copy in zip(case, before, strict=True):
        np.testing.assert_array_equal(array, copy)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_map_that_is_not_finite_is_refused(bad):
    saliency = np.array([[1.0, 2.0], [bad, 4.0]])
    good = np.ones((2, 2))
    for metric, truth in (("auc_judd", at(0)), ("nss", at(0)), ("sim", good), ("cc", good)):
        with pytest.raises(ValueError, match="must be finite"):
            getattr(metrics, metric)(saliency, truth)
    with pytest.raises(ValueError, match="density must be finite"):
        metrics.kld(good, saliency)


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [
        ({"fixations": at()}, "at least one pixel is needed as fixations"),
        ({"fixations": at(0, 1, 2, 3)}, "at least one pixel must be left without a fixation"),
        ({"fixations": at(0, shape=(2, 3))}, r"fixations \(2, 3\) and map \(2, 2\)"),
        ({"fixations": np.array([4])}, "flat indices inside the map"),
        ({"fixations": np.array([0.5])}, "flat indices, not float64"),
        ({"negatives": np.array([], int)}, "at least one pixel is needed as negatives"),
        ({"density": np.zeros((2, 2))}, "must not be blank"),
        ({"density": np.array([[1, -1], [0, 0]])}, "must not be negative; this one reaches -1"),
        ({"density": np.ones((2, 3))}, r"density \(2, 3\) and map \(2, 2\)"),
        ({"saliency": np.zeros((2, 2, 1))}, r"must be \(H, W\) and not empty, not \(2, 2, 1\)"),
        ({"saliency": np.zeros((0, 2))}, "not empty"),
    ],
)
def test_an_error_names_the_rule(arguments, rule):
    good = {
        "saliency": np.array([[1, 2], [3, 4]]),
        "fixations": at(0),
        "density": np.ones((2, 2)),
        "negatives": at(1),
    }
    with pytest.raises(ValueError, match=rule):
        metrics.score_frame(**good | arguments)


@pytest.mark.parametrize("kind", ["float64", "8-bit", "mostly zero"])
def test_pysaliency_agrees_where_it_can_be_imported(kind, monkeypatch):
    monkeypatch.setattr(np, "trapz", np.trapezoid, raising=False)  # it still uses the old name
    theirs = pytest.importorskip("pysaliency.metrics")
    theirs_roc = pytest.importorskip("pysaliency.roc")
    saliency, fixations, density, negatives = frame(kind)
    saliency = reference.minmax(saliency.astype(float))  # its SIM and KLD do not do this
    density = reference.minmax(density)
    ours = metrics.score_frame(saliency, fixations, density, negatives)
    ys, xs = np.nonzero(fixations)
    assert ours["nss"] == pytest.approx(theirs.NSS(saliency, xs, ys).mean())
    assert ours["cc"] == pytest.approx(theirs.CC(saliency, density))
    assert ours["sim"] == pytest.approx(theirs.SIM(saliency, density))
    assert ours["kld"] == pytest.approx(theirs.MIT_KLDiv(saliency, density), rel=1e-3)
    for key, others in (
        ("auc_judd", saliency[~fixations]),
        ("auc_shuffled", saliency.ravel()[negatives]),
    ):
        assert ours[key] == pytest.approx(theirs_roc.general_roc(saliency[fixations], others)[0])


def test_pysaliencys_information_gain_agrees_where_it_can_be_imported():
    pysaliency = pytest.importorskip("pysaliency")
    to_density = pytest.importorskip("pysaliency.metrics").convert_saliency_map_to_density
    saliency, fixations, prior, _ = frame("float64")

    class Fixed(pysaliency.Model):
        def __init__(self, density):
            super().__init__()
            self.density = density

        def _log_density(self, stimulus):
            return np.log(self.density)

    ys, xs = np.nonzero(fixations)
    seen = pysaliency.Fixations.create_without_history(xs, ys, np.zeros(len(xs), int))
    stimuli = pysaliency.Stimuli([np.zeros((*saliency.shape, 3), np.uint8)])
    model, baseline = (Fixed(to_density(values)) for values in (saliency, prior))
    theirs = model.information_gain(stimuli, seen, baseline)
    ours = metrics.information_gain(saliency, fixations, prior, uniform=1e-12)
    assert ours == pytest.approx(theirs)
