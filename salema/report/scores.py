"""The metrics' files -> tidy tables: means with intervals, and paired differences."""

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from salema.files import SalemaError
from salema.params import Params, from_dict, read

METRICS = {
    "auc_judd": "AUC-J",
    "auc_shuffled": "s-AUC",
    "nss": "NSS",
    "cc": "CC",
    "sim": "SIM",
    "kld": "KLD",
}
LOWER_IS_BETTER = ("kld",)
# With fewer clips, even differences all of one sign come up by chance more than once in 20.
FEW_CLIPS = 6


def study(profile: str | None = None, path: str | Path = "params.yaml") -> Params:
    """The params of a profile, by default of the one that the file names.

    Raises:
        SalemaError: As `salema.params.read`.
    """
    params = read(path)
    if profile in (None, params.profile):
        return params
    raw = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    return from_dict({**raw, "profile": profile}, Path(path))


def time_constant(alpha: float, fps: float = 1.0) -> float:
    """Seconds in which the weight of a frame falls to 1/e; in frames for `fps` 1.

    Args:
        alpha: Weight of the newest frame, in (0, 1]; 1 remembers nothing, 0.0 seconds.
        fps: Frames a second.

    Raises:
        ValueError: alpha is outside (0, 1].
    """
    if not 0 < alpha <= 1:
        raise ValueError(f"alpha must be in (0, 1], not {alpha}")
    return 0.0 if alpha == 1 else -1 / (fps * math.log1p(-alpha))


def _path(params: Params, run: str, suffix: str) -> Path:
    path = params.report_folder / "metrics" / f"{run}{suffix}"
    if not path.is_file():
        raise SalemaError(f"no scores of {run}: {path} (run `dvc repro` first)")
    return path


def per_clip(params: Params) -> pd.DataFrame:
    """Every score of every run and baseline: run, dataset, clip, frames, ..., the metrics.

    Raises:
        SalemaError: A file is missing, or lacks a column.
    """
    tables = []
    for run in [*params.runs, *params.baselines]:
        path = _path(params, run, ".csv")
        try:
            table = pd.read_csv(path, dtype={"dataset": str, "clip": str})
            table = table[["dataset", "clip", "frames", "skipped", "seen", *METRICS]]
            table = table.astype(dict.fromkeys(METRICS, float))
        except (pd.errors.ParserError, pd.errors.EmptyDataError, KeyError, ValueError) as error:
            raise SalemaError(f"not a table of scores: {path} (delete it, `dvc repro`)") from error
        tables.append(table.assign(run=run))
    return pd.concat(tables, ignore_index=True)


def summary(params: Params) -> pd.DataFrame:
    """Means and 95 % intervals over clips as `evaluate` wrote them, a row a metric.

    Returns:
        Columns dataset, split, run, kind ("run" or "baseline"), metric, mean, low, high,
        clips, frames, skipped, seen, protocol; in the order of params. A baseline that a
        set cannot have is not there.

    Raises:
        SalemaError: A file is missing or broken.
    """
    rows = []
    files = {}
    for run in [*params.runs, *params.baselines]:
        path = _path(params, run, ".json")
        try:
            files[run] = json.loads(path.read_text(encoding="utf-8"))
        except json.JSONDecodeError as error:
            raise SalemaError(f"not JSON: {path} (delete it, `dvc repro`)") from error
    for dataset, split in params.data.evaluate.items():
        for run, file in files.items():
            entry = file.get(dataset)
            if entry is None:
                continue
            kind = "run" if run in params.runs else "baseline"
            head = {"dataset": dataset, "split": split, "run": run, "kind": kind}
            tail = {key: entry[key] for key in ("clips", "frames", "skipped", "seen", "protocol")}
            for metric in METRICS:
                if entry.get(metric) is None:
                    continue
                bounds = [entry[metric], entry[f"{metric}_low"], entry[f"{metric}_high"]]
                values = dict(zip(("mean", "low", "high"), bounds, strict=True))
                rows.append({**head, "metric": metric, **values, **tail})
    if not rows:
        raise SalemaError(f"no scores in {params.report_folder / 'metrics'} (run `dvc repro`)")
    return pd.DataFrame(rows)


def losses(params: Params, run: str) -> pd.DataFrame:
    """The losses of a run, a row an epoch; no row where nothing was trained.

    Raises:
        SalemaError: The file is missing or no table.
    """
    path = params.run_folder(run) / "losses.csv"
    try:
        return pd.read_csv(path)
    except FileNotFoundError as error:
        raise SalemaError(f"no losses of {run}: {path} (run `dvc repro` first)") from error
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise SalemaError(f"not a table of losses: {path} (delete it, `dvc repro`)") from error


def interval(mean: float, low: float, high: float, sign: bool = False) -> str:
    """A mean with its interval, three decimals: "1.234 [1.100, 1.350]"; never "-0.000"."""
    forms = ("+.3f" if sign else ".3f", ".3f", ".3f")
    cells = [format(value, form) for value, form in zip((mean, low, high), forms, strict=True)]
    cells = [cell.replace("-", "+" if sign and not place else "") if float(cell) == 0 else cell
             for place, cell in enumerate(cells)]  # fmt: skip
    return f"{cells[0]} [{cells[1]}, {cells[2]}]"


