"""Scores of anybody's maps: wherever they lie, by any protocol, one line for what is wrong."""

import csv
import json
import math
import os
import re
from pathlib import Path

import numpy as np
import pytest
import trees
import yaml
from safetensors.numpy import save_file

from salema import data, params
from salema.__main__ import main
from salema.files import SalemaError
from salema.media import write
from salema.media.read import Frame
from salema.predict.sources import predict_dataset
from salema.score import baselines, evaluate, protocols, tables
from salema.score.maps import Maps
from salema.score.negatives import generator
from salema.score.protocols import METRICS, NAMES

ROOT = Path(__file__).parents[2]
SIZE = trees.SIZE
CLIPS = {601: 5, 602: 3, 603: 4}  # number -> frames


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """DHF1K: frame k of each clip is fixated at (k, 0); nobody looks at 0603's second frame."""
    root = tmp_path_factory.mktemp("data")
    for number, frames in CLIPS.items():
        folder = trees.dhf1k(root, number, frames) / "annotation" / f"{number:04d}"
        for k in range(frames):  # each clip elsewhere, so that the other clips are useful negatives
            at = [(5 * (number - 601) + k, 3 * (number - 601))]
            for kind in ("maps", "fixation"):
                trees.grey(folder / kind / f"{k + 1:04d}.png", at)
    for kind in ("maps", "fixation"):
        trees.grey(folder / kind / "0002.png", [])
    return root


@pytest.fixture(scope="module")
def clips(root):
    return data.load(root, "DHF1K", "val")


def blurred(clips, lag=0):
    """Clip -> uint8 (T, H, W): wide blobs `lag` pixels to the right of the gaze, never flat."""
    made = {}
    for clip in clips:
        maps = []
        for points in clip.fixations():
            points = points if len(points) else np.array([(9.0, 9.0, -1.0)])
            points = points + np.array((lag, 0, 0))
            maps.append(np.round(255 * data.blur(points, clip.size, 5.0)).astype(np.uint8))
        made[clip.name] = np.stack(maps)
    return made


def pictures(folder, made, name=lambda k: f"{k + 1:04d}"):
    for clip, maps in made.items():
        for k, saliency in enumerate(maps):
            trees.array(folder / clip / f"{name(k)}.png", saliency)
    return folder


def arrays(folder, made):
    folder.mkdir(parents=True, exist_ok=True)
    for clip, maps in made.items():
        np.save(folder / f"{clip}.npy", maps)
    return folder


def videos(folder, made):
    for clip, maps in made.items():
        with write.gray(folder / f"{clip}.mkv", SIZE, 30.0) as put:
            for saliency in maps:
                put(saliency.astype(np.float32) / 255, Frame(saliency, ""))
    return folder


class Slope:
    """In place of a model: each map rises to the right, from a start that moves with the frame."""

    chunk = 2
    size = SIZE

    def maps(self, frames, fps=None):
        columns = np.arange(SIZE[1], dtype=np.float32) % 11
        for k, frame in enumerate(frames):
            yield frame, np.tile(np.roll(columns, k), (SIZE[0], 1))


def rows(folder, clips, protocol="exact", **options):
    scores = evaluate.score_clips(clips, Maps(folder), protocol, **options)
    return {score.clip: score.row() for score in scores}


@pytest.fixture(scope="module")
def mine(tmp_path_factory, clips):
    return pictures(tmp_path_factory.mktemp("maps") / "mine", blurred(clips, 1))


@pytest.fixture(scope="module")
def worse(tmp_path_factory, clips):
    return arrays(tmp_path_factory.mktemp("maps") / "worse", blurred(clips, 6))


@pytest.fixture
def run(root, tmp_path, monkeypatch, capfd):
    """`salema evaluate` on the three clips: its status, and what it said."""
    monkeypatch.chdir(tmp_path)

    def command(*words, dataset="DHF1K", split="val", at=root):
        where = ["--dataset", dataset, "--root", at, *(["--split", split] if split else [])]
        try:
            status = main(["evaluate", *map(str, [*words, *where])])
        except SystemExit as left:
            status = left.code
        return status, *capfd.readouterr()

    return command


@pytest.fixture
def refused(run):
    """A command that must end with status 2 and one line, which says how to fix it."""

    def command(*words, **options):
        status, out, err = run(*words, **options)
        lines = [line for line in err.splitlines() if "%|" not in line]  # but tqdm's
        assert status == 2 and out == "", (out, err)
        assert len(lines) == 1 and lines[0].startswith("salema: error: "), err
        assert lines[0].endswith(")"), err
        return lines[0]

    return command


# ---------------------------------------------------------------------- where maps lie


def test_pictures_by_name_or_number_arrays_and_videos_score_alike(tmp_path, clips, mine):
    made = blurred(clips, 1)
    expected = rows(mine, clips)
    assert expected["0601"]["nss"] > 1
    folders = [
        pictures(tmp_path / "numbers", made, lambda k: str(k + 1)),
        pictures(tmp_path / "five", made, lambda k: f"{k + 1:05d}"),
        arrays(tmp_path / "arrays", made),
        arrays(tmp_path / "set" / "DHF1K", made).parent,
        videos(tmp_path / "videos", made),
    ]
    for folder in folders:
        for clip, row in rows(folder, clips).items():
            assert row == pytest.approx(expected[clip], abs=1e-6), folder


