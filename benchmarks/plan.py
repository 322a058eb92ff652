"""`python -m benchmarks.plan`: hours of the study and of a million videos beyond this machine.

Nothing is measured here. A frame at full width and 192x256 takes 79.9 GFLOP (computed) and three
times that in training. A GPU is assumed to reach `--share` of its published dense peak, unless
`--train` and `--predict` give measured frames/s. A CPU worker makes 40 frames/s with the starter
weights (docs/speed.md). Lengths of videos are lognormal.
"""

import argparse
import heapq
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from salema import params

GFLOP = 79.9  # a frame, forwards
PEAK = {"fp32": 67e3, "bf16": 989e3}  # GFLOP/s of an H100 SXM, its data sheet, without sparsity
# Frames. The 487,000 of Hollywood-2 (its web page) are divided like its clips here, 823:884.
IMAGES, CLIPS = 10_000, {"DHF1K": 346_140, "Hollywood-2": 235_000, "UCF-sports": 6_501}
SCORED = 5_000 + 60_273 + 2_929 + 252_000  # frames: SALICON, DHF1K, UCF-sports, Hollywood-2
CHALLENGE = 1_200 * 18.5 * 30, 800 * 18.5 * 30  # NTIRE 2026: videos x seconds x frames/s
FPS = 30
Run = tuple[str | None, float, int]  # the run it starts from, hours of one GPU, most GPUs


def study(profile: str, train: float | None, predict: float | None, share: float) -> dict[str, Run]:
    """Hours of training, and of predicting what is scored, of every run of the study.

    `challenge` is the recipe of `paper` on its clips, with batches of 4 in bf16.
    """
    kind = "fp32" if profile == "paper" else "bf16"
    train = train or share * PEAK[kind] / GFLOP / 3
    scored, given = SCORED, params.read(Path(__file__).parents[1] / "params.yaml", "paper")
    if profile == "challenge":
        scored = CHALLENGE[1]
    scoring = scored / (predict or share * PEAK[kind] / GFLOP) / 3600
    runs: dict[str, Run] = {}
    for name, settings in given.tune.items():
        most = 1 if settings.loss == "bce-adversarial" else settings.batch
        hours = settings.epochs * IMAGES / train / 3600
        runs[name] = settings.init, hours + scoring, most
    for name, row in given.placements.items():
        frames = CLIPS[row.data or "DHF1K"] if profile == "paper" else CHALLENGE[0]
        epochs = 0 if row.static == "plain" else row.epochs or given.finetune.epochs
        hours = epochs * frames / train / 3600
        runs[name] = row.start, hours + scoring, 1 if profile == "paper" else 4
    return runs


