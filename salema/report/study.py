"""One profile of the study: its parameters, and what the stages left, as tidy tables."""

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd
import yaml

from salema import data
from salema.data import Clip
from salema.files import SalemaError
from salema.params import Params, from_dict, read
from salema.score.maps import Maps
from salema.score.statistics import paired_bootstrap

METRICS = {
    "auc_judd": "AUC-J",
    "auc_shuffled": "s-AUC",
    "nss": "NSS",
    "cc": "CC",
    "sim": "SIM",
    "kld": "KLD",
}
SIGN = dict.fromkeys(METRICS, 1) | {"kld": -1}  # times a difference: positive is better
# With fewer clips, differences that are all of one sign come up by chance more than once in 20.
FEW_CLIPS = 6

Read = TypeVar("Read")


@dataclass(frozen=True)
class Study:
    """One profile, with the tables of its results. Each table is read once, on first use.

    Attributes:
        params: The parameters of the profile.
        local: Whether the report goes into `reports/local/`, which git ignores, so that it
            may show frames of any data set.
    """

    params: Params
    local: bool = False

    @classmethod
    def open(cls, profile: str | None = None, local: bool = False) -> "Study":
        """The study of `params.yaml` in the current folder; None: the profile that it names."""
        path = Path("params.yaml")
        found = read(path)
        if profile not in (None, found.profile):
            raw = yaml.safe_load(path.read_text(encoding="utf-8"))
            found = from_dict({**raw, "profile": profile}, path)
        return cls(found, local)

    @property
    def folder(self) -> Path:
        """Where the report goes: `reports/<profile>`, or `reports/local/<profile>`."""
        name = self.params.profile
        return Path("reports/local", name) if self.local else self.params.report_folder

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

        A row for each data set, run and metric, in the order of params; columns dataset,
        split, run, kind ("run" or "baseline"), metric, mean, low, high, clips, frames,
        skipped, seen, protocol. A baseline that a data set cannot have is absent.
        """
        files = {run: self._metrics(run, ".json", _json) for run in self.rows}
        rows, counts = [], ("clips", "frames", "skipped", "seen", "protocol")
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

    @cached_property
    def clip_scores(self) -> pd.DataFrame:
        """The scores of each clip: columns run, dataset, clip, frames, ..., and the metrics."""
        tables = [self._metrics(run, ".csv", _clip_table).assign(run=run) for run in self.rows]
        return pd.concat(tables, ignore_index=True)

    @cached_property
    def differences(self) -> pd.DataFrame:
        """`compare` of the pairs that answer the study's questions."""
        runs = self.params.runs
        pairs = [(run, control) for run in runs if (control := self.control(run))]
        if {"ema30", "clstm30"} <= set(runs):
            pairs.append(("clstm30", "ema30"))  # the paper's title: simple against complex
        if "centre-prior" in self.params.baselines:
            pairs += [(run, "centre-prior") for run in runs]
        return self.compare(pairs)

    def control(self, run: str) -> str | None:
        """What a run is compared with, so that only one thing differs; None for `static`.

        `static-video` for what was trained on clips: the same frames, steps and loss without
        a memory. `static` for the `-plain` rows, for which nothing was trained, for the other
        static networks, and for `static-video` itself.
        """
        placement = self.params.placements.get(run)
        plain = placement is None or placement.static == "plain" or run == "static-video"
        control = "static" if plain else "static-video"
        return control if control in self.params.runs and run != control else None

    def compare(self, pairs: list[tuple[str, str]]) -> pd.DataFrame:
        """Differences over the same clips with their 95 % bootstrap intervals.

        `pairs` are (run, what it is compared with). The columns are dataset, run, control,
        metric, difference, low, high, clips, verdict: "better" or "worse" where the interval
        leaves out 0, "open" where it holds 0, "equal" where the scores of every clip are the
        same, "few" where fewer than `FEW_CLIPS` clips have both scores.
        """
        scores = dict(list(self.clip_scores.set_index("clip").groupby(["run", "dataset"])))
        rows, settings = [], (self.params.evaluate.resamples, self.params.seed)
        for name, (run, control), metric in product(self.params.data.evaluate, pairs, METRICS):
            if not {(run, name), (control, name)} <= scores.keys():
                continue
            both = [scores[row, name][metric] for row in (run, control)]
            values = pd.concat(both, axis=1, join="inner").dropna().to_numpy()
            if len(values):
                bounds = paired_bootstrap(*values.T, *settings)
                verdict = _verdict(metric, values, bounds.low, bounds.high)
                rows.append((name, run, control, metric, *bounds, len(values), verdict))
        columns = ["dataset", "run", "control", "metric", "difference", "low", "high", "clips"]
        return pd.DataFrame(rows, columns=[*columns, "verdict"])

    @cached_property
    def losses(self) -> dict[str, pd.DataFrame]:
        """The losses of each run, a row an epoch; no row where nothing was trained."""
        paths = {run: self.params.run_folder(run) / "losses.csv" for run in self.params.runs}
        return {run: _read(path, pd.read_csv, f"losses of {run}") for run, path in paths.items()}

    @cached_property
    def manifest(self) -> dict:
        """What `salema index` found."""
        return _read(self.params.run_folder("manifest.json"), _json, "manifest")

    @cached_property
    def protocols(self) -> pd.DataFrame:
        """The means of one run by every protocol, as `salema protocols` wrote them."""
        table = _read(
            self.params.report_folder / "protocols.csv", pd.read_csv, "scores by protocol"
        )
        return table.sort_values(["dataset", "protocol"], kind="stable")

    @cached_property
    def speed(self) -> dict:
        """What `python -m benchmarks.rows` measured; {} where it has not run."""
        path = self.params.report_folder / "speed.json"
        return _read(path, _json, "times") if path.exists() else {}

    def _metrics(self, run: str, suffix: str, reader: Callable[[Path], Read]) -> Read:
        return _read(
            self.params.report_folder / "metrics" / f"{run}{suffix}", reader, f"scores of {run}"
        )

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


def time_constant(alpha: float, fps: float = 1.0) -> float:
    """Seconds in which the weight of a frame falls to 1/e; in frames for `fps` 1.

    Args:
        alpha: Weight of the newest frame, in (0, 1]; 1 has no memory: 0.0 seconds.
        fps: Frames per second.

    Raises:
        ValueError: alpha is outside (0, 1].
    """
    if not 0 < alpha <= 1:
        raise ValueError(f"alpha must be in (0, 1], not {alpha}")
    return 0.0 if alpha == 1 else -1 / (fps * math.log1p(-alpha))


def _verdict(metric: str, values: np.ndarray, low: float, high: float) -> str:
    if (values[:, 0] == values[:, 1]).all():
        return "equal"
    if len(values) < FEW_CLIPS:
        return "few"
    if low <= 0 <= high:
        return "open"
    return "better" if low * SIGN[metric] > 0 else "worse"


def _read(path: Path, reader: Callable[[Path], Read], what: str) -> Read:
    try:
        return reader(path)
    except FileNotFoundError as error:
        raise SalemaError(f"no {what}: {path} (run `dvc repro` first)") from error
    except (OSError, ValueError, KeyError) as error:  # what json and pandas raise, too
        raise SalemaError(f"cannot read the {what}: {path} (delete it, `dvc repro`)") from error


def _json(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def _clip_table(path: Path) -> pd.DataFrame:
    table = pd.read_csv(path, dtype={"dataset": str, "clip": str})
    table = table[["dataset", "clip", "frames", "skipped", "seen", *METRICS]]
    return table.astype(dict.fromkeys(METRICS, float))
