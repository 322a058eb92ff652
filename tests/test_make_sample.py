"""The synthetic sample: the same from the same seed, and official in every layout."""

import hashlib
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from data import make_sample
from data.make_sample import layouts
from data.make_sample.__main__ import main
from salema.data import load
from salema.data.gaze import read_fixations
from salema.data.manifest import obstacles, scan
from salema.files import SalemaError

ROOT = Path(__file__).parent.parent
SETS = {name: ["train", "val"] for name in ("SALICON", "DHF1K")}
SETS |= {name: ["train", "test"] for name in ("Hollywood-2", "UCF-sports")}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """The smallest sample: two images and clips a split, one where a set may have one."""
    folder = tmp_path_factory.mktemp("sample") / "new"
    make_sample.write(folder, scale=0.01)
    return folder


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): hashlib.md5(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


# ---------------------------------------------------------------------- the generator


def test_the_same_seed_gives_the_same_bytes(small, tmp_path):
    make_sample.write(tmp_path / "again", scale=0.01)
    assert contents(tmp_path / "again") == contents(small)


def test_another_seed_gives_other_pictures_and_gaze(small, tmp_path):
    layouts.salicon(tmp_path, 1, 0.01)
    other, first = contents(tmp_path), contents(small / "SALICON")
    assert set(other) == set(first)
    assert not set(other.values()) & set(first.values())


def test_a_folder_that_holds_something_is_refused_and_left_alone(tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(SalemaError, match="folder is not empty"):
        make_sample.write(tmp_path)
    assert main([str(tmp_path / "mine.txt")]) == 2
    assert capsys.readouterr().err.startswith("make_sample: error: not a folder: ")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("scale", [0, -1, 1.5])
def test_a_scale_outside_its_range_is_refused(tmp_path, scale):
    with pytest.raises(ValueError, match="scale must lie in"):
        make_sample.write(tmp_path / "new", scale=scale)
    assert not (tmp_path / "new").exists()


def test_an_interruption_leaves_no_half_sample(tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(layouts, "dhf1k", stop)
    with pytest.raises(KeyboardInterrupt):
        make_sample.write(tmp_path / "new", scale=0.01)
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------------- the layouts


@pytest.mark.parametrize("where", ["small", "committed"])
def test_every_set_loads_without_a_problem(small, where):
    root = small if where == "small" else ROOT / "data" / "sample"
    manifest, problems = scan(root, SETS, deep=where == "small")
    assert problems == []
    assert obstacles(manifest) == []
    assert sorted(path.name for path in root.iterdir()) == sorted(SETS)
    for name, splits in SETS.items():
        for split in splits:
            clips = manifest["sets"][name]["splits"][split]["clips"]
            assert clips
            assert all(entry["annotated"] == entry["frames"] for entry in clips.values())


def test_the_files_have_the_official_places_names_and_encodings(small):
    names = set(contents(small))
    for pattern in (
        "SALICON/images/train/COCO_train2014_000000000001.jpg",
        "SALICON/maps/val/COCO_val2014_000000000002.png",
        "SALICON/fixations/train/COCO_train2014_000000000001.mat",
        "DHF1K/video/001.AVI",
        "DHF1K/video/601.AVI",
        "DHF1K/annotation/0601/maps/0001.png",
        "DHF1K/annotation/0601/fixation/0001.png",
        "DHF1K/annotation/0601/fixation/maps/0001.mat",
        "Hollywood-2/testing/actioncliptest00001_1/images/actioncliptest00001_00001.png",
        "Hollywood-2/testing/actioncliptest00001_2/images/actioncliptest00001_00008.png",
        "Hollywood-2/training/actioncliptrain00001_1/fixation/maps/actioncliptrain00001_00001.mat",
        "UCF-sports/testing/Diving-Side-008/maps/Diving-Side_008_001.png",
    ):
        assert pattern in names, pattern
    sizes = set()
    for name, splits in SETS.items():
        for split in splits:
            for clip in load(small, name, split):
                frame, truth = next(clip.frames()), next(clip.maps())
                assert frame.shape[:2] == truth.shape == clip.size
                assert frame.std() > 5 and truth.max() > 0.9
                sizes.add((name, clip.size))
    assert len(sizes) >= 4


def test_hollywoods_numbers_go_on_over_its_shots_and_one_shot_is_one_frame():
    clips = load(ROOT / "data" / "sample", "Hollywood-2", "test")
    shots = [clip for clip in clips if clip.name.startswith("actioncliptest00001_")]
    numbers = [int(name[-5:]) for clip in shots for name in clip.frame_names]
    assert numbers == list(range(1, len(numbers) + 1))
    assert 1 in {clip.n_frames for clip in shots}


def test_only_salicon_keeps_its_observers_apart(small):
    for name, splits in SETS.items():
        clips = load(small, name, splits[0])
        assert {clip.has_observers for clip in clips} == {name == "SALICON"}
    points = next(load(small, "SALICON", "train")[0].fixations())
    assert len(set(points[:, 2])) == layouts.SALICON_OBSERVERS


def test_maps_are_the_fixations_blurred_and_both_forms_of_the_fixations_agree(small):
    (clip, *_) = load(small, "DHF1K", "val")
    folder = small / "DHF1K" / "annotation" / clip.name / "fixation"
    for points, truth, name in zip(clip.fixations(), clip.maps(), clip.frame_names, strict=True):
        matlab = read_fixations(folder / "maps" / f"{name}.mat", clip.size)
        np.testing.assert_array_equal(points, matlab)
        for x, y, _ in points:
            assert truth[int(y), int(x)] > 0.1


# ---------------------------------------------------------------------- the committed copy


@pytest.fixture(scope="module")
def tracked():
    return yaml.safe_load((ROOT / "data.dvc").read_text())["outs"][0]


def test_the_committed_sample_is_small_and_in_step_with_data_dvc(tracked):
    assert tracked["path"] == "data/sample" and tracked["cache"] is False
    files = contents(ROOT / tracked["path"])
    assert len(files) == tracked["nfiles"]
    size = sum((ROOT / tracked["path"] / name).stat().st_size for name in files)
    assert size == tracked["size"] < 5e6
    listed = [{"md5": md5, "relpath": name} for name, md5 in sorted(files.items())]
    assert tracked["md5"] == hashlib.md5(json.dumps(listed).encode()).hexdigest() + ".dir"


def test_the_committed_sample_is_what_the_generator_writes(small):
    """Names and sizes to the letter; pixels but for the rounding of another machine."""
    committed = ROOT / "data" / "sample"
    compared = 0
    for name in contents(small):
        assert (committed / name).is_file(), name
        if name.endswith((".png", ".jpg")):
            ours, theirs = (cv2.imread(str(root / name)) for root in (small, committed))
            assert ours.shape == theirs.shape
            assert np.abs(ours.astype(int) - theirs).mean() < 1, name
            compared += 1
    assert compared > 100
