"""What the paired differences say in words: the study's questions, answered from the numbers."""

import pandas as pd

from salema.params import Params
from salema.report.scores import FEW_CLIPS, LOWER_IS_BETTER, METRICS, interval, summary

SAYS = {
    "better": "better",
    "worse": "worse",
    "equal": "the same scores",
    "open": "not shown, the interval holds 0",
    "few": "too few clips to tell",
}


def answers(params: Params, differences: pd.DataFrame, metric: str = "nss") -> str:
    """The study's questions, answered set by set, as Markdown.

    Args:
        params: The study.
        differences: From `paired`, of all `contrasts`.
        metric: The one to count in; others are named where they agree or do not.
    """
    tidy = summary(params)
    parts = []
    for dataset, split in params.data.evaluate.items():
        found = differences[differences.dataset == dataset]
        if found.empty:
            continue
        shown = tidy[(tidy.dataset == dataset) & (tidy.kind == "run")]
        clips = int(found.clips.max())
        moving = int(shown.frames.max()) > clips
        title = f"{clips} {'clips' if moving else 'images'}"
        if clips < FEW_CLIPS:
            lines = [f"- {title}: too few to judge, see the scores only."]
        else:
            lines = _lines(params, found, metric, moving)
        parts += [f"### {dataset}, {split}: {title}\n", *lines, ""]
    return "\n".join(parts)


def _lines(params: Params, found: pd.DataFrame, metric: str, moving: bool) -> list[str]:
    memories = [run for run, p in params.placements.items() if p.recurrence != "none"]
    plain = [run for run in memories if params.placements[run].static == "plain"]
    trained = [run for run in memories if run not in plain]
    lines = []
    if moving:
        lines.append(_count(found, trained, "static-video", metric))
        lines.append(_each("Does a memory help without any training?", found,
                           [(run, "static") for run in plain], metric))  # fmt: skip
        lines.append(_each("The complex memory or the simple one?", found,
                           [("clstm30", "ema30")], metric))  # fmt: skip
    lines.append(_each("What does training on clips give by itself?", found,
                       [("static-video", "static")], metric))  # fmt: skip
    others = [(run, "static") for run in params.tune if run != "static"]
    lines.append(_each("What does another loss give the static network?", found, others, metric))
    lines.append(_above(found, params.runs, metric))
    return [line for line in lines if line]


def _one(found: pd.DataFrame, run: str, against: str, metric: str) -> str:
    """A run's difference, and in which other metrics it stands out too; "" where unknown."""
    rows = found[(found.run == run) & (found.control == against)].set_index("metric")
    if metric not in rows.index:
        return ""
    row = rows.loc[metric]
    said = f"`{run}` {interval(row.difference, row.low, row.high, sign=True)}, {SAYS[row.verdict]}"
    if row.verdict in ("better", "worse", "open"):
        beside = []
        for verdict in ("better", "worse"):
            names = [METRICS[m] for m in rows.index[rows.verdict == verdict] if m != metric]
            also = "also " if verdict == row.verdict else ""
            beside += [f"{also}{verdict} in {', '.join(names)}"] if names else []
        said += f" ({'; '.join(beside)})" if beside else ""
    return said


def _each(question: str, found: pd.DataFrame, pairs: list[tuple[str, str]], metric: str) -> str:
    said = [_one(found, run, against, metric) for run, against in pairs]
    said = [words for words in said if words]
    if not said:
        return ""
    against = pairs[0][1]
    return f"- **{question}** {METRICS[metric]} less that of `{against}`: {'; '.join(said)}."


def _count(found: pd.DataFrame, runs: list[str], against: str, metric: str) -> str:
    """How many of the trained memories differ from the control, the most and the least."""
    rows = found[(found.control == against) & (found.metric == metric) & found.run.isin(runs)]
    if rows.empty:
        return ""
    counts = rows.verdict.value_counts()
    better, worse = int(counts.get("better", 0)), int(counts.get("worse", 0))
    ends = rows.sort_values("difference", ascending=metric not in LOWER_IS_BETTER)
    most, least = (_one(found, ends.iloc[i].run, against, metric) for i in (-1, 0))
    match better, worse:
        case 0, 0:
            verdict = "Not shown."
        case 0, _:
            verdict = "No, and some harm."
        case _, 0:
            verdict = "Yes, every one." if better == len(rows) else "Yes, some do."
        case _:
            verdict = "Some do, some harm."
    return (
        f"- **Does a memory help, trained on the same clips?** {verdict} {METRICS[metric]} less "
        f"that of `{against}`, over {len(rows)} memories: better {better}, worse {worse}, not to "
        f"be told apart {len(rows) - better - worse}. Best: {most}. "
        f"Worst: {least}. (The best of many is flattered by being picked.)"
    )


def _above(found: pd.DataFrame, runs: list[str], metric: str) -> str:
    rows = found[(found.control == "centre-prior") & (found.metric == metric)]
    if rows.empty:
        return ""
    above = set(rows[rows.verdict == "better"].run)
    rest = [f"`{run}`" for run in runs if run in set(rows.run) - above]
    but = f"; not shown for {', '.join(rest)}" if rest else ""
    return (
        f"- **Is it more than a habit of the centre?** {len(above)} of {len(rows)} runs are better "
        f"than the centre prior in {METRICS[metric]}{but}."
    )
