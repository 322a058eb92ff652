"""`python -m benchmarks.rows`: milliseconds a frame of each row of the study that has run.

Writes `reports/<profile>/speed.json`, which the report shows. It is not a stage of the pipeline,
because times differ from run to run.
"""

import json
import statistics
import sys

import numpy as np

from benchmarks.scale import maps_of, scenes
from benchmarks.timing import machine, take_turns
from salema import params
from salema.files import SalemaError, atomic
from salema.model.device import pick_device
from salema.predict.load import load

ROUNDS, FRAMES = 5, 32


def measure(study: params.Params, rounds: int = ROUNDS, count: int = FRAMES) -> dict:
    """The machine, and milliseconds a frame of each row; the rows take turns."""
    frames = np.stack(list(scenes(count, tuple(study.model.size))))
    calls = {}
    for run in study.runs:
        path = study.run_folder(run) / "weights.safetensors"
        predictor = load(path, precision=study.predict.precision)
        calls[run] = lambda predictor=predictor: maps_of(predictor, frames)
    seconds = take_turns(calls, rounds)
    settings = {"precision": predictor.precision, "rounds": rounds}
    return {
        "machine": machine(pick_device("auto")) | settings,
        "ms": {run: round(1e3 * statistics.median(s) / count, 3) for run, s in seconds.items()},
    }


def main() -> int:
    try:
        study = params.read()
        path, result = study.report_folder / "speed.json", measure(study)
        with atomic(path) as part:
            part.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    except SalemaError as error:
        print(f"benchmarks: error: {error}", file=sys.stderr)
        return error.status
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
