"""The facts of the data sets, and what a misspelt or missing one says."""

import subprocess
import sys
from itertools import chain
from pathlib import Path
from typing import get_args

import pytest
import trees

from salema import params
from salema.data import DATASETS, SETS, Clip, folds, is_image, load
from salema.data.sets import SPLITS
from salema.files import SalemaError


def test_splits_share_no_number_and_leave_none_out():
    for dataset, first, last in [("DHF1K", 1, 1000), ("OSIE", 1001, 1700), ("NUSScene", 1, 500)]:
        parts = [number for numbers in SETS[dataset].numbers.values() for number in numbers]
        assert sorted(parts) == list(range(first, last + 1)), dataset


def test_hevc33_keeps_twins_and_the_published_test_clips_apart():
    facts = SETS["HEVC33"]
    assert [facts.expected(split) for split in SPLITS] == [33 - 4 - 10, 4, 10]
    assert [len(facts.names[split]) for split in ("val", "test")] == [4, 10]
    assert not set(facts.names["val"]) & set(facts.names["test"])
    for twin in ("RaceHorsesC", "RaceHorsesD", "BasketballDrill", "BasketballDrillText"):
        assert facts.split_of(twin) == "train"


def test_crowd_is_split_by_the_last_digit_and_keeps_a_reserve():
    numbers = SETS["Crowd"].numbers
    assert {split: len([n for n in numbers[split] if n <= 500]) for split in SPLITS} == {
        "train": 200, "val": 50, "test": 50
    }  # fmt: skip
    assert {4, 131} < numbers["train"] and 15 in numbers["val"] and 496 in numbers["test"]
    for number in (7, 18, 29, 30):
        assert not any(number in numbers[split] for split in SPLITS)


def test_clips_of_one_scene_or_the_same_people_are_a_group():
    facts = SETS["HEVC33"]
    names = [name for group in facts.groups for name in group]
    assert len(names) == len(set(names)) == 22
    for one, other in (("Vidyo1", "Vidyo4"), ("Johnny", "FourPeople"), ("Keiba", "RaceHorsesD")):
        assert facts.group_of(one) == facts.group_of(other)
    assert facts.group_of("Tennis") == "Tennis"


def test_folds_have_nearly_one_size_and_keep_groups_together():
    facts = SETS["HEVC33"]
    names = [*chain(*facts.groups), *"abcdefghijk"]  # eleven more are alone
    clips = [Clip(name, "HEVC33", "train", ("1",), Path(name)) for name in reversed(names)]
    parts = folds(clips, 5)
    assert sorted(map(len, parts)) == [6, 6, 7, 7, 7]
    found = [{clip.group for clip in part} for part in parts]
    assert sum(map(len, found)) == len(set().union(*found)) == 19
    assert [[c.name for c in part] for part in folds(clips[::-1], 5)] == [
        [c.name for c in part] for part in parts
    ]
    with pytest.raises(SalemaError, match=r"20 folds of 19 groups"):
        folds(clips, 20)


def test_the_parameters_know_the_same_sets_and_splits():
    assert get_args(params.DatasetName) == DATASETS
    _, split = get_args(params.Data.model_fields["evaluate"].annotation)
    assert get_args(split) == SPLITS


def test_the_facts_of_a_set_are_true_of_its_clips(tmp_path):
    trees.salicon(tmp_path, "train", [1])
    trees.dhf1k(tmp_path, 1, 1)
    for name in ("Hollywood-2", "UCF-sports"):
        trees.shot(tmp_path / name / "training" / "shot-1", ["shot-1_001"])
    trees.osie(tmp_path, {1001: [[(1, 1)]]})
    trees.osie(tmp_path, {1: [[(1, 1)]]}, "Crowd")
    trees.nusscene(tmp_path, {1: [[(1, 1)]]})
    trees.video(tmp_path / "HEVC33" / "videos" / "Yan.avi", 1)
    trees.hevc33(tmp_path, ["Yan"], [(1, 1, 0, 40, 5, 6)])
    trees.picture(tmp_path / "other" / "1" / "1.png")
    for name, facts in SETS.items():
        if name in ("NTIRE26", "AViMoS"):  # test_challenge
            continue
        (clip,) = load(tmp_path, name)
        image = name in ("SALICON", "OSIE", "Crowd", "NUSScene")
        assert is_image(clip) == (facts.kind == "image") == image, name
        assert clip.has_observers == (image or name == "HEVC33"), name
        maps = name in ("SALICON", "DHF1K", "Hollywood-2", "UCF-sports")
        assert (clip.map_files is not None) == maps, name
        assert clip.fps == {"DHF1K": 30, "HEVC33": 25}.get(name), name


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
    heavy = "{'av', 'scipy', 'h5py', 'torch', 'pandas'}"
    code = f"import sys, salema.data; print(*{heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
