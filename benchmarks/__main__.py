"""`python -m benchmarks [--quick]`: one run, one table, one JSON in reports/benchmark/."""

import argparse
import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

os.environ["TQDM_DISABLE"] = "1"

import torch

from benchmarks import metrics, network, precision, training, video
from benchmarks.scale import FULL, QUICK, Scale
from benchmarks.timing import HEAD, Row, machine
from salema.files import SalemaError, atomic
from salema.model.device import pick_device

FOLDER = Path(__file__).parent.parent / "reports" / "benchmark"


def sections(scale: Scale, device: torch.device, folder: Path) -> Iterator[Row]:
    """Everything, in turn."""
    limits = network.Limits()
    yield from network.alone(scale, device, limits)
    yield from network.placements(scale, device, limits)
    yield from network.dials(scale, device, limits)
    yield from video.files(scale, device, limits, folder)
    yield from video.growth(scale, folder)
    yield from training.steps(scale, folder)
    yield from metrics.per_frame(scale)
    yield from precision.differences(scale)


def run(scale: Scale, device: torch.device, out: Path | None = None) -> Path:
    """Measure, print the table as it grows, write the JSON; returns where it is."""
    about = machine(device)
    if device.type == "cuda":  # a few frames do not fill it
        scale = replace(scale, frames=16 * scale.frames, matrix=4 * scale.matrix)
    print(", ".join(f"{key}: {value}" for key, value in about.items()))
    rows: list[Row] = []
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        for line in sections(scale, device, Path(folder)):
            if not rows or rows[-1].section != line.section:
                print(f"\n{line.section}\n{HEAD}")
            print(line, flush=True)
            rows.append(line)
    out = out or FOLDER / f"{_slug(about.get('gpu', about['cpu']))}.json"
    told = {"machine": about, "precision": network.default_precision(device),
            "scale": asdict(scale), "minutes": round((time.perf_counter() - started) / 60, 1),
            "rows": [asdict(line) for line in rows]}  # fmt: skip
    with atomic(out) as part:
        part.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    print(f"\n{told['minutes']} minutes; written to {out}")
    return out


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="five minutes, less of it")
    parser.add_argument("--out", type=Path, help="the JSON (default: named after the processor)")
    parser.add_argument("--device", default="auto")
    parsed = parser.parse_args(argv)
    try:
        run(QUICK if parsed.quick else FULL, pick_device(parsed.device), parsed.out)
    except SalemaError as error:
        print(f"benchmarks: error: {error}", file=sys.stderr)
        return error.status
    return 0


if __name__ == "__main__":
    sys.exit(main())
