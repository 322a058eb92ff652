"""Lists of sources on Ray Data: a row is a source, so that no memory crosses rows.

An actor loads the model once, decodes in a thread of its own and computes the maps: frames never
travel between processes, and a video of any length needs constant memory.
"""

import hashlib
import json
import logging
import os
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from salema.files import SalemaError, atomic
from salema.media import read
from salema.predict.load import load
from salema.predict.many import Planned, finished, predict_one, target
from salema.predict.sources import Output

COLUMNS = ("path", "output", "frames", "seconds", "sha256", "error")
BLOCKS = 20_000  # at most; a block of rows is one task
TRIES = 3  # of a task whose worker dies, besides the first
PER_GPU = 4  # actors that share one, as decoding is slower than the network
LOST = "the worker died again and again (out of memory? see the log of Ray)"

Row = dict[str, Any]


class Worker:
    """An actor: one model, and one source after the other."""

    def __init__(self, output: Output, chunk: int, model: tuple) -> None:
        self.predictor, self.output = load(*model), output
        self.predictor.chunk = chunk

    def __call__(self, item: Row) -> Row:
        """The finished row of a source. Whatever goes wrong is its error."""
        source, name = os.fsdecode(item["source"]), os.fsdecode(item["name"])
        maps, begin = target(name, self.output), time.perf_counter()
        row = dict.fromkeys(COLUMNS) | {"path": item["path"], "output": item["output"]}
        try:
            if finished(name, self.output) and not item["again"]:
                row["frames"] = _frames(maps)
            else:
                row["frames"], problem = predict_one(self.predictor, source, name, self.output)
                row |= {"seconds": time.perf_counter() - begin, "error": problem or None}
            row["sha256"] = sha256(maps) if row["frames"] else None
        except Exception as error:  # of any library: the other rows are computed all the same
            row["error"] = f"{type(error).__name__}: {error}"
        return row


def _frames(maps: Path) -> int:
    """The number of maps that an earlier run has written."""
    if maps.is_dir():
        return len(os.listdir(maps))
    return len(np.load(maps, "r")) if maps.suffix == ".npy" else sum(1 for _ in read.maps(maps))


def sha256(maps: Path) -> str:
    """The hash of a file; of a folder, that of what `sha256sum *` prints in it."""
    if maps.is_dir():
        lines = (f"{sha256(path)}  {path.name}\n" for path in sorted(maps.iterdir()))
        return hashlib.sha256("".join(lines).encode()).hexdigest()
    with maps.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check() -> None:
    """An error if Ray Data is not installed."""
    if not all(map(find_spec, ("ray", "pyarrow"))):
        raise SalemaError("Ray is not installed (pip install 'salema[ray]')")


def predict_cluster(planned: list[Planned], output: Output, chunk: int, model: tuple) -> int:
    """Predict sources that `plan` named, on the cluster of RAY_ADDRESS or else on this machine.

    `model` has the arguments of `load`. In the folder of output, `predictions.jsonl` gets a row
    whenever a source is finished, and `predictions.parquet` has all of them at the end. A later
    run keeps rows and tries those with an error again. The status is 1 if a row has an error.
    """
    log = output.folder / "predictions.jsonl"
    rows, items, todo = _logged(log), [], []
    for source, name in planned:
        path, where = _text(source), _text(target(name, output).name)
        items.append(item := {"path": path, "output": where, "error": LOST})
        row = rows.get(where, item)
        ended = row["path"] == path and not row["error"] and finished(name, output)
        if output.overwrite or not ended:
            rows[where] = dict.fromkeys(COLUMNS) | item  # until the true one comes
            again = output.overwrite or row["error"] != LOST
            file = os.fsencode(os.path.abspath(source))
            todo.append(item | {"source": file, "name": os.fsencode(name), "again": again})
    overlay = output.overlay and output.overlay.absolute()
    there = replace(output, folder=output.folder.absolute(), overlay=overlay)
    with log.open("a", encoding="utf-8") as file:
        computed = _rows(todo, (there, chunk, model)) if todo else ()
        for row in tqdm(computed, total=len(todo), unit="source", disable=None):
            rows[row["output"]] = row
            print("\n" + json.dumps(row), end="", file=file, flush=True)
    _write(output.folder / "predictions.parquet", list(rows.values()))
    broken = [row for item in items if (row := rows[item["output"]])["error"]]
    for row in broken:
        print(f"{row['path']}: {row['error']}", file=sys.stderr)
    counts = f"{len(items) - len(todo)} there already, {len(broken)} broken"
    print(f"{len(todo)} sources in {output.folder}; {counts}")
    return 1 if broken else 0


def _logged(log: Path) -> dict[str, Row]:
    """Output -> its last row. A kill of the driver may have broken a line off."""
    rows = {}
    for line in log.read_text(encoding="utf-8").splitlines() if log.exists() else ():
        with suppress(ValueError):
            row = json.loads(line)
            rows[row["output"]] = row
    return rows


def _write(path: Path, rows: list[Row]) -> None:
    import pyarrow
    from pyarrow import parquet

    text = {name: pyarrow.string() for name in COLUMNS}
    schema = pyarrow.schema(text | {"frames": pyarrow.int64(), "seconds": pyarrow.float64()})
    with atomic(path) as part:
        parquet.write_table(pyarrow.Table.from_pylist(rows, schema), part)


def _text(path: str) -> str:
    """A path as text: the name of a file may be none."""
    return os.fsencode(path).decode(errors="backslashreplace")


def _rows(todo: list[Row], arguments: tuple) -> Iterator[Row]:
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # stderr holds our lines only
    import ray.data

    try:
        ray.init(log_to_driver=False, logging_level="ERROR", include_dashboard=False)
        context, there = ray.data.DataContext.get_current(), ray.cluster_resources()
        context.enable_progress_bars, context.max_errored_blocks = False, -1
        actors, share = int(there["CPU"]), 0.0
        if gpus := there.get("GPU", 0):
            actors, share = min(actors, int(PER_GPU * gpus)), 1 / PER_GPU
        pool = ray.data.ActorPoolStrategy(size=max(1, min(actors, len(todo))))
        options = {"compute": pool, "num_cpus": 1, "num_gpus": share, "max_task_retries": TRIES}
        data = ray.data.from_items(todo, override_num_blocks=min(len(todo), BLOCKS))
        with warnings.catch_warnings(action="ignore"):  # 2.64 drops max_task_retries
            data = data.map(Worker, fn_constructor_args=arguments, **options)
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)
        yield from data.iter_rows()
    except Exception as error:  # of any part of Ray
        what = f"Ray gave up: {(str(error) or repr(error)).splitlines()[0]}"
        raise SalemaError(f"{what} (run again to resume; see Ray's own log)") from error
    finally:
        ray.shutdown()
