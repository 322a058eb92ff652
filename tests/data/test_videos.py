"""Video sets, and the readers of a clip."""

import pickle

import numpy as np
import pytest
import trees

from salema.data import find, load
from salema.files import SalemaError


def reasons(search):
    return [str(problem) for problem in search.problems]


def test_dhf1k_is_split_by_number_and_600_is_a_training_video(tmp_path):
    for number in (1, 600, 601, 700):
        trees.dhf1k(tmp_path, number, 1)
    trees.dhf1k(tmp_path, 701, 2, truth=0)
    names = {s: [c.name for c in load(tmp_path, "DHF1K", s)] for s in ("train", "val", "test")}
    assert names == {"train": ["0001", "0600"], "val": ["0601", "0700"], "test": ["0701"]}


def test_a_range_of_videos_selects_by_number(tmp_path):
    for number in (600, 601, 602):
        trees.dhf1k(tmp_path, number, 1)
    assert [c.name for c in load(tmp_path, "DHF1K", videos=range(601, 701))] == ["0601", "0602"]
    with pytest.raises(SalemaError, match="no clip of DHF1K val numbered 650-700"):
        load(tmp_path, "DHF1K", "val", videos=range(650, 701))


def test_a_range_of_videos_needs_numbers(tmp_path):
    trees.shot(tmp_path / "UCF-sports" / "testing" / "Run-Side-001", ["Run-Side_001_001"])
    with pytest.raises(SalemaError, match="UCF-sports have no numbers"):
        load(tmp_path, "UCF-sports", videos=range(1, 2))


def test_dhf1k_reads_the_official_video(tmp_path):
    trees.dhf1k(tmp_path, 601, 4)
    (clip,) = load(tmp_path, "DHF1K", "val")
    assert (clip.n_frames, clip.size, clip.fps) == (4, trees.SIZE, 30)
    assert clip.frame_names == ("0001", "0002", "0003", "0004")
    assert [int(frame[0, 0, 0]) for frame in clip.frames()] == [0, 10, 20, 30]
    assert [int(frame[0, 0, 0]) for frame in clip.frames(1, 3)] == [10, 20]
    assert list(clip.frames(4)) == [] and list(clip.frames(3, 2)) == []
    assert all(f.dtype == np.uint8 and f.shape == (24, 32, 3) for f in clip.frames())


def test_maps_and_fixations_are_those_of_the_frame(tmp_path):
    trees.dhf1k(tmp_path, 1, 4)
    (clip,) = load(tmp_path, "DHF1K", "train")
    for index, (map_, points) in enumerate(zip(clip.maps(), clip.fixations(), strict=True)):
        assert map_.dtype == np.float32 and map_[0, index] == 1 and map_.sum() == 1
        assert points.tolist() == [[index, 0, -1]]
    assert [int(m.argmax()) for m in clip.maps(2, 4)] == [2, 3]
    assert not clip.has_observers


@pytest.mark.parametrize("where", ["annotation/0001/images", "frames/1", "frames/0001"])
def test_dhf1k_reads_extracted_frames_whatever_their_padding(tmp_path, where):
    folder = tmp_path / "DHF1K"
    trees.shot(folder / "annotation" / "0001", ["0001", "0002"], ("maps", "fixation"))
    for number in (1, 2):
        trees.picture(folder / where / f"{number}.png", 10 * number)
    (clip,) = load(tmp_path, "DHF1K")
    assert clip.frame_names == ("0001", "0002") and clip.annotated == 2
    assert [int(frame[0, 0, 0]) for frame in clip.frames()] == [10, 20]


def test_frames_are_sorted_as_numbers(tmp_path):
    for number in (10, 9, 2, 1, 100):
        trees.picture(tmp_path / "other" / "3" / f"{number}.png", number)
    (clip,) = load(tmp_path, "other")
    assert clip.frame_names == ("1", "2", "9", "10", "100")
    assert [int(frame[0, 0, 0]) for frame in clip.frames()] == [1, 2, 9, 10, 100]


def test_folders_of_other_are_sorted_as_numbers_and_have_no_ground_truth(tmp_path):
    for folder in ("10", "2", "extra"):
        trees.picture(tmp_path / "other" / folder / "00001.jpg")
    (tmp_path / "other" / "notes.txt").write_text("not a clip")
    clips = load(tmp_path, "other")
    assert [clip.name for clip in clips] == ["2", "10", "extra"]
    assert {clip.split for clip in clips} == {"test"} and clips[0].annotated == 0
    assert list(clips[0].maps()) == [None]
    assert [points.shape for points in clips[0].fixations()] == [(0, 3)]
    assert [clip.name for clip in load(tmp_path, "other", videos=range(1, 11))] == ["2", "10"]


