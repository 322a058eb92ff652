"""Figures of numbers: losses, alpha, scores, paired differences, what an average does."""

import numpy as np
import pandas as pd
import seaborn
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from salema.files import SalemaError
from salema.report import style
from salema.report.study import METRICS, SIGN, Study, time_constant

VERDICTS = {"better": style.BLUE, "worse": style.RED}  # everything else is grey
GROUPS = {"run": "runs", "baseline": "reference rows"}
COLORS = {"run": style.BLUE, "baseline": style.GREY}
BARS = "with its 95 % interval; right is better"
HEADS = {"scores": f"mean {BARS}; dashed: the centre prior"}
HEADS |= {"paired": f"paired difference {BARS}, in colour where the interval leaves out 0"}
COLUMNS = 5  # panels side by side


@style.look()
def losses(study: Study) -> Figure:
    """Training and validation loss of every trained run; in grey that of a placement's control."""
    tables = {run: table for run, table in study.losses.items() if len(table)}
    if not tables:
        raise SalemaError("no run was trained (see tune and placements in params.yaml)")
    tuned = [run for run in tables if run in study.params.tune]
    placed = [run for run in tables if run not in tuned]
    mosaic = []
    for runs in (tuned, placed):
        mosaic += np.array(runs + ["."] * (-len(runs) % COLUMNS)).reshape(-1, COLUMNS).tolist()
    figure = style.blank("losses", 9.2, 1.65 * len(mosaic))
    panels = figure.subplot_mosaic(mosaic)
    for run, panel in panels.items():
        if run in placed[1:]:
            panel.sharey(panels[placed[0]])
        table, control = tables[run], tables.get("static-video")
        own = run in tuned or run == "static-video" or study.params.placements[run].data
        if not own and control is not None:
            name = "validation loss of static-video"
            panel.plot(control.epoch, control.val_loss, color=style.PALE, linewidth=3, label=name)
        marks = {"marker": "o", "markersize": 3} if len(table) < 10 else {}
        panel.plot(table.epoch, table.train_loss, color=style.SKY, label="training loss", **marks)
        panel.plot(table.epoch, table.val_loss, color=style.BLUE, label="validation loss", **marks)
        panel.set_title(run)
        panel.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        panel.yaxis.set_major_locator(MaxNLocator(4))
        panel.margins(x=0.08)
    figure.supxlabel("epoch", fontsize=8.5)
    most = max(panels.values(), key=lambda panel: len(panel.lines))
    handles, names = most.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper right", ncols=len(names))
    return figure


@style.look()
def alpha(study: Study, fps: float = 30.0) -> Figure:
    """Alpha of every EMA over training, learned or fixed (dotted), and its seconds at `fps`."""
    figure = style.blank("alpha", 6.4, 3.0)
    axis, colors, fixed, last = figure.subplots(), iter(style.CYCLE * 9), {}, 1
    for run, placement in study.params.placements.items():
        table = study.losses[run]
        if placement.recurrence != "ema" or table.empty:
            continue
        last = max(last, table.epoch.max())
        if not placement.learned:
            fixed.setdefault(placement.alpha, []).append(run)
        for layer in placement.after if placement.learned else []:
            epochs, values = [*table.epoch], [*table[f"alpha_{layer}"]]
            if placement.start == "static":
                epochs, values = [0, *epochs], [placement.alpha, *values]
            name = f"{run}, learned" + f" (layer {layer})" * (len(placement.after) > 1)
            axis.plot(epochs, values, "o-", ms=3, color=next(colors), label=name)
    note = {"xycoords": axis.get_yaxis_transform(), "textcoords": "offset points", "fontsize": 7}
    for level, runs in fixed.items():
        axis.axhline(level, color=style.GREY, linewidth=1, linestyle=(0, (1, 2)))
        names = ", ".join(runs[:3]) + ", ..." * (len(runs) > 3)
        axis.annotate(f"{level:g}, fixed: {names}", (0.01, level), (0, 2), color=style.GREY, **note)
    axis.set(xlabel="epoch", ylabel="alpha, weight of the newest frame", yscale="log")
    axis.set_xlim(-0.02 * last, 1.02 * last)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.margins(y=0.15)

    def seconds(alpha: np.ndarray) -> np.ndarray:
        return -1 / (fps * np.log1p(-np.clip(alpha, 1e-9, 1 - 1e-9)))

    def weight(seconds: np.ndarray) -> np.ndarray:
        return -np.expm1(-1 / (fps * np.maximum(seconds, 1e-9)))

    right = axis.secondary_yaxis("right", functions=(seconds, weight))
    right.set_ylabel(f"time constant at {fps:g} fps, seconds")
    for scale in (axis.yaxis, right.yaxis):
        scale.set_major_locator(LogLocator(subs=(1, 2, 5)))
        scale.set_minor_locator(NullLocator())
        scale.set_major_formatter("{x:g}")
    if axis.get_legend_handles_labels()[0]:
        axis.legend(loc="upper right")
    return figure


