"""The ablation as Markdown and CSV."""

import re
from pathlib import Path

import pandas as pd

from salema.files import atomic
from salema.params import Params
from salema.report.answers import answers
from salema.report.cost import costs, measured_on
from salema.report.published import published
from salema.report.scores import (
    FEW_CLIPS,
    LOWER_IS_BETTER,
    METRICS,
    ablation,
    control,
    interval,
    losses,
    paired,
    summary,
    time_constant,
)
from salema.report.style import folder

ROWS = {
    "chance": "a constant map; no picture",
    "centre-prior": "the mean map of the training clips; no picture",
    "spectral-residual": "Hou & Zhang 2007; nothing learned",
    "human": "one half of the observers predicts the other half",
}

MARKS = {"better": "▲", "worse": "▼"}
NUMBER = re.compile(r"^([-+]?\d[\d.]*|–)$")
LOSSES = {"bce": "BCE", "bce-adversarial": "BCE + adversarial", "metrics": "the metrics' loss"}


def synthetic(params: Params) -> bool:
    """Whether the data are the sample's, which no person ever looked at."""
    return params.profile == "sample"


def notice(params: Params) -> str:
    """What a reader of the report must know first, as Markdown; nothing for real data."""
    if not synthetic(params):
        return ""
    return (
        "> **Synthetic data.** Pictures and gaze of the profile `sample` are drawn by a program. "
        "These numbers show that the study runs from end to end; they are no evidence about "
        "people, nor about which memory is better on real video.\n"
    )


def describe(params: Params, run: str) -> str:
    """What a row is, in a few words."""
    if run in ROWS:
        return ROWS[run]
    if run in params.tune:
        return f"static, {LOSSES[params.tune[run].loss]}"
    placement = params.placements[run]
    if placement.recurrence == "none":
        return "no memory, trained on the same clips"
    layers = " & ".join(map(str, placement.after))
    words = [f"{'EMA' if placement.recurrence == 'ema' else 'ConvLSTM'} after {layers}"]
    if placement.alpha is not None:
        words.append(f"alpha {'from ' if placement.learned else ''}{placement.alpha:g}")
    words += [word for word in ("learned", "residual") if getattr(placement, word)]
    if placement.dropout != "none":
        words.append(f"dropout {placement.dropout}")
    if placement.static != "tuned":
        words.append({"plain": "nothing trained", "frozen": "static part frozen"}[placement.static])
    return ", ".join(words)