def ablation(params: Params) -> pd.DataFrame:
    """The ablation table: rows (data set, run), metrics as "mean [low, high]".

    Runs first, in the order of params, then the rows to read them by. A dash stands where
    a set cannot have a row; `seen` counts training clips among those scored.

    Raises:
        SalemaError: As `summary`.
    """
    tidy = summary(params)
    cells = {
        (row.dataset, row.run, row.metric): interval(row.mean, row.low, row.high)
        for row in tidy.itertuples()
    }
    seen = tidy.groupby(["dataset", "run"])["seen"].first()
    rows = {}
    for dataset in params.data.evaluate:
        for run in [*params.runs, *params.baselines]:
            row = {name: cells.get((dataset, run, key), "–") for key, name in METRICS.items()}
            rows[dataset, run] = {**row, "seen": int(seen.get((dataset, run), 0))}
    table = pd.DataFrame.from_dict(rows, orient="index")
    table.index = pd.MultiIndex.from_tuples(table.index, names=["data set", "run"])
    return table


def control(params: Params, run: str) -> str | None:
    """What a run is compared with, so that only one thing differs; None for `static`.

    `static-video` for what was trained on clips: the same frames, steps and loss without
    a memory. `static` for the `-plain` rows, which nothing was trained for, for the other
    static networks, and for `static-video` itself.
    """
    placement = params.placements.get(run)
    plain = placement is None or placement.static == "plain" or run == "static-video"
    against = "static" if plain else "static-video"
    return against if against in params.runs and run != against else None


def contrasts(params: Params) -> list[tuple[str, str]]:
    """The pairs that answer the study's questions: every run and its control, and the rest."""
    pairs = [(run, against) for run in params.runs if (against := control(params, run))]
    if {"ema30", "clstm30"} <= set(params.runs):
        pairs.append(("clstm30", "ema30"))  # the paper's title: simple against complex
    if "centre-prior" in params.baselines:
        pairs += [(run, "centre-prior") for run in params.runs]
    return pairs


def paired(params: Params, pairs: list[tuple[str, str]] | None = None) -> pd.DataFrame:
    """Differences over the same clips with their 95 % bootstrap intervals.

    Args:
        params: The study.
        pairs: (run, what it is compared with); None for `contrasts`.

    Returns:
        Columns dataset, run, control, metric, difference, low, high, clips, verdict:
        "better" or "worse" where the interval leaves out 0, "equal" where every clip
        scores the same, "open" where the interval holds 0, "few" below `FEW_CLIPS` clips.

    Raises:
        SalemaError: A file of scores is missing.
    """
    scores = dict(list(per_clip(params).set_index("clip").groupby(["run", "dataset"])))
    rows = []
    for dataset in params.data.evaluate:
        for run, against in contrasts(params) if pairs is None else pairs:
            if not {(run, dataset), (against, dataset)} <= scores.keys():
                continue
            for metric in METRICS:
                row = _difference(params, metric, scores[run, dataset], scores[against, dataset])
                if row is not None:
                    rows.append({"dataset": dataset, "run": run, "control": against, **row})
    columns = ["dataset", "run", "control", "metric", "difference", "low", "high", "clips"]
    return pd.DataFrame(rows, columns=[*columns, "verdict"])


def _difference(
    params: Params, metric: str, run: pd.DataFrame, control: pd.DataFrame
) -> dict | None:
    """One row of `paired` over the clips that both have; None without any."""
    from salema.score.statistics import paired_bootstrap

    values = pd.concat([run[metric], control[metric]], axis=1, join="inner").dropna().to_numpy()
    if not len(values):
        return None
    found = paired_bootstrap(*values.T, params.evaluate.resamples, params.seed)
    bounds = {"difference": found.mean, "low": found.low, "high": found.high}
    return {"metric": metric, **bounds, "clips": len(values), "verdict": _verdict(metric, values,
            found.low, found.high)}  # fmt: skip


def _verdict(metric: str, values: np.ndarray, low: float, high: float) -> str:
    if (values[:, 0] == values[:, 1]).all():
        return "equal"
    if len(values) < FEW_CLIPS:
        return "few"
    if low <= 0 <= high:
        return "open"
    return "better" if (low > 0) != (metric in LOWER_IS_BETTER) else "worse"


def protocols_table(params: Params) -> pd.DataFrame:
    """What `salema protocols` wrote: one run's means, a row per set and protocol.

    Raises:
        SalemaError: It has not run yet.
    """
    path = params.report_folder / "protocols.csv"
    try:
        table = pd.read_csv(path)
    except FileNotFoundError as error:
        raise SalemaError(f"no such table: {path} (run `salema protocols ema30`)") from error
    return table.sort_values(["dataset", "protocol"], kind="stable")
