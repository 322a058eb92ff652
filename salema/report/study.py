"""One profile of the study: its parameters, and what the stages left, as tidy tables."""

import json
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd

from salema import data
from salema.data import Clip
from salema.files import SalemaError
from salema.params import Params, read
from salema.score.maps import Maps
from salema.score.protocols import METRICS
from salema.score.statistics import sign_flip, t_interval

SIGN = dict.fromkeys(METRICS, 1) | {"kld": -1}  # times a difference: positive is better
# With fewer clips, differences that are all of one sign come up by chance more than once in 20.
FEW_CLIPS = 6


@dataclass(frozen=True)
class Study:
    """One profile, with the tables of its results. Each table is read once, on first use."""

    params: Params
    local: bool = False  # the report goes into `reports/local/` and may show frames of any set

    @classmethod
    def open(cls, profile: str | None = None, local: bool = False) -> "Study":
        """The study of the clone around the current folder, which becomes the clone's root.

        `profile` None: the one that `params.yaml` names. Rows that continue on a set which the
        profile does not have are left out: their weights are those of the row that they start from.
        """
        enter_clone()
        params = read(profile=profile)
        sets = {None, *params.data.continued}
        placements = {run: row for run, row in params.placements.items() if row.data in sets}
        runs = [run for run in params.runs if run in params.tune or run in placements]
        return cls(params.model_copy(update={"runs": runs, "placements": placements}), local)

    @property
    def folder(self) -> Path:
        """Where the report goes: `reports/<profile>`, or `reports/local/<profile>`."""
        folder = self.params.report_folder
        return Path("reports/local", folder.name) if self.local else folder

    def figures(self, notebook: str) -> Path:
        """Where the figures of a notebook go."""
        return self.folder / "figures" / notebook

    @property
    def synthetic(self) -> bool:
        """Whether a program drew the pictures and the gaze."""
        return self.params.profile == "sample"

    @property
    def shows_frames(self) -> bool:
        """Whether the report may hold pictures of the data sets."""
        return self.local or self.synthetic

    @property
    def rows(self) -> list[str]:
        """The rows of the ablation: the runs, then the baselines."""
        return [*self.params.runs, *self.params.baselines]

    @cached_property
    def scores(self) -> pd.DataFrame:
        """Means over clips with their 95 % intervals, as `evaluate` wrote them.

        Columns: dataset, split, run, kind ("run" or "baseline"), metric, mean, low, high, clips,
        frames, skipped, seen, protocol. A baseline that a data set cannot have is absent.
        """
        folder, rows = self.params.report_folder / "metrics", []
        counts = ("clips", "frames", "skipped", "seen", "protocol")
        files = {run: from_json(folder / f"{run}.json", f"scores of {run}") for run in self.rows}
        for (name, split), (run, file) in product(self.params.data.evaluate.items(), files.items()):
            entry = file.get(name) or {}
            kind = "run" if run in self.params.runs else "baseline"
            for metric in METRICS:
                if entry.get(metric) is not None:
                    row = {"dataset": name, "split": split, "run": run, "kind": kind}
                    row |= {"metric": metric, "mean": entry[metric]}
                    row |= {key: entry[f"{metric}_{key}"] for key in ("low", "high")}
                    rows.append(row | {key: entry[key] for key in counts})
        if not rows:
            raise SalemaError(f"no scores of {self.params.profile} (run `dvc repro` first)")
        return pd.DataFrame(rows)

    @property
    def clip_scores(self) -> pd.DataFrame:
        """`all_scores` by the first protocol of the profile."""
        return self.all_scores[self.all_scores.protocol == self.params.evaluate.protocols[0]]

    @cached_property
    def all_scores(self) -> pd.DataFrame:
        """The scores of each clip: columns run, dataset, protocol, clip, ..., and the metrics."""
        folder, main = self.params.report_folder / "metrics", self.params.evaluate.protocols[0]
        keys = ["dataset", "clip", "frames", "skipped", "seen", *METRICS]
        files = {run: folder / f"{run}.csv" for run in self.rows}
        tables = {run: from_csv(path, f"scores of {run}", keys) for run, path in files.items()}
        for table in tables.values():  # until November 2026, they had one protocol and no column
            table["protocol"] = table.get("protocol", main)
        return pd.concat(tables, names=["run"]).reset_index("run").reset_index(drop=True)

    @cached_property
    def differences(self) -> pd.DataFrame:
        """`compare` of the pairs that answer the study's questions."""
        runs = self.params.runs
        pairs = [(run, control) for run in runs if (control := self.control(run))]
        others = [("clstm30", "ema30"), ("videosalgan", "videosalgan-conv")]  # complex, simple
        others += [(run, row.start) for run, row in self.params.placements.items() if row.data]
        pairs += [pair for pair in others if set(pair) <= set(runs)]
        if "centre-prior" in self.params.baselines:
            pairs += [(run, "centre-prior") for run in runs]
        return self.compare(pairs)

    def control(self, run: str) -> str | None:
        """What a run is compared with, so that only one thing differs; None for `static`.

        `static-video` for what was trained on clips: the same frames, steps and loss without a
        memory. What nothing was trained for (`-plain`, `ema30-on-video`) is compared with the row
        whose weights it has; other static networks, and `static-video` itself, with `static`.
        """
        placement, control = self.params.placements.get(run), "static-video"
        if placement is None or run == "static-video":
            control = "static"
        elif placement.static == "plain":
            control = placement.start
        return control if control in self.params.runs and run != control else None

    def compare(self, pairs: list[tuple[str, str]]) -> pd.DataFrame:
        """Differences of pairs (run, control) over the same clips.

        Columns: dataset, run, control, metric, difference, low, high (95 % t interval), clips,
        verdict, p (sign-flip test), finding. The verdict is "better" or "worse" where the interval
        leaves out 0, "open" where it holds 0, "equal" if all scores are the same, "few" for fewer
        than `FEW_CLIPS` clips. The finding is the verdict, but "open" if p is 0.05 or more.
        """
        scores = dict(list(self.clip_scores.set_index("clip").groupby(["run", "dataset"])))
        rows, seed = [], self.params.seed
        for name, (run, control), metric in product(self.params.data.evaluate, pairs, METRICS):
            if not {(run, name), (control, name)} <= scores.keys():
                continue
            both = [scores[row, name][metric] for row in (run, control)]
            a, b = values = pd.concat(both, axis=1, join="inner").dropna().to_numpy().T
            if values.size:
                bounds = t_interval(a - b)
                verdict, p = _verdict(metric, values, *bounds[1:]), sign_flip(a, b, seed)
                finding = "open" if verdict in ("better", "worse") and p >= 0.05 else verdict
                rows.append((name, run, control, metric, *bounds, len(a), verdict, p, finding))
        columns = ["dataset", "run", "control", "metric", "difference", "low", "high", "clips"]
        return pd.DataFrame(rows, columns=[*columns, "verdict", "p", "finding"])

    @cached_property
    def losses(self) -> dict[str, pd.DataFrame]:
        """The losses of each run, a row an epoch; no row where nothing was trained."""
        paths = {run: self.params.run_folder(run) / "losses.csv" for run in self.params.runs}
        return {run: from_csv(path, f"losses of {run}") for run, path in paths.items()}

    def clips(self, dataset: str | None = None, count: int = 1) -> list[Clip]:
        """At most `count` clips of an evaluated split, evenly spread over their names.

        `dataset` is one of `params.data.evaluate`; None: the set of `params.data.finetune`.
        """
        dataset = dataset or next(iter(self.params.data.finetune), "")
        if dataset not in self.params.data.evaluate:
            raise SalemaError(f"{dataset} is not evaluated (see data.evaluate in params.yaml)")
        found = data.load(self.params.root, dataset, self.params.data.evaluate[dataset])
        places = np.linspace(0, len(found), count, endpoint=False).astype(int)
        return [found[place] for place in dict.fromkeys(places.tolist())]

    def maps(self, run: str, clip: Clip) -> Iterator[np.ndarray]:
        """The maps that a run predicted for a clip: (h, w), one for each frame."""
        return Maps(folder=self.params.run_folder(run) / "maps").of(clip)