def test_numbers_are_no_text_the_tenth_frame_follows_the_ninth(tmp_path):
    trees.dhf1k(tmp_path, 601, 11)
    (clip,) = data.load(tmp_path, "DHF1K", "val")
    pictures(tmp_path / "maps", blurred([clip]), lambda k: str(k + 1))
    read = list(Maps(tmp_path / "maps").of(clip))
    np.testing.assert_array_equal(np.stack(read), blurred([clip])["0601"])


def test_maps_of_a_data_set_are_found_where_predict_writes_them(tmp_path, clips):
    model = Slope()
    out = tmp_path / "out"
    predict_dataset(model, clips, out, "png", False, "mine")
    below, above = rows(out / "mine_predictions", clips), rows(out, clips)
    assert below == above
    assert {name: row["frames"] for name, row in above.items()} == {
        "0601": 5, "0602": 3, "0603": 3,
    }  # fmt: skip


@pytest.mark.parametrize("form", ["png", "gray", "npy"])
def test_maps_of_shots_are_found_inside_the_shots_folders(tmp_path, form):
    names = {"actioncliptest00001_1": range(1, 5), "actioncliptest00001_2": range(5, 6)}
    for name, numbers in names.items():
        frames = [f"actioncliptest00001_{number:05d}" for number in numbers]
        trees.shot(tmp_path / "Hollywood-2" / "testing" / name, frames)
    clips = data.load(tmp_path, "Hollywood-2", "test")
    predict_dataset(Slope(), clips, tmp_path / "out", form, False, "mine")
    found = rows(tmp_path / "out", clips)
    assert [row["frames"] for row in found.values()] == [4, 1]
    assert found == rows(tmp_path / "out" / "Hollywood-2" / "testing", clips)
    # As the original has it: inside the data set's own folders.
    predict_dataset(Slope(), clips, tmp_path, form, False, "mine")
    assert found == rows(tmp_path, clips)


def test_an_image_may_be_one_picture_or_one_array(tmp_path):
    trees.osie(tmp_path, {1601: [[(3, 4)]], 1602: [[(20, 10)]]})
    clips = data.load(tmp_path, "OSIE", "test")
    made = blurred(clips, 1)
    for clip, maps in made.items():
        trees.array(tmp_path / "flat" / f"{clip}.png", maps[0])
        trees.array(tmp_path / "colour" / f"{clip}.png", np.stack([maps[0]] * 3, -1))
    single = arrays(tmp_path / "two", {clip: maps[0] for clip, maps in made.items()})
    expected = rows(arrays(tmp_path / "three", made), clips)
    assert expected["1601"]["nss"] > 1
    assert rows(tmp_path / "flat", clips) == expected
    assert rows(tmp_path / "colour", clips) == expected
    assert rows(single, clips) == expected


def test_two_sets_of_maps_are_reported_and_neither_is_scored(tmp_path, clips, refused):
    made = blurred(clips)
    pictures(arrays(tmp_path / "both", made), made)
    error = refused(tmp_path / "both")
    assert "two sets of maps of DHF1K 0601" in error and "0601.npy and 0601 (" in error
    for name in ("a", "b"):
        pictures(tmp_path / "two models" / f"{name}_predictions", made)
    assert "a_predictions/0601 and b_predictions/0601" in refused(tmp_path / "two models")


# ---------------------------------------------------------------------- what is wrong


def test_a_folder_that_is_none_or_holds_other_maps_gets_one_line(tmp_path, refused, mine):
    assert "no such folder of maps: nowhere" in refused("nowhere")
    trees.grey(tmp_path / "file.png", [])
    assert "no such folder of maps" in refused("file.png")
    (tmp_path / "empty").mkdir()
    error = refused("empty")
    assert "no maps of DHF1K 0601 in empty" in error and "--split and --videos" in error
    assert "evaluate what?" in refused()


@pytest.mark.parametrize(("written", "meant"), [("exakt", "exact"), ("dhf-1k", "dhf1k"),
                         ("salema2018", "salema2019"), ("hevc33", "hevc33-peer"),
                         ("ntire", "ntire26")])  # fmt: skip
def test_a_misspelt_protocol_names_the_nearest(refused, mine, written, meant):
    error = refused(mine, "--protocol", written)
    assert f"unknown protocol '{written}' (did you mean {meant}?)" in error


def test_a_misspelt_set_split_or_range_gets_one_line(refused, mine, tmp_path):
    assert "no data set is called 'DHF2K'" in refused(mine, dataset="DHF2K")
    assert "no data set DHF1K in the folder" in refused(mine, at=tmp_path)
    assert "no clip of DHF1K train" in refused(mine, split="train")
    assert "bad range --videos 6-5" in refused(mine, "--videos", "6-5")
    assert "--every: must be from 1 to 10000, not 0" in refused(mine, "--every", 0)


