"""The manifest of what the study reads, and the check that says whether it would stumble."""

import json
from pathlib import Path

import pytest
import trees
import yaml

from salema import params
from salema.__main__ import main
from salema.data import index
from salema.data.sets import SOURCES
from salema.files import SalemaError

ROOT = Path(__file__).parents[2]


def settings(root, profile="tiny", **data):
    """The study's own parameters with other data."""
    raw = yaml.safe_load((ROOT / "params.yaml").read_text())
    raw["profile"] = profile
    given = {"root": root and str(root), "tune": ["SALICON"], "finetune": ["DHF1K"],
             "evaluate": {"SALICON": "val", "UCF-sports": "test"}}  # fmt: skip
    raw["profiles"]["tiny"] = {
        "data": given | data,
        "tune": {name: {"epochs": 1, "batch": 1, "learning_rate": 1e-3} for name in raw["tune"]},
        "finetune": {"epochs": 1, "learning_rate": 1e-3},
    }
    return raw


@pytest.fixture
def root(tmp_path, monkeypatch):
    """All that the tiny profile reads; commands run in an empty folder beside it."""
    root = tmp_path / "real data"
    trees.salicon(root, "train", [1, 2])
    trees.salicon(root, "val", [3])
    for number in (1, 601):
        trees.dhf1k(root, number, 3)
    names = [f"Run-Side_001_{k:03d}" for k in (1, 2)]
    trees.shot(root / "UCF-sports" / "testing" / "Run-Side-001", names)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return root


def study(root, **data):
    return params.from_dict(settings(root, **data))


def test_the_splits_that_a_profile_reads_are_listed_once_each(root):
    assert index.wanted(study(root)) == {
        "SALICON": ["train", "val"], "DHF1K": ["train", "val"], "UCF-sports": ["test"],
    }  # fmt: skip
    more = study(root, evaluate={"DHF1K": "test", "HEVC33": "test"})
    assert index.wanted(more) == {
        "SALICON": ["train", "val"], "DHF1K": ["train", "val", "test"], "HEVC33": ["test"],
    }  # fmt: skip


def test_the_manifest_names_what_is_there_without_saying_where(root):
    path = index.write(root, study(root))
    assert path == Path("runs/tiny/manifest.json")
    text = path.read_text()
    sets = json.loads(text)["sets"]
    frames = {
        (name, split): {clip: entry["frames"] for clip, entry in part["clips"].items()}
        for name, here in sets.items()
        for split, part in here["splits"].items()
    }
    assert frames == {
        ("SALICON", "train"): {f"COCO_train2014_{k:012d}": 1 for k in (1, 2)},
        ("SALICON", "val"): {"COCO_val2014_000000000003": 1},
        ("DHF1K", "train"): {"0001": 3},
        ("DHF1K", "val"): {"0601": 3},
        ("UCF-sports", "test"): {"Run-Side-001": 2},
    }
    assert str(root) not in text and "real data" not in text


def test_the_manifest_changes_with_the_data_and_only_then(root):
    first = index.write(root, study(root)).read_bytes()
    assert index.write(root, study(root)).read_bytes() == first
    moved = root.rename(root.with_name("elsewhere"))
    assert index.write(moved, study(moved)).read_bytes() == first
    trees.dhf1k(moved, 602, 2)
    assert index.write(moved, study(moved)).read_bytes() != first


def test_missing_sets_are_named_with_where_they_come_from_and_nothing_is_written(root):
    lacking = study(root, evaluate={"Hollywood-2": "test", "HEVC33": "test"})
    with pytest.raises(SalemaError) as raised:
        index.write(root, lacking)
    told = str(raised.value)
    assert told.startswith(f"profile tiny: the folder {root} lacks Hollywood-2 (")
    assert SOURCES["Hollywood-2"] in told and SOURCES["HEVC33"] in told
    assert "DHF1K (" not in told
    assert "nothing is trained" in told and "SALEMA_DATA" in told and "\n" not in told
    assert not list(Path().iterdir())


def test_a_set_that_lacks_a_split_stops_the_study_in_one_line(root):
    for path in sorted((root / "SALICON").rglob("*_val2014_*")):
        path.unlink()
    with pytest.raises(SalemaError, match=r"SALICON val: no clip can be used") as raised:
        index.write(root, study(root))
    assert "\n" not in str(raised.value) and str(raised.value).endswith("(--check)")
    assert not list(Path().iterdir())


def command(root, *words, capsys, **options):
    """`salema index` with a params file in the folder: its status, and what it said."""
    Path("params.yaml").write_text(yaml.safe_dump(settings(root, **options)))
    status = main(["index", *map(str, words)])
    return status, *capsys.readouterr()


def test_the_command_prints_where_the_manifest_is(root, capsys):
    status, out, err = command(root, capsys=capsys)
    assert (status, out, err) == (0, "runs/tiny/manifest.json\n", "")


def test_check_prints_a_table_and_writes_nothing(root, capsys):
    status, out, _ = command(root, "--check", capsys=capsys)
    assert status == 0
    head, *lines = out.splitlines()
    assert head.split()[:5] == ["set", "split", "clips", "expected", "frames"]
    found = {tuple(line.split()[:2]): line.split()[2:5] for line in lines}
    assert found["DHF1K", "train"] == ["1", "600", "3"]
    assert found["UCF-sports", "test"] == ["1", "47", "2"]
    assert sorted(path.name for path in Path().iterdir()) == ["params.yaml"]


def test_check_ends_with_1_when_the_study_would_stumble(root, capsys, tmp_path):
    folder = root / "DHF1K" / "video"
    (folder / "601.AVI").rename(folder / "701.AVI")
    status, out, _ = command(root, "--check", capsys=capsys)
    assert status == 1
    assert "the study would stumble: DHF1K val: no clip can be used" in out
    status, out, _ = command(root, "--check", "--root", tmp_path / "nowhere", capsys=capsys)
    assert status == 1
    assert out.count("the study would stumble") == 5  # a line for each split


def test_the_folder_may_come_from_the_environment_or_the_command(root, capsys, monkeypatch):
    monkeypatch.delenv("SALEMA_DATA", raising=False)
    status, _, err = command(None, capsys=capsys)
    assert status == 2 and "no folder is named" in err and err.count("\n") == 1
    assert command(None, "--root", root, capsys=capsys)[0] == 0
    monkeypatch.setenv("SALEMA_DATA", str(root))
    assert command(None, capsys=capsys)[0] == 0


def test_the_sample_needs_no_folder_and_paper_never_falls_back_to_it(monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.delenv("SALEMA_DATA", raising=False)
    raw = yaml.safe_load(Path("params.yaml").read_text())
    sample, paper = (params.from_dict(raw | {"profile": name}) for name in ("sample", "paper"))
    assert sample.root == Path("data/sample")
    with pytest.raises(SalemaError, match=r"profile paper needs SALICON, DHF1K"):
        _ = paper.root