def _grid(head: list[str], rows: list[list[str]]) -> str:
    numbers = [all(NUMBER.match(cell) for cell in column) for column in zip(*rows, strict=True)]
    rule = "".join("---:|" if number else "---|" for number in numbers or [False] * len(head))
    lines = [f"| {' | '.join(head)} |", f"|{rule}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def text(table: pd.DataFrame, index: bool = True) -> str:
    """Any table as Markdown, its values as they print; `index` as first columns."""
    if index:
        table = table.reset_index()
    return _grid([str(name) for name in table], [[str(v) for v in r] for r in table.to_numpy()])


def _arrow(metric: str) -> str:
    return f"{METRICS[metric]} {'↓' if metric in LOWER_IS_BETTER else '↑'}"


def _best(tidy: pd.DataFrame) -> set[tuple[str, str, str]]:
    """(data set, run, metric) of the best mean among the runs."""
    runs = tidy[tidy.kind == "run"]
    found = set()
    for (dataset, metric), group in runs.groupby(["dataset", "metric"]):
        worst_first = group.sort_values("mean", ascending=metric not in LOWER_IS_BETTER)
        top = worst_first.iloc[-1]["mean"]
        found |= {(dataset, run, metric) for run in group[group["mean"] == top].run}
    return found


def _scores(params: Params, dataset: str) -> str:
    table, tidy = ablation(params), summary(params)
    best, rows = _best(tidy), []
    for run in [*params.runs, *params.baselines]:
        row = table.loc[(dataset, run)]
        mark = " †" if row["seen"] else ""
        cells = []
        for metric, name in METRICS.items():
            mean, _, rest = row[name].partition(" ")
            bold = (dataset, run, metric) in best
            cells.append(f"**{mean}** {rest}" if bold else row[name])
        title = f"`{run}`{mark}" if run in params.runs else f"*{run}*"
        rows.append([title, *cells])
    return _grid(["row", *map(_arrow, METRICS)], rows)


def legend(params: Params) -> str:
    """What each row is and costs, as Markdown."""
    found = costs(params)
    rows = [[f"`{run}`", describe(params, run), *found.loc[run]] for run in params.runs]
    rows += [[f"*{run}*", describe(params, run), "–", "–", "–"] for run in params.baselines]
    table = _grid(["row", "what it is", *found.columns], rows)
    return f"{table}\n\n{measured_on(params)}".rstrip("\n")


def _differences(params: Params, dataset: str, differences: pd.DataFrame) -> str:
    here = differences[(differences.dataset == dataset) & (differences.control != "centre-prior")]
    rows = []
    for (run, against), group in here.groupby(["run", "control"], sort=False):
        found, cells = group.set_index("metric"), []
        for metric in METRICS:
            cell = "–"
            if metric in found.index:
                row = found.loc[metric]
                cell = interval(row.difference, row.low, row.high, sign=True)
                if row.verdict in ("better", "worse"):
                    cell = f"**{cell}** {MARKS[row.verdict]}"
                elif row.verdict == "equal":
                    cell = "the same"
            cells.append(cell)
        rows.append([f"`{run}`", f"`{against}`", *cells])
    return _grid(["row", "less", *map(_arrow, METRICS)], rows)


def _sets(params: Params, tidy: pd.DataFrame) -> str:
    """What was scored: a row a data set."""
    rows = []
    for dataset, split in params.data.evaluate.items():
        here = tidy[(tidy.dataset == dataset) & (tidy.kind == "run")]
        if len(here):
            most = [str(int(here[key].max())) for key in ("clips", "frames", "skipped", "seen")]
            rows.append([dataset, split, *most])
    return _grid(["data set", "split", "clips", "frames", "skipped", "seen in training"], rows)


def markdown(params: Params, differences: pd.DataFrame | None = None) -> str:
    """The whole of `ablation.md`.

    Args:
        params: The study.
        differences: From `paired`; None computes them.

    Raises:
        SalemaError: A file of scores is missing or broken.
    """
    tidy = summary(params)
    differences = paired(params) if differences is None else differences
    protocols = ", ".join(f"`{name}`" for name in tidy.protocol.unique())
    every = params.evaluate.every
    frames = "every frame" if every == 1 else f"one in {every} of the frames"
    parts = [
        f"# Ablation: where a memory sits, profile `{params.profile}`\n",
        notice(params),
        f"Protocol {protocols}, {frames} that it takes; the mean over clips with its 95 % "
        f"bootstrap interval ({params.evaluate.resamples} resamples of the clips, seed "
        f"{params.seed}). Tuned on {', '.join(params.data.tune)} train, fine-tuned on "
        f"{', '.join(params.data.finetune)} train; width {params.model.width:g}, input "
        f"{params.model.size[1]}x{params.model.size[0]}.\n",
        _sets(params, tidy) + "\n",
        "An arrow points to better. Bold in a table of scores: the best mean among the runs, "
        "which may well be within chance of the next one; read the paired differences. Italic "
        "rows are there to read the others by, – where a set cannot have one. † marks a row "
        "whose weights saw some of these clips in training. On still images a memory has "
        "nothing to remember: an EMA leaves them as they are, and a ConvLSTM gives its first "
        "step from an empty state, which it was hardly trained for.\n",
        legend(params) + "\n",
    ]
    parts += ["## In words\n", answers(params, differences), _reading(differences)]
    parts += [section(params, dataset, differences) for dataset in params.data.evaluate]
    return "\n".join([part for part in [*parts, published()] if part])


def section(params: Params, dataset: str, differences: pd.DataFrame) -> str:
    """One data set as Markdown: the scores of all rows, then the paired differences."""
    head = f"{dataset}, {params.data.evaluate[dataset]}"
    compared = _differences(params, dataset, differences)
    return (
        f"## {head}\n\n{_scores(params, dataset)}\n\n### {head}: paired differences\n\n{compared}\n"
    )


def _reading(differences: pd.DataFrame) -> str:
    judged = differences[
        differences.verdict.isin(["better", "worse", "open"])
        & (differences.control != "centre-prior")
    ]
    return (
        "Paired differences are taken over the same clips: the row less its control. "
        "`static-video` is the control of every memory that was trained on clips (the same "
        "frames, steps and loss, no memory), `static` of the rest. Bold where the 95 % interval "
        f"leaves out 0: ▲ better, ▼ worse; sets of fewer than {FEW_CLIPS} clips are not judged. "
        f"{len(judged)} intervals are, so about {round(len(judged) / 20)} would leave out 0 by "
        "chance alone.\n"
    )


def _csv(params: Params, differences: pd.DataFrame) -> pd.DataFrame:
    """Long form: a row per data set, run and metric, beside it the difference to its control."""
    controls = {run: control(params, run) for run in params.runs}
    columns = {"low": "difference_low", "high": "difference_high"}
    against = differences[differences.control == differences.run.map(controls)]
    against = against.drop(columns="clips").rename(columns=columns)
    joined = summary(params).merge(against, "left", ["dataset", "run", "metric"])
    return joined.assign(profile=params.profile).set_index("profile").reset_index()


def write(
    params: Params, differences: pd.DataFrame | None = None, local: bool = False
) -> list[Path]:
    """Write `ablation.md`, `ablation.csv` and `bars.csv`, each whole or not at all.

    `ablation.csv` has a row a data set, run and metric; `bars.csv` a row a run with the
    means on the clips' own data set, for `dvc plots`.

    Args:
        params: The study.
        differences: From `paired`; None computes them.
        local: Into the report that git ignores.

    Returns:
        The three paths.

    Raises:
        SalemaError: A file of scores is missing or broken, or nothing can be written.
    """
    differences = paired(params) if differences is None else differences
    tidy = summary(params)
    own = tidy[tidy.dataset == next(iter(params.data.finetune), tidy.dataset[0])]
    bars = own.pivot(index="run", columns="metric", values="mean")
    bars = bars.reindex(index=own.run.unique(), columns=[m for m in METRICS if m in bars])
    contents = {
        "ablation.md": markdown(params, differences),
        "ablation.csv": _csv(params, differences).to_csv(
            index=False, float_format="%.6g", lineterminator="\n"
        ),
        "bars.csv": bars.to_csv(float_format="%.6g", lineterminator="\n"),
    }
    paths = []
    for name, content in contents.items():
        paths.append(folder(params, local) / name)
        with atomic(paths[-1]) as part:
            part.write_text(content, encoding="utf-8")
    return paths


def memories(params: Params, fps: list[float]) -> pd.DataFrame:
    """How long each EMA remembers: alpha at the end of training, as frames and as seconds.

    Args:
        params: The study.
        fps: Frame rates to tell the seconds for.

    Returns:
        A row per EMA: run, layer, alpha, frames and seconds until a weight falls to 1/e.
    """
    rows = []
    for run, placement in params.placements.items():
        if placement.recurrence != "ema":
            continue
        last = _last_epoch(params, run)
        for layer in placement.after:
            alpha = float(last.get(f"alpha_{layer}", placement.alpha))
            row = {"run": run, "layer": layer, "alpha": f"{alpha:.3f}"}
            row["frames"] = f"{time_constant(alpha):.1f}"
            row |= {f"s at {rate:g} fps": f"{time_constant(alpha, rate):.2f}" for rate in fps}
            rows.append({**row, "learned": "yes" if placement.learned else "no"})
    return pd.DataFrame(rows)


def _last_epoch(params: Params, run: str) -> dict:
    table = losses(params, run)
    return {} if table.empty else table.iloc[-1].to_dict()