def enter_clone() -> Path:
    """Make the next folder up that holds `params.yaml` the current one; returns it.

    JupyterLab starts a notebook in its own folder, and the paths of the study begin at the root.
    """
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "params.yaml").is_file():
            os.chdir(folder)
            return folder
    raise SalemaError(f"no params.yaml in {here} or above (open the notebook inside a clone)")


def time_constant(alpha: float, fps: float = 1.0) -> float:
    """Seconds in which a frame's weight falls to 1/e; in frames for `fps` 1, 0.0 for `alpha` 1."""
    if not 0 < alpha <= 1:
        raise ValueError(f"alpha must be in (0, 1], not {alpha}")
    return 0.0 if alpha == 1 else -1 / (fps * math.log1p(-alpha))


def _verdict(metric: str, values: np.ndarray, low: float, high: float) -> str:
    if (values[0] == values[1]).all():
        return "equal"
    if values.shape[1] < FEW_CLIPS:
        return "few"
    if low <= 0 <= high:
        return "open"
    return "better" if low * SIGN[metric] > 0 else "worse"


@contextmanager
def _reading(path: Path, what: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise SalemaError(f"no {what}: {path} (run `dvc repro` first)") from error
    except (OSError, ValueError) as error:  # what json and pandas raise, too
        raise SalemaError(f"cannot read the {what}: {path} (delete it, `dvc repro`)") from error


def from_json(path: Path, what: str) -> dict:
    """A JSON file that a stage left; `what` it holds is for the error."""
    with _reading(path, what):
        return json.loads(path.read_text(encoding="utf-8"))


def from_csv(path: Path, what: str, columns: Sequence[str] = ()) -> pd.DataFrame:
    """A CSV file that a stage left, with at least these columns; `what` it holds is for errors."""
    types = {"dataset": str, "clip": str} | dict.fromkeys(METRICS, float)
    with _reading(path, what):
        table = pd.read_csv(path, dtype=types)
        if missing := sorted(set(columns) - set(table)):
            raise ValueError(f"no columns {missing}")
        return table
