"""Tables of scores: a clip a row, a frame a value, and the clips that a model was trained on."""

import csv
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from salema.files import SalemaError, atomic
from salema.score.protocols import METRICS

COLUMNS = ("dataset", "protocol", "clip", "frames", "skipped", "seen", *METRICS)


@dataclass
class Scores:
    """The scores of a clip, frame by frame; None for a frame without fixations."""

    clip: str
    dataset: str
    seen: bool
    frames: list[dict[str, float] | None]
    protocol: str = "exact"
    every: int = 1  # the distance between two of `frames`

    def row(self) -> dict[str, str | int | float | None]:
        """Means over the frames that have fixations, and the numbers of frames with and without."""
        scored = [frame for frame in self.frames if frame is not None]
        row = {"dataset": self.dataset, "protocol": self.protocol, "clip": self.clip}
        row |= {"frames": len(scored), "skipped": len(self.frames) - len(scored)}
        row["seen"] = int(self.seen)
        return row | dict.fromkeys(METRICS) | mean(scored)


def mean(scores: Iterable[dict[str, float] | None]) -> dict[str, float]:
    """The mean of each metric over the frames that have it."""
    found = {key: [frame[key] for frame in scores if frame and key in frame] for key in METRICS}
    return {key: float(np.mean(values)) for key, values in found.items() if values}


def rows(scores: Iterable[Scores]) -> dict[str, dict]:
    """Clip -> `Scores.row`."""
    return {score.clip: score.row() for score in scores}


def write_scores(scores: Iterable[Scores], path: Path) -> None:
    """One row per clip, as CSV."""
    rows = [score.row() for score in scores]
    text = [{k: f"{v:.6f}" if isinstance(v, float) else v for k, v in row.items()} for row in rows]
    write_csv(text, COLUMNS, path)


def write_frames(scores: Sequence[Scores], path: Path) -> None:
    """The scores of each frame, for `read_frames`.

    A compressed `.npz` file: `clip` (C,) names, `count` (C,) frames of each, and for all frames in
    turn `frame`, counted from 0, and float32 scores by the name of the metric.
    """
    frames = [frame or {} for score in scores for frame in score.frames]
    columns = {k: np.array([frame.get(k, np.nan) for frame in frames], "f4") for k in METRICS}
    columns |= {"clip": [score.clip for score in scores], "count": [len(s.frames) for s in scores]}
    index = [k * score.every for score in scores for k in range(len(score.frames))]
    with atomic(path) as part, part.open("wb") as file:
        np.savez_compressed(file, frame=np.array(index, np.int32), **columns)


def read_frames(path: Path) -> dict[str, dict[str, np.ndarray]]:
    """Clip -> `frame` and each metric (T,), as in `write_frames`; NaN where there is no score."""
    try:
        with np.load(path, allow_pickle=False) as table:
            clips, ends = table["clip"].tolist(), np.cumsum(table["count"])[:-1]
            parts = {key: np.split(table[key], ends) for key in ("frame", *METRICS)}
    except Exception as error:  # NumPy raises whatever its parser fails with
        raise SalemaError(f"no scores of frames in {path} (write them with --frames)") from error
    return {clip: {key: part[k] for key, part in parts.items()} for k, clip in enumerate(clips)}


def write_csv(rows: list[dict], columns: Sequence[str], path: Path) -> None:
    """The columns of the rows, as CSV."""
    with atomic(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n", extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


def rounded(row: dict, digits: int) -> dict:
    """The row with its numbers rounded."""
    return {k: round(v, digits) if isinstance(v, float) else v for k, v in row.items()}


def read_scores(path: Path, clips: Iterable[str], protocol: str) -> dict[str, dict[str, float]]:
    """A table of one row per clip -> clip -> metric -> score.

    It comes from `write_scores` or from others (columns auc and sauc) and has one of `clips`. Rows
    that name another protocol than `protocol` are left out.
    """
    renamed = {"auc": "auc_judd", "sauc": "auc_shuffled"}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except OSError as error:
        raise SalemaError(f"cannot read {path}: {error.strerror} (check --paired)") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise SalemaError(f"not a table: {path} (check --paired)") from error
    if not rows or "clip" not in rows[0]:
        raise SalemaError(f"no column clip in {path} (one row per clip is expected)")
    named = {row.get("protocol") or protocol for row in rows}
    if protocol not in named:
        raise SalemaError(f"{path} has scores by {', '.join(sorted(named))} (pass --protocol)")
    rows = [row for row in rows if (row.get("protocol") or protocol) == protocol]
    models = list(dict.fromkeys(row.get("model") for row in rows))
    if len(models) > 1:
        raise SalemaError(f"{path} holds {len(models)} models (keep the rows of one: {models})")
    scores = {}
    for row in rows:
        cells = {renamed.get(column, column): cell for column, cell in row.items() if cell}
        where = f"{path}, clip {row['clip']}"
        if row["clip"] in scores:
            raise SalemaError(f"{where}: it is listed twice (keep one row)")
        try:
            scores[row["clip"]] = {key: float(cells[key]) for key in METRICS if key in cells}
        except ValueError as error:
            raise SalemaError(f"{where}: {error} (fix that row)") from error
        if not all(map(math.isfinite, scores[row["clip"]].values())):
            raise SalemaError(f"{where}: a score is not finite (fix that row)")
    if not set(clips) & set(scores):
        raise SalemaError(f"{path} and these maps share no clip (compare the same data set)")
    return scores


def seen_by(weights: Path | None, maps: Path | None = None) -> dict[str, list[str]]:
    """Data set -> training clips, from a weights file of ours and from a folder of maps.

    `salema predict --dataset` writes the clips to `<model>_predictions.json` next to its maps.
    """
    files = [] if maps is None else sorted(maps.glob("*_predictions.json"))
    seen = {}
    for path in [weights, *files] if weights else files:
        try:
            if path.suffix == ".json":
                text = path.read_text(encoding="utf-8")
            else:
                with safe_open(path, "np") as file:
                    text = file.metadata()["salema"]
            for dataset, clips in json.loads(text)["seen"].items():
                seen.setdefault(dataset, []).extend(clips)
        except (OSError, SafetensorError, ValueError, LookupError, TypeError, AttributeError) as e:
            what = f"no list of training clips in {path}"
            raise SalemaError(f"{what} (is it a file of ours?)") from e
    return seen