def test_folders_whose_names_begin_alike_are_sorted(tmp_path):
    for folder in ("clip10", "clip2", "clip", "10"):
        trees.picture(tmp_path / "other" / folder / "1.png")
    assert [c.name for c in load(tmp_path, "other")] == ["10", "clip", "clip2", "clip10"]


def test_a_folder_of_other_without_frames_is_reported(tmp_path):
    trees.picture(tmp_path / "other" / "1" / "00001.jpg")
    (tmp_path / "other" / "2").mkdir()
    search = find(tmp_path, "other")
    assert [clip.name for clip in search.clips] == ["1"]
    assert reasons(search) == ["other/2: no frames, clip skipped"]


def test_a_nested_folder_of_maps_is_no_frame(tmp_path):
    folder = trees.shot(tmp_path / "DHF1K" / "annotation" / "0001", ["0001", "0002"])
    trees.mat(folder / "fixation" / "maps" / "0001.mat", I=np.eye(24, 32))
    (folder / "images" / "0003.png").mkdir()
    (folder / "images" / "._0001.png").write_bytes(b"left by another system")
    search = find(tmp_path, "DHF1K")
    assert search.clips[0].frame_names == ("0001", "0002")
    assert search.problems == []


def test_fixations_come_from_matlab_where_there_is_no_png(tmp_path):
    folder = trees.shot(tmp_path / "DHF1K" / "annotation" / "0001", ["0001"], ("images", "maps"))
    fixated = np.zeros(trees.SIZE)
    fixated[7, 5] = 1
    trees.mat(folder / "fixation" / "maps" / "0001.mat", I=fixated)
    (clip,) = load(tmp_path, "DHF1K")
    assert next(clip.fixations()).tolist() == [[5, 7, -1]]


def test_numbers_go_on_across_shots_and_need_not_start_at_1(tmp_path):
    training = tmp_path / "Hollywood-2" / "training"
    name = "actioncliptrain00001"
    trees.shot(training / f"{name}_1", [f"{name}_{n:05d}" for n in (3, 4)])
    trees.shot(training / f"{name}_2", [f"{name}_{n:05d}" for n in (5, 6, 10)])
    trees.shot(training / f"{name}_10", [f"{name}_00011"])
    search = find(tmp_path, "Hollywood-2", "train")
    assert [clip.name for clip in search.clips] == [f"{name}_1", f"{name}_2", f"{name}_10"]
    assert search.clips[1].frame_names == (f"{name}_00005", f"{name}_00006", f"{name}_00010")
    assert [int(m.argmax()) for m in search.clips[1].maps()] == [0, 1, 2]
    assert search.problems == []


def test_a_shot_may_have_one_frame(tmp_path):
    name = "actioncliptest00001"
    trees.shot(tmp_path / "Hollywood-2" / "testing" / f"{name}_1", [f"{name}_00003"])
    (clip,) = load(tmp_path, "Hollywood-2", "test")
    assert clip.n_frames == 1 and clip.fps is None
    assert len(list(clip.frames())) == len(list(clip.maps())) == len(list(clip.fixations())) == 1


def test_training_is_train_and_testing_is_test_and_also_val(tmp_path):
    trees.shot(tmp_path / "UCF-sports" / "training" / "Run-Side-001", ["Run-Side_001_001"])
    trees.shot(tmp_path / "UCF-sports" / "testing" / "Run-Side-002", ["Run-Side_002_001"])
    parts = {
        s: [(c.name, c.split) for c in load(tmp_path, "UCF-sports", s)]
        for s in ("train", "val", "test")
    }
    assert parts["train"] == [("Run-Side-001", "train")]
    assert parts["test"] == parts["val"] == [("Run-Side-002", "test")]
    assert len(load(tmp_path, "UCF-sports")) == 2


def test_maps_without_frames_are_left_out_and_reported(tmp_path):
    folder = trees.shot(tmp_path / "DHF1K" / "annotation" / "0001", ["0001", "0002"])
    trees.grey(folder / "maps" / "0003.png", [])
    trees.grey(folder / "fixation" / "0003.png", [])
    search = find(tmp_path, "DHF1K")
    assert search.clips[0].n_frames == 2
    assert reasons(search) == [
        "DHF1K/annotation/0001/maps: 1 map (0003) without a frame, left out",
        "DHF1K/annotation/0001/fixation: 1 fixation map (0003) without a frame, left out",
    ]


