"""The command line: every kind of source and output, and one line for everything wrong."""

import errno
import json
import os
import resource
import shutil
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch
import trees
from test_overlay import probe, sounding
from test_predictor import predictor, scene
from test_read import KINDS, ONE, corners, film, noise, quarters, ramp
from test_sources import tree

import salema
from salema.__main__ import _parser, main
from salema.media import read, write
from salema.model import weights
from salema.params import Model
from salema.predict.predictor import Predictor

MODEL = (64, 96)  # (H, W)
FRAME = (48, 64)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A tiny weights file."""
    path = tmp_path_factory.mktemp("weights") / "tiny weights.safetensors"
    weights.save(predictor().network, path, weights.Card())
    return path


@pytest.fixture
def run(file, tmp_path, monkeypatch, capfd):
    """Runs one command in an empty folder: its status, and what it said."""
    monkeypatch.chdir(tmp_path)

    def command(*arguments, at=file):
        words = [str(argument) for argument in arguments]
        if at is not None and words[0] in ("predict", "view", "demo"):
            words[1:1] = ["--weights", str(at), "--device", "cpu", "--precision", "fp32"]
        try:
            status = main(words)
        except SystemExit as left:
            status = left.code
        return status, *capfd.readouterr()

    return command


@pytest.fixture
def refused(run, tmp_path):
    """Runs a command that must end with status 2 and one line; returns that line."""

    def command(*arguments, **options):
        before = tree(tmp_path)
        status, out, err = run(*arguments, **options)
        assert status == 2, (out, err)
        assert err.startswith("salema: error: ") and err.count("\n") == 1, err
        assert err.rstrip().endswith(")"), err  # how to fix it
        assert tree(tmp_path) == before
        return err

    return command


def pictures(folder):
    """Name -> gray picture of every PNG in a folder."""
    paths = sorted(folder.iterdir())
    return {path.name: cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in paths}


# ---------------------------------------------------------------------- sources


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_video_gets_a_picture_a_frame(run, tmp_path, name):
    codec, pixels = KINDS[name]
    film(tmp_path / name, ramp(12), codec, pixels)
    status, out, err = run("predict", tmp_path / name, "--size", "model", "--out", "maps")
    assert status == 0 and err == ""
    folder = tmp_path / "maps" / Path(name).stem
    assert out == f"{tmp_path / name}: 12 maps in maps/{Path(name).stem}\n"
    maps = pictures(folder)
    assert list(maps) == [f"{n:05d}.png" for n in range(1, 13)]
    assert all(m.shape == MODEL and m.dtype == np.uint8 for m in maps.values())


def turned(path):
    """A phone's upright video: the header asks for a quarter turn clockwise."""
    data = bytearray(film(path, [corners()] * 3).read_bytes())
    at = data.index(b"tkhd") + 44
    data[at : at + 36] = struct.pack(">9i", 0, ONE, 0, -ONE, 0, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path


def test_a_turned_video_is_predicted_upright(run, tmp_path):
    turned(tmp_path / "phone.mov")
    status, _, _ = run("predict", "phone.mov", "--out", "maps", "--overlay", "seen.mp4",
                       "--opacity", "0")  # fmt: skip
    assert status == 0
    assert {m.shape for m in pictures(tmp_path / "maps" / "phone").values()} == {FRAME[::-1]}
    with av.open(str(tmp_path / "seen.mp4")) as container:
        frame = next(container.decode(video=0)).to_ndarray(format="rgb24")
    assert quarters(frame) == ["blue", "red", "white", "green"]


def test_a_folder_of_frames_keeps_their_names_and_their_order_is_by_number(run, tmp_path):
    for number, frame in zip((2, 10, 1), scene(3), strict=True):
        trees.array(tmp_path / "my frames" / f"shot {number}.jpg", frame)
    status, out, _ = run("predict", "my frames", "--format", "npy", "--size", "model")
    assert status == 0 and "3 maps in saliency/my frames.npy" in out
    run("predict", "my frames", "--size", "model")
    maps = np.load(tmp_path / "saliency" / "my frames.npy")
    for saliency, name in zip(maps, ("shot 1", "shot 2", "shot 10"), strict=True):
        seen = pictures(tmp_path / "saliency" / "my frames")[f"{name}.png"]
        np.testing.assert_array_equal(seen, write.to_byte(write.min_max(saliency)))


def test_a_single_image_is_a_clip_of_one_frame(run, tmp_path, file):
    image = trees.array(tmp_path / "photo.png", scene(1)[0])
    status, _, _ = run("predict", image, "--out", "maps", "--overlay", "over", "--size", "model")
    assert status == 0
    assert tree(tmp_path) == ["maps/photo/photo.png", "over/photo.png", "photo.png"]
    assert cv2.imread(str(tmp_path / "over" / "photo.png")).shape == (40, 60, 3)
    model = salema.load(file, "cpu", "fp32")
    alone = write.min_max(model.predict(scene(1)[0][None], size="model")[0])
    seen = pictures(tmp_path / "maps" / "photo")["photo.png"]
    np.testing.assert_array_equal(seen, write.to_byte(alone))


@pytest.mark.parametrize("count", [1, 2, 17])
def test_a_video_may_have_any_number_of_frames(run, tmp_path, count):
    film(tmp_path / "clip.mp4", ramp(count))
    assert run("predict", "clip.mp4", "--format", "npy", "--chunk", "4")[0] == 0
    assert np.load(tmp_path / "saliency" / "clip.npy").shape == (count, *FRAME)


def test_an_uneven_frame_rate_stays_uneven_in_the_overlay(run, tmp_path):
    times = [0, 0.1, 0.15, 0.9, 1.0]
    film(tmp_path / "uneven.mp4", ramp(5), times=times)
    assert run("predict", "uneven.mp4", "--overlay", "over.mp4")[0] == 0
    np.testing.assert_allclose(probe(tmp_path / "over.mp4")[2], times, atol=2e-3)


def test_sound_goes_along_with_the_overlay_and_no_folder_is_made_for_it(run, tmp_path):
    sounding(tmp_path / "talk.mp4", 0.4, "aac")
    assert run("predict", "talk.mp4", "--overlay", "over.mp4")[0] == 0
    facts, sound, times = probe(tmp_path / "over.mp4")
    assert facts == ("h264", "yuv420p", FRAME) and sound == ["aac"] and len(times) == 10
    assert tree(tmp_path) == ["over.mp4", "talk.mp4"]


def test_several_sources_of_one_name_get_numbers(run, tmp_path):
    for folder in ("a b", "c"):
        film(trees.picture(tmp_path / folder / "x.png").parent / "clip.mp4", ramp(2))
    status, _, _ = run("predict", "a b/clip.mp4", "c/clip.mp4", "c/x.png", "--overlay", "over",
                       "--out", "maps", "--format", "gray")  # fmt: skip
    assert status == 0
    names = ["clip-2", "clip", "x"]
    assert tree(tmp_path / "maps") == [f"{name}.mkv" for name in names]
    assert tree(tmp_path / "over") == ["clip-2.mp4", "clip.mp4", "x.png"]


# ---------------------------------------------------------------------- outputs


@pytest.mark.parametrize(("size", "shape"), [("source", FRAME), ("model", MODEL)])
def test_the_three_formats_hold_the_same_maps_at_the_size_asked_for(run, tmp_path, size, shape):
    film(tmp_path / "clip.mp4", scene(4, size=FRAME), crf="0", pixels="yuv444p")
    for form in ("png", "gray", "npy"):
        assert run("predict", "clip.mp4", "--format", form, "--size", size)[0] == 0
    raw = np.load(tmp_path / "saliency" / "clip.npy")
    gray = np.stack(list(read.maps(tmp_path / "saliency" / "clip.mkv")))
    png = np.stack(list(pictures(tmp_path / "saliency" / "clip").values()))
    assert raw.shape == gray.shape == png.shape == (4, *shape)
    assert raw.dtype == np.float32 and raw.min() > 0 and raw.max() < 1  # as the network has it
    np.testing.assert_allclose(gray, png / 255, atol=0.6 / 255)
    if size == "model":
        stretched = np.stack([write.min_max(saliency) for saliency in raw])
        np.testing.assert_allclose(png / 255, stretched, atol=0.6 / 255)


def test_command_line_python_stream_and_chunks_agree(run, tmp_path, file):
    film(tmp_path / "clip.mkv", scene(9, size=FRAME), "ffv1", "bgr0")
    arrays = []
    for chunk in (1, 4, 16):
        run("predict", "clip.mkv", "--format", "npy", "--chunk", chunk, "--overwrite")
        arrays.append(np.load(tmp_path / "saliency" / "clip.npy"))
    model = salema.load(file, device="cpu", precision="fp32")
    arrays.append(model.predict(np.stack(scene(9, size=FRAME))))
    arrays.append(np.stack(list(model.stream(iter(scene(9, size=FRAME))))))
    for other in arrays[1:]:
        np.testing.assert_allclose(other, arrays[0], atol=2e-6)


def test_color_map_and_opacity_can_be_chosen(run, tmp_path):
    film(tmp_path / "clip.mkv", [np.full((*FRAME, 3), 90, np.uint8)] * 2, "ffv1", "bgr0")
    seen = {}
    for name, more in {"plain": ["--opacity", "0"], "bone": ["--colormap", "bone"],
                       "turbo": []}.items():  # fmt: skip
        assert run("predict", "clip.mkv", "--overlay", f"{name}.mp4", *more)[0] == 0
        with av.open(str(tmp_path / f"{name}.mp4")) as container:
            frame = next(container.decode(video=0)).to_ndarray(format="rgb24")
        seen[name] = frame.astype(int)
    assert np.abs(seen["plain"] - 90).max() <= 4
    assert np.ptp(seen["bone"], axis=2).max() < np.ptp(seen["turbo"], axis=2).max() / 2


def test_what_exists_is_skipped_until_overwrite_says_otherwise(run, tmp_path):
    film(tmp_path / "clip.mp4", ramp(3))
    for form, name in (("png", "clip/00001.png"), ("npy", "clip.npy"), ("gray", "clip.mkv")):
        assert run("predict", "clip.mp4", "--format", form)[0] == 0
        path = tmp_path / "saliency" / name
        made = path.read_bytes()
        path.write_bytes(other := made[:26] + b"my own")  # of maps, the head is looked at
        status, out, _ = run("predict", "clip.mp4", "--format", form)
        assert status == 1 and "exists, skipped (--overwrite" in out
        assert path.read_bytes() == other
        assert run("predict", "clip.mp4", "--format", form, "--overwrite")[0] == 0
        assert path.read_bytes() == made


def test_shot_reset_forgets_at_a_cut(run, tmp_path):
    film(tmp_path / "cut.mkv", scene(5, 1) + scene(4, 2), "ffv1", "bgr0")
    film(tmp_path / "second.mkv", scene(4, 2), "ffv1", "bgr0")
    common = ["--format", "npy", "--size", "model"]
    assert run("predict", "cut.mkv", "--out", "on", "--shot-reset", *common)[0] == 0
    run("predict", "cut.mkv", "--out", "off", *common)
    run("predict", "second.mkv", "--out", "alone", *common)
    on, off = (np.load(tmp_path / folder / "cut.npy")[5:] for folder in ("on", "off"))
    alone = np.load(tmp_path / "alone" / "second.npy")
    np.testing.assert_allclose(on, alone, atol=2e-6)
    assert np.abs(off - alone).max() > 0.01


def test_a_truncated_video_keeps_what_was_decoded_and_ends_with_status_1(run, tmp_path):
    whole = film(tmp_path / "cut.avi", noise(12), "mjpeg", "yuvj420p").read_bytes()
    (tmp_path / "cut.avi").write_bytes(whole[: len(whole) * 6 // 10])
    status, out, err = run("predict", "cut.avi", "--format", "npy", "--overlay", "o.mp4",
                           "--out", "maps")  # fmt: skip
    assert status == 1 and out == "" and err.count("\n") == 1
    maps = np.load(tmp_path / "maps" / "cut.npy")
    assert 3 <= len(maps) <= 8
    assert f"{len(maps)} maps kept in maps/cut.npy, o.mp4" in err
    assert len(probe(tmp_path / "o.mp4")[2]) == len(maps)


def test_an_interruption_ends_with_130_and_says_how_to_resume(run, tmp_path, monkeypatch):
    film(tmp_path / "clip.mp4", ramp(6))
    true = Predictor.step

    def interrupted(self, frames):
        if self.state is not None:
            raise KeyboardInterrupt
        return true(self, frames)

    with monkeypatch.context() as patch:
        patch.setattr(Predictor, "step", interrupted)
        status, out, err = run("predict", "clip.mp4", "--chunk", "2", "--overlay", "o.mp4",
                               "--out", "maps")  # fmt: skip
    assert status == 130 and out == ""
    assert err.strip() == "salema: stopped; run the same command again to resume"
    assert tree(tmp_path) == ["clip.mp4"]
    assert run("predict", "clip.mp4", "--out", "maps")[0] == 0
    assert len(tree(tmp_path / "maps")) == 6


# ---------------------------------------------------------------------- data sets


def test_a_data_set_by_its_numbers_and_its_submission(run, tmp_path, file):
    for number in (600, 601, 602):
        trees.dhf1k(tmp_path / "data", number, 2)
    status, out, err = run("predict", "--dataset", "DHF1K", "--root", "data", "--videos",
                           "601-700", "--out", "out", "--submission", "send.zip")  # fmt: skip
    assert status == 0 and err == ""
    assert tree(tmp_path / "out") == [f"{file.stem}_predictions.json"] + [
        f"{file.stem}_predictions/{clip}/{frame}.png"
        for clip in ("0601", "0602") for frame in ("0001", "0002")
    ]  # fmt: skip
    assert "2 clips, 4 maps in out" in out and "send.zip: 2 videos" in out


def test_maps_of_two_models_are_not_mixed_and_name_the_training_clips_of_both(run, tmp_path, file):
    def predict(at, number, *more):
        return run("predict", "--dataset", "DHF1K", "--root", "data", "--out", "out", "--videos",
                   number, *more, at=at)  # fmt: skip

    for number in (601, 602):
        trees.dhf1k(tmp_path / "data", number, 2)
    other = tmp_path / "other" / file.name
    other.parent.mkdir()
    weights.save(predictor("ema61", seed=2).network, other, weights.Card(seen={"DHF1K": ["0001"]}))
    assert predict(file, 601)[0] == predict(file, 602)[0] == 0
    status, _, err = predict(other, 602)
    assert status == 2 and "holds maps of other weights" in err
    before = (tmp_path / "out" / f"{file.stem}_predictions" / "0602" / "0001.png").read_bytes()
    status, _, _ = predict(other, 602, "--overwrite")
    after = (tmp_path / "out" / f"{file.stem}_predictions" / "0602" / "0001.png").read_bytes()
    assert status == 0 and before != after
    told = json.loads((tmp_path / "out" / f"{file.stem}_predictions.json").read_text())
    assert told["seen"] == {"DHF1K": ["0001"]}


def test_an_output_never_replaces_what_is_read(refused, tmp_path):
    film(tmp_path / "clip.mp4", ramp(2))
    film(tmp_path / "clip.mkv", ramp(2), "ffv1", "bgr0")
    trees.array(tmp_path / "frames" / "001.png", ramp(1)[0])
    again = ["--overwrite"]
    assert "is a source itself" in refused("predict", "frames", "--out", ".", *again)
    assert "is a source itself" in refused("predict", "clip.mp4", "--overlay", "clip.mp4", *again)
    gray = ["--format", "gray", "--out", "."]
    assert "is a source itself" in refused("predict", "clip.mkv", *gray, *again)


def test_maps_that_exist_stay_until_new_ones_are_there(run, refused, tmp_path):
    film(tmp_path / "clip.mp4", ramp(2))
    assert run("predict", "clip.mp4", "--out", "maps")[0] == 0
    again = ["predict", "clip.mp4", "--out", "maps", "--overwrite", "--overlay", "o.mp4"]
    assert "unknown color map 'trubo'" in refused(*again, "--colormap", "trubo")
    assert len(tree(tmp_path / "maps")) == 2


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["predict", "--run", "ema30", "--out", "x"], "--run takes no --out"),
        (["predict", "a.mp4", "--split", "val"], "salema predict takes no --split val (see salema"),
        (["predict", "--dataset", "DHF1K", "--shot-reset"], "--dataset takes no --shot-reset"),
        (["evaluate", "--run", "ema30", "--every", "3"], "--run takes no --every"),
        (["evaluate", "maps", "--run", "ema30"], "--run takes no maps"),
        (["evaluate", "maps", "--run=ema30"], "--run takes no maps"),
        (["predict", "--run", "ema30", "--dataset", "DHF1K"], "--dataset takes no --run ema30"),
        (["predict", "--run", "ema30", "--chunk", "4"], "--run takes no --chunk 4"),
        (["predict", "--dataset", "DHF1K", "--opacity", "0"], "--dataset takes no --opacity 0"),
        (["predict", "--dataset"], "argument --dataset: expected one argument"),
        (["tune", "static", "--device", "cpu"], "salema tune takes no --device cpu"),
        (["predict", "--run", "ema30", "--profile", "open"], "--run takes no --profile open"),
    ],
)
def test_an_option_that_would_mean_nothing_is_refused(refused, words, told):
    assert told in refused(*words, at=None)


