"""Fixations and maps, by hand and against SciPy's filter."""

import numpy as np
import pytest
import trees
from scipy.ndimage import gaussian_filter

from salema.data import blur, sigma
from salema.data.gaze import fixation_counts, read_fixations
from salema.files import SalemaError


def test_points_outside_or_nan_hit_nothing():
    points = np.array([[-0.5, 0], [4, 0], [0, 3], [np.nan, 0], [0, np.inf]])
    assert not blur(points, (3, 4), 1.0).any()
    assert not fixation_counts(points, (3, 4), (3, 4)).any()


def test_one_fixation_is_the_gaussian_written_out():
    map_ = blur(np.array([[3, 2, -1]]), (6, 8), 1.5)
    y, x = np.mgrid[:6, :8]
    expected = np.exp(-((x - 3) ** 2 + (y - 2) ** 2) / (2 * 1.5**2))
    np.testing.assert_allclose(map_, expected, atol=1e-6)


def test_the_blur_of_many_is_scipys_filter_of_the_counts():
    rng = np.random.default_rng(0)
    points = rng.uniform(0, 1, (40, 2)) * (64, 48)
    counts = np.zeros((48, 64))
    np.add.at(counts, tuple(np.floor(points[:, ::-1]).astype(int).T), 1)
    expected = gaussian_filter(counts, 3.0, mode="constant", truncate=12)
    np.testing.assert_allclose(blur(points, (48, 64), 3.0), expected / expected.max(), atol=1e-5)


def test_observers_who_agree_weigh_more():
    map_ = blur(np.array([[2, 2, 0], [2, 2, 1], [12, 2, 2]]), (5, 15), 1.0)
    assert map_[2, 2] == 1 and map_[2, 12] == pytest.approx(0.5, abs=1e-6)


def test_sigma_is_a_33rd_of_the_longer_side():
    assert sigma((600, 800)) == pytest.approx(800 / 33)
    assert sigma((660, 33)) == pytest.approx(20)


def test_no_fixation_is_a_blank_map():
    map_ = blur(np.empty((0, 3)), (4, 5), 1.0)
    assert map_.shape == (4, 5) and map_.dtype == np.float32 and not map_.any()


def test_the_blur_on_a_smaller_grid_is_the_large_one_averaged():
    points = np.array([[40, 30], [100, 80], [101, 20]])
    large = blur(points, (96, 128), 8.0)
    averaged = large.reshape(24, 4, 32, 4).mean((1, 3))
    small = blur(points, (96, 128), 8.0, grid=(24, 32))
    assert small.shape == (24, 32)
    np.testing.assert_allclose(small, averaged / averaged.max(), atol=0.02)


def test_a_very_narrow_blur_still_shows_every_fixation():
    map_ = blur(np.array([[5, 5], [60, 40]]), (480, 640), 0.01, grid=(48, 64))
    assert np.isfinite(map_).all() and map_.max() == 1 and map_[4, 6] > 0.3


def test_counts_on_a_grid_keep_every_fixation():
    points = np.array([[0, 0], [1, 1], [7, 5], [7.9, 5.9]])
    counts = fixation_counts(points, (6, 8), (3, 4))
    assert counts.dtype == np.uint8 and counts.sum() == 4
    assert counts[0, 0] == 2 and counts[2, 3] == 2
    assert fixation_counts(np.zeros((300, 2)), (6, 8), (3, 4))[0, 0] == 255


@pytest.mark.parametrize("shape", [(0, 0), (0, 5)])
def test_an_empty_matrix_is_no_fixation(tmp_path, shape):
    path = trees.mat(tmp_path / "a.mat", I=np.zeros(shape))
    assert read_fixations(path, (24, 32)).shape == (0, 3)


@pytest.mark.parametrize("resolution", [(0, 640), (480, -1), (2**40, 2), (np.nan, 3), "x", ()])
def test_a_resolution_that_is_none_is_one_line(tmp_path, resolution):
    path = trees.salicon_fixations(tmp_path / "a.mat", [[(1, 1)]], resolution=resolution)
    with pytest.raises(SalemaError, match=r"a\.mat"):
        read_fixations(path, (24, 32))


@pytest.mark.parametrize(
    "variables",
    [{"gaze": 1}, {"gaze": "text"}, {"gaze": np.zeros((2, 2))}, {"x": "text"}, {}],
    ids=str,
)
def test_a_mat_file_of_something_else_is_one_line(tmp_path, variables):
    with pytest.raises(SalemaError, match=r"a\.mat"):
        read_fixations(trees.mat(tmp_path / "a.mat", **variables), (24, 32))
