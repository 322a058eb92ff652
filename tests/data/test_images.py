"""Image sets: fixations that keep the observers apart."""

import numpy as np
import pytest
import trees

from salema.data import find, load
from salema.files import SalemaError


def reasons(search):
    return [str(problem) for problem in search.problems]


@pytest.mark.parametrize("flat", [False, True])
def test_salicon_is_found_in_folders_and_flat(tmp_path, flat):
    for split, numbers in [("train", [9, 25]), ("val", [73]), ("test", [1])]:
        stems = trees.salicon(tmp_path, split, numbers, flat)
        clips = load(tmp_path, "SALICON", split)
        assert [clip.name for clip in clips] == stems
        assert [clip.frame_names for clip in clips] == [(stem,) for stem in stems]
        assert {(clip.split, clip.fps, clip.n_frames) for clip in clips} == {(split, None, 1)}


def test_salicon_counts_from_1_and_keeps_observers_apart(tmp_path):
    trees.salicon(tmp_path, "train", [9])
    (clip,) = load(tmp_path, "SALICON", "train")
    assert clip.has_observers
    assert next(clip.fixations()).tolist() == [[0, 0, 0], [31, 23, 0]]
    assert next(clip.maps())[2, 3] == 1


def test_salicon_points_outside_the_picture_are_dropped(tmp_path):
    (stem,) = trees.salicon(tmp_path, "val", [9])
    path = tmp_path / "SALICON" / "fixations" / "val" / f"{stem}.mat"
    trees.salicon_fixations(path, [[(0, 5), (33, 5), (5, 25)], [(32, 24)]])
    (clip,) = load(tmp_path, "SALICON", "val")
    assert next(clip.fixations()).tolist() == [[31, 23, 1]]


def test_salicon_points_are_scaled_when_the_picture_was(tmp_path):
    (stem,) = trees.salicon(tmp_path, "val", [9])
    path = tmp_path / "SALICON" / "fixations" / "val" / f"{stem}.mat"
    trees.salicon_fixations(path, [[(64, 48), (1, 1)]], resolution=(48, 64))
    (clip,) = load(tmp_path, "SALICON", "val")
    assert np.floor(next(clip.fixations())).tolist() == [[31, 23, 0], [0, 0, 0]]


def test_salicon_images_without_a_map_are_skipped_and_counted(tmp_path):
    stems = trees.salicon(tmp_path, "train", [1, 2, 3])
    folder = tmp_path / "SALICON"
    (folder / "maps" / "train" / f"{stems[0]}.png").unlink()
    (folder / "images" / "train" / f"{stems[1]}.jpg").unlink()
    (folder / "fixations" / "train" / f"{stems[2]}.mat").unlink()
    search = find(tmp_path, "SALICON", "train")
    assert [clip.name for clip in search.clips] == [stems[2]]
    assert [len(points) for points in search.clips[0].fixations()] == [0]
    assert reasons(search) == [
        f"SALICON/maps/train: 1 map ({stems[1]}) without an image, left out",
        f"SALICON/maps/train: 1 image ({stems[0]}) without a map, skipped",
        f"SALICON/fixations/train: 1 fixation file ({stems[1]}) without an image, left out",
        f"SALICON/fixations/train: 1 image ({stems[2]}) without a fixation file, not scored",
    ]


def test_salicon_fixations_that_are_something_else_name_the_file(tmp_path):
    (stem,) = trees.salicon(tmp_path, "train", [9])
    path = tmp_path / "SALICON" / "fixations" / "train" / f"{stem}.mat"
    (clip,) = load(tmp_path, "SALICON", "train")
    for broken in (
        lambda: trees.mat(path, gaze=np.zeros((2, 1))),
        lambda: trees.mat(path, text="nothing here"),
        lambda: path.write_bytes(b"MATLAB 5.0 MAT-file, cut off"),
        lambda: path.unlink(),
    ):
        broken()
        with pytest.raises(SalemaError, match=stem):
            next(clip.fixations())