def test_a_frame_without_a_map_stays_for_the_memory_and_has_none(tmp_path):
    folder = trees.shot(tmp_path / "DHF1K" / "annotation" / "0001", ["0001", "0002", "0003"])
    (folder / "maps" / "0002.png").unlink()
    (folder / "fixation" / "0002.png").unlink()
    search = find(tmp_path, "DHF1K")
    (clip,) = search.clips
    assert clip.n_frames == 3 and clip.annotated == 2
    assert clip.frame_names == ("0001", "0002", "0003")
    assert [map_ is None for map_ in clip.maps()] == [False, True, False]
    assert [len(points) for points in clip.fixations()] == [1, 0, 1]
    assert [reason.split(": ")[1] for reason in reasons(search)] == [
        "1 frame (2) without a map, not scored",
        "1 frame (2) without a fixation map, not scored",
    ]


def test_a_video_that_ends_early_gives_its_frames_and_then_says_so(tmp_path):
    trees.dhf1k(tmp_path, 1, 3, truth=5)
    (clip,) = load(tmp_path, "DHF1K")
    seen = []
    with pytest.raises(SalemaError, match=r"001\.AVI ends early.*5 frames expected") as error:
        for frame in clip.frames():
            seen.append(frame)
    assert clip.n_frames == 5 and len(seen) == 3 and error.value.status == 1


def test_a_video_may_be_longer_than_its_ground_truth(tmp_path):
    trees.dhf1k(tmp_path, 1, 5, truth=3)
    (clip,) = load(tmp_path, "DHF1K")
    assert clip.n_frames == len(list(clip.frames())) == 3


def test_a_missing_map_in_the_middle_of_a_video_shifts_nothing(tmp_path):
    folder = trees.dhf1k(tmp_path, 1, 4) / "annotation" / "0001"
    (folder / "maps" / "0002.png").unlink()
    (clip,) = load(tmp_path, "DHF1K")
    assert [None if m is None else int(m.argmax()) for m in clip.maps()] == [0, None, 2, 3]


def test_the_test_part_counts_the_frames_of_its_videos(tmp_path):
    trees.dhf1k(tmp_path, 1000, 7, truth=0)
    (clip,) = load(tmp_path, "DHF1K", "test")
    assert clip.n_frames == 7 and clip.frame_names[-1] == "0007" and clip.annotated == 0


def test_clips_without_ground_truth_come_only_when_asked(tmp_path):
    trees.dhf1k(tmp_path, 601, 2, truth=0)
    trees.dhf1k(tmp_path, 602, 2)
    search = find(tmp_path, "DHF1K", "val")
    assert [clip.name for clip in search.clips] == ["0602"]
    assert reasons(search) == ["DHF1K/annotation/0601: no ground truth, clip skipped"]
    names = [clip.name for clip in load(tmp_path, "DHF1K", "val", ground_truth=False)]
    assert names == ["0601", "0602"]


def test_ground_truth_without_frames_is_reported(tmp_path):
    trees.shot(tmp_path / "DHF1K" / "annotation" / "0001", ["0001"], ("maps",))
    search = find(tmp_path, "DHF1K")
    assert search.clips == []
    assert reasons(search) == ["DHF1K/annotation/0001/images: no frames, clip skipped"]
    with pytest.raises(SalemaError, match=r"no clip of DHF1K.*no frames"):
        load(tmp_path, "DHF1K")


def test_a_file_without_a_number_of_its_own_is_reported(tmp_path):
    folder = trees.shot(tmp_path / "DHF1K" / "annotation" / "0001", ["0001"])
    trees.picture(folder / "images" / "1.jpg")
    trees.picture(folder / "images" / "cover.png")
    search = find(tmp_path, "DHF1K")
    assert search.clips[0].n_frames == 1
    assert reasons(search) == [
        "DHF1K/annotation/0001/images: 2 files (0001.png, cover.png) without a number of its own, "
        "left out"
    ]


def test_a_broken_video_without_ground_truth_is_reported(tmp_path):
    folder = tmp_path / "DHF1K" / "video"
    folder.mkdir(parents=True)
    (folder / "701.AVI").write_bytes(b"not a video")
    trees.video(folder / "702.AVI", 1)
    search = find(tmp_path, "DHF1K", "test")
    assert [clip.name for clip in search.clips] == ["0702"]
    assert reasons(search)[0].startswith("DHF1K/video/701.AVI: not a video")


def test_a_blank_map_is_zeros_and_never_nan(tmp_path):
    folder = trees.shot(tmp_path / "DHF1K" / "annotation" / "0001", ["0001"])
    trees.grey(folder / "maps" / "0001.png", [])
    trees.grey(folder / "fixation" / "0001.png", [])
    (clip,) = load(tmp_path, "DHF1K")
    assert not next(clip.maps()).any() and next(clip.fixations()).shape == (0, 3)