def test_a_missing_or_broken_map_is_named(tmp_path, clips, refused):
    folder = pictures(tmp_path / "maps", blurred(clips))
    missing = folder / "0602" / "0002.png"
    missing.unlink()
    assert f"no map 0002.png in {folder / '0602'}" in refused(folder)
    missing.write_bytes(b"not a picture")
    assert f"unreadable image: {missing}" in refused(folder)


def test_arrays_that_do_not_fit_are_named(tmp_path, clips, refused):
    made = blurred(clips)
    folder = arrays(tmp_path / "maps", made)
    path = folder / "0602.npy"
    for wrong, error in [
        (made["0602"][:2], "2 maps for the 3 frames of DHF1K 0602"),
        (made["0602"][0], "uint8 (24, 32), not maps (T, H, W)"),
        (made["0602"][..., None], "uint8 (3, 24, 32, 1), not maps (T, H, W)"),
        (np.array(["a", "b"]), "not maps (T, H, W)"),
        (np.array([{}]), "no array of numbers"),
        (np.full((3, *SIZE), np.nan, np.float32), "bad map of DHF1K 0602, frame 0001"),
    ]:
        np.save(path, wrong)
        assert error in refused(folder)
    for content in (b"", b"not an array"):
        path.write_bytes(content)
        assert f"no array of numbers in {path}" in refused(folder)


def test_a_video_that_is_cut_short_is_named(tmp_path, clips, refused):
    folder = videos(tmp_path / "maps", blurred(clips))
    path = folder / "0602.mkv"
    path.write_bytes(path.read_bytes()[:-200])
    assert str(path) in refused(folder)


def test_more_maps_than_frames_are_refused(tmp_path, clips, refused):
    made = blurred(clips)
    made["0602"] = np.concatenate([made["0602"], made["0602"][:1]])
    for kind in (arrays, videos):
        folder = kind(tmp_path / kind.__name__, made)
        assert "more than 3 maps for the 3 frames of DHF1K 0602" in refused(folder)


def test_a_table_of_scores_is_not_overwritten(mine, tmp_path, refused):
    (tmp_path / "mine.csv").write_text("kept")
    assert "mine.csv exists" in refused(mine, "--csv", "mine.csv")
    assert (tmp_path / "mine.csv").read_text() == "kept"


def test_maps_of_weights_that_were_trained_on_a_clip_are_refused(tmp_path, clips, refused, run):
    folder = pictures(tmp_path / "maps" / "net_predictions", blurred(clips)).parent
    record = folder / "net_predictions.json"
    record.write_text('{"seen": {"DHF1K": ["0602", "0700"], "OSIE": ["1001"]}}')
    assert "1 clips of DHF1K, 0602 first, were seen" in refused(folder)
    status, out, _ = run(folder, "--allow-seen")
    assert status == 0 and "1 SEEN IN TRAINING" in out
    record.write_text("[]")
    assert "no list of training clips in" in refused(folder)


# ---------------------------------------------------------------------- scores


def test_a_map_of_the_gaze_itself_is_perfect_and_a_flat_one_is_chance(tmp_path, clips):
    perfect, flat = {}, {}
    for clip in clips:
        perfect[clip.name] = np.stack([np.round(255 * m).astype(np.uint8) for m in clip.maps()])
        flat[clip.name] = np.full((clip.n_frames, 2, 2), 7, np.uint8)
    best = rows(arrays(tmp_path / "perfect", perfect), clips)["0601"]
    assert best["auc_judd"] == 1 and best["sim"] == pytest.approx(1)
    assert best["cc"] == pytest.approx(1) and best["kld"] == pytest.approx(0, abs=1e-9)
    pixels = SIZE[0] * SIZE[1]  # one of them is fixated: z-score of 1 among zeros
    assert best["nss"] == pytest.approx(math.sqrt(pixels - 1))
    for protocol in NAMES:
        for row in rows(arrays(tmp_path / "flat", flat), clips, protocol).values():
            assert row["auc_judd"] == 0.5
            assert row["auc_shuffled"] == (None if protocol == "ntire26" else 0.5)
            assert row["nss"] == row["cc"] == 0.0


def test_a_clips_score_is_the_mean_over_the_frames_that_have_gaze():
    frames = [{"nss": 1.0, "cc": 0.5}, None, {"nss": 2.0}, None]
    row = tables.Scores("a", "DHF1K", False, frames).row()
    assert (row["frames"], row["skipped"], row["seen"]) == (2, 2, 0)
    assert (row["nss"], row["cc"], row["kld"]) == (1.5, 0.5, None)


def test_frames_without_gaze_are_counted_not_hidden(run, mine, tmp_path):
    status, out, _ = run(mine, "--csv", "scores.csv")
    assert status == 0
    assert "3 clips, 11 frames scored, 1 without gaze;" in out
    table = list(csv.DictReader((tmp_path / "scores.csv").open()))
    assert [(r["clip"], r["frames"], r["skipped"]) for r in table] == [
        ("0601", "5", "0"), ("0602", "3", "0"), ("0603", "3", "1"),
    ]  # fmt: skip