def test_bad_data_set_commands_are_refused(refused, tmp_path):
    trees.dhf1k(tmp_path / "data", 601, 2)
    common = ["predict", "--root", "data"]
    assert "where is DHF1K" in refused("predict", "--dataset", "DHF1K")
    assert "DHF2K" in refused(*common, "--dataset", "DHF2K")
    assert "601-700" in refused(*common, "--dataset", "DHF1K", "--videos", "700-601")
    assert "--dataset takes no a.mp4" in refused(*common, "a.mp4", "--dataset", "DHF1K")
    more = ["--dataset", "DHF1K", "--submission", "s.zip", "--format", "npy"]
    assert "--format png" in refused(*common, *more)
    (tmp_path / "s.zip").write_text("mine")
    assert "s.zip exists" in refused(*common, *more[:4])


# ---------------------------------------------------------------------- what is wrong


def test_bad_sources_get_one_line(refused, tmp_path):
    (tmp_path / "empty folder").mkdir()
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("no picture")
    (tmp_path / "text.mp4").write_text("this is no video\n" * 50)
    (tmp_path / "nothing.mp4").write_bytes(b"")
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff broken")
    assert "no such file: gone.mp4" in refused("predict", "gone.mp4")
    assert "no images in the folder empty folder" in refused("predict", "empty folder")
    assert "no images in the folder notes" in refused("predict", "notes")
    assert "not a video: text.mp4" in refused("predict", "text.mp4")
    assert "empty file: nothing.mp4" in refused("predict", "nothing.mp4")
    assert "broken.jpg" in refused("predict", "broken.jpg")
    assert "no camera 97" in refused("predict", "camera:97")
    assert "nothing to predict" in refused("predict")