def test_ground_truth_of_another_size_is_brought_to_the_frames(tmp_path):
    folder = trees.shot(tmp_path / "DHF1K" / "annotation" / "0001", ["0001"])
    trees.grey(folder / "maps" / "0001.png", [(8, 6)], (12, 16))
    trees.grey(folder / "fixation" / "0001.png", [(8, 6)], (12, 16))
    (clip,) = load(tmp_path, "DHF1K")
    assert next(clip.maps()).shape == clip.size == (24, 32)
    assert np.floor(next(clip.fixations())).tolist() == [[17, 13, -1]]


def test_an_unreadable_frame_names_its_file(tmp_path):
    folder = trees.shot(tmp_path / "DHF1K" / "annotation" / "0001", ["0001", "0002"])
    (folder / "images" / "0002.png").write_bytes(b"broken")
    (clip,) = load(tmp_path, "DHF1K")
    frames = clip.frames()
    next(frames)
    with pytest.raises(SalemaError, match=r"0002\.png"):
        next(frames)


def test_an_unreadable_or_removed_map_names_its_file(tmp_path):
    folder = trees.shot(tmp_path / "DHF1K" / "annotation" / "0001", ["0001", "0002"])
    (clip,) = load(tmp_path, "DHF1K")
    (folder / "maps" / "0001.png").write_bytes(b"broken")
    (folder / "fixation" / "0001.png").unlink()
    with pytest.raises(SalemaError, match=r"maps/0001\.png"):
        next(clip.maps())
    with pytest.raises(SalemaError, match=r"fixation/0001\.png"):
        next(clip.fixations())


def test_a_clip_is_made_without_opening_pictures_and_survives_pickling(tmp_path):
    folder = trees.shot(tmp_path / "DHF1K" / "annotation" / "0001", ["0001", "0002"])
    contents = {path: path.read_bytes() for path in folder.rglob("*.png")}
    for path in contents:
        path.write_bytes(b"unread")
    (clip,) = load(tmp_path, "DHF1K")
    for path, data in contents.items():
        path.write_bytes(data)
    copy = pickle.loads(pickle.dumps(clip))
    assert copy == clip and len(list(copy.frames())) == 2


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp"])
def test_the_size_comes_from_the_header_of_the_first_picture(tmp_path, suffix):
    trees.picture(tmp_path / "other" / "1" / f"1{suffix}", size=(18, 50))
    (clip,) = load(tmp_path, "other")
    assert clip.size == (18, 50) == next(clip.frames()).shape[:2]


def test_the_size_of_a_photograph_that_lies_on_its_side_is_that_of_its_frame(tmp_path):
    path = trees.picture(tmp_path / "other" / "1" / "1.jpg", size=(18, 50))
    turned = b"Exif\0\0MM\0*\0\0\0\x08\0\1\x01\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0"
    data = path.read_bytes()
    segment = b"\xff\xe1" + (len(turned) + 2).to_bytes(2) + turned
    path.write_bytes(data[:2] + segment + data[2:])
    (clip,) = load(tmp_path, "other")
    assert clip.size == (50, 18) == next(clip.frames()).shape[:2]


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


@pytest.mark.parametrize("name", ["/etc/x", "../x", "a/b", "x" * 5000, ""])
def test_a_name_in_the_table_that_is_a_path_is_refused(tmp_path, name):
    trees.hevc33(tmp_path, [name], [(1, 1, 0, 40, 5, 6)])
    with pytest.raises(SalemaError, match=r"video_database\.mat"):
        load(tmp_path, "HEVC33")


@pytest.mark.parametrize("shape", [(6, 2**40), (6, 10), (2, 3, 4)])
def test_a_table_of_odd_numbers_is_one_line(tmp_path, shape):
    import h5py

    path = trees.hevc33(tmp_path, ["Yan"], [(1, 1, 0, 40, 5, 6)])
    with h5py.File(path, "a") as file:
        del file["video_database/fixdata"]
        kind = "S4" if shape == (6, 10) else "f8"
        file.create_dataset("video_database/fixdata", shape, kind, chunks=True, fillvalue=None)
    with pytest.raises(SalemaError, match=r"video_database\.mat"):
        load(tmp_path, "HEVC33")


def test_fixations_at_impossible_times_cover_nothing(tmp_path, recwarn):
    trees.hevc33(tmp_path, ["Yan"], [(1, 1, 1e300, 1e300, 5, 6), (1, 1, 0, 40, 5, 6)])
    trees.video(tmp_path / "HEVC33" / "videos" / "Yan.avi", 2)
    (clip,) = load(tmp_path, "HEVC33")
    assert clip.annotated == 1 and not recwarn.list


def test_an_hevc33_table_that_is_none_is_one_line(tmp_path):
    path = trees.hevc33(tmp_path, ["Yan"], [(1, 1, 0, 40, 5, 6)])
    path.write_bytes(b"not HDF5")
    with pytest.raises(SalemaError, match=r"no HEVC33 fixations in .*video_database\.mat"):
        load(tmp_path, "HEVC33")