def test_every_nth_frame_of_those_that_the_protocol_takes(clips, mine):
    counted = {n: [r["frames"] + r["skipped"] for r in rows(mine, clips, every=n).values()]
               for n in (1, 2, 9)}  # fmt: skip
    assert counted == {1: [5, 3, 4], 2: [3, 2, 2], 9: [1, 1, 1]}
    peer = rows(mine, clips, "hevc33-peer").values()
    assert [row["frames"] for row in peer] == [1, 1, 1]


@pytest.mark.parametrize("protocol", ["exact", "hevc33-peer"])
def test_negatives_come_from_the_whole_set_whatever_is_scored_with_a_clip(clips, mine, protocol):
    def shuffled(some, everyone=None):
        scores = evaluate.score_clips(some, Maps(mine), protocol, everyone=everyone)
        return scores[0].row()["auc_shuffled"]

    whole = shuffled(clips)
    assert shuffled(clips[:1]) is None  # nobody to be compared with
    assert shuffled(clips[:1], clips) == whole > 0.5


CHOSEN = {"all": [], "602": ["--videos", "602"], "602-603": ["--videos", "602-603"]}


def test_a_clip_has_one_score_alone_with_others_and_with_videos(run, root, mine, tmp_path):
    tables = {}
    for name, words in CHOSEN.items():
        assert run(mine, *words, "--csv", f"{name}.csv")[0] == 0
        rows = csv.DictReader((tmp_path / f"{name}.csv").open())
        (tables[name],) = [row for row in rows if row["clip"] == "0602"]
    assert tables["all"] == tables["602"] == tables["602-603"]
    assert float(tables["602"]["auc_shuffled"]) > 0.5


def test_the_negatives_of_exact_are_of_20_frames_a_clip_of_all_splits(tmp_path):
    trees.osie(tmp_path, {1001: [[(1, 1)]], 1601: [[(3, 4)]], 1602: [[(20, 10)]]})
    clips = data.load(tmp_path, "OSIE")
    assert [clip.split for clip in clips] == ["train", "test", "test"]
    trees.dhf1k(tmp_path, 601, 24)
    clips += data.load(tmp_path, "DHF1K")
    pool = protocols.get("exact").pool(clips)
    assert [len(pool.frames[clip.name]) for clip in clips] == [1, 1, 1, 20]
    assert len(protocols.get("dhf1k").pool(clips)) == 27
    assert len(protocols.get("ntire26").pool(clips)) == 0


def test_a_set_of_one_clip_has_no_shuffled_auc_and_no_nan(run, tmp_path):
    trees.dhf1k(tmp_path / "one", 601, 3)
    maps = arrays(tmp_path / "maps", blurred(data.load(tmp_path / "one", "DHF1K", "val"), 1))
    status, out, _ = run(maps, "--csv", "one.csv", at=tmp_path / "one")
    assert status == 0 and "s-AUC" not in out and "nan" not in out
    (row,) = csv.DictReader((tmp_path / "one.csv").open())
    assert row["auc_shuffled"] == "" and float(row["nss"]) > 0


@pytest.mark.parametrize("protocol", NAMES)
def test_clips_that_nobody_looked_at_are_counted_and_have_no_scores(tmp_path, protocol):
    for number in (601, 602):
        annotation = trees.dhf1k(tmp_path, number, 2) / "annotation" / f"{number:04d}"
        for path in annotation.rglob("*.png"):
            trees.grey(path, [])
    clips = data.load(tmp_path, "DHF1K", "val")
    scores = evaluate.score_clips(clips, Maps(baseline="chance"), protocol)
    result = evaluate.summary(scores, protocol, 100, 0)
    taken = 1 if protocol == "hevc33-peer" else 2
    assert result == {"clips": 2, "frames": 0, "skipped": 2 * taken, "seen": 0,
                      "protocol": protocol}  # fmt: skip
    assert "0 frames scored" in evaluate.table(result, "DHF1K")


def test_one_worker_and_two_give_the_same_numbers(tmp_path, monkeypatch):
    for number in (601, 602, 603):
        trees.dhf1k(tmp_path, number, 18)
    clips = data.load(tmp_path, "DHF1K", "val")
    folder = arrays(tmp_path / "maps", blurred(clips, 2))
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "")  # so that it is removed afterwards
    monkeypatch.delenv("OPENBLAS_NUM_THREADS")
    alone, together = [], []
    for workers, found in ((1, alone), (2, together)):
        monkeypatch.setattr(os, "cpu_count", lambda n=workers: n)
        found += evaluate.score_clips(clips, Maps(folder), "dhf1k", seed=3)
    assert alone == together
    assert os.environ["OPENBLAS_NUM_THREADS"] == "1"  # a process a core leaves none for more
    assert alone[0].frames[0]["auc_shuffled"] != alone[0].frames[1]["auc_shuffled"]


# ---------------------------------------------------------------------- summaries


def scored(**clips):
    return [tables.Scores(name, "DHF1K", False, [{"nss": value} for value in values])
            for name, values in clips.items()]  # fmt: skip