def schedule(runs: dict[str, Run], gpus: int, efficiency: float = 0.9) -> tuple[float, str]:
    """Hours until the last run ends on so many GPUs, and what limits it.

    A run shares its GPUs' number evenly with the others of its step, up to its batch, at an
    efficiency of `efficiency` for more than one. The runs whose start is ready go longest first.
    """
    waiting, ended = dict(runs), {None: 0.0}
    free = [0.0] * gpus
    before: dict[str | None, str | None] = {}
    while waiting:
        ready = {name: run for name, run in waiting.items() if run[0] in ended}
        for name, (start, hours, most) in sorted(ready.items(), key=lambda run: -run[1][1]):
            heapq.heapify(free)
            many = max(1, min(most, gpus // len(ready)))
            taken = [heapq.heappop(free) for _ in range(many)]
            begin = max(ended[start], *taken)
            ended[name] = begin + hours / (many * efficiency if many > 1 else 1)
            before[name] = start if begin == ended[start] else None
            for _ in taken:
                heapq.heappush(free, ended[name])
            del waiting[name]
    last = max(ended, key=ended.get)
    chain = [last]
    while (start := before.get(chain[-1])) is not None:
        chain.append(start)
    work = sum(hours for _, hours, _ in runs.values())
    if ended[last] < 1.25 * work / gpus:
        return ended[last], "all GPUs are busy"
    if runs[chain[-1]][0] is not None:  # it waits for a GPU, while others have none left to do
        return ended[last], f"whole runs do not fill the GPUs; {last} is the last"
    return ended[last], "the chain " + ", ".join(chain[::-1])


def lengths(count: int, mean: float, spread: float, rng: np.random.Generator) -> np.ndarray:
    """Seconds of videos: lognormal with this mean; `spread` is the deviation of the logarithm."""
    return rng.lognormal(np.log(mean) - spread**2 / 2, spread, count)


def simulated(
    hours: np.ndarray, speeds: np.ndarray, static: bool, lost: float, rng: np.random.Generator
) -> float:
    """Hours until the last of the videos, of `hours` each at speed 1, is done.

    static: each worker has every n-th video; else the next one goes to whichever is free. Every
    `lost` hours a random worker is lost, with its video half done, and is back after 10 minutes.
    """
    count = len(speeds)
    ends = int(4 * hours.sum() / speeds.sum() / lost) + 2 if lost else 0
    failures: list[list[float]] = [[] for _ in speeds]
    for number in range(ends, 0, -1):  # the earliest is the last of each list
        failures[rng.integers(count)].append(number * lost)
    queues = [list(hours[n::count][::-1]) for n in range(count)] if static else []
    queues = queues or [list(hours[::-1])] * count
    free, last = [(0.0, worker) for worker in range(count)], 0.0
    while free:
        now, worker = heapq.heappop(free)
        if not queues[worker]:
            continue
        end = now + queues[worker][-1] / speeds[worker]
        while failures[worker] and failures[worker][-1] <= now:
            failures[worker].pop()  # it was idle or down already
        if failures[worker] and failures[worker][-1] < end:
            end = failures[worker].pop() + 1 / 6
        else:
            queues[worker].pop()
            last = max(last, end)
        heapq.heappush(free, (end, worker))
    return last


def videos(count: int, mean: float, spread: float, predict: float) -> Iterator[str]:
    """Rows of a table: workers, frames/s of each, and the hours of each way to share out."""
    yield "| workers | frames/s each | ideal | static slices | dynamic | dynamic, longest first |"
    yield "|---|---|---|---|---|---|"
    for workers, rate in ((8, predict), (256, predict), (256, 40.0)):
        rng = np.random.default_rng(1)
        speeds = np.where(rng.random(workers) < 0.05, 0.5, 1.0)  # one in twenty is a straggler
        hours = lengths(count, mean, spread, rng) * FPS / rate / 3600
        ideal = hours.sum() / speeds.sum()
        ways = ((hours, True), (hours, False), (np.sort(hours)[::-1], False))
        found = [simulated(given, speeds, static, 1.0, rng) for given, static in ways]
        row = " | ".join(f"{value:.1f} ({value / ideal:.2f})" for value in found)
        yield f"| {workers} | {rate:,.0f} | {ideal:.1f} | {row} |"


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.plan", description=__doc__)
    parser.add_argument("--share", type=float, default=0.3, help="of a GPU's published peak")
    parser.add_argument("--train", type=float, help="measured frames/s of training on a GPU")
    parser.add_argument("--predict", type=float, help="measured frames/s of predicting on a GPU")
    parser.add_argument("--videos", type=int, default=1_000_000)
    parser.add_argument("--mean", type=float, default=18.0, help="seconds of a video")
    parser.add_argument("--spread", type=float, default=1.5, help="deviation of log(seconds)")
    given = parser.parse_args()
    print("| profile | GPUs | hours | what limits |\n|---|---|---|---|")
    for profile in ("paper", "challenge"):
        runs = study(profile, given.train, given.predict, given.share)
        for gpus in (1, 8, 64):
            hours, limit = schedule(runs, gpus)
            print(f"| `{profile}` | {gpus} | {hours:,.1f} | {limit} |")
    predict = given.predict or given.share * PEAK["bf16"] / GFLOP
    print("\nHours (and times the ideal) for", f"{given.videos:,} videos of {given.mean:g} s:\n")
    print(*videos(given.videos, given.mean, given.spread, predict), sep="\n")


if __name__ == "__main__":
    main()
