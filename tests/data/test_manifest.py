"""The manifest of what the study reads, the problems, and whether the study can run."""

import json
from pathlib import Path

import pytest
import trees
import yaml

from salema import params
from salema.__main__ import main
from salema.data import SETS, manifest
from salema.data.manifest import obstacles, scan, table
from salema.files import SalemaError

ROOT = Path(__file__).parents[2]


# ---------------------------------------------------------------------- what is here


def test_the_manifest_names_and_measures_every_clip(tmp_path):
    trees.dhf1k(tmp_path, 601, 2)
    trees.dhf1k(tmp_path, 602, 3)
    found, problems = scan(tmp_path, {"DHF1K": ["val"]})
    clips = found["sets"]["DHF1K"]["splits"]["val"]["clips"]
    assert list(clips) == ["0601", "0602"] and problems == []
    files = (tmp_path / "DHF1K").rglob("*02/**/*.png")
    total = sum(path.stat().st_size for path in files)
    total += (tmp_path / "DHF1K" / "video" / "602.AVI").stat().st_size
    assert clips["0602"] == {"frames": 3, "annotated": 3, "bytes": total}


def test_the_manifest_is_the_same_for_every_place_and_order(tmp_path):
    texts = []
    for place, order in [("a", ["SALICON", "OSIE"]), ("b/c", ["OSIE", "SALICON"])]:
        trees.osie(tmp_path / place, {1001: [[(1, 1)]], 1541: [[(1, 1)]]})
        trees.salicon(tmp_path / place, "train", [1, 2])
        wanted = {name: ["val", "train"] if name == "OSIE" else ["train"] for name in order}
        texts.append(json.dumps(scan(tmp_path / place, wanted)[0]))
    # A MATLAB file holds the second it was written in: only its length is in the manifest.
    assert texts[0] == texts[1] and str(tmp_path) not in texts[0]
    assert "OSIE/data/eye/fixations.mat" in texts[0]


def test_scanning_opens_no_picture(tmp_path):
    for stem in trees.salicon(tmp_path, "train", [1, 2]):
        for path in (tmp_path / "SALICON").rglob(f"{stem}.*"):
            path.write_bytes(b"unread")
    found, problems = scan(tmp_path, {"SALICON": ["train"]})
    assert len(found["sets"]["SALICON"]["splits"]["train"]["clips"]) == 2 and problems == []


def test_an_empty_file_is_a_problem(tmp_path):
    folder = trees.shot(tmp_path / "DHF1K" / "annotation" / "0001", ["0001"])
    (folder / "maps" / "0001.png").write_bytes(b"")
    _, problems = scan(tmp_path, {"DHF1K": ["train"]})
    assert list(map(str, problems)) == ["DHF1K/annotation/0001/maps/0001.png: empty file"]


def test_a_deep_scan_counts_the_frames_of_videos(tmp_path):
    trees.dhf1k(tmp_path, 1, 3, truth=5)
    trees.dhf1k(tmp_path, 2, 3)
    trees.dhf1k(tmp_path, 3, 3)
    (tmp_path / "DHF1K" / "video" / "003.AVI").write_bytes(b"not a video")
    assert scan(tmp_path, {"DHF1K": ["train"]})[1] == []
    _, problems = scan(tmp_path, {"DHF1K": ["train"]}, deep=True)
    assert list(map(str, problems)) == [
        "DHF1K/video/001.AVI: 3 frames, ground truth has 5",
        "DHF1K/video/003.AVI: not a video",
    ]


def test_a_missing_set_is_a_problem_and_an_obstacle(tmp_path):
    trees.salicon(tmp_path, "val", [1])
    found, problems = scan(tmp_path, {"SALICON": ["val"], "DHF1K": ["val"]})
    assert str(problems[0]).startswith("DHF1K: missing (")
    assert "wenguanwang/DHF1K" in str(problems[0]) and str(tmp_path) not in str(problems[0])
    assert obstacles(found) == ["DHF1K val: no clip can be used"]


def test_a_broken_table_is_a_problem_and_an_obstacle(tmp_path):
    trees.osie(tmp_path, {1001: [[(1, 1)]]}).write_bytes(b"broken")
    found, problems = scan(tmp_path, {"OSIE": ["train"]})
    assert "OSIE/data/eye/fixations.mat" in str(problems[0])
    assert str(tmp_path) not in str(problems[0]) and len(obstacles(found)) == 1


def test_an_incomplete_set_is_no_obstacle_and_neither_is_a_test_part_without_truth(tmp_path):
    trees.dhf1k(tmp_path, 1, 1)
    trees.dhf1k(tmp_path, 701, 1, truth=0)
    found, problems = scan(tmp_path, {"DHF1K": ["train", "test"]})
    assert obstacles(found) == [] and problems == []
    assert found["sets"]["DHF1K"]["splits"]["test"]["clips"]["0701"]["annotated"] == 0


def test_dropped_fixations_are_counted(tmp_path):
    trees.osie(tmp_path, {1001: [[(1, 1), (99, 1)]], 1002: [[(1, -4), (2, 2)]]})
    found, _ = scan(tmp_path, {"OSIE": ["train"]})
    assert found["sets"]["OSIE"]["splits"]["train"]["dropped_fixations"] == 2


