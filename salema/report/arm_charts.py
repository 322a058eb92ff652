"""Figures of the two arms: lengths, trained and tested, seeds, where it helps, a cut."""

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from salema import data
from salema.model import weights
from salema.report import style
from salema.report.arms import ALONE, LAYER, TRAINED, A, Arms, B
from salema.report.study import Study
from salema.score.statistics import t_interval

WHERE = {"time": "seconds since the clip began", "since_cut": "seconds since a cut"}
WHERE |= {"motion": "motion, grey levels in .2 s", "spread": "spread of the gaze, diagonals"}
PARTS = 4  # of the frames, by quartiles of what they are like
Condition = tuple[str, str, str]  # arm, row, tested


@style.look()
def lengths(arms: Arms) -> Figure:
    """Arm A: NSS less the static network's, by time constant; a line a layer or control."""
    study, base = arms.study.params.crossvalidate, arms.scores("A", "static")
    figure = style.blank("lengths", 8.6, 3.2)
    panels = figure.subplots(1, 2, sharey=True)
    tested = set(arms.table.tested[arms.table.row == "static"])
    for kind in sorted({test.split(" tau ")[0] for test in tested if " tau " in test}):
        average, rows = kind.startswith("ema"), []
        for tau in study.taus:
            if (test := f"{kind} tau {tau:g}") in tested:
                found = arms.contrast(arms.scores("A", "static", test), base)
                rows.append((tau, *t_interval(found.groups)))
        table, axis = np.array(rows).T, panels[0 if average else 1]
        name = f"average behind layer {kind[3:]}" if average else kind
        (line,) = axis.plot(table[0], table[1], "o-", ms=3.5, label=name)
        axis.fill_between(table[0], table[2], table[3], color=line.get_color(), alpha=0.12, lw=0)
    for axis, title in zip(panels, ("Averages over time", "Controls of the maps"), strict=True):
        axis.axhline(0, color=style.INK, linewidth=0.9)
        axis.set(xscale="log", xlabel="time constant, seconds", title=title)
        axis.set_xticks(study.taus, [f"{tau:g}" for tau in study.taus])
        axis.minorticks_off()
        if axis.get_legend_handles_labels()[0]:
            axis.legend(fontsize=7)
    panels[0].set_ylabel("NSS less the static network's")
    return figure


@style.look()
def two_by_two(arms: Arms) -> Figure:
    """Arm B: every row as trained and on frames alone, and averages put into `static-video`."""
    base, control = arms.scores("B", "static-video"), ("static-video", TRAINED)
    table = arms.table[arms.table.arm == "B"]
    pairs = dict.fromkeys(zip(table.row, table.tested, strict=True))
    pairs = [pair for pair in pairs if pair != control]
    figure = style.blank("two-by-two", 7.6, 0.8 + 0.24 * len(pairs))
    axis = figure.subplots()
    for place, (row, tested) in enumerate(pairs):
        scores = arms.scores("B", row, tested)
        found = arms.contrast(scores, base).interval
        color = {TRAINED: style.BLUE, ALONE: style.GREY}.get(tested, style.GREEN)
        axis.plot(found[1:], [place, place], color=color, linewidth=1.3)
        axis.plot(found.mean, place, "o", color=color, ms=4.5)
        seeds = (scores - base).groupby(arms.groups).mean().mean()
        axis.plot(seeds, [place] * len(seeds), "|", color=style.INK, ms=7)
    axis.axvline(0, color=style.INK, linewidth=0.9)
    axis.set_yticks(range(len(pairs)), [f"{row}, {tested}" for row, tested in pairs])
    axis.invert_yaxis()
    axis.set_xlabel("NSS less that of static-video (no memory in training or test)")
    head = "Trained with or without a memory, tested with or without it; ticks: one seed each"
    figure.suptitle(head, **style.HEAD)
    return figure


