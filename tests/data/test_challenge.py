"""NTIRE26 and AViMoS on a tiny copy of their layout: lists, maps as videos, fixations as JSON."""

import json

import av
import numpy as np
import pytest

from salema import data
from salema.data import gaze, sets
from salema.files import SalemaError
from salema.score import evaluate
from salema.score.maps import Maps

SIZE, FRAMES = (32, 64), 6


def film(path, frames, kind):
    """A video of gray frames (T, H, W) in [0, 1] that keeps every level."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"qp": "0", "bf": "0"})
        stream.height, stream.width, stream.pix_fmt = *SIZE, kind
        for pixels in frames:
            gray = np.round(pixels * 65535).astype(np.uint16)
            picture = av.VideoFrame.from_ndarray(gray, format="gray16le").reformat(format=kind)
            container.mux(stream.encode(picture))
        container.mux(stream.encode())


def spots():
    """Maps whose maximum of a half moves to the right by four pixels a frame."""
    maps = np.zeros((FRAMES, *SIZE))
    for k in range(FRAMES):
        maps[k, 10:14, 4 * k : 4 * k + 4] = 0.5
    return maps


@pytest.fixture
def root(tmp_path):
    """Twelve videos in the training list, one in each test list."""
    folder = tmp_path / "NTIRE26"
    names = [f"{number:03d}" for number in range(1, 13)]
    lists = {"train": names, "public_test": ["101.mp4"], "private_test": ["201"]}
    folder.mkdir()
    (folder / "TrainTestSplit.json").write_text(json.dumps(lists))
    fixated = [[[11, 4 * k + 1], [11, 4 * k + 1], [12, 4 * k + 2]] for k in range(FRAMES)]
    for name in [*names, "101", "201"]:
        film(folder / "Videos" / f"{name}.mp4", spots(), "yuv420p")
        if name != "201":
            part = "Test" if name == "101" else "Train"
            film(folder / f"Saliency{part}" / "a" / f"{name}.mp4", spots(), "gray10le")
            path = folder / f"Fixations{part}" / "a" / name / "fixations.json"
            path.parent.mkdir(parents=True)
            path.write_text(json.dumps(fixated))
    return tmp_path


def test_the_lists_give_the_splits_and_every_tenth_is_for_validation(root):
    found = {split: [c.name for c in data.load(root, "NTIRE26", split)] for split in sets.SPLITS}
    assert found["val"] == ["010"] and found["test"] == ["101"]
    assert len(found["train"]) == 11 and "010" not in found["train"]


def test_maps_and_fixations_are_those_of_their_frames(root):
    (clip,) = data.load(root, "NTIRE26", "test")
    assert (clip.n_frames, clip.fps, clip.size) == (FRAMES, 30, SIZE)
    for k, (map_, points) in enumerate(zip(clip.maps(), clip.fixations(), strict=True)):
        assert np.unravel_index(map_.argmax(), SIZE)[1] in range(4 * k, 4 * k + 4)
        assert map_.max() == 1 and map_.min() == 0
        assert points.tolist() == [[4 * k + 1, 11, -1]] * 2 + [[4 * k + 2, 12, -1]]
    assert [m.argmax() for m in clip.maps(3, 5)] == [m.argmax() for m in list(clip.maps())[3:5]]


def test_a_map_video_is_read_once_when_frames_come_in_order(root, monkeypatch):
    (clip,) = data.load(root, "NTIRE26", "test")
    gaze.gray_video.cache_clear()
    from salema.media import read

    opened, maps = [], read.maps
    monkeypatch.setattr(read, "maps", lambda path: opened.append(path) or maps(path))
    one_by_one = [next(clip.maps(k, k + 1)) for k in range(0, FRAMES, 2)]
    assert len(opened) == 1
    np.testing.assert_array_equal(one_by_one[1], list(clip.maps())[2])


def test_the_protocol_of_the_challenge_scores_them(root):
    clips = data.load(root, "NTIRE26", "test")
    folder = root / "maps"
    folder.mkdir()
    np.save(folder / "101.npy", spots().astype(np.float32))
    (scores,) = evaluate.score_clips(clips, Maps(folder), "ntire26")
    row = scores.row()
    assert row["frames"] == FRAMES and row["cc"] > 0.99 and row["nss"] > 3


def test_what_is_missing_is_reported_and_left_out(root):
    (root / "NTIRE26" / "SaliencyTrain" / "a" / "003.mp4").unlink()
    (root / "NTIRE26" / "Videos" / "004.mp4").unlink()
    search = data.find(root, "NTIRE26", "train")
    assert len(search.clips) == 9
    assert sorted(problem.reason for problem in search.problems) == [
        "no such video",
        "without a map video or fixations, skipped",
    ]


@pytest.mark.parametrize("text", ["{}", "[1]", "{", '{"train": 1, "public_test": []}'])
def test_other_keys_in_the_table_are_one_line(root, text):
    (root / "NTIRE26" / "TrainTestSplit.json").write_text(text)
    with pytest.raises(SalemaError, match=r"no lists of videos in .*TrainTestSplit\.json"):
        data.load(root, "NTIRE26", "train")
