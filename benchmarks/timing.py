"""Rounds of measurements, the rows of the table, and a description of the machine."""

import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    section: str  # rows of one section were measured in the same rounds
    what: str  # what was measured
    unit: str  # of median, low and high over the rounds
    median: float
    low: float
    high: float
    # How many times faster than the straightforward path, or than what the section names: the
    # median of the ratios within rounds.
    ratio: float | None = None
    # The time that the network's definition takes at the measured rate of the machine, divided by
    # `median`. It is above 1 where fewer operations give the same maps.
    of_limit: float | None = None
    note: str = ""

    def __str__(self) -> str:
        ratio = "" if self.ratio is None else f"{self.ratio:.2f} x"
        limit = "" if self.of_limit is None else f"{100 * self.of_limit:.0f} %"
        spread = "" if self.low == self.high else f"{_short(self.low)} - {_short(self.high)}"
        return (
            f"  {self.what:<42} {ratio:>8} {limit:>6} {_short(self.median):>8} {self.unit:<9} "
            f"{spread:<17} {self.note}"
        ).rstrip()


HEAD = f"  {'':<42} {'ratio':>8} {'limit':>6} {'median':>8} {'':<9} spread"


def _short(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"


def take_turns(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each call in each round, after a first round that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(1 + rounds):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - start)
    return {name: values[1:] for name, values in seconds.items()}


def row(
    section: str,
    what: str,
    seconds: list[float],
    per: int = 1,
    base: list[float] | None = None,
    limit: float | None = None,
    note: str = "",
) -> Row:
    """A row of times in ms/frame.

    `seconds` are those of each round, `per` the frames of one call, `base` the seconds per frame of
    what it is compared with in the same rounds, `limit` the shortest possible seconds per frame.
    """
    each = [value / per for value in seconds]
    median = statistics.median(each)
    ratio = base and statistics.median([b / e for b, e in zip(base, each, strict=True)])
    times = 1e3 * median, 1e3 * min(each), 1e3 * max(each)
    return Row(section, what, "ms/frame", *times, ratio, limit and limit / median, note)


def machine(device: torch.device) -> dict:
    """The machine that the figures depend on, without anything that identifies its owner."""
    units = {
        "AVX2": torch.cpu._is_avx2_supported(),
        "AVX512": torch.cpu._is_avx512_supported(),
        "AVX512-VNNI": torch.cpu._is_vnni_supported(),
        "AVX512-BF16": torch.cpu._is_avx512_bf16_supported(),
        "AMX": torch.cpu._is_amx_tile_supported(),
    }
    about = {
        "cpu": _processor(),
        "hardware_threads": os.cpu_count(),
        "capabilities": [name for name, there in units.items() if there],
        "threads": torch.get_num_threads(),
        "system": platform.system(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    if device.type == "cuda":
        about["gpu"] = torch.cuda.get_device_name(device)
    return about


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
