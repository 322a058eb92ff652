import errno
import zipfile
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import trees
import yaml
from test_predictor import SIZE, predictor, scene
from test_read import film

from salema import data, params
from salema.files import SalemaError
from salema.media import read, write
from salema.model import weights
from salema.predict.sources import (
    Output,
    bounded,
    numbers,
    predict_dataset,
    predict_run,
    predict_sources,
    submission,
)


@pytest.fixture(scope="module")
def model():
    return predictor()


# ---------------------------------------------------------------------- sources


def picture_source(path, frames):
    """A folder of frames."""
    for index, frame in enumerate(frames):
        trees.array(path / f"{index:03d}.png", frame)
    return str(path)


def test_names_that_repeat_get_numbers_and_never_collide(tmp_path, model, capsys):
    names = ("a/clip", "b/clip", "c/clip-2", "d/clip")
    sources = [picture_source(tmp_path / n, scene(1 + i)) for i, n in enumerate(names)]
    output = Output(tmp_path / "out", form="npy", size="model")
    assert predict_sources(model, sources, output) == 0
    lengths = {path.name: len(np.load(path)) for path in (tmp_path / "out").iterdir()}
    assert lengths == {"clip.npy": 1, "clip-2.npy": 2, "clip-2-2.npy": 3, "clip-3.npy": 4}


def test_an_interrupted_run_keeps_what_is_done_and_resumes_from_there(tmp_path, model, capsys):
    sources = [picture_source(tmp_path / name, scene(6)) for name in ("one", "two")]
    output = Output(tmp_path / "out", overlay=tmp_path / "over", size="model")
    true, steps = model.step, []

    def interrupted(frames):
        steps.append(len(frames))
        if len(steps) == 4:
            raise KeyboardInterrupt
        return true(frames)

    model.step = interrupted
    try:
        with pytest.raises(KeyboardInterrupt):
            predict_sources(model, sources, output)
    finally:
        del model.step
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["one"]
    assert [path.name for path in (tmp_path / "over").iterdir()] == ["one.mp4"]
    made = (tmp_path / "out" / "one" / "000.png").stat().st_mtime_ns
    predict_sources(model, sources, output)
    assert len(list((tmp_path / "out" / "two").iterdir())) == 6
    assert (tmp_path / "out" / "one" / "000.png").stat().st_mtime_ns == made
    assert "one exists, skipped" in capsys.readouterr().out


def test_what_is_overwritten_stays_until_the_new_is_there(tmp_path, model):
    source = picture_source(tmp_path / "clip", scene(5))
    output = Output(None, overlay=tmp_path / "over.mp4")
    predict_sources(model, [source], output)
    before = (tmp_path / "over.mp4").read_bytes()

    def broken(frames):
        raise KeyboardInterrupt

    model.step = broken
    try:
        again = Output(None, overlay=tmp_path / "over.mp4", overwrite=True)
        with pytest.raises(KeyboardInterrupt):
            predict_sources(model, [source], again)
    finally:
        del model.step
    assert (tmp_path / "over.mp4").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip", "over.mp4"]


def test_a_camera_ends_with_an_interruption_and_keeps_its_maps(
    tmp_path, model, monkeypatch, capsys
):
    def decode(source):
        yield from ((image, None, index / 30) for index, image in enumerate(scene(9)))
        raise KeyboardInterrupt

    camera = read.Source("camera0", (40, 60), decode, fps=30.0)
    monkeypatch.setattr(read, "open", lambda source: camera)
    output = Output(tmp_path, form="npy", size="model")
    assert predict_sources(model, ["camera:0"], output) == 1
    assert len(np.load(tmp_path / "camera0.npy")) == 8  # whole chunks
    assert "stopped after 8 frames; 8 maps kept" in capsys.readouterr().err


def test_a_gray_video_keeps_the_times_of_its_source(tmp_path, model):
    times = [0, 0.04, 0.5, 0.54, 2.0]
    source = film(tmp_path / "uneven.mkv", scene(5), times=times)
    output = Output(tmp_path / "out", form="gray")
    assert predict_sources(model, [str(source)], output) == 0
    with av.open(str(tmp_path / "out" / "uneven.mkv")) as container:
        seen = [float(picture.time) for picture in container.decode(video=0)]
    np.testing.assert_allclose(seen, times, atol=2e-3)