def test_clips_count_alike_or_by_their_frames_as_the_protocol_says():
    scores = scored(a=[1.0, 1.0, 1.0], b=[5.0])
    assert evaluate.summary(scores, "exact", 1000, 0)["nss"] == 3.0
    assert evaluate.summary(scores, "dhf1k", 1000, 0)["nss"] == 2.0


def test_the_interval_is_drawn_over_clips():
    one = evaluate.summary(scored(a=[1.0, 3.0]), "exact", 500, 0)
    assert one["nss_low"] == one["nss_high"] == one["nss"] == 2.0
    two = evaluate.summary(scored(a=[1.0], b=[5.0]), "exact", 500, 0)
    assert two["nss_low"] == pytest.approx(3 - 12.7062 * 2)  # t of one degree of freedom
    weighted = evaluate.summary(scored(a=[1.0], b=[5.0]), "dhf1k", 500, 0)
    assert (weighted["nss_low"], weighted["nss_high"]) == (1.0, 5.0)  # resampled
    many = scored(**{str(n): [float(n)] for n in range(100)})
    result = evaluate.summary(many, "exact", 4000, 0)
    half = 1.98422 * np.arange(100).std(ddof=1) / 10
    assert result["nss_low"] == pytest.approx(49.5 - half)
    assert result["nss_high"] == pytest.approx(49.5 + half)


# ---------------------------------------------------------------------- frames


def test_the_scores_of_frames_come_back_as_they_were(tmp_path):
    scores = scored(a=[1.0, 0.1, 3.0], b=[5.0])
    scores[0].frames[1], scores[0].every = None, 5
    tables.write_frames(scores, tmp_path / "frames.npz")
    found = tables.read_frames(tmp_path / "frames.npz")
    assert list(found) == ["a", "b"]
    assert found["a"]["frame"].tolist() == [0, 5, 10] and found["b"]["frame"].tolist() == [0]
    np.testing.assert_array_equal(found["a"]["nss"], [1, np.nan, 3])
    assert np.isnan(found["a"]["cc"]).all() and found["b"]["nss"].tolist() == [5]


def test_a_table_of_frames_has_the_means_of_the_table_of_clips(run, mine, tmp_path, clips):
    words = (mine, "--frames", "frames", "--every", "2")
    assert run(*words)[0] == 0
    found = tables.read_frames(tmp_path / "frames")
    for clip, row in rows(mine, clips, every=2).items():
        assert found[clip]["frame"].tolist() == list(range(0, 2 * len(found[clip]["nss"]), 2))
        for key in METRICS:
            assert np.nanmean(found[clip][key]) == pytest.approx(row[key], rel=1e-6)
    (peer, *_) = evaluate.score_clips(clips, Maps(mine), "hevc33-peer", every=2)
    assert peer.every == 10  # the protocol takes each fifth frame
    assert "frames exists" in run(*words)[2]


def test_a_file_without_scores_of_frames_gets_one_line(tmp_path):
    path = tmp_path / "frames.npz"
    np.savez(path, nss=np.zeros(3))
    for _ in range(2):
        with pytest.raises(SalemaError, match=r"no scores of frames in .*frames\.npz"):
            tables.read_frames(path)
        path.write_text("text")


# ---------------------------------------------------------------------- pairs


def test_two_folders_are_compared_clip_by_clip(run, mine, worse):
    status, out, _ = run(mine, "--paired", worse)
    assert status == 0
    head, *lines = out[out.index("paired") :].splitlines()
    assert head == (
        "paired difference over 3 clips in 3 groups; 95 % interval; p: sign flips of groups"
    )
    found = {line.split()[0]: line for line in lines}
    numbers = {
        name: [float(n) for n in re.findall(r"[+-]\d+\.\d+", line)]
        for name, line in found.items()
        if name in METRICS.values()
    }
    assert numbers["NSS"][0] > 0 and found["NSS"].endswith("  p 0.25")  # 2 of 8 patterns
    assert numbers["KLD"][0] < 0
    assert len(numbers) == 6
    assert all(low <= mean <= high for mean, low, high in numbers.values())
    assert "equal within 0.1 NSS: p " in out and found["*"].endswith("p is below 0.05")
    assert "equal within 9 NSS: p " in run(mine, "--paired", worse, "--margin", "9")[1]
    assert "--margin: must be above 0" in run(mine, "--paired", worse, "--margin", "-1")[2]


def test_a_table_of_ours_or_of_a_peer_is_compared_by_the_clips_that_both_have(
    run, mine, worse, clips, tmp_path
):
    assert run(worse, "--csv", "ours.csv")[0] == 0
    other = rows(worse, clips)
    lines = ["model,clip,auc,sauc,nss,cc,sim,kld"]
    for name in ("0601", "0603"):
        row = [f"{other[name][key]:.6f}" for key in METRICS]
        lines.append(",".join(["peer", name, *row]))
    lines.append("peer,0999,.5,.5,0,0,0,9")
    (tmp_path / "peer.csv").write_text("\n".join(lines))
    folder = run(mine, "--paired", worse)[1]
    assert run(mine, "--paired", "ours.csv")[1] == folder
    peer = run(mine, "--paired", "peer.csv")[1]
    assert "over 2 clips" in peer and "AUC-J" in peer.split("paired")[1]
    assert "s-AUC" in peer.split("paired")[1]