def test_a_bad_source_among_good_ones_is_told_before_anything_is_made(refused, tmp_path):
    film(tmp_path / "good.mp4", ramp(2))
    assert "no such file: gone.mp4" in refused("predict", "good.mp4", "gone.mp4")


def test_bad_options_get_one_line(refused, tmp_path):
    film(tmp_path / "a.mp4", ramp(2))
    film(tmp_path / "b.mp4", ramp(2))
    assert "did you mean turbo" in refused("predict", "a.mp4", "--overlay", "o.mp4",
                                             "--colormap", "trubo")  # fmt: skip
    assert "--opacity" in refused("predict", "a.mp4", "--opacity", "2")
    assert "--chunk" in refused("predict", "a.mp4", "--chunk", "0")
    assert "one overlay" in refused("predict", "a.mp4", "b.mp4", "--overlay", "o.mp4")
    assert "one picture only" in refused("predict", "a.mp4", "--overlay", "o.png")
    assert "name it .mp4" in refused("predict", "a.mp4", "--overlay", "o.avi")
    assert "--view takes one source" in refused("predict", "a.mp4", "b.mp4", "--view", "v.html")
    assert "invalid choice: 'tiff'" in refused("predict", "a.mp4", "--format", "tiff")
    assert "no such device: toaster" in refused("predict", "a.mp4", "--device", "toaster")
    assert "salema predict takes no --colour red" in refused("predict", "a.mp4", "--colour", "red")
    assert "COMMAND" in refused("predicct", "a.mp4")


