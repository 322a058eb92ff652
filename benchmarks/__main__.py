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
from salema.model.device import pick_device, pick_precision

FOLDER = Path(__file__).parent.parent / "reports" / "benchmark"


def sections(scale: Scale, device: torch.device, folder: Path) -> Iterator[Row]:
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
    """Measure, print the table row by row, and write the JSON file; returns its path."""
    about = machine(device)
    if device.type == "cuda":  # a few frames do not occupy it
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
    name = re.sub(r"[^a-z0-9]+", "-", about.get("gpu", about["cpu"]).lower()).strip("-")
    out = out or FOLDER / f"{name}.json"
    minutes = round((time.perf_counter() - started) / 60, 1)
    result = {"machine": about, "precision": pick_precision("auto", device)}
    result |= {"scale": asdict(scale), "minutes": minutes, "rows": [asdict(line) for line in rows]}
    with atomic(out) as part:
        part.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"\n{minutes} minutes; written to {out}")
    return out


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a shorter run of about five minutes")
    parser.add_argument("--out", type=Path, help="JSON file (default: named after the processor)")
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