def test_somebody_elses_files_are_never_removed(tmp_path, model):
    source = picture_source(tmp_path / "clip", scene(2))
    (tmp_path / "out" / "clip").mkdir(parents=True)
    (tmp_path / "out" / "clip" / "thesis.tex").write_text("mine")
    output = Output(tmp_path / "out", overwrite=True)
    with pytest.raises(SalemaError, match=r"holds thesis\.tex, which is not one of these maps"):
        predict_sources(model, [source], output)
    assert (tmp_path / "out" / "clip" / "thesis.tex").read_text() == "mine"


@pytest.mark.parametrize("name", ["000.png", "holiday.png", "00001.png"])
@pytest.mark.parametrize("kind", ["clip", "clip.mp4"])
def test_pictures_that_are_not_maps_are_never_removed(tmp_path, model, name, kind):
    if kind == "clip":
        source = picture_source(tmp_path / kind, scene(2))
    else:
        source = str(film(tmp_path / kind, scene(2)))
    output = Output(tmp_path / "out", overwrite=True)
    predict_sources(model, [source], output)
    predict_sources(model, [source], output)  # maps are replaced
    color = np.zeros((4, 4, 3) if name != "holiday.png" else (4, 4), np.uint8)
    mine = trees.array(tmp_path / "out" / "clip" / name, color)
    before = mine.read_bytes()
    with pytest.raises(SalemaError, match=f"holds {name}, which is not one of these maps"):
        predict_sources(model, [source], output)
    assert mine.read_bytes() == before and len(tree(tmp_path / "out")) >= 2


def test_a_source_called_dot_dot_replaces_no_folder_of_output(tmp_path, model):
    source = film(tmp_path / "a.mp4", scene(2)).rename(tmp_path / "..mp4")
    (tmp_path / "out" / "other").mkdir(parents=True)
    trees.array(tmp_path / "out" / "00001.png", np.zeros((4, 4), np.uint8))
    predict_sources(model, [str(source)], Output(tmp_path / "out", overwrite=True))
    expected = ["..mp4/00001.png", "..mp4/00002.png", "00001.png"]
    assert tree(tmp_path / "out") == expected and (tmp_path / "out" / "other").is_dir()


@pytest.mark.parametrize("form", write.SUFFIX)
def test_maps_that_are_not_finite_are_refused(tmp_path, model, form, monkeypatch):
    source = picture_source(tmp_path / "clip", scene(3))
    monkeypatch.setattr(model, "step", lambda frames: np.full((len(frames), 4, 6), np.nan))
    with pytest.raises(SalemaError, match="must be finite"):
        predict_sources(model, [source], Output(tmp_path / "out", form))
    assert tree(tmp_path) == ["clip/000.png", "clip/001.png", "clip/002.png"]


def test_maps_that_are_all_flat_get_a_line(tmp_path, model, monkeypatch, capsys):
    source = picture_source(tmp_path / "clip", scene(3))
    flat = np.full((40, 4, 6), 0.5, np.float32)
    monkeypatch.setattr(model, "step", lambda frames: flat[: len(frames)])
    predict_sources(model, [source], Output(tmp_path / "out"))
    assert "clip: all 3 maps are flat; are the weights broken?\n" in capsys.readouterr().err


def test_large_frames_are_taken_in_smaller_chunks(model):
    for size, chunk in [((1080, 1920), 16), ((2160, 3840), 5), ((4320, 7680), 1)]:
        asked, model.chunk = model.chunk, 16
        with bounded(model, size):
            assert model.chunk == chunk
        assert model.chunk == 16
        model.chunk = asked


# ---------------------------------------------------------------------- data sets


@pytest.fixture
def dhf1k(tmp_path):
    root = tmp_path / "data"
    for number, frames in ((601, 3), (602, 5), (700, 2)):
        trees.dhf1k(root, number, frames)
    return root