def by_part(arms: Arms, first: Condition, second: Condition) -> pd.DataFrame:
    """NSS of the first condition less the second's, in quartiles of what frames are like.

    Columns: what, low, high (of the quartile), mean, below, above (t interval over groups).
    """
    clips = arms.table.query("arm == 'A' and row == 'static' and tested == @TRAINED")
    clips = clips[clips.seed == clips.seed.min()]
    sides, parts = [_frames(arms, key) for key in (first, second)], []
    for row in clips.itertuples():
        gain = np.mean(sides[0][row.clip], 0) - np.mean(sides[1][row.clip], 0)
        parts.append(pd.DataFrame({"clip": row.clip, "group": row.group, "value": gain}))
    frames, rows = pd.concat(parts, ignore_index=True), []
    for name in WHERE:
        quarters = pd.qcut(arms.curves[name].astype(float), PARTS, duplicates="drop")
        for bounds, here in frames.groupby(quarters, observed=True):
            means = here.dropna().groupby(["group", "clip"]).value.mean().groupby("group").mean()
            if len(means) > 1:
                rows.append((name, bounds.left, bounds.right, *t_interval(means.to_numpy())))
    return pd.DataFrame(rows, columns=["what", "low", "high", "mean", "below", "above"])


def _frames(arms: Arms, key: Condition) -> dict[str, list[np.ndarray]]:
    """Clip -> the NSS of its scored frames by each seed."""
    found: dict[str, list[np.ndarray]] = {}
    here = arms.table.query("arm == @key[0] and row == @key[1] and tested == @key[2]")
    for row in here.itertuples():
        part = arms.curves["nss"][row.start : row.start + row.frames]
        found.setdefault(row.clip, []).append(part.astype(float))
    return found


def _short(value: float) -> str:
    return f"{max(value, 0):.2g}" if value < 99 else f"{value:.0f}"


@style.look()
def when(arms: Arms) -> Figure:
    """Where a memory helps: its gain in quartiles of what the frames are like. Descriptive.

    The memories are arm A's average of the middle length, and `ema30` of arm B where it was run.
    """
    taus, static = sorted(arms.study.params.crossvalidate.taus), (A, "static", TRAINED)
    tau = taus[(len(taus) - 1) // 2]
    average = A, "static", f"ema{LAYER} tau {tau:g}"
    pairs = {f"average behind {LAYER}, {tau:g} s, untrained": (average, static)}
    if "ema30" in set(arms.table.row):
        pairs["ema30, trained"] = (B, "ema30", TRAINED), (B, "static-video", TRAINED)
    figure = style.blank("when", 9.4, 2.7)
    axes = figure.subplots(1, len(WHERE), sharey=True)
    for place, (label, pair) in enumerate(pairs.items()):
        table = by_part(arms, *pair)
        for axis, (name, title) in zip(axes, WHERE.items(), strict=True):
            rows = table[table.what == name]
            reach = [rows["mean"] - rows.below, rows.above - rows["mean"]]
            at = np.arange(len(rows)) + 0.12 * place
            axis.errorbar(at, rows["mean"], reach, fmt="o-", ms=3.5, lw=1.2, label=label)
            axis.axhline(0, color=style.INK, linewidth=0.9)
            ranges = [f"{_short(row.low)}-{_short(row.high)}" for row in rows.itertuples()]
            axis.set_xticks(range(len(rows)), ranges, fontsize=6.5)
            axis.set_xlabel(title)
    axes[0].set_ylabel("gain in NSS")
    axes[0].legend(fontsize=7)
    return figure


@style.look()
def step(study: Study, before: int = 20, after: int = 60) -> Figure:
    """What each trained memory makes of a cut: the distance of its maps to those it settles at.

    The first frame of one validation clip is shown `before` times, that of another `after` times.
    """
    figure, settings = style.blank("step", 6.4, 2.8), study.params.crossvalidate
    clips = data.load(study.params.root, settings.clips, "val")
    axis, cache = figure.subplots(), data.study_cache(tuple(settings.model.size))
    one, other = (np.asarray(cache.frames(clip)[:1]) for clip in clips[:2])
    frames = np.concatenate([np.repeat(one, before, 0), np.repeat(other, after, 0)])
    for row in settings.rows:
        path = study.params.weights_file(f"arms/{row}-fold1-seed{settings.seeds[0]}")
        if not path.exists():
            continue
        network = weights.read(path)[0].eval().requires_grad_(False)
        maps = network(torch.from_numpy(frames)[None])[0][0].numpy()
        apart = np.abs(maps - maps[-1]).mean((1, 2))
        axis.plot(np.arange(len(maps)) - before, apart / apart[before - 1], label=row, lw=1.3)
    axis.set(xlabel="frames since the cut", ylabel="distance to where it settles", ylim=(0, None))
    if axis.lines:
        axis.legend(fontsize=7)
    return figure
