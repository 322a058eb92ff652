import errno
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import trees
from test_predictor import predictor, scene
from test_read import film
from test_sources import picture_source, tree

from salema.files import SalemaError
from salema.media import write
from salema.predict.many import finished, listed, plan, predict_many
from salema.predict.sources import Output


@pytest.fixture(scope="module")
def model():
    return predictor()


def clips(folder, count, broken=()):
    """Short videos; a broken one has no frame."""
    folder.mkdir()
    for number in range(count):
        path = film(folder / f"v{number}.mkv", scene(2 + number % 3, seed=number))
        if number in broken:
            path.write_bytes(b"not a video")
    return sorted(map(str, folder.iterdir()))


def test_a_list_is_one_source_a_line_and_its_names_may_hold_anything(tmp_path):
    names = ["a b.mp4", "#1.mp4", " c.mp4 ", os.fsdecode(b"\xff.mp4")]
    text = b"\r\n".join(map(os.fsencode, names)) + b"\n\n"
    (tmp_path / "list").write_bytes(text)
    (tmp_path / "list.txt").write_bytes(text)
    assert listed([], str(tmp_path / "list")) == (names, True)
    assert listed(["x.mp4", str(tmp_path / "list.txt")]) == (["x.mp4", *names], True)
    assert listed(["x.mp4"]) == (["x.mp4"], False)
    with pytest.raises(SalemaError, match=r"cannot read the list .*no\.txt: No such file"):
        listed([str(tmp_path / "no.txt")])


def test_a_folder_of_videos_is_the_list_of_them_and_one_of_pictures_is_a_source(tmp_path):
    for name in ("v10.mp4", "v9.MKV", ".v1.mp4", "notes.md"):
        (tmp_path / "videos" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "videos" / name).touch()
    names, several = listed([str(tmp_path / "videos")])
    assert [os.path.basename(name) for name in names] == ["v9.MKV", "v10.mp4"] and several
    trees.picture(tmp_path / "videos" / "1.png")
    assert listed([str(tmp_path / "videos")]) == ([str(tmp_path / "videos")], False)


def test_names_come_from_the_whole_list_without_opening_a_source(tmp_path):
    (tmp_path / "frames.d").mkdir()
    sources = ["a/x.mp4", "b/x.mp4", "c/x-2.mp4", str(tmp_path / "frames.d")]
    names = [name for _, name in plan(sources, Output(tmp_path / "out"))]
    assert names == ["x", "x-2", "x-2-2", "frames.d"]
    assert len(plan(["a/x.mp4"] * 50_000, Output(tmp_path))) == 50_000  # in no quadratic time


def test_a_list_needs_folders_and_never_replaces_a_source(tmp_path):
    for output in (Output(None, overlay=tmp_path), Output(tmp_path, overlay=tmp_path / "a.mp4")):
        with pytest.raises(SalemaError, match="needs folders"):
            plan(["x.mp4"], output)
    sources = [str(tmp_path / "x.mp4"), str(tmp_path / "x.mkv")]
    with pytest.raises(SalemaError, match=r"x\.mkv is a source itself"):
        plan(sources, Output(tmp_path, "gray", overwrite=True))


def test_a_broken_source_gets_a_line_and_never_ends_the_others(tmp_path, model, capsys):
    sources = clips(tmp_path / "in", 4, broken=[1])
    data = (tmp_path / "in" / "v2.mkv").read_bytes()
    (tmp_path / "in" / "v2.mkv").write_bytes(data[:-10])
    output = Output(tmp_path / "out", "npy")
    planned = plan([*sources, str(tmp_path / "no.mp4")], output)
    assert predict_many(model, planned, output) == 1
    out, err = capsys.readouterr()
    assert tree(tmp_path / "out") == ["v0.npy", "v2.npy", "v3.npy"]
    assert "3 sources in" in out and "0 there already, 3 broken" in out
    lines = err.splitlines()
    assert [line.split(": ")[0] for line in lines] == [sources[1], sources[2], planned[-1][0]]
    assert "not a video" in lines[0] and "maps kept" in lines[1] and "no such file" in lines[2]


def test_what_exists_is_skipped_and_the_status_is_good(tmp_path, model, capsys):
    sources = clips(tmp_path / "in", 3)
    output = Output(tmp_path / "out", overlay=tmp_path / "over", size="model")
    assert predict_many(model, plan(sources, output), output) == 0
    (tmp_path / "over" / "v1.mp4").unlink()  # as if a kill came between the two
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "over").iterdir()}
    assert predict_many(model, plan(sources, output), output) == 0
    assert "1 sources in" in capsys.readouterr().out.splitlines()[-1]
    assert all(finished(f"v{number}", output) for number in range(3))
    assert all(path.stat().st_mtime_ns == moment for path, moment in before.items())


def test_a_full_disk_ends_the_run(tmp_path, model, monkeypatch):
    def full(image, suffix):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(write, "picture", full)
    output = Output(tmp_path / "out")
    with pytest.raises(SalemaError, match="No space left"):
        predict_many(model, plan(clips(tmp_path / "in", 3), output), output)
    assert tree(tmp_path / "out") == []


def test_any_number_of_kills_ends_with_the_same_folder(tmp_path, model):
    sources = clips(tmp_path / "in", 8)
    output = Output(tmp_path / "one", "npy", size="model")
    predict_many(model, plan(sources, output), output)
    code = "import sys, time; from test_predictor import predictor\n"
    code += "from salema.predict.many import *\n"
    code += "m, o = predictor(), Output(Path('two'), 'npy', size='model')\n"
    code += "fit = Predictor.fit\n"
    code += "Predictor.fit = lambda *both: (time.sleep(0.05), fit(*both))[1]\n"
    code += "predict_many(m, plan(sys.argv[1:], o), o)"
    words = [sys.executable, "-c", code, *sources]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    for wanted in (1, 4):
        with subprocess.Popen(words, cwd=tmp_path, env=environment) as process:
            while len(list((tmp_path / "two").glob("*.npy"))) < wanted:
                assert process.poll() is None
                time.sleep(0.01)
            process.send_signal(signal.SIGKILL)
    assert len(list((tmp_path / "two").glob("*.npy"))) < 8
    subprocess.run(words, cwd=tmp_path, env=environment, check=True)
    assert tree(tmp_path / "two") == tree(tmp_path / "one")
    for name in tree(tmp_path / "one"):
        np.testing.assert_array_equal(
            np.load(tmp_path / "one" / name), np.load(tmp_path / "two" / name)
        )


def test_a_folder_of_frames_may_be_in_a_list(tmp_path, model):
    source = picture_source(tmp_path / "frames", scene(3))
    output = Output(tmp_path / "out", overlay=tmp_path / "over")
    assert predict_many(model, plan([source], output), output) == 0
    assert tree(tmp_path / "over") == ["frames.mp4"] and len(tree(tmp_path / "out")) == 3