@pytest.mark.parametrize(("text", "error"), [
    ("model,clip,nss\na,0601,1\nb,0601,2\n", "holds 2 models"),
    ("clip,nss\n0999,1\n", "share no clip"),
    ("video,nss\n0601,1\n", "no column clip"),
    ("", "no column clip"),
    ("clip,nss\n0601,nan\n", "clip 0601: a score is not finite"),
    ("clip,nss\n0601,good\n", "clip 0601: could not convert"),
    ("clip,nss\n0601,\xff\n", "not a table"),
    ("clip,protocol,nss\n0601,dhf1k,1\n", "has scores by dhf1k (pass --protocol)"),
])  # fmt: skip
def test_a_table_that_cannot_be_compared_gets_one_line(run, mine, tmp_path, text, error):
    (tmp_path / "other.csv").write_bytes(text.encode("latin-1"))
    status, _, err = run(mine, "--paired", "other.csv")
    assert status == 2 and error in err
    assert err.splitlines()[-1].startswith("salema: error: ")


def test_rows_by_another_protocol_are_not_compared(run, mine, tmp_path):
    table = "clip,protocol,nss\n0601,exact,1\n0601,salema2019,5\n0602,salema2019,5\n"
    (tmp_path / "other.csv").write_text(table)
    out = run(mine, "--paired", "other.csv")[1]
    assert "over 1 clips" in out
    assert run(mine, "--csv", "own.csv")[0] == 0
    own = next(csv.DictReader((tmp_path / "own.csv").open()))
    assert (own["clip"], own["protocol"]) == ("0601", "exact")
    assert f"NSS    {float(own['nss']) - 1:+7.4f}" in out.split("paired")[1]


def test_another_that_is_not_there_gets_one_line(run, mine):
    status, _, err = run(mine, "--paired", "nowhere.csv")
    assert status == 2 and "cannot read nowhere.csv" in err and "check --paired" in err


def test_differences_are_means_over_the_groups_of_the_pairs():
    ours = {"a": {"nss": 2.0, "cc": 0.5}, "b": {"nss": 3.0, "cc": None}, "c": {"nss": 9.0}}
    other = {"a": {"nss": 1.5, "cc": 0.75}, "b": {"nss": 2.5, "cc": 0.5}}
    found = evaluate.differences(ours, other).splitlines()
    assert found == [
        "paired difference over 2 clips in 2 groups; 95 % interval; p: sign flips of groups",
        "  NSS    +0.5000  [+0.5000, +0.5000]  p 0.5",
        "  CC     -0.2500  [-0.2500, -0.2500]  p 1",
        "  equal within 0.1 NSS: p 1 (power 1.00 if equal)",
        "  * 0 is outside the interval, and p is below 0.05",
    ]
    assert "equal within 0.6 NSS: p 0 " in evaluate.differences(ours, other, margin=0.6)
    ours["a"]["nss"] = 3.5
    one = evaluate.differences(ours, other, {"a": "scene", "b": "scene"})
    assert "over 2 clips in 1 groups" in one and "NSS    +1.2500" in one and "equal" not in one


def test_a_star_needs_the_interval_and_the_p():
    def of(*apart):
        ours = {str(clip): {"nss": value} for clip, value in enumerate(apart)}
        return evaluate.differences(ours, {clip: {"nss": 0.0} for clip in ours}).splitlines()[1]

    assert of(1.0, 1.1, 1.2, 1.3, 1.4, 1.5).endswith("p 0.031  *")
    assert of(1.0, 1.1, 1.2, 1.3, 1.4).endswith("p 0.062")  # the interval leaves out 0
    assert of(0.1, 0.1, 0.1, 0.1, 0.1, 9.0).endswith("p 0.031")  # the interval holds 0


# ---------------------------------------------------------------------- seen in training


def card(path, **seen):
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({"x": np.zeros(1)}, path, {"salema": json.dumps({"seen": seen})})
    return path


def test_a_clip_seen_in_training_is_refused_or_marked(run, refused, mine, tmp_path):
    weights = card(tmp_path / "w.safetensors", DHF1K=["0602", "0009"], SALICON=["0601"])
    error = refused(mine, "--weights", weights)
    assert "1 clips of DHF1K, 0602 first, were seen in training" in error
    assert "--allow-seen marks the row" in error
    status, out, _ = run(mine, "--weights", weights, "--allow-seen", "--csv", "scores.csv")
    assert status == 0 and ", 1 SEEN IN TRAINING;" in out
    table = csv.DictReader((tmp_path / "scores.csv").open())
    assert [(row["clip"], row["seen"]) for row in table] == [
        ("0601", "0"), ("0602", "1"), ("0603", "0"),
    ]  # fmt: skip
    assert run(mine, "--weights", weights, "--videos", "603")[0] == 0


