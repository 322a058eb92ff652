"""The official layouts: video sets and everything that is common to all sets."""

import pickle
import subprocess
import sys

import numpy as np
import pytest
import trees

from salema.data import DATASETS, find, load
from salema.data.sets import EXPECTED, HEVC33, NUMBERS, sigma
from salema.files import SalemaError


def reasons(search):
    return [str(problem) for problem in search.problems]


def test_splits_share_no_number_and_leave_none_out():
    for dataset, first, last in [("DHF1K", 1, 1000), ("OSIE", 1001, 1700), ("NUSScene", 1, 500)]:
        parts = [number for numbers in NUMBERS[dataset].values() for number in numbers]
        assert sorted(parts) == list(range(first, last + 1)), dataset


def test_hevc33_keeps_twins_and_the_published_test_clips_apart():
    assert not set(HEVC33["val"]) & set(HEVC33["test"])
    assert EXPECTED["HEVC33"] == {"train": 33 - 4 - 10, "val": 4, "test": 10}
    twins = {"RaceHorsesC", "RaceHorsesD", "BasketballDrill", "BasketballDrillText"}
    assert not twins & {*HEVC33["val"], *HEVC33["test"]}


def test_sigma_is_a_33rd_of_the_longer_side():
    assert sigma((600, 800)) == pytest.approx(800 / 33)
    assert sigma((660, 33)) == pytest.approx(20)


@pytest.mark.parametrize("dataset", DATASETS)
def test_a_missing_set_is_one_line_with_its_source(tmp_path, dataset):
    with pytest.raises(SalemaError, match=dataset) as error:
        load(tmp_path, dataset)
    assert str(tmp_path) in str(error.value) and "\n" not in str(error.value)


def test_a_misspelt_set_or_split_names_the_choices(tmp_path):
    with pytest.raises(SalemaError, match=r"'DHF2K'.*DHF1K"):
        load(tmp_path, "DHF2K")
    with pytest.raises(SalemaError, match=r"'dev'.*train, val, test"):
        load(tmp_path, "DHF1K", "dev")
    with pytest.raises(SalemaError, match="other has no split 'train'"):
        load(tmp_path, "other", "train")


def test_importing_the_package_reads_no_heavy_library():
    heavy = "{'cv2', 'av', 'scipy', 'h5py', 'torch', 'pandas'}"
    code = f"import sys, salema.data; print(*{heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


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


def test_training_trains_and_testing_tests_and_stands_in_for_val(tmp_path):
    trees.shot(tmp_path / "UCF-sports" / "training" / "Run-Side-001", ["Run-Side_001_001"])
    trees.shot(tmp_path / "UCF-sports" / "testing" / "Run-Side-002", ["Run-Side_002_001"])
    parts = {
        s: [(c.name, c.split) for c in load(tmp_path, "UCF-sports", s)] for s in EXPECTED["OSIE"]
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