def test_output_below_a_file_gets_one_line(refused, tmp_path):
    film(tmp_path / "a.mp4", ramp(2))
    (tmp_path / "taken").write_text("mine")
    for form in ("png", "npy", "gray"):
        line = refused("predict", "a.mp4", "--out", "taken", "--format", form)
        assert "a file is in the way" in line
    assert "a file is in the way" in refused("predict", "a.mp4", "--overlay", "taken/o.mp4")
    assert "a file is in the way" in refused("predict", "a.mp4", "--out", "taken/deep/deeper")


@pytest.mark.parametrize("form", ["png", "npy"])
def test_no_space_left_on_the_device_gets_one_line(refused, tmp_path, monkeypatch, form):
    film(tmp_path / "a.mp4", ramp(9))

    true, count = write.fit, 0

    def full(*arguments):
        nonlocal count
        count += 1
        if count == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        return true(*arguments)

    monkeypatch.setattr(write, "fit", full)
    line = refused("predict", "a.mp4", "--format", form, "--overlay", "o.mp4", "--out", "maps")
    assert "No space left on device" in line and "free some space" in line


def command_line(*arguments, limit=None):
    """The program itself, in a process of its own; `limit` bounds the files that it writes."""
    bound = limit and (lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
    return subprocess.run([sys.executable, "-m", "salema", *map(str, arguments)], timeout=120,
                          capture_output=True, text=True, preexec_fn=bound)  # fmt: skip


def test_a_file_that_cannot_grow_leaves_nothing_half_written(file, tmp_path):
    source = film(tmp_path / "a.mp4", noise(6), crf="40")
    ran = command_line("predict", source, "--weights", file, "--out", tmp_path / "maps",
                       "--format", "npy", "--overlay", tmp_path / "o.mp4",
                       limit=30_000)  # fmt: skip
    assert ran.returncode == 2, ran.stderr
    assert ran.stderr.startswith("salema: error: cannot write") and ran.stderr.count("\n") == 1
    assert tree(tmp_path) == ["a.mp4"]


def test_bad_weights_get_one_line(refused, tmp_path):
    film(tmp_path / "a.mp4", ramp(2))
    (tmp_path / "page.pt").write_text("<!DOCTYPE html><html>404</html>")
    (tmp_path / "void.pt").write_bytes(b"")
    (tmp_path / "noise.pt").write_bytes(bytes(range(256)) * 9)
    state = salema.build("static", config=Model(width=0.125)).network.state_dict()
    state = {key.removeprefix("layers."): value for key, value in state.items()}
    state["2.weight"] = state["2.weight"][:, :-1]
    torch.save(state, tmp_path / "odd.pt")

    def line(name, *more):
        return refused("predict", "a.mp4", "--weights", tmp_path / name, *more, at=None)

    assert "a web page, not weights" in line("page.pt")
    assert "empty file" in line("void.pt")
    assert "cannot read weights" in line("noise.pt")
    assert "2.weight is (8, 7, 3, 3), not (8, 8, 3, 3)" in line("odd.pt", "--placement", "static")
    assert "pass --placement" in line("odd.pt")
    assert "unknown placement 'ema3O' (did you mean" in line("odd.pt", "--placement", "ema3O")
    assert "check --weights" in line("gone.pt")


def test_a_wrong_hash_is_told_and_the_right_one_passes(refused, run, tmp_path, file):
    import hashlib

    film(tmp_path / "a.mp4", ramp(2))
    assert "sha256 of" in refused("predict", "a.mp4", "--sha256", "00ff")
    right = hashlib.sha256(file.read_bytes()).hexdigest()
    assert run("predict", "a.mp4", "--sha256", right.upper())[0] == 0


def test_without_starter_weights_the_line_says_how_to_get_some(refused, tmp_path, monkeypatch):
    film(tmp_path / "a.mp4", ramp(2))
    monkeypatch.setattr(weights, "STARTER", tmp_path / "none.safetensors")
    assert "pass --weights FILE" in refused("predict", "a.mp4", at=None)


# ---------------------------------------------------------------------- the process


def test_the_end_by_sigterm_clears_up_like_ctrl_c(tmp_path, file):
    source = film(tmp_path / "a.mp4", noise(2000, (16, 16)))
    words = ["-m", "salema", "predict", str(source), "--weights", str(file), "--chunk", "1"]
    words += ["--out", str(tmp_path / "maps"), "--overlay", str(tmp_path / "o.mp4")]
    started = subprocess.Popen([sys.executable, *words], stderr=subprocess.PIPE, text=True)
    while not any(path.name.startswith(".o.mp4.") for path in tmp_path.iterdir()):
        assert started.poll() is None
        time.sleep(0.02)
    started.send_signal(signal.SIGTERM)
    _, err = started.communicate(timeout=60)
    assert started.returncode == 143 and "salema: stopped" in err and "Traceback" not in err
    assert tree(tmp_path) == ["a.mp4"]


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "x"), "cannot use x: No space left"),
        (PermissionError(errno.EACCES, "Permission denied"), "Permission denied (check the path"),
        (MemoryError(), "not enough memory"),
        (ModuleNotFoundError("no", name="papermill"), "papermill is not installed (pip install"),
    ],
)
def test_whatever_the_machine_refuses_is_one_line(refused, monkeypatch, error, line):
    def fails():
        raise error

    monkeypatch.setattr("salema.tools.doctor.report", fails)
    assert line in refused("doctor")