def test_weights_without_a_list_of_training_clips_get_one_line(refused, mine, tmp_path):
    assert "no list of training clips in" in refused(mine, "--weights", "none.safetensors")
    (tmp_path / "theirs.pt").write_bytes(b"PK\3\4 something else")
    assert "no list of training clips in" in refused(mine, "--weights", "theirs.pt")
    for metadata in (None, {"salema": "{}"}, {"salema": "not JSON"}, {"salema": "[]"}):
        save_file({"x": np.zeros(1)}, tmp_path / "odd.safetensors", metadata)
        assert "no list of training clips in" in refused(mine, "--weights", "odd.safetensors")


# ---------------------------------------------------------------------- the study


@pytest.fixture
def study(root, tmp_path, monkeypatch):
    """A study on the three clips and two images; the run `static` has flat and perfect maps."""
    monkeypatch.chdir(tmp_path)
    trees.dhf1k(tmp_path / "all", 1, 2)
    trees.salicon(tmp_path / "all", "train", [1, 2])
    trees.salicon(tmp_path / "all", "val", [3, 4])
    for name in CLIPS:
        for part in (f"video/{name:03d}.AVI", f"annotation/{name:04d}"):
            link = tmp_path / "all" / "DHF1K" / part
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(root / "DHF1K" / part)
    raw = yaml.safe_load((ROOT / "params.yaml").read_text())
    raw["profile"] = "tiny"
    raw["profiles"]["tiny"] = {
        "data": {"root": str(tmp_path / "all"), "tune": ["SALICON"], "finetune": ["DHF1K"],
                 "evaluate": {"SALICON": "val", "DHF1K": "val"}},
        "tune": {name: {"epochs": 1, "batch": 1, "learning_rate": 1e-3} for name in raw["tune"]},
        "finetune": {"epochs": 1, "learning_rate": 1e-3},
        "evaluate": {"every": 1, "resamples": 200},
    }  # fmt: skip
    settings = params.from_dict(raw)
    folder = settings.run_folder("static")
    card(folder / "weights.safetensors", DHF1K=["0001"])
    clips = data.load(settings.root, "DHF1K", "val")
    made = blurred(clips, 1)
    made["0602"][:] = 9
    videos(folder / "maps" / "DHF1K", made)
    for clip in data.load(settings.root, "SALICON", "val"):
        trees.array(folder / "maps" / "SALICON" / f"{clip.name}.png", blurred([clip])[clip.name][0])
    return settings


def numbers(value):
    """Every number in something read from JSON; NaN and infinity are not JSON."""
    if isinstance(value, dict):
        return [n for inner in value.values() for n in numbers(inner)]
    return [value] if isinstance(value, float | int) else []


def never(constant):
    raise AssertionError(f"{constant} in a JSON file")


@pytest.mark.parametrize("name", ["static", "chance", "centre-prior", "spectral-residual", "human"])
def test_a_run_and_every_baseline_leave_a_table_and_a_summary_without_nan(study, name):
    path = evaluate.evaluate_run(study, name)
    assert path == Path(f"reports/tiny/metrics/{name}.json")
    result = json.loads(path.read_text(), parse_constant=never)
    assert list(result) == (["SALICON"] if name == "human" else ["SALICON", "DHF1K"])
    assert all(map(math.isfinite, numbers(result)))
    for dataset, entry in result.items():
        clips = {"SALICON": 2, "DHF1K": 3}[dataset]
        assert (entry["clips"], entry["seen"], entry["protocol"]) == (clips, 0, "exact")
        assert entry["frames"] + entry["skipped"] == {"SALICON": 2, "DHF1K": 12}[dataset]
        for metric in set(METRICS) & set(entry):
            low, high = entry[f"{metric}_low"], entry[f"{metric}_high"]
            assert low - 1e-6 <= entry[metric] <= high + 1e-6
    with path.with_suffix(".csv").open() as file:
        table = list(csv.DictReader(file))
    keys = ["dataset", "protocol", "clip", "frames", "skipped", "seen", *METRICS]
    assert list(table[0]) == keys
    assert len(table) == sum(entry["clips"] for entry in result.values())
    assert "nan" not in path.with_suffix(".csv").read_text().lower()


def test_half_of_the_observers_needs_observers(study):
    result = json.loads(evaluate.evaluate_run(study, "human").read_text())
    # In the tree one observer looks at the corners and the other nowhere: no two halves.
    assert result == {"SALICON": {"clips": 2, "frames": 0, "skipped": 2, "seen": 0,
                                  "protocol": "exact"}}  # fmt: skip


def test_half_of_the_observers_predicts_the_other_half(tmp_path):
    looks = [[(8, 8)], [(9, 8)], [(8, 9)], [(9, 9)]]
    trees.osie(tmp_path, {1601: looks, 1602: [[(20 + x, 15 + y)] for ((x, y),) in looks]})
    clips = data.load(tmp_path, "OSIE", "test")
    scores = evaluate.score_clips(clips, Maps(baseline="human"))
    assert all(score.row()["auc_judd"] > 0.95 for score in scores)
    assert all(score.row()["nss"] > 2 for score in scores)
    again = evaluate.score_clips(clips, Maps(baseline="human"))
    assert [s.row() for s in scores] == [s.row() for s in again]


