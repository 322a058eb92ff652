"""Damaged files on every reader, and odd words on the command line: a result, or one line.

`SALEMA_FUZZ` is the number of mutants (a short run by default, `make fuzz` a long one) and
`SALEMA_SEED` the seed. A failure names the mutant's number; its file stays in the test's folder.
"""

import faulthandler
import multiprocessing
import os
import resource
import signal
import sys
import traceback
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import trees
from test_predictor import predictor, scene
from test_read import corners, film, noise
from test_write import fill, maps

import salema.__main__ as program
from salema import data, params
from salema.files import SalemaError
from salema.media import image, read, write
from salema.model import weights
from salema.predict import load, sources
from salema.score import tables
from salema.score.maps import Maps
from salema.tools.options import OPTIONS

MUTANTS = int(os.environ.get("SALEMA_FUZZ", "400"))
SEED = int(os.environ.get("SALEMA_SEED", "0"))
SECONDS = 30  # of one mutant, at most
MEMORY = 2 * 2**30  # bytes of the whole process, at most


class HangError(BaseException):
    """A reader took too long; no `except Exception` may hide it."""


@contextmanager
def limited():
    """Raises `HangError` after `SECONDS`."""

    def late(*_):
        raise HangError

    signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)


def mutant(whole, rng):
    """The bytes of a file, damaged in one to three ways."""
    out = bytearray(whole)
    for _ in range(rng.integers(1, 4)):
        at = int(rng.integers(len(out) or 1))
        length = int(min(2 ** rng.integers(0, 12), len(out) - at))
        match rng.integers(8):
            case 0:
                out[at : at + length] = rng.bytes(length)
            case 1:
                out[at : at + length] = bytes(length)
            case 2:
                del out[at : at + length]
            case 3:
                out[at:at] = rng.bytes(length)
            case 4:
                out[at:at] = out[at : at + length]
            case 5:
                out[at : at + 4] = rng.choice([b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", bytes(4)])
            case 6:
                out[at : at + 1] = bytes([out[at] ^ (1 << int(rng.integers(8)))]) if out else b""
            case 7:
                del out[at:]
    return bytes(out)


# ---------------------------------------------------------------------- files and their readers


def video(path):
    source = read.open(path)
    return len(list(source)), source.stopped


def clips(dataset, split=None):
    """Reads all of a data set that lies in the folder of its mutated file."""

    def reader(path):
        root = next(parent for parent in path.parents if parent.name == dataset).parent
        for clip in data.load(root, dataset, split):
            list(clip.fixations())
            list(clip.maps())
            assert clip.annotated >= 0 and clip.dropped >= 0

    return reader


def stored(path):
    (clip,) = data.load(path.parent.parent / "data", "other", ground_truth=False)
    return [np.asarray(one).sum() for one in Maps(path.parent).of(clip)]


VIDEOS = {
    "a.mp4": ("libx264", "yuv420p"),
    "a.avi": ("mjpeg", "yuvj420p"),
    "b.avi": ("mpeg4", "yuv420p"),
    "a.gif": ("gif", "rgb8"),
    "a.webm": ("libvpx", "yuv420p"),
    "a.mkv": ("ffv1", "gray"),
    "a.ts": ("mpeg2video", "yuv420p"),
    "a.mov": ("mjpeg", "yuvj420p"),
}


def corpus(folder):
    """Name -> (a file that is whole, the function that reads it)."""
    found = {name: (film(folder / name, noise(6), *kind), video) for name, kind in VIDEOS.items()}
    alpha = np.dstack([corners(), corners()[..., 0]])
    for suffix in (".png", ".jpg", ".tif", ".bmp", ".webp", ".ppm", ".jp2"):
        path = trees.array(folder / f"picture{suffix}", noise(1)[0])
        found[path.name] = path, image.read_image
    for suffix in (".png", ".tif"):
        cv2.imwrite(str(folder / f"alpha{suffix}"), alpha)
        found[f"alpha{suffix}"] = folder / f"alpha{suffix}", image.read_image
    cv2.imwrite(
        str(folder / "map.png"), (np.random.default_rng(0).random((9, 12)) * 65535).astype("u2")
    )
    found["map.png"] = folder / "map.png", image.read_map
    found["size.jpg"] = trees.array(folder / "size.jpg", noise(1)[0]), image.image_size
    fill(write.gray(folder / "maps.mkv", (48, 64), 25), maps(6))
    found["maps.mkv"] = folder / "maps.mkv", lambda path: len(list(read.maps(path)))
    trees.shot(folder / "data" / "other" / "1", ["1", "2"], ("images",))
    trees.picture(folder / "data" / "other" / "1" / "1.png")
    (folder / "npy").mkdir()
    fill(write.npy(folder / "npy" / "1.npy", (9, 12)), maps(2, (9, 12)))
    found["1.npy"] = folder / "npy" / "1.npy", stored
    (stem,) = trees.salicon(folder, "val", [1])
    path = folder / "SALICON" / "fixations" / "val" / f"{stem}.mat"
    found["salicon.mat"] = path, forked(clips("SALICON", "val"))
    found["osie.mat"] = trees.osie(folder, {1601: [[(1, 2)], [(3, 4)]]}), forked(clips("OSIE"))
    path = trees.nusscene(folder, {401: [[(1, 2)], [(3, 4)]]})
    found["nusscene.mat"] = path, forked(clips("NUSScene"))
    table = trees.hevc33(folder, ["Yan"], [(1, 1, 0, 40, 5, 6)])
    trees.video(folder / "HEVC33" / "videos" / "Yan.avi", 2)
    found["hevc33.mat"] = table, forked(clips("HEVC33"))
    path = folder / "scores.csv"
    path.write_text("clip,auc_judd,nss\nYan,0.5,1\nLee,0.25,2\n")
    found[path.name] = path, lambda path: tables.read_scores(path, ["Yan"], "exact")
    model = predictor().network
    weights.save(model, folder / "ours.safetensors", weights.Card())
    found["ours.safetensors"] = folder / "ours.safetensors", load.read
    state = {key.replace("layers.", "salgan."): v for key, v in model.state_dict().items()}
    state = {key: value for key, value in state.items() if "alpha" not in key}
    torch.save({"state_dict": state}, folder / "theirs.pt")
    found["theirs.pt"] = folder / "theirs.pt", lambda path: load.read(path, "ema30", 0.1)
    path = folder / "params.yaml"
    path.write_bytes((Path(__file__).parents[1] / "params.yaml").read_bytes())
    found[path.name] = path, params.read
    return found


def forked(reader):
    """Runs a reader in a child: SciPy and HDF5 may crash a process (see docs/trust.md)."""

    def run(path):
        def child():
            faulthandler.disable()
            try:
                reader(path)
            except SalemaError:
                pass
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)

        process = multiprocessing.get_context("fork").Process(target=child)
        process.start()
        process.join()
        assert process.exitcode != 1, "see the traceback above"

    return run


@pytest.mark.filterwarnings("ignore")
def test_a_damaged_file_gives_a_result_or_one_line(tmp_path, capfd):
    rng, files = np.random.default_rng(SEED), corpus(tmp_path)
    wholes = {name: path.read_bytes() for name, (path, _) in files.items()}
    before = {path: path.stat().st_size for path in tmp_path.parent.rglob("*")}
    failures = []
    for number in range(MUTANTS):
        name = list(files)[number % len(files)]
        path, reader = files[name]
        path.write_bytes(mutant(wholes[name], rng))
        try:
            with limited():
                reader(path)
        except SalemaError as error:
            if "\n" in str(error) or len(str(error)) > 1000:
                failures.append((number, name, "no line: " + repr(str(error))[:200]))
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            kept = path.with_name(f"failed-{number}-{path.name}")
            before[kept] = kept.write_bytes(path.read_bytes())
            last = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{Path(last.filename).name}:{last.lineno}"
            failures.append((number, name, f"{type(error).__name__}: {error} at {where}"))
        path.write_bytes(wholes[name])
    assert not failures, "\n".join(map(str, failures))
    assert capfd.readouterr() == ("", "")
    assert before == {path: path.stat().st_size for path in tmp_path.parent.rglob("*")}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert peak * (1 if sys.platform == "darwin" else 1024) < MEMORY


DAMAGED = ("a.gif", "a.webm", "a.mkv", "a.ts", "a.avi", "a.mov")


@pytest.mark.parametrize("name", DAMAGED)
def test_a_frame_that_is_lost_in_the_middle_is_reported(tmp_path, name):
    path = film(tmp_path / name, noise(6), *VIDEOS[name])
    whole, rng = path.read_bytes(), np.random.default_rng(SEED)
    for number in range(MUTANTS // 40):
        length = int(rng.integers(1, len(whole) // 4))
        at = int(rng.integers(len(whole) // 4, len(whole) * 3 // 4 - length))
        path.write_bytes(whole[:at] + rng.bytes(length) + whole[at + length :])
        with limited():
            count, stopped = video(path)
        assert count == 6 or stopped, f"mutant {number}: {count} of 6 frames, {length} at {at}"


WORDS = ["predict", "evaluate", "view", "convert", "export", "index", "tune", "finetune"]
WORDS += ["report", "protocols", *OPTIONS, "--params", "--profile", "DHF1K", "ema30"]
ODD = ["", "-1", "0", "nan", "1e400", "9" * 5000, "x" * 5000, "../..", "/", ".", "gone.mp4"]
ODD += ["camera:" + "9" * 99, "\x1b[31m", "a\nb", "\udcff", "日本", "601-700", "7-3", "--", "-"]
ODD += ["@x", "%s", "{0}"]


def test_odd_words_on_the_command_line_give_a_status_and_one_line(tmp_path, monkeypatch, capfd):
    folder = tmp_path / "inner"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("SALEMA_DATA", str(folder))

    def no_model(*_, **__):
        raise SalemaError("no weights are loaded here (a test)")

    for module, name in ((load, "read"), (load, "load")):
        monkeypatch.setattr(module, name, no_model)
    rng = np.random.default_rng(SEED)
    for number in range(MUTANTS):
        count = int(rng.integers(1, 7))
        words = [str(rng.choice(WORDS if rng.random() < 0.7 else ODD)) for _ in range(count)]
        words = ["--opacity" if word == "view --out" else word for word in words]
        try:
            with limited():
                status = program.main(words)
        except SystemExit as left:
            status = left.code
        _, err = capfd.readouterr()
        assert status in (0, 1, 2), (number, words, err)
        assert status != 2 or (err.count("\n") == 1 and err.startswith("salema: error")), (
            words,
            err,
        )
    assert [path.name for path in tmp_path.iterdir()] == ["inner"]
    assert not list(folder.iterdir())


def test_the_names_that_a_source_gives_stay_in_the_folder_of_output(tmp_path):
    rng, model = np.random.default_rng(SEED), predictor()
    letters = [".", "..", " ", "-", "~", "é", "\\", "%", "\n", "x", "*", "$", "'", "\udcff"]
    out = tmp_path / "out"
    for number in range(MUTANTS // 30):
        name = "".join(rng.choice(letters, int(rng.integers(1, 6)))) + ".png"
        source = trees.array(tmp_path / f"{number}.png", scene(1)[0]).rename(tmp_path / name)
        with limited():
            sources.predict_sources(
                model, [str(source)], sources.Output(out / "in", overwrite=True)
            )
        source.unlink()
        assert [path.name for path in tmp_path.iterdir()] == ["out"]
        assert [path.name for path in out.iterdir()] == ["in"]