def test_a_name_that_is_no_text_and_one_of_two_lines(tmp_path, file):
    odd = os.fsencode(tmp_path) + b"/\xff\nb.mp4"
    os.rename(film(tmp_path / "a.mp4", ramp(2)), odd)
    words = [sys.executable, "-m", "salema", "predict", "--weights", file, "--out"]
    ran = subprocess.run([*words, tmp_path / "maps", odd], capture_output=True, text=True)
    assert "Traceback" not in ran.stderr and ran.returncode in (0, 2), ran.stderr
    ran = subprocess.run([*words, tmp_path / "maps", odd + b"x"], capture_output=True, text=True)
    assert ran.returncode == 2 and ran.stderr.count("\n") == 1, ran.stderr


def test_a_name_of_250_bytes_is_no_obstacle(run, tmp_path):
    film(tmp_path / ("x" * 250 + ".mp4"), ramp(2))
    assert run("predict", "x" * 250 + ".mp4", "--format", "gray")[0] == 0


@pytest.mark.parametrize("option", ["--chunk", "--every"])
@pytest.mark.parametrize("value", ["0", "-1", "10001", "9" * 5000, "nan", "1e3"])
def test_a_count_that_is_none_is_refused(refused, option, value):
    words = ["predict", "a"] if option == "--chunk" else ["evaluate", "a", "--dataset", "DHF1K"]
    assert option in refused(*words, option, value)


