"""Image sets and HEVC33: fixations that tell the observers apart."""

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


def hevc33(tmp_path, rows, name="Cactus", frames=10, fps=25):
    trees.video(tmp_path / "HEVC33" / "videos" / f"{name}.avi", frames, fps)
    trees.hevc33(tmp_path, [name], rows)
    (clip,) = load(tmp_path, "HEVC33")
    return clip


def test_a_fixation_covers_every_frame_that_it_touches(tmp_path):
    # 25 fps: a frame lasts 40 ms. 90-130 ms touches frames 2 and 3.
    clip = hevc33(tmp_path, [(7, 1, 90, 40, 5, 6)])
    assert (clip.fps, clip.size, clip.n_frames) == (25, trees.SIZE, 10)
    assert (clip.frame_names[0], clip.frame_names[-1]) == ("00000", "00009")
    assert [len(points) for points in clip.fixations()] == [0, 0, 1, 1, 0, 0, 0, 0, 0, 0]
    assert next(clip.fixations(2)).tolist() == [[5, 6, 6]] and clip.has_observers
    assert clip.annotated == 2


def test_a_fixation_that_ends_with_a_frame_does_not_reach_the_next(tmp_path):
    # 280 ms at 25 fps end frame 6 exactly; 0.28 * 25 in floating point is above 7.
    clip = hevc33(tmp_path, [(1, 1, 200, 80, 5, 6)], fps=25)
    assert [len(points) for points in clip.fixations()] == [0, 0, 0, 0, 0, 1, 1, 0, 0, 0]


def test_each_fixation_counts_once_a_frame_and_observers_add_up(tmp_path):
    clip = hevc33(tmp_path, [(1, 1, 0, 400, 5, 6), (2, 1, 0, 40, 5, 6)])
    assert [len(points) for points in clip.fixations()] == [2, *[1] * 9]


def test_fixations_past_the_last_frame_are_dropped_and_counted(tmp_path):
    rows = [(1, 1, 380, 900, 5, 6), (1, 1, 400, 50, 5, 6), (1, 1, 0, 40, 32, 0)]
    clip = hevc33(tmp_path, rows)
    assert [len(points) for points in clip.fixations()] == [*[0] * 9, 1]
    assert clip.dropped == 2


def test_a_frame_that_nobody_fixated_has_a_blank_map(tmp_path):
    clip = hevc33(tmp_path, [(1, 1, 0, 40, 5, 6)], frames=2)
    first, second = clip.maps()
    assert first.max() == 1 and not second.any()


def test_a_video_file_may_have_a_space_in_its_name(tmp_path):
    trees.video(tmp_path / "HEVC33" / "videos" / "Basketball Drive.avi", 2)
    trees.hevc33(tmp_path, ["BasketballDrive"], [(1, 1, 0, 80, 5, 6)])
    (clip,) = load(tmp_path, "HEVC33", "train")
    assert clip.name == "BasketballDrive" and len(list(clip.frames())) == 2


def test_hevc33_is_split_by_name_and_belongs_by_index(tmp_path):
    names = ["Kimono", "Cactus", "Yan"]
    for name in names:
        trees.video(tmp_path / "HEVC33" / "videos" / f"{name}.avi", 1)
    trees.hevc33(tmp_path, names, [(1, i + 1, 0, 40, i, 0) for i in range(3)])
    found = [(c.name, c.split, next(c.fixations())[0, 0]) for c in load(tmp_path, "HEVC33")]
    assert found == [("Cactus", "val", 1), ("Kimono", "test", 0), ("Yan", "train", 2)]


def test_what_hevc33_lacks_is_reported(tmp_path):
    trees.hevc33(
        tmp_path,
        ["Lee", "Yan", "Traffic", "Keiba"],
        [
            (1, 1, 0, 40, 5, 6),
            (1, 2, 0, 40, 5, 6),
            (9, float("nan"), 3, 420, 5, 6),
            (1, 4, 0, 9, 0, 0),
        ],
    )
    for name in ("Yan", "Traffic", "Stray"):
        trees.video(tmp_path / "HEVC33" / "videos" / f"{name}.avi", 1)
    (tmp_path / "HEVC33" / "videos" / "Keiba.avi").write_bytes(b"not a video")
    search = find(tmp_path, "HEVC33", "train")
    assert [clip.name for clip in search.clips] == ["Yan"]
    assert reasons(search) == [
        "HEVC33/video_database.mat: 1 of 4 rows incomplete, left out",
        "HEVC33/videos/Keiba.avi: not a video, clip skipped",
        "HEVC33/videos/Lee.avi: no such video, its fixations left out",
        "HEVC33/videos/Traffic.avi: no fixations, clip skipped",
        "HEVC33/videos/Stray.avi: not in the table, skipped",
    ]


def test_an_hevc33_table_that_is_none_is_one_line(tmp_path):
    path = trees.hevc33(tmp_path, ["Yan"], [(1, 1, 0, 40, 5, 6)])
    path.write_bytes(b"not HDF5")
    with pytest.raises(SalemaError, match=r"no HEVC33 fixations in .*video_database\.mat"):
        load(tmp_path, "HEVC33")
