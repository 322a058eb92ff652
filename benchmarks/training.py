"""A training step on clips, and the share of its time spent waiting for data."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.scale import Scale, random_network
from benchmarks.timing import Row, row
from salema import data, params
from salema.media.threads import ahead
from salema.train.loop import Job, Learner
from salema.train.windows import Window

ROOT = Path(__file__).parent.parent


def steps(scale: Scale, folder: Path) -> Iterator[Row]:
    """Steps in bf16 alone at their own pace, then in fp32 and bf16 in turns."""
    for width in scale.train_width:
        with contextlib.chdir(folder):  # where the scratch folder of decoded frames goes
            rows = [*_steps(scale, width)]
        yield from rows


def _steps(scale: Scale, width: float) -> Iterator[Row]:
    count = scale.train_frames[width]
    section = f"training on clips: ema30, width {width:g}, windows of {count} frames"
    learner = _learner(scale, width, "bf16")
    waits, totals = zip(*_paced(learner, scale.rounds), strict=True)
    share = 100 * sum(waits) / sum(totals)
    learners = {"fp32": _learner(scale, width, "fp32"), "bf16": learner}
    seconds: dict[str, list[float]] = {name: [] for name in learners}
    state = dict.fromkeys(learners)
    for window in _windows(learner, 1 + scale.rounds):
        for name, one in learners.items():
            start = time.perf_counter()
            _, state[name] = one._step(window, None if window.first else state[name])
            seconds[name].append(time.perf_counter() - start)
    base = [value / count for value in seconds["fp32"][1:]]
    for name in learners:
        yield row(section, f"a step, {name}", seconds[name][1:], count, base)
    what, note = "waiting for data, first epoch, bf16", "frames are decoded meanwhile"
    yield Row(section, what, "%", share, share, share, note=note)


def _paced(learner: Learner, count: int) -> Iterator[tuple[float, float]]:
    """Seconds that each step waited for its window, and its total seconds."""
    state, start = None, time.perf_counter()
    for window in _windows(learner, count):
        wait = time.perf_counter() - start
        _, state = learner._step(window, None if window.first else state)
        yield wait, time.perf_counter() - start
        start = time.perf_counter()


def _learner(scale: Scale, width: float, precision: str) -> Learner:
    """Fine-tuning on the clips of data/sample, with the method's settings."""
    study = params.read(ROOT / "params.yaml")
    model = {"width": width, "size": list(scale.size), "branches": False}
    change = {"bptt_frames": scale.train_frames[width], "frames_per_clip": None}
    change |= {"batch": 1, "precision": precision}
    settings = study.finetune.model_copy(update=change)
    parts = {"model": study.model.model_copy(update=model), "finetune": settings}
    study = study.model_copy(update=parts)
    clips = data.load(ROOT / "data" / "sample", "DHF1K", "train")
    network = random_network("ema30", width, scale.size)
    learner = Learner(network, Job(study, "ema30", settings, clips, clips))
    learner.network.train()
    return learner


def _windows(learner: Learner, count: int) -> Iterator[Window]:
    """The first whole windows of an epoch, read ahead as in training."""
    length = learner.settings.bptt_frames
    loaded = ahead((read() for read in learner.job.windows(0)), 4)
    with contextlib.closing(loaded):
        for window in loaded:
            if window.frames.shape[1] == length:
                yield window
                count -= 1
            if not count:
                return