# ---------------------------------------------------------------------- other commands


def test_the_program_starts_quickly_without_torch_and_lists_its_commands():
    ran = command_line("--help")
    assert ran.returncode == 0
    for name in ("predict", "evaluate", "view", "export", "doctor", "tune", "index"):
        assert f"\n    {name} " in ran.stdout
    code = "import sys, salema.__main__ as m\n" \
           "try: m.main(['predict', '--help'])\n" \
           "except SystemExit: sys.exit('torch' in sys.modules)"  # fmt: skip
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


def test_the_help_of_a_command_shows_the_options_of_all_its_modes(run):
    status, out, _ = run("predict", "--help", at=None)
    assert status == 0 and out.count("usage: salema predict") == 3
    for option in ("--shot-reset", "--submission", "--videos", "--run RUN", "--sha256"):
        assert option in out


def test_a_profile_is_chosen_on_the_command_line(refused, tmp_path):
    shutil.copy(Path(__file__).parents[1] / "params.yaml", tmp_path)
    line = refused("--profile", "papre", "index", at=None)
    assert (
        "unknown profile 'papre' in params.yaml (choose one of sample, open, challenge, paper)"
        in line
    )
    empty = refused("--profile", "open", "index", "--root", tmp_path, at=None)
    assert "profile open" in empty and "OSIE" in empty


