"""Training that is killed, stopped or damaged at any moment ends with the same weights."""

import multiprocessing
import os
import shutil
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from studies import little, raw

from salema import params
from salema.__main__ import main
from salema.files import SalemaError
from salema.train import checkpoints, loop

KILLS = int(os.environ.get("SALEMA_KILLS", 5))  # SALEMA_KILLS=20: for long
RUN = "ema30-dropout"
OUT = Path("runs/tiny", RUN)


def given(minutes=1e-6, windows=4):
    """Two epochs of two clips, 4 windows each, with a checkpoint after every step."""
    study = raw("data")
    changes = {"epochs": 2, "batch": 1, "frames_per_clip": 2 * windows}
    study["profiles"]["tiny"]["finetune"] |= changes
    study["guards"] = {"checkpoint_minutes": minutes}
    return study


def write(study):
    Path("tiny.yaml").write_text(yaml.safe_dump(study))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with data, the static network, and what an uninterrupted training writes."""
    folder = tmp_path_factory.mktemp("resume")
    little(folder / "data")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        loop.tune(params.from_dict(given()), "static")
        loop.finetune(params.from_dict(given()), RUN)
        OUT.rename("whole")
    return folder


@pytest.fixture
def study(place, monkeypatch):
    monkeypatch.chdir(place)
    for folder in (".salema/training", OUT):
        shutil.rmtree(folder, ignore_errors=True)
    write(given())
    return place


def same():
    """Whether a training has written what the uninterrupted one has."""
    names = ("weights.safetensors", "losses.csv")
    return all((OUT / name).read_bytes() == Path("whole", name).read_bytes() for name in names)


def steps():
    return sorted(int(path.stem[5:]) for path in Path(".salema/training").glob("*/step-*.pt"))


SERVER = multiprocessing.get_context("forkserver")  # its children need not import torch again
SERVER.set_forkserver_preload(["salema.train.loop"])


def train(folder):
    os.chdir(folder)
    with Path("log").open("a", buffering=1) as sys.stderr:
        loop.finetune(params.read("tiny.yaml"), RUN)


def test_killed_at_random_moments_it_ends_with_the_same_weights(study):
    write(given(windows=KILLS))
    loop.finetune(params.read("tiny.yaml"), RUN)
    whole = [path.read_bytes() for path in sorted(OUT.iterdir())]
    shutil.rmtree(OUT)
    shutil.rmtree(".salema/training")
    Path("log").touch()
    random, done, at = np.random.default_rng(), 0, []
    for kill in range(KILLS + 1):
        process = SERVER.Process(target=train, args=(study,))
        process.start()
        until = done + int(random.integers(0, 5))
        while process.is_alive() and (kill == KILLS or max(steps(), default=0) <= until):
            time.sleep(0.005)
        time.sleep(random.uniform(0, 0.05))
        if kill < KILLS:
            process.kill()
        process.join()
        done = max(steps(), default=0)
        at.append(done)
    log = Path("log").read_text()
    print(f"{log}last checkpoints: {at}")
    assert process.exitcode == 0 and "resuming in epoch" in log
    assert [path.read_bytes() for path in sorted(OUT.iterdir())] == whole


@pytest.fixture
def at(monkeypatch):
    """Something happens in the middle of a step of training."""
    step = loop.Learner._step

    def arrange(number, what):
        def stepped(learner, window, state):
            if learner.steps + 1 == number:
                what(learner)
            return step(learner, window, state)

        monkeypatch.setattr(loop.Learner, "_step", stepped)

    yield arrange
    monkeypatch.setattr(loop.Learner, "_step", step)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("moment", [3, 8])  # in the middle of an epoch, and at its end
def test_a_signal_writes_a_checkpoint_after_the_step_and_ends(study, at, capsys, number, moment):
    write(given(minutes=60))
    before = signal.getsignal(signal.SIGINT)
    at(moment, lambda _: signal.raise_signal(number))
    assert main(["--params", "tiny.yaml", "finetune", RUN]) == 128 + number
    told = f"{RUN} is kept, 0 epochs and {moment} windows; run the same command again to resume"
    assert told in capsys.readouterr().err
    assert steps() == [moment] and signal.getsignal(signal.SIGINT) == before
    at(0, None)
    assert main(["--params", "tiny.yaml", "finetune", RUN]) == 0
    assert f"{RUN}: resuming in epoch 1, window {moment}" in capsys.readouterr().err
    assert same()


def test_a_signal_in_the_validation_keeps_the_epoch(study, monkeypatch):
    maps = loop.Learner._maps

    def stopped(learner, network, *rest):
        if not network.training:
            signal.raise_signal(signal.SIGTERM)
        return maps(learner, network, *rest)

    monkeypatch.setattr(loop.Learner, "_maps", stopped)
    with pytest.raises(KeyboardInterrupt, match="0 epochs and 8 windows"):
        loop.finetune(params.from_dict(given()), RUN)
    monkeypatch.setattr(loop.Learner, "_maps", maps)
    loop.finetune(params.from_dict(given()), RUN)
    assert same()


def test_a_step_that_does_not_end_is_cut_off_by_the_second_signal(study, at):
    def twice(_):
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)

    at(6, twice)
    with pytest.raises(KeyboardInterrupt):
        loop.finetune(params.from_dict(given()), RUN)
    assert steps() == [4, 5]


def test_a_step_that_does_not_end_is_cut_off_in_time(study, at, monkeypatch):
    def hang(_):
        signal.raise_signal(signal.SIGTERM)
        time.sleep(30)

    monkeypatch.setattr(checkpoints, "GRACE", 1)
    at(6, hang)
    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        loop.finetune(params.from_dict(given()), RUN)
    assert time.monotonic() - begun < 10 and steps() == [4, 5]


@pytest.mark.parametrize("damage", ["short", "flipped", "empty", "both"])
def test_a_damaged_checkpoint_counts_as_absent_and_the_one_before_it_is_used(
    study, at, capsys, damage
):
    at(6, lambda _: pytest.exit("stop"))
    with pytest.raises(pytest.exit.Exception):
        loop.finetune(params.from_dict(given()), RUN)
    assert steps() == [4, 5]
    (folder,) = Path(".salema/training").glob(f"{RUN}-*")
    for step in (4, 5) if damage == "both" else (5,):
        path = folder / f"step-{step}.pt"
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 64
        path.write_bytes(b"" if damage == "empty" else content)
        if damage == "short":
            path.write_bytes(content[: len(content) // 2])
    at(0, None)
    capsys.readouterr()
    loop.finetune(params.from_dict(given()), RUN)
    lines = capsys.readouterr().err.splitlines()
    assert "step-5.pt is damaged: the checkpoint before it counts" in lines[0]
    wanted = [] if damage == "both" else [f"{RUN}: resuming in epoch 1, window 4"]
    assert [line for line in lines if "resuming" in line] == wanted
    assert same()


def test_what_has_changed_since_the_last_checkpoint_is_told(study, capsys):
    loop.finetune(params.from_dict(given()), RUN)
    assert "from scratch" not in capsys.readouterr().err
    other = given(minutes=5)
    other["guards"]["skip_fraction"] = 0.5
    loop.finetune(params.from_dict(other), RUN)  # no part of what determines a run
    assert "from scratch" not in capsys.readouterr().err
    other["profiles"]["tiny"]["finetune"]["learning_rate"] = 2e-3
    loop.finetune(params.from_dict(other), RUN)
    scratch = f"{RUN}: training starts from scratch, because of another "
    told = capsys.readouterr().err.splitlines()[0]
    assert told == f"{scratch}settings.learning_rate (0.002, not 0.001)"
    Path("runs/tiny/static/weights.safetensors").rename("kept")
    shutil.copy("whole/weights.safetensors", "runs/tiny/static/weights.safetensors")
    try:
        loop.finetune(params.from_dict(other), RUN)
    finally:
        Path("kept").rename("runs/tiny/static/weights.safetensors")
    assert capsys.readouterr().err.splitlines()[0] == f"{scratch}weights to start from"


def test_the_losses_of_the_clips_are_kept_with_the_worst_first(study):
    loop.finetune(params.from_dict(given()), RUN)
    (path,) = Path(".salema/training").glob(f"{RUN}-*/clips-2.csv")
    head, *rows = (line.split(",") for line in path.read_text().splitlines())
    assert head == ["loss", "frames", "clip"]
    assert {clip for *_, clip in rows} == {"DHF1K 0001", "DHF1K 0002"}
    losses = [float(loss) for loss, *_ in rows]
    assert losses[0] >= losses[1] and {frames for _, frames, _ in rows} == {"8"}
    mean = Path("whole/losses.csv").read_text().splitlines()[2].split(",")[1]
    assert np.mean(losses) == pytest.approx(float(mean), rel=1e-4)


def test_unreadable_windows_are_skipped_up_to_a_fraction_and_then_named(study, monkeypatch, capsys):
    from salema.train import windows

    part = windows._part

    def broken(array, clip, start, count):
        if clip.name == "0001" and start >= 6 and clip.split == "train":
            raise SalemaError("0001.AVI ends")
        return part(array, clip, start, count)

    other = given()
    other["profiles"]["tiny"]["finetune"]["shuffle"] = False
    other["guards"]["skip_fraction"] = 0.5
    monkeypatch.setattr(windows, "_part", broken)
    loop.finetune(params.from_dict(other), RUN)
    lines = [line for line in capsys.readouterr().err.splitlines() if "skipped" in line]
    assert lines and all("windows were skipped, of DHF1K 0001" in line for line in lines)
    other["seed"], other["guards"]["skip_fraction"] = 2, 0.0
    with pytest.raises(SalemaError, match=r"1 windows of .* cannot be read, of DHF1K 0001: 0001.A"):
        loop.finetune(params.from_dict(other), RUN)
