"""The pool: which fixations there are, where they lie, and seeded draws."""

import numpy as np
import pytest

from salema.score.negatives import Pool, generator


def points(*places, observer=-1.0):
    return np.array([[x, y, observer] for x, y in places]).reshape(-1, 3)


def test_a_fixation_over_several_frames_starts_once():
    gone, here, there = points(), points((5, 5), observer=1), points((9, 9), observer=1)
    pool = Pool({"a": ((20, 20), [here, here, there, here, gone, here, here])})
    assert pool.onsets.tolist() == [True, False, True, True, True, False]


def test_two_people_at_one_place_are_two_fixations():
    both = np.concatenate([points((5, 5), observer=1), points((5, 5), observer=2)])
    assert Pool({"a": ((20, 20), [both, both])}).onsets.tolist() == [True, True, False, False]


def test_without_observers_two_at_one_place_are_still_two():
    one, two = points((5, 5)), points((5, 5), (5, 5))
    onsets = Pool({"a": ((20, 20), [one, two, two, one])}).onsets
    assert onsets.tolist() == [True, False, True, False, False, False]


def test_a_fixation_does_not_reach_into_the_next_clip():
    here = [points((5, 5), observer=1)]
    assert Pool({"a": ((9, 9), here), "b": ((9, 9), here)}).onsets.all()


def test_fixations_off_the_picture_are_left_out():
    pool = Pool({"a": ((10, 20), [points((-1, 5), (20, 5), (5, 10), (np.nan, 1), (19.5, 9.5))])})
    assert pool.points[:, :2].tolist() == [[19.5, 9.5]]


@pytest.mark.parametrize(("size", "grid"), [((720, 1280), (180, 320)), ((480, 832), (185, 320))])
def test_a_pixel_falls_into_the_cell_that_whole_numbers_give(size, grid):
    x, y = np.arange(size[1]), np.arange(size[1]) % size[0]
    pool = Pool({"a": (size, [np.column_stack([x, y, x])]), "b": (grid, [])})
    rows, columns = np.divmod(pool.cells(np.arange(size[1]), grid), grid[1])
    np.testing.assert_array_equal(columns, x * grid[1] // size[1])
    np.testing.assert_array_equal(rows, y * grid[0] // size[0])


def test_a_generator_depends_on_every_name():
    draws = {
        generator(*names).integers(2**60)
        for names in ((0, "a", 1), (1, "a", 1), (0, "b", 1), (0, "a", 2), (0, "a1"), (0, "a", "1"))
    }
    assert len(draws) == 6
    assert generator(0, "a", 1).integers(2**60) in draws