def test_a_bad_input_to_the_program_itself_is_one_line_and_status_2(tmp_path, file):
    ran = command_line("predict", tmp_path / "gone.mp4", "--weights", file)
    assert ran.returncode == 2 and ran.stdout == ""
    assert ran.stderr == f"salema: error: no such file: {tmp_path / 'gone.mp4'} (check the path)\n"


def test_convert_halves_a_file_and_never_overwrites(run, refused, tmp_path, file):
    status, out, _ = run("convert", file, "half.safetensors", "--half")
    assert status == 0 and out == "half.safetensors\n"
    assert (tmp_path / "half.safetensors").stat().st_size < 0.6 * file.stat().st_size
    assert "exists" in refused("convert", file, "half.safetensors")


def test_export_writes_the_step_in_float32(run, refused, tmp_path, file):
    onnxruntime = pytest.importorskip("onnxruntime", reason="needs `pip install salema[export]`")
    status, out, err = run("export", "step.onnx", "--weights", file)
    assert (status, out, err) == (0, "step.onnx\n", "")
    session = onnxruntime.InferenceSession(tmp_path / "step.onnx")
    assert [value.name for value in session.get_inputs()] == ["frame", "memory_30", "seen_30"]
    assert "step.onnx exists" in refused("export", "step.onnx", "--weights", file)