def test_osie_reads_each_observer(tmp_path):
    trees.osie(tmp_path, {1001: [[(1.5, 2.5), (9, 9)], []], 1600: [[(4, 4)], [(5, 5)]]})
    clips = load(tmp_path, "OSIE")
    assert [(clip.name, clip.split) for clip in clips] == [("1001", "train"), ("1600", "val")]
    assert next(clips[0].fixations()).tolist() == [[1.5, 2.5, 0], [9, 9, 0]]
    assert next(clips[1].fixations()).tolist() == [[4, 4, 0], [5, 5, 1]]
    assert clips[0].has_observers and clips[0].annotated == 1


def test_a_set_of_fixations_only_has_blurred_maps(tmp_path):
    trees.osie(tmp_path, {1700: [[(20, 10)], [(20.9, 10.9)]]})
    (clip,) = load(tmp_path, "OSIE", "test")
    map_ = next(clip.maps())
    assert map_.dtype == np.float32 and map_.shape == trees.SIZE and map_.max() == 1
    assert np.unravel_index(map_.argmax(), map_.shape) == (10, 20)
    assert map_[10, 21] == pytest.approx(np.exp(-0.5 * (33 / 32) ** 2), abs=1e-6)


def test_points_outside_the_picture_are_dropped_and_counted(tmp_path):
    trees.osie(tmp_path, {1001: [[(-1, 2), (32, 2), (31.9, 23.9), (2, 24), (float("nan"), 2)]]})
    (clip,) = load(tmp_path, "OSIE")
    assert len(next(clip.fixations())) == 1 and clip.dropped == 4


def test_images_without_fixations_and_rows_without_an_image_are_reported(tmp_path):
    trees.osie(tmp_path, {1001: [[(1, 1)]], 1002: [[]], 1003: [[(1, 1)]]})
    (tmp_path / "OSIE" / "data" / "stimuli" / "1003.jpg").unlink()
    trees.picture(tmp_path / "OSIE" / "data" / "stimuli" / "1004.jpg")
    search = find(tmp_path, "OSIE", "train")
    assert [clip.name for clip in search.clips] == ["1001"]
    assert reasons(search) == [
        "OSIE/data/eye/fixations.mat: 2 images (1002.jpg, 1004.jpg) without fixations, skipped",
        "OSIE/data/eye/fixations.mat: 1 row (1003) without an image, left out",
    ]
    bare = load(tmp_path, "OSIE", ground_truth=False)
    assert [clip.name for clip in bare] == ["1001", "1002", "1004"]
    assert [bare[1].annotated, bare[2].annotated] == [0, 0]


def test_a_table_of_another_set_is_one_line(tmp_path):
    table = trees.osie(tmp_path, {1001: [[(1, 1)]]})
    trees.mat(table, fixations=np.zeros((3, 3)))
    with pytest.raises(SalemaError, match=r"no OSIE fixations in .*fixations\.mat"):
        load(tmp_path, "OSIE")
    table.unlink()
    with pytest.raises(SalemaError, match=r"fixations\.mat"):
        load(tmp_path, "OSIE")


def test_nusscene_gives_y_before_x_and_rows_in_the_order_of_names(tmp_path):
    trees.nusscene(tmp_path, {1: [[(3, 7)], []], 361: [[], [(30, 2)]], 500: [[(1, 1)], [(2, 2)]]})
    clips = load(tmp_path, "NUSScene")
    assert [(c.name, c.split) for c in clips] == [("001", "train"), ("361", "val"), ("500", "test")]
    assert next(clips[0].fixations()).tolist() == [[3, 7, 0]]
    assert next(clips[1].fixations()).tolist() == [[30, 2, 1]]


def test_nusscene_with_missing_images_goes_by_number(tmp_path):
    trees.nusscene(tmp_path, {1: [[(1, 0)]], 2: [[(2, 0)]], 3: [[(3, 0)]]})
    (tmp_path / "NUSScene" / "data" / "stimuli" / "002.jpg").unlink()
    clips = load(tmp_path, "NUSScene")
    assert [(c.name, next(c.fixations())[0, 0]) for c in clips] == [("001", 1), ("003", 3)]


def test_a_nusscene_table_that_does_not_fit_the_images_is_one_line(tmp_path):
    trees.nusscene(tmp_path, {1: [[(1, 0)]], 401: [[(2, 0)]]})
    trees.picture(tmp_path / "NUSScene" / "data" / "stimuli" / "402.jpg")
    with pytest.raises(SalemaError, match="does not belong to the 3 images"):
        load(tmp_path, "NUSScene")
