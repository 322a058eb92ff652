"""Two and four processes train as one does, over Gloo on the CPU."""

import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import traceback
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from studies import little, raw

from salema import params
from salema.files import SalemaError
from salema.train import loop, ranks

SERVER = multiprocessing.get_context("forkserver")  # its children need not import torch again
SERVER.set_forkserver_preload(["salema.train.loop"])
RUNS = ("static-metrics", "ema30-dropout", "clstm30")
CLOSE = {"atol": 1e-6, "rtol": 0}


def write(batch=4):
    """Groups of three images and of two clips, of a batch of four, learned by SGD.

    Adam would divide gradients by their own size, also those that are nothing but rounding.
    """
    study = raw("../data")
    tiny = study["profiles"]["tiny"]
    one = {"optimizer": "sgd", "batch": batch, "learning_rate": 1e-2}
    tiny["tune"]["static-metrics"] |= one | {"augment": "zoom", "train": "all"}
    tiny["finetune"] |= one | {"frames_per_clip": 8}
    study["guards"] = {"checkpoint_minutes": 1e-6}
    Path("tiny.yaml").write_text(yaml.safe_dump(study))
    return params.from_dict(study)


def train(runs, number=None, step=0):
    """Train runs; the gradients of each first step go to a file. At a step, have a signal."""
    stepped = loop.Learner._step

    def watched(learner, window, state):
        if learner.steps == step and number is not None:
            os.kill(os.getpid(), number)
        result = stepped(learner, window, state)
        if learner.steps == 1 and ranks.rank() == 0:
            named = learner.network.named_parameters()
            grads = {name: p.grad.clone() for name, p in named if p.grad is not None}
            torch.save(grads, f"{learner.job.run}.pt")
        return result

    loop.Learner._step = watched
    try:
        with ranks.joined():
            for run in runs:
                study = params.read("tiny.yaml")
                (loop.tune if run in study.tune else loop.finetune)(study, run)
    finally:
        loop.Learner._step = stepped


def process(folder, rank, count, port, options):
    """What torchrun does for each process."""
    os.chdir(folder)
    own = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count}
    own |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": 1}
    os.environ.update({key: str(value) for key, value in own.items()})
    stopped = any(signal.SIGSTOP in one for one in options)
    ranks.TIMEOUT = timedelta(seconds=6 if stopped else 60)
    with Path(f"log{rank}").open("w") as sys.stderr:
        try:
            train(*options[rank])
        except SalemaError as error:
            print(f"salema: error: {error}", file=sys.stderr)
            sys.exit(1)
        except KeyboardInterrupt as stop:
            sys.exit(128 + stop.args[0])
        except Exception:
            traceback.print_exc()
            sys.exit(3)


def processes(folder, *options):
    """Run so many processes; returns their exit codes and what they have reported."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    count = len(options)
    started = [
        SERVER.Process(target=process, args=(folder, rank, count, port, options))
        for rank in range(count)
    ]
    for one in started:
        one.start()
    for one in started:
        one.join(5 if started[0].exitcode else 100)  # one that hangs for ever is ended
        one.kill()
        one.join()
    return [one.exitcode for one in started], [Path(f"log{n}").read_text() for n in range(count)]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with data, and one in it where a single process has trained."""
    folder = tmp_path_factory.mktemp("ranks")
    little(folder / "data")
    (folder / "1").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder / "1")
        loop.tune(write(), "static")
        train(RUNS)
    return folder


@pytest.fixture
def at(place, monkeypatch):
    """Makes a folder with the same start as that of the single process."""

    def enter(name):
        static = Path(name, "runs/tiny/static/weights.safetensors")
        (place / static).parent.mkdir(parents=True)
        monkeypatch.chdir(place / name)
        weights = Path("../1/runs/tiny/static/weights.safetensors")
        Path("runs/tiny/static/weights.safetensors").write_bytes(weights.read_bytes())
        write()
        return place / name

    return enter


def assert_as_one(runs):
    for run in runs:
        wanted, found = (torch.load(Path(folder, f"{run}.pt")) for folder in ("../1", "."))
        torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-5)
        path = Path("runs/tiny", run, "weights.safetensors")
        torch.testing.assert_close(load_file(path), load_file("../1" / path), **CLOSE)
        start = load_file("../1/runs/tiny/static/weights.safetensors")["layers.30.weight"]
        assert not torch.allclose(start, load_file(path)["layers.30.weight"], atol=1e-4)


@pytest.mark.parametrize("count", [2, 4])
def test_several_processes_give_the_gradients_and_the_weights_of_one(at, count):
    folder = at(str(count))
    codes, logs = processes(folder, *[(RUNS,)] * count)
    assert codes == [0] * count, logs
    assert_as_one(RUNS)
    assert f"clstm30: {count} processes share the batch of 4" in logs[0] and not any(logs[1:])


def test_what_two_processes_begin_one_can_end(at):
    folder = at("begun")
    codes, logs = processes(folder, ((RUNS[1],), signal.SIGTERM, 2), ((RUNS[1],),))
    assert codes == [143, 143], logs
    train(RUNS[1:2])
    assert_as_one(RUNS[1:2])
    (folder,) = Path(".salema/training").glob("ema30*")
    assert {path.stem for path in folder.glob("*.pt")} == {"step-3", "step-4"}


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_process_that_dies_or_hangs_ends_the_others_with_one_line(at, number):
    folder = at(number.name)
    codes, logs = processes(folder, ((RUNS[1],),), ((RUNS[1],), number, 1))
    assert codes == [1, -signal.SIGKILL], logs
    lines = [line for line in logs[0].splitlines() if "error" in line]
    assert len(lines) == 1 and "process 0 of 2 lost another one" in lines[0], lines


def test_more_processes_than_a_batch_has_clips_and_an_adversary_are_refused(at):
    folder = at("many")
    write(batch=1)
    codes, logs = processes(folder, *[(RUNS[1:2],)] * 2)
    assert codes == [1, 2]
    assert "2 processes for a batch of 1: ema30-dropout (start at most 1" in logs[0]
    codes, logs = processes(folder, *[(("port",),)] * 2)
    assert codes == [1, 2] and "port has an adversary (train it in one process" in logs[0]


def test_torchrun_runs_the_command(at):
    at("torchrun")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += ["-m", "salema", "--params", "tiny.yaml", "finetune", "ema30-dropout"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["runs/tiny/ema30-dropout/weights.safetensors"]
    path = Path("runs/tiny/ema30-dropout/weights.safetensors")
    torch.testing.assert_close(load_file(path), load_file("../1" / path), **CLOSE)
