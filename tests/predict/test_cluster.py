import json
import os
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
from test_many import clips
from test_predictor import predictor, scene
from test_read import film
from test_sources import tree

from salema import files
from salema.__main__ import main
from salema.model import weights
from salema.predict import cluster
from salema.predict.cluster import LOST, Worker, sha256
from salema.predict.many import plan, predict_many
from salema.predict.sources import Output


@pytest.fixture
def file(tmp_path):
    weights.save(predictor().network, tmp_path / "tiny.safetensors", weights.Card())
    return tmp_path / "tiny.safetensors"


@pytest.fixture
def worker(tmp_path, file):
    """What an actor does with a source, and its arguments."""
    output = Output(tmp_path / "out", "npy", size="model")
    made = Worker(output, 4, (file, "cpu", "fp32"))

    def row(source, again=False):
        ((_, name),) = plan([source], output)
        item = {"path": source, "output": f"{name}.npy", "again": again}
        return made(item | {"source": os.fsencode(source), "name": os.fsencode(name)})

    return row


def test_without_ray_one_line_says_how_to_get_it(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cluster, "find_spec", lambda name: None)
    assert main(["predict", "a.mp4", "--engine", "ray"]) == 2
    err = capsys.readouterr().err
    assert err == "salema: error: Ray is not installed (pip install 'salema[ray]')\n"
    assert main(["predict", "a.mp4", "--engine", "ray", "--shard", "1/2"]) == 2
    assert "--engine ray shares out itself" in capsys.readouterr().err
    assert tree(tmp_path) == []


def test_nothing_imports_ray_unless_asked():
    code = "import sys, salema.__main__, salema.predict.cluster, salema.predict.many\n"
    code += "print({'ray', 'pyarrow'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_a_row_has_the_frames_and_the_hash_of_the_output(tmp_path, worker):
    source = clips(tmp_path / "in", 1)[0]
    row = worker(source)
    assert list(row) == list(cluster.COLUMNS) and row["seconds"] > 0
    assert (row["path"], row["output"], row["frames"]) == (source, "v0.npy", 2)
    assert row["sha256"] == sha256(tmp_path / "out" / "v0.npy") and row["error"] is None
    assert worker(source) == row | {"seconds": None}  # it is there already
    np.save(tmp_path / "out" / "v0.npy", np.zeros((1, 4, 6)))
    assert worker(source, again=True)["frames"] == 2


def test_whatever_goes_wrong_is_the_error_of_its_row(tmp_path, worker, monkeypatch):
    good, bad = clips(tmp_path / "in", 2, broken=[1])
    assert worker(bad)["error"].startswith("not a video: ") and worker(bad)["frames"] == 0
    monkeypatch.setattr(cluster, "predict_one", lambda *_: 1 / 0)
    assert worker(good)["error"] == "ZeroDivisionError: division by zero"
    assert worker(good)["sha256"] is None


def test_the_hash_of_a_folder_is_that_of_sha256sum(tmp_path):
    for name in ("2.png", "10.png"):
        (tmp_path / name).write_text(name)
    command = "LC_ALL=C sha256sum * | sha256sum"
    done = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True)
    assert sha256(tmp_path) == done.stdout.split()[0]


# ---------------------------------------------------------------- with Ray


@pytest.fixture
def run(tmp_path, file, monkeypatch):
    """The driver on this machine: its status. Ray gives up if it needs 30 s to start."""
    pytest.importorskip("ray.data")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    words = [sys.executable, "-m", "salema", "predict", "--engine", "ray", "--weights", str(file)]
    words += ["--device", "cpu", "--precision", "fp32", "--format", "npy", "--out", "out"]

    def command(*more):
        for _ in range(3):
            done = subprocess.run([*words, *more], cwd=tmp_path, capture_output=True, text=True)
            if "Ray gave up" not in done.stderr:
                break
        return done.returncode, done.stdout, done.stderr

    return command


def table(folder):
    from pyarrow import parquet

    return {row["output"]: row for row in parquet.read_table(folder).to_pylist()}


def test_ray_writes_what_the_plain_loop_writes_and_a_table(tmp_path, file, run):
    sources = clips(tmp_path / "in", 6, broken=[2])
    (tmp_path / "list").write_text("\n".join(os.path.relpath(s, tmp_path) for s in sources))
    output = Output(tmp_path / "plain", "npy")
    predict_many(predictor(), plan(sources, output), output)
    status, out, err = run("--list", "list")
    assert status == 1 and "6 sources in out; 0 there already, 1 broken" in out
    assert "in/v2.mkv: not a video: " in err
    folder = tmp_path / "out"
    assert tree(folder) == [
        "predictions.jsonl",
        "predictions.parquet",
        "salema_predictions.json",
        *tree(output.folder),
    ]
    rows = table(folder / "predictions.parquet")
    assert len(rows) == 6 and [r["path"] for r in rows.values() if r["error"]] == ["in/v2.mkv"]
    for name in tree(output.folder):
        assert (folder / name).read_bytes() == (output.folder / name).read_bytes()
        assert rows[name]["sha256"] == sha256(folder / name)

    # As a kill leaves it: an output without its row, a row without its output, half a row.
    (folder / "v3.npy").unlink()
    (folder / "predictions.parquet").unlink()
    left = [rows[name] for name in ("v0.npy", "v1.npy", "v2.npy", "v3.npy", "v5.npy")]
    lines = [json.dumps(row) for row in [*left, rows["v4.npy"]]]
    (folder / "predictions.jsonl").write_text("\n".join(lines)[:-9])
    kept = {name: (folder / name).stat().st_mtime_ns for name in ("v0.npy", "v4.npy")}
    status, out, _ = run("--list", "list")
    assert status == 1 and "3 sources in out; 3 there already, 1 broken" in out
    again = table(folder / "predictions.parquet")
    assert again["v0.npy"] == rows["v0.npy"] and again["v4.npy"]["seconds"] is None
    for name, row in rows.items():
        assert again[name] | {"seconds": row["seconds"]} == row
    assert all((folder / name).stat().st_mtime_ns == moment for name, moment in kept.items())


def test_a_worker_that_dies_is_replaced_and_one_that_always_dies_leaves_a_row(tmp_path, run):
    (tmp_path / "in").mkdir()
    sources = [str(film(tmp_path / "in" / f"v{n}.mkv", scene(9 + 400 * n))) for n in (0, 1)]
    killed, ended = [], threading.Event()

    def kill():
        while not ended.wait(0.02):
            for path in (tmp_path / "out").glob(".v1.npy.*"):
                if (pid := int(files.HIDDEN.fullmatch(path.name)[3])) not in killed:
                    os.kill(pid, signal.SIGKILL)
                    killed.append(pid)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        status, *_ = run(*sources)
    finally:
        ended.set()
        thread.join()
    rows = table(tmp_path / "out" / "predictions.parquet")
    assert status == 1 and len(killed) == 1 + cluster.TRIES
    assert rows["v0.npy"]["error"] is None and rows["v1.npy"]["error"] == LOST