def test_every_option_has_a_help_text_and_shows_its_default(run):
    (commands,) = [a.choices for a in _parser()._actions if isinstance(a.choices, dict)]
    for parser in commands.values():
        for one in (parser, *parser.modes.values()):
            assert all(action.help for action in one._actions)
    out = " ".join(run("predict", "--help", at=None)[1].split())
    assert "--precision {auto,fp32,bf16}" in out and out.count("(default: auto)") == 4
    assert "no map depends on it (default: 16)" in out


@pytest.mark.parametrize(
    ("words", "lacking", "told"),
    [
        (
            ["report", "01_data"],
            "papermill",
            "reports need papermill (pip install 'salema[study]')",
        ),
        (
            ["export", "step.onnx"],
            "onnx",
            "ONNX needs one more package (pip install salema[export])",
        ),
        (["index"], "dvc", "no such file: params.yaml (run inside a clone, or pass --params)"),
    ],
)
def test_a_plain_install_says_in_one_line_what_a_command_lacks(
    refused, file, monkeypatch, words, lacking, told
):
    monkeypatch.setitem(sys.modules, lacking, None)
    monkeypatch.delitem(sys.modules, "salema.report.execute", raising=False)
    words += ["--weights", file] if words[0] == "export" else []
    assert told in refused(*words, at=None)


def test_doctor_says_something_and_ends_with_0_or_1(run):
    status, out, err = run("doctor")
    assert status in (0, 1) and err == "" and out.count("\n") == 8


def test_view_and_predict_write_a_page(run, refused, tmp_path):
    film(tmp_path / "clip.mp4", ramp(3))
    assert run("view", "clip.mp4")[:2] == (0, "clip.html\n")
    assert "clip.html exists" in refused("view", "clip.mp4")
    status, _, _ = run("predict", "clip.mp4", "--view", "page.html", "--colormap", "bone")
    assert status == 0 and tree(tmp_path) == ["clip.html", "clip.mp4", "page.html"]
    assert (tmp_path / "page.html").read_bytes() != (tmp_path / "clip.html").read_bytes()


def test_demo_is_the_page_of_the_clip_that_comes_along_and_names_its_makers(run, tmp_path):
    status, out, err = run("demo", "--out", "d.html")
    assert (status, out, err) == (0, "d.html\n", "")
    text = (tmp_path / "d.html").read_text("utf-8")
    assert "125 frames" in text and "© Blender Foundation, www.bigbuckbunny.org, CC BY 3.0" in text


@pytest.mark.parametrize("found", [True, False])
def test_view_opens_its_page_or_says_that_there_is_no_browser(run, tmp_path, monkeypatch, found):
    film(tmp_path / "a b.mp4", ramp(3))
    opened = []
    monkeypatch.setattr("webbrowser.open", lambda page: opened.append(page) or found)
    status, out, err = run("view", "a b.mp4", "--open")
    assert (status, out) == (0, "a b.html\n")
    assert opened == [(tmp_path / "a b.html").as_uri()]
    assert err == ("" if found else "no browser was found; open a b.html in one\n")
    run("view", "a b.mp4", "--overwrite")
    assert len(opened) == 1


def test_salema_alone_prints_the_help_and_it_knows_its_version(capfd, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["salema"])
    with pytest.raises(SystemExit) as left:
        main()
    out, err = capfd.readouterr()
    assert left.value.code == 0 and "commands:" in out and err == ""
    with pytest.raises(SystemExit) as left:
        main(["--version"])
    assert left.value.code == 0 and capfd.readouterr().out == f"salema {salema.__version__}\n"