def test_the_row_of_the_observers_is_the_mean_of_20_splits(tmp_path, monkeypatch):
    looks = [[(8, 8)], [(9, 8)], [(20, 9)], [(22, 12)], [(4, 20)], [(30, 2)]]
    trees.osie(tmp_path, {1601: looks})
    (clip,) = data.load(tmp_path, "OSIE", "test")
    blur, sigma = data.blur, data.sigma(clip.size)
    single = []
    for split in range(20):
        random = generator(5, "1601", "halves", split)
        ((first, second),) = baselines.split_half(list(clip.fixations()), random)
        assert len(first) == len(second) == 3
        maps = [blur(points, clip.size, sigma) for points in (first, second)]
        single.append(protocols.get("exact").score(maps[0], second, maps[1], clip.size)["nss"])
    (scores,) = evaluate.score_clips([clip], Maps(baseline="human"), seed=5)
    assert len(scores.frames) == 1 and np.std(single) > 0.1
    assert scores.row()["nss"] == pytest.approx(np.mean(single))


def test_the_observers_maps_are_blurred_at_the_size_of_the_protocol(tmp_path, monkeypatch):
    trees.osie(tmp_path, {1601: [[(8, 8)], [(9, 8)], [(8, 9)], [(9, 9)]]})
    (clip,) = data.load(tmp_path, "OSIE", "test")
    grids, blur = [], data.blur
    monkeypatch.setattr(data, "blur", lambda *words: grids.append(words[3:]) or blur(*words))
    evaluate.score_clips([clip], Maps(baseline="human"), "hevc33-peer")
    grid = protocols.get("hevc33-peer").grid(clip.size)
    assert max(grid) == 320 and grids == [(grid,)] * baselines.SPLITS == [(grid,)] * 20


def test_the_study_refuses_leaked_clips_and_marks_them_when_asked(study):
    card(study.run_folder("static") / "weights.safetensors", DHF1K=["0603"])
    with pytest.raises(SalemaError, match="0603 first, were seen"):
        evaluate.evaluate_run(study, "static")
    assert not Path("reports").exists()
    result = json.loads(evaluate.evaluate_run(study, "static", allow_seen=True).read_text())
    assert result["DHF1K"]["seen"] == 1 and result["SALICON"]["seen"] == 0


def test_a_run_is_scored_by_every_protocol_of_the_profile(study):
    main = json.loads(evaluate.evaluate_run(study, "static").read_text())
    settings = study.evaluate.model_copy(update={"protocols": ["exact", "salema2019"]})
    path = evaluate.evaluate_run(study.model_copy(update={"evaluate": settings}), "static")
    both = json.loads(path.read_text(), parse_constant=never)
    for dataset, entry in both.items():
        other = entry.pop("salema2019")
        assert entry == main[dataset]  # the first protocol's scores are where they always are
        assert (other["protocol"], other["clips"]) == ("salema2019", entry["clips"])
        assert other["nss"] != entry["nss"]
    table = list(csv.DictReader(path.with_suffix(".csv").open()))
    assert [(row["dataset"], row["protocol"]) for row in table] == [
        *[("SALICON", "exact")] * 2, *[("SALICON", "salema2019")] * 2,
        *[("DHF1K", "exact")] * 3, *[("DHF1K", "salema2019")] * 3,
    ]  # fmt: skip


def test_an_unknown_run_and_missing_maps_get_one_line(study):
    with pytest.raises(SalemaError, match=r"unknown run 'statik'.*did you mean static"):
        evaluate.evaluate_run(study, "statik")
    (study.run_folder("static") / "maps" / "DHF1K" / "0602.mkv").unlink()
    with pytest.raises(SalemaError, match="no maps of DHF1K 0602"):
        evaluate.evaluate_run(study, "static")
    assert not Path("reports").exists()


def test_protocols_are_compared_in_one_table(study):
    path = evaluate.compare_protocols(study, "static")
    table = list(csv.DictReader(path.open()))
    assert [(row["dataset"], row["protocol"]) for row in table] == [
        (dataset, name) for dataset in ("SALICON", "DHF1K") for name in NAMES
    ]
    assert "nan" not in path.read_text().lower()
    exact = json.loads(evaluate.evaluate_run(study, "static").read_text())
    for row in table:
        if row["protocol"] == "exact":
            assert float(row["nss"]) == pytest.approx(exact[row["dataset"]]["nss"], abs=1e-4)


def test_a_table_with_a_clip_twice_is_refused_and_one_with_a_byte_order_mark_is_read(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("clip,nss\na,1\nb,2\n", encoding="utf-8-sig")
    assert tables.read_scores(path, ["a"], "exact") == {"a": {"nss": 1.0}, "b": {"nss": 2.0}}
    path.write_text("clip,nss\na,1\nb,2\na,3\n")
    with pytest.raises(SalemaError, match=r"clip a: it is listed twice"):
        tables.read_scores(path, ["a"], "exact")