def tree(folder):
    """Every file below a folder, as text."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return sorted(path.relative_to(folder).as_posix() for path in files)


def test_dhf1k_gets_the_originals_folders_and_the_frames_own_names(tmp_path, dhf1k, model):
    clips = data.load(dhf1k, "DHF1K", videos=range(601, 603), ground_truth=False)
    assert predict_dataset(model, clips, tmp_path / "out", "png", False, "best") == 0
    expected = [f"best_predictions/0601/{n:04d}.png" for n in (1, 2, 3)]
    expected += [f"best_predictions/0602/{n:04d}.png" for n in (1, 2, 3, 4, 5)]
    assert tree(tmp_path / "out") == expected
    seen = cv2.imread(str(tmp_path / "out" / expected[-1]), cv2.IMREAD_UNCHANGED)
    frames = np.stack(list(clips[1].frames()))
    alone = write.to_byte(write.min_max(model.predict(frames, size="model")[-1]))
    np.testing.assert_allclose(seen, alone, atol=1)  # 0602 began with an empty memory
    assert seen.min() == 0 and seen.max() == 255


def test_hollywood_gets_the_originals_folders_and_its_films_numbers(tmp_path, model):
    part = tmp_path / "data" / "Hollywood-2" / "testing"
    trees.shot(part / "actioncliptest00001_1", [f"actioncliptest00001_{n:05d}" for n in (1, 2)])
    trees.shot(part / "actioncliptest00001_2", ["actioncliptest00001_00003"])
    clips = data.load(tmp_path / "data", "Hollywood-2", ground_truth=False)
    predict_dataset(model, clips, tmp_path / "out", "png", False, "best")
    inner = "Hollywood-2/testing/actioncliptest00001"
    assert tree(tmp_path / "out") == [
        f"{inner}_1/best_predictions/actioncliptest00001_00001.png",
        f"{inner}_1/best_predictions/actioncliptest00001_00002.png",
        f"{inner}_2/best_predictions/actioncliptest00001_00003.png",
    ]


@pytest.mark.parametrize(("form", "suffix"), [("gray", ".mkv"), ("npy", ".npy")])
def test_a_data_set_as_one_file_a_clip(tmp_path, dhf1k, model, form, suffix):
    clips = data.load(dhf1k, "DHF1K", videos=range(602, 603))
    predict_dataset(model, clips, tmp_path / "out", form, False)
    assert tree(tmp_path / "out") == [f"salema_predictions/0602{suffix}"]
    path = tmp_path / "out" / "salema_predictions" / f"0602{suffix}"
    assert len(list(read.maps(path)) if form == "gray" else np.load(path)) == 5


def test_an_interrupted_data_set_resumes_with_the_next_clip(tmp_path, dhf1k, model, capsys):
    clips = data.load(dhf1k, "DHF1K")
    true, steps = model.step, []

    def interrupted(frames):
        steps.append(len(frames))
        if len(steps) == 3:  # within 0602
            raise KeyboardInterrupt
        return true(frames)

    model.step = interrupted
    try:
        with pytest.raises(KeyboardInterrupt):
            predict_dataset(model, clips, tmp_path / "out", "png", False)
    finally:
        del model.step
    assert len(tree(tmp_path / "out")) == 3
    assert predict_dataset(model, clips, tmp_path / "out", "png", False) == 0
    assert len(tree(tmp_path / "out")) == 10
    out = capsys.readouterr().out
    assert "2 clips, 7 maps in" in out and "1 there already" in out


def test_a_clip_with_a_broken_frame_is_skipped_and_counted(tmp_path, model, capsys):
    folder = tmp_path / "data" / "other"
    for name in ("1", "2", "10"):
        picture_source(folder / name, scene(2))
    (folder / "2" / "001.png").write_bytes(b"not a picture")
    clips = data.load(tmp_path / "data", "other", ground_truth=False)
    status = predict_dataset(model, clips, tmp_path / "out", "png", False)
    out, err = capsys.readouterr()
    assert status == 1 and "1 broken" in out
    assert err.startswith("2 skipped: ") and "001.png" in err and err.count("\n") == 1
    folders = {path.name for path in (tmp_path / "out" / "salema_predictions").iterdir()}
    assert folders == {"1", "10"}


def test_an_error_in_writing_ends_the_whole_data_set(tmp_path, dhf1k, model, monkeypatch):
    def full(image, suffix):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(write, "picture", full)
    clips = data.load(dhf1k, "DHF1K")
    with pytest.raises(SalemaError, match="No space left on device"):
        predict_dataset(model, clips, tmp_path / "out", "png", False)
    assert tree(tmp_path / "out") == []


def test_a_source_without_a_frame_is_an_error_and_leaves_nothing(tmp_path, model, monkeypatch):
    monkeypatch.setattr(read, "open", lambda name: read.Source("empty", (4, 4), lambda _: iter(())))
    for form in write.SUFFIX:
        output = Output(tmp_path / "out", form, overlay=tmp_path / "over.mp4")
        with pytest.raises(SalemaError, match=r"no frame could be read: empty\.mp4"):
            predict_sources(model, ["empty.mp4"], output)
        assert tree(tmp_path) == []


def test_a_submission_is_a_zip_of_clips_and_frames_with_four_digits(tmp_path, dhf1k, model):
    clips = data.load(dhf1k, "DHF1K")
    predict_dataset(model, clips, tmp_path / "out", "png", False)
    folder = tmp_path / "out" / "salema_predictions"
    submission(folder, clips, tmp_path / "send.zip")
    with zipfile.ZipFile(tmp_path / "send.zip") as archive:
        assert archive.testzip() is None
        names = archive.namelist()
        assert archive.read("0700/0002.png") == (folder / "0700" / "0002.png").read_bytes()
    assert names == [f"{c.name}/{n:04d}.png" for c in clips for n in range(1, c.n_frames + 1)]
    with pytest.raises(SalemaError, match="exists"):
        submission(folder, clips, tmp_path / "send.zip")
    (folder / "0602" / "0004.png").unlink()
    with pytest.raises(SalemaError, match="4 of 5 maps"):
        submission(folder, clips, tmp_path / "again.zip")
    assert not (tmp_path / "again.zip").exists()


@pytest.mark.parametrize(
    ("text", "expected"), [("601-700", range(601, 701)), ("7", range(7, 8)), (" 1-1 ", range(1, 2))]
)
def test_numbers_count_both_ends(text, expected):
    assert numbers(text) == expected


@pytest.mark.parametrize("text", ["", "700-601", "a-b", "1-2-3", "-5", "601:700"])
def test_a_bad_range_of_numbers_is_refused(text):
    with pytest.raises(SalemaError, match="601-700"):
        numbers(text)


# ---------------------------------------------------------------------- the study


def test_a_run_of_the_study_gets_its_maps_in_sixteen_bits(tmp_path, dhf1k, monkeypatch):
    stems = trees.salicon(dhf1k, "val", [1, 2, 3])
    raw = yaml.safe_load((Path(__file__).parents[2] / "params.yaml").read_text("utf-8"))
    monkeypatch.chdir(tmp_path)
    raw["profiles"][raw["profile"]] |= {
        "data": {"root": str(dhf1k), "tune": ["SALICON"], "finetune": ["DHF1K"],
                 "evaluate": {"SALICON": "val", "DHF1K": "val"}},
        "predict": {"precision": "fp32", "chunk": 2},
    }  # fmt: skip
    settings = params.from_dict(raw)
    model = predictor(chunk=2)
    weights.save(
        model.network, settings.run_folder("ema30") / "weights.safetensors", weights.Card()
    )
    folder = predict_run(settings, "ema30")
    assert tree(folder) == ["DHF1K/0601.mkv", "DHF1K/0602.mkv", "DHF1K/0700.mkv",
                            *(f"SALICON/{stem}.png" for stem in stems)]  # fmt: skip
    seen = np.stack(list(read.maps(folder / "DHF1K" / "0602.mkv")))
    clip = data.load(dhf1k, "DHF1K", videos=range(602, 603))[0]
    expected = model.predict(np.stack(list(clip.frames())), size="model")
    for saliency, alone in zip(seen, expected, strict=True):
        np.testing.assert_allclose(saliency, write.min_max(alone), atol=2e-3)
    still = cv2.imread(str(folder / "SALICON" / f"{stems[2]}.png"), cv2.IMREAD_UNCHANGED)
    assert still.dtype == np.uint16 and still.shape == SIZE and still.max() == 65535