@style.look()
def dots(study: Study, dataset: str, paired: bool = False) -> Figure:
    """Means or paired differences with their 95 % intervals, a column for each metric.

    Right is better. Paired differences have a colour where the interval leaves out 0.
    """
    here, name = _dots(study, paired), "paired" if paired else "scores"
    here = here[here.dataset == dataset]
    if here.empty:
        raise SalemaError(f"no {name} to show on {dataset} (see runs in params.yaml)")
    lines = []  # of the figure, from the top: the title of a group, its rows, a gap
    for group, rows in sorted(here.groupby("group", sort=False), key=lambda item: -len(item[1])):
        lines += [(group, ""), *dict.fromkeys(zip(rows.group, rows.run, strict=True)), None]
    here = here.assign(place=[lines.index(row) for row in zip(here.group, here.run, strict=True)])
    figure = style.blank(f"{name}-{dataset}", 9.4, 0.7 + 0.185 * len(lines))
    shown = [metric for metric in METRICS if metric in set(here.metric)]
    axes = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
    for axis, metric in zip(axes, shown, strict=True):
        rows = here[here.metric == metric]
        axis.hlines(rows.place, rows.low, rows.high, colors=rows.color, linewidth=1.3)
        axis.scatter(rows.value, rows.place, s=17, c=rows.color, zorder=3)
        if paired:
            axis.axvline(0, color=style.INK, linewidth=0.9, zorder=1)
        for prior in rows.value[rows.run == "centre-prior"]:
            axis.axvline(prior, color=style.GREY, linewidth=0.9, zorder=1, linestyle="--")
        _scale(axis, metric)
    ticks = {place: line for place, line in enumerate(lines) if line}
    axes[0].set_yticks(list(ticks), [run or group for group, run in ticks.values()])
    for label, (_, run) in zip(axes[0].get_yticklabels(), ticks.values(), strict=True):
        label.set_fontweight("normal" if run else "bold")
    axes[0].set_ylim(len(lines) - 1.3, -0.6)
    head = f"{dataset}, {study.params.data.evaluate[dataset]}, n = {here.clips.max()}"
    figure.suptitle(f"{head}: {HEADS[name]}", **style.HEAD)
    return figure


def _dots(study: Study, paired: bool) -> pd.DataFrame:
    """The scores or the paired differences with the columns value, group and color."""
    if not paired:
        here = study.scores.assign(value=study.scores["mean"])
        return here.assign(group=here.kind.map(GROUPS), color=here.kind.map(COLORS))
    here = study.differences[study.differences.control != "centre-prior"]
    color = here.verdict.map(VERDICTS).fillna(style.GREY)
    return here.assign(value=here.difference, group="less " + here.control, color=color)


def _scale(axis: Axes, metric: str) -> None:
    axis.set_title(METRICS[metric] + (" (axis turned)" if SIGN[metric] < 0 else ""))
    axis.xaxis.set_major_locator(MaxNLocator(3))
    axis.grid(axis="x", color=style.PALE, linewidth=0.6)
    axis.set_axisbelow(True)
    axis.spines["left"].set_visible(False)
    axis.tick_params(axis="y", length=0)
    if SIGN[metric] < 0:
        axis.invert_xaxis()


@style.look()
def clip_grid(study: Study, dataset: str, metric: str = "nss") -> Figure:
    """Each run less its control, clip by clip: blue is better, red is worse."""
    scores = study.clip_scores[study.clip_scores.dataset == dataset]
    scores = scores.pivot(index="run", columns="clip", values=metric)
    pairs = [(run, study.control(run)) for run in study.params.runs]
    pairs = [pair for pair in pairs if set(pair) <= set(scores.index)]
    if not pairs:
        raise SalemaError(f"no scores on {dataset} (run `dvc repro` first)")
    table = pd.DataFrame({f"{a} less {b}": scores.loc[a] - scores.loc[b] for a, b in pairs}).T
    table = table.dropna(axis=1, how="all")
    figure = style.blank(f"clips-{dataset}", 9.4, 1.3 + 0.22 * len(table))
    axis = figure.subplots()
    # The ends of the colours are not the largest difference: one clip would hide the others.
    end = float(np.nanquantile(table.abs(), 0.95)) or 1.0
    palette = seaborn.diverging_palette(12, 245, s=85, l=45, as_cmap=True)
    scale = {"cmap": palette, "vmin": -end, "vmax": end, "cbar": False, "linewidths": 0.4}
    if table.shape[1] <= 20:
        scale |= {"annot": table, "fmt": "+.2f", "annot_kws": {"size": 6.5}}
    seaborn.heatmap(table * SIGN[metric], ax=axis, **scale)
    axis.set(xlabel="", ylabel="")
    axis.tick_params(length=0)
    axis.set_xticks(axis.get_xticks(), axis.get_xticklabels(), rotation=30, ha="right")
    head = f"{dataset}, {study.params.data.evaluate[dataset]}: {METRICS[metric]} less the control's"
    figure.suptitle(f"{head}, clip by clip; blue is better", **style.HEAD)
    return figure


@style.look()
def response(alphas: list[float], frames: int = 40, shown: int = 12) -> Figure:
    """What an EMA does: its weights of the past, its response to `shown` frames of an object."""
    figure = style.blank("response", 8.6, 2.7)
    past, flash = figure.subplots(1, 2)
    ages, times = np.arange(frames), np.arange(-4, frames)
    visible = ((times >= 0) & (times < shown)).astype(float)
    flash.fill_between(times, visible, step="mid", color=style.PALE, linewidth=0)
    for weight, color in zip(alphas, style.CYCLE, strict=False):
        weights = weight * (1 - weight) ** np.arange(len(times))
        name = f"{weight:g}: {time_constant(weight):.1f} frames"
        past.plot(ages, weights[:frames], color=color, label=name)
        flash.plot(times, np.convolve(visible, weights)[: len(times)], color=color)
    past.set(title="Weight of a past frame", xlabel="frames ago", ylabel="weight")
    past.legend(title="alpha: time constant", alignment="left")
    title = "Response to an object that comes and goes"
    flash.set(title=title, xlabel="frame", ylabel="average of the frames")
    flash.annotate("visible", (shown / 2 - 0.5, 0.03), ha="center", color=style.GREY)
    for axis in (past, flash):
        axis.set_ylim(0, None)
        axis.margins(x=0.01)
    return figure