def test_a_problem_of_the_whole_set_is_reported_once(tmp_path):
    for name in ("Cactus", "Yan"):
        trees.video(tmp_path / "HEVC33" / "videos" / f"{name}.avi", 1)
    rows = [(1, 1, 0, 40, 5, 6), (1, 2, 0, 40, 5, 6), (1, float("nan"), 0, 40, 5, 6)]
    trees.hevc33(tmp_path, ["Cactus", "Yan"], rows)
    _, problems = scan(tmp_path, {"HEVC33": ["train", "val"]})
    assert len(problems) == 1


def test_the_table_shows_found_and_expected(tmp_path):
    trees.dhf1k(tmp_path, 601, 2)
    trees.dhf1k(tmp_path, 602, 2, truth=0)
    trees.picture(tmp_path / "other" / "1" / "1.png")
    lines = table(*scan(tmp_path, {"DHF1K": ["val"], "other": ["test"]})).splitlines()
    assert lines[0].split() == [
        *("set", "split", "clips", "expected", "frames", "annotated", "dropped", "problems")
    ]
    assert lines[1].split() == ["DHF1K", "val", "1", "100", "2", "2", "0", "1"]
    assert lines[2].split() == ["other", "test", "1", "-", "1", "0", "0", "0"]
    assert lines[3] == "DHF1K/annotation/0602: no ground truth, clip skipped"


def test_a_long_list_of_problems_is_cut(tmp_path):
    for number in range(1, 6):
        trees.dhf1k(tmp_path, number, 1, truth=0)
    text = table(*scan(tmp_path, {"DHF1K": ["train"]}), most=2)
    assert text.splitlines()[-1] == "... and 3 problems more"


def test_scanning_a_misspelt_set_or_split_is_an_error(tmp_path):
    with pytest.raises(SalemaError, match="'DHF2K'"):
        scan(tmp_path, {"DHF2K": ["val"]})
    with pytest.raises(SalemaError, match="'dev'"):
        scan(tmp_path, {"DHF1K": ["dev"]})


# ---------------------------------------------------------------------- a profile


def settings(root, profile="tiny", **data):
    """The study's own parameters with other data."""
    raw = yaml.safe_load((ROOT / "params.yaml").read_text())
    raw["profile"] = profile
    given = {"root": root and str(root), "tune": ["SALICON"], "finetune": ["DHF1K"]}
    given["evaluate"] = {"SALICON": "val", "UCF-sports": "test"}
    raw["profiles"]["tiny"] = {
        "data": given | data,
        "tune": {name: {"epochs": 1, "batch": 1, "learning_rate": 1e-3} for name in raw["tune"]},
        "finetune": {"epochs": 1, "learning_rate": 1e-3},
    }
    return raw


@pytest.fixture
def root(tmp_path, monkeypatch):
    """All that the tiny profile reads; commands run in an empty folder next to it."""
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
    both = ["train", "val"]
    needs = manifest.wanted(study(root))
    assert needs == {"SALICON": both, "DHF1K": both, "UCF-sports": ["test"]}
    needs = manifest.wanted(study(root, continued=["UCF-sports"]))
    assert needs["UCF-sports"] == [*both, "test"]
    needs = manifest.wanted(study(root, evaluate={"DHF1K": "test", "HEVC33": "test"}))
    assert needs == {"SALICON": both, "DHF1K": [*both, "test"], "HEVC33": ["test"]}


def test_the_manifest_of_a_profile_names_what_is_there_without_saying_where(root):
    path = manifest.write(root, study(root))
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
    first = manifest.write(root, study(root)).read_bytes()
    assert manifest.write(root, study(root)).read_bytes() == first
    moved = root.rename(root.with_name("elsewhere"))
    assert manifest.write(moved, study(moved)).read_bytes() == first
    trees.dhf1k(moved, 602, 2)
    assert manifest.write(moved, study(moved)).read_bytes() != first


def test_missing_sets_are_named_with_where_they_come_from_and_nothing_is_written(root):
    lacking = study(root, evaluate={"Hollywood-2": "test", "HEVC33": "test"})
    with pytest.raises(SalemaError) as raised:
        manifest.write(root, lacking)
    told = str(raised.value)
    assert told.startswith(f"profile tiny: {root} lacks Hollywood-2 (")
    assert SETS["Hollywood-2"].source in told and SETS["HEVC33"].source in told
    assert "DHF1K (" not in told
    assert "put them there" in told and "SALEMA_DATA" in told and "\n" not in told
    assert not list(Path().iterdir())


def test_a_set_that_lacks_a_split_stops_the_study_in_one_line(root):
    for path in sorted((root / "SALICON").rglob("*_val2014_*")):
        path.unlink()
    with pytest.raises(SalemaError, match=r"SALICON val: no clip can be used") as raised:
        manifest.write(root, study(root))
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


def test_check_ends_with_1_when_the_study_would_fail(root, capsys, tmp_path):
    folder = root / "DHF1K" / "video"
    (folder / "601.AVI").rename(folder / "701.AVI")
    status, out, _ = command(root, "--check", capsys=capsys)
    assert status == 1
    assert "the study cannot run: DHF1K val: no clip can be used" in out
    status, out, _ = command(root, "--check", "--root", tmp_path / "nowhere", capsys=capsys)
    assert status == 1
    assert out.count("the study cannot run") == 5  # a line for each split


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
