"""Whether a run of the study gave the committed scores: the last line of `make study`.

Training is not bit-equal between processors, so a difference is judged by the committed interval.
"""

import csv
import json
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

import torch

from salema.files import SalemaError, atomic
from salema.model.device import pick_device, pick_precision

Scores = dict[tuple[str, str, str], tuple[float, float, float]]


def reproduced(folder: Path) -> str:
    """A sentence that compares `ablation.csv` of a report with the one of the last commit.

    Writes `machine.json` next to it: what the scores of this run were computed with. It is
    committed with the scores, and named where they differ.
    """
    table, record = folder / "ablation.csv", folder / "machine.json"
    if not table.exists():
        raise SalemaError(f"no {table} (run `make study` or `dvc repro` first)")
    committed, before = _committed(table), _committed(record)
    here = machine()
    with atomic(record) as part:
        part.write_text(json.dumps(here, indent=1) + "\n", encoding="utf-8")
    if committed is None:
        return f"nothing to compare with: git holds no {table}"
    ours, theirs = _scores(table.read_text(encoding="utf-8"), table), _scores(committed, table)
    if ours == theirs:
        runs = len({run for _, run, _ in ours})
        return f"reproduced: all {len(ours)} scores of {runs} rows equal the committed ones"
    missing = sorted({run for _, run, _ in ours.keys() ^ theirs.keys()})
    if missing:
        return f"not comparable with the committed table: other rows or sets ({', '.join(missing)})"
    changed = [key for key in ours if ours[key] != theirs[key]]
    outside = [key for key in changed if not theirs[key][1] <= ours[key][0] <= theirs[key][2]]
    rows = len({run for _, run, _ in changed})
    what = f"{len(changed)} scores of {rows} rows differ from the committed ones"
    if before is not None and json.loads(before) != here:
        what += f", which come from {_words(json.loads(before))}; this is {_words(here)}"
    if not outside:
        return f"reproduced within the committed 95 % intervals: {what}"
    dataset, run, metric = max(outside, key=lambda key: _distance(ours[key][0], theirs[key]))
    mean, low, high = theirs[dataset, run, metric]
    worst = f"{run} on {dataset}: {metric} {ours[dataset, run, metric][0]:.3f}"
    worst += f" instead of {mean:.3f} [{low:.3f}, {high:.3f}]"
    return f"NOT reproduced: {len(outside)} scores leave their interval, {worst} most; {what}"


def machine() -> dict[str, str]:
    """What the scores depend on besides code, data and parameters."""
    device = pick_device("auto")
    kind = torch.cuda.get_device_name() if device.type == "cuda" else _processor()
    found = {"device": kind, "precision": pick_precision("auto", device)}
    if device.type != "cuda":
        found["instructions"] = torch.backends.cpu.get_cpu_capability()
    return found | {name: version(name) for name in ("torch", "numpy", "opencv-python-headless")}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _words(record: dict[str, str]) -> str:
    return ", ".join(v if k in ("device", "precision") else f"{k} {v}" for k, v in record.items())


def _committed(path: Path) -> str | None:
    """The text of a file in the last commit; None where git has none."""
    command = ["git", "show", f"HEAD:./{path.name}"]
    try:
        done = subprocess.run(command, cwd=path.parent, capture_output=True, check=False)
    except OSError:
        return None
    return done.stdout.decode("utf-8") if done.returncode == 0 else None


def _scores(text: str, path: Path) -> Scores:
    """(set, run, metric) -> mean and the ends of its interval."""
    try:
        return {
            (row["dataset"], row["run"], row["metric"]): (
                float(row["mean"]),
                float(row["low"]),
                float(row["high"]),
            )
            for row in csv.DictReader(text.splitlines())
        }
    except (KeyError, ValueError) as error:
        raise SalemaError(f"not a table of the study: {path} (`dvc repro` writes it)") from error


def _distance(value: float, interval: tuple[float, float, float]) -> float:
    """How far a value lies outside an interval, in widths of it."""
    _, low, high = interval
    return max(low - value, value - high) / max(high - low, 1e-12)
