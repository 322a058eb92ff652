"""The facts of the data sets, and what a misspelt or missing one says."""

import subprocess
import sys
from typing import get_args

import pytest
import trees

from salema import params
from salema.data import DATASETS, SETS, is_image, load
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
    trees.nusscene(tmp_path, {1: [[(1, 1)]]})
    trees.video(tmp_path / "HEVC33" / "videos" / "Yan.avi", 1)
    trees.hevc33(tmp_path, ["Yan"], [(1, 1, 0, 40, 5, 6)])
    trees.picture(tmp_path / "other" / "1" / "1.png")
    for name, facts in SETS.items():
        (clip,) = load(tmp_path, name)
        image = name in ("SALICON", "OSIE", "NUSScene")
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
