"""Numbers as text: a cell, a Markdown table, a row's description, the answers to the questions."""

from collections.abc import Mapping

import pandas as pd
from pandas.api.types import is_numeric_dtype

from salema.params import Params
from salema.report.study import FEW_CLIPS, METRICS, SIGN, Study
from salema.report.style import ASSETS

BASELINES = {
    "chance": "a constant map; does not use the picture",
    "centre-prior": "the mean map of the training clips; does not use the picture",
    "spectral-residual": "Hou & Zhang 2007; nothing learned",
    "human": "half of the observers predict the other half: a lower bound on the ceiling",
}
LOSSES = {"bce": "BCE", "bce-adversarial": "BCE + adversarial", "metrics": "the metrics' loss"}
NAMES = {"ema": "EMA", "convlstm": "ConvLSTM", "conv": "convolution without memory"}
STATIC = {"plain": "nothing trained", "frozen": "static part frozen"}
FINDINGS = {"better": "better", "worse": "worse", "open": "undecided"}
FINDINGS |= {"equal": "the same scores", "few": "too few clips"}


def interval(mean: float, low: float, high: float, sign: bool = False) -> str:
    """A mean and its interval with three decimals: "1.234 [1.100, 1.350]"; never "-0.000"."""
    return f"{mean:{'+' * sign}z.3f} [{low:z.3f}, {high:z.3f}]"


def grid(table: pd.DataFrame, forms: Mapping[str, str] | str = "") -> str:
    """A table as Markdown, without its index; `forms` are the formats of numbers, by column."""
    head, rule, cells = [], [], []
    for name, values in table.items():
        number = is_numeric_dtype(values)
        form = (forms if isinstance(forms, str) else forms.get(name, "")) if number else ""
        head.append(str(name))
        rule.append("---:" if number else "---")
        cells.append(["–" if pd.isna(value) else format(value, form) for value in values])
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *zip(*cells, strict=True)))


def notice(study: Study) -> str:
    """What a reader must know first, as Markdown; "" for real data."""
    return (ASSETS / "synthetic.md").read_text("utf-8") if study.synthetic else ""


def describe(params: Params, run: str) -> str:
    """What a row is, in a few words."""
    if run in BASELINES:
        return BASELINES[run]
    if run in params.tune:
        return f"static, {LOSSES[params.tune[run].loss]}"
    placement = params.placements[run]
    if placement.recurrence == "none":
        return "no memory, trained on the same clips"
    parts = [
        f"{NAMES[placement.recurrence]} after {' & '.join(map(str, placement.after))}",
        f"alpha {'from ' * placement.learned}{placement.alpha:g}" if placement.alpha else "",
        "learned" if placement.learned else "",
        "rectified state" if placement.rectified else "",
        "residual" if placement.residual else "",
        f"dropout {placement.dropout}" if placement.dropout != "none" else "",
        "thawed from the top" if placement.thaw else "",
        f"`{placement.start}` continued on {placement.data}" if placement.data else "",
        f"in `{placement.start}`" if placement.start != "static" and not placement.data else "",
        STATIC.get(placement.static, ""),
    ]
    return ", ".join(filter(None, parts))


def answers(study: Study, metric: str = "nss") -> str:
    """The questions of the study, answered for each data set, as Markdown.

    `metric` decides; the other metrics are named where they decide.
    """
    parts = [(ASSETS / "rule.md").read_text("utf-8").format(metric=METRICS[metric])]
    for dataset, split in study.params.data.evaluate.items():
        found = study.differences[study.differences.dataset == dataset]
        if found.empty:
            continue
        clips, frames = found.clips.max(), study.scores.query("dataset == @dataset").frames.max()
        title = f"{clips} {'clips' if frames > clips else 'images'}"
        parts.append(f"### {dataset}, {split}: {title}\n")
        if clips < FEW_CLIPS:
            parts.append(f"- {title} are too few to judge; see the scores only.\n")
            continue
        for question, runs, control in _questions(study.params, moving=frames > clips):
            here = found[(found.control == control) & found.run.isin(runs)]
            if metric in set(here.metric):
                answer = _answer(here, metric)
                parts.append(f"- **{question}** Compared with `{control}`: {answer}.")
        parts.append("")
    return "\n".join(parts)


def _questions(params: Params, moving: bool) -> list[tuple[str, list[str], str]]:
    """(question, runs, what they are compared with); still images have nothing to remember."""
    rows = {run: p for run, p in params.placements.items() if p.recurrence != "none" and moving}
    convs = [run for run, p in rows.items() if p.recurrence == "conv"]
    memories = [run for run in rows if run not in convs]
    plain = [run for run in memories if rows[run].static == "plain"]
    drifted = [run for run in plain if rows[run].start == "static-video"]
    continued = [(run, rows[run].start) for run in memories if rows[run].data]
    trained = [run for run in memories if rows[run].static != "plain" and not rows[run].data]
    complex_, gans = ([run for run in memories if run == n] for n in ("clstm30", "videosalgan"))
    static = [run for run in params.tune if run != "static"]
    return [
        ("Does a memory help that is trained on the same clips?", trained, "static-video"),
        ("Does a memory help without any training?", plain, "static"),
        ("Does a memory help that is put into `static-video` untrained?", drifted, "static-video"),
        ("Is the complex memory better than the simple one?", complex_, "ema30"),
        ("Does VideoSalGAN's convolution help without its memory?", convs, "static-video"),
        ("Does VideoSalGAN's memory help beyond its convolution?", gans, "videosalgan-conv"),
        *((f"Does `{start}` gain by other clips?", [run], start) for run, start in continued),
        ("Does training on clips help by itself?", ["static-video"], "static"),
        ("Does another loss help the static network?", static, "static"),
        ("Are the runs better than the centre prior?", params.runs, "centre-prior"),
    ]


def _answer(found: pd.DataFrame, metric: str) -> str:
    """Up to three comparisons in words; of more, the number of each finding and both ends."""
    rows = found[found.metric == metric]
    said = {row.run: _difference(row, found[found.run == row.run]) for row in rows.itertuples()}
    if len(said) <= 3:
        return "; ".join(said.values())
    counts = []
    for finding, word in FINDINGS.items():
        names = rows.run[rows.finding == finding]
        listed = f" (`{'`, `'.join(names)}`)" if len(names) <= len(rows) / 2 else ""
        counts += [f"{len(names)} {word}{listed}"] if len(names) else []
    gains = rows.set_index("run").difference * SIGN[metric]
    best, worst = said[gains.idxmax()], said[gains.idxmin()]
    return f"of {len(rows)} runs, {', '.join(counts)}. Best: {best}. Worst: {worst}"


def _difference(row, others: pd.DataFrame) -> str:
    """A row of `Study.differences` in words; `others` are the rows of all its metrics."""
    bounds = interval(row.difference, row.low, row.high, sign=True)
    text = f"`{row.run}` {bounds} {METRICS[row.metric]}, p = {row.p:.2g}, {FINDINGS[row.finding]}"
    also = []
    for finding in ("better", "worse"):
        where = (others.finding == finding) & (others.metric != row.metric)
        names = ", ".join(others.metric[where].map(METRICS))
        also += [f"{'also ' * (finding == row.finding)}{finding} in {names}"] if names else []
    return f"{text} ({'; '.join(also)})" if also else text
