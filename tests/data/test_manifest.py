"""The manifest, the problems and the table."""

import json

import pytest
import trees

from salema.data import scan, stumbles, table
from salema.files import SalemaError


def test_the_manifest_names_and_measures_every_clip(tmp_path):
    trees.dhf1k(tmp_path, 601, 2)
    trees.dhf1k(tmp_path, 602, 3)
    manifest, problems = scan(tmp_path, {"DHF1K": ["val"]})
    clips = manifest["sets"]["DHF1K"]["splits"]["val"]["clips"]
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
    # A MATLAB file tells the second it was written in: only its length is in the manifest.
    assert texts[0] == texts[1] and str(tmp_path) not in texts[0]
    assert "OSIE/data/eye/fixations.mat" in texts[0]


def test_scanning_opens_no_picture(tmp_path):
    for stem in trees.salicon(tmp_path, "train", [1, 2]):
        for path in (tmp_path / "SALICON").rglob(f"{stem}.*"):
            path.write_bytes(b"unread")
    manifest, problems = scan(tmp_path, {"SALICON": ["train"]})
    assert len(manifest["sets"]["SALICON"]["splits"]["train"]["clips"]) == 2 and problems == []


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


def test_a_missing_set_is_a_problem_and_a_stumble(tmp_path):
    trees.salicon(tmp_path, "val", [1])
    manifest, problems = scan(tmp_path, {"SALICON": ["val"], "DHF1K": ["val"]})
    assert str(problems[0]).startswith("DHF1K: missing (")
    assert "wenguanwang/DHF1K" in str(problems[0]) and str(tmp_path) not in str(problems[0])
    assert stumbles(manifest) == ["DHF1K val: no clip can be used"]


def test_a_broken_table_is_a_problem_and_a_stumble(tmp_path):
    trees.osie(tmp_path, {1001: [[(1, 1)]]}).write_bytes(b"broken")
    manifest, problems = scan(tmp_path, {"OSIE": ["train"]})
    assert "OSIE/data/eye/fixations.mat" in str(problems[0])
    assert str(tmp_path) not in str(problems[0]) and len(stumbles(manifest)) == 1


def test_an_incomplete_set_is_no_stumble_and_neither_is_a_test_part_without_truth(tmp_path):
    trees.dhf1k(tmp_path, 1, 1)
    trees.dhf1k(tmp_path, 701, 1, truth=0)
    manifest, problems = scan(tmp_path, {"DHF1K": ["train", "test"]})
    assert stumbles(manifest) == [] and problems == []
    assert manifest["sets"]["DHF1K"]["splits"]["test"]["clips"]["0701"]["annotated"] == 0


def test_dropped_fixations_are_counted(tmp_path):
    trees.osie(tmp_path, {1001: [[(1, 1), (99, 1)]], 1002: [[(1, -4), (2, 2)]]})
    manifest, _ = scan(tmp_path, {"OSIE": ["train"]})
    assert manifest["sets"]["OSIE"]["splits"]["train"]["dropped_fixations"] == 2


def test_a_problem_of_the_whole_set_is_told_once(tmp_path):
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
