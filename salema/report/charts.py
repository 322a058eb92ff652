"""Figures of numbers: losses, alpha, scores, paired differences, what an average does."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from salema.files import SalemaError
from salema.params import Params
from salema.report import style
from salema.report.scores import (
    LOWER_IS_BETTER,
    METRICS,
    control,
    losses,
    per_clip,
    time_constant,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

VERDICTS = {"better": style.BLUE, "worse": style.RED}  # the rest is grey
COLUMNS = 5  # panels side by side


def _panels(label: str, rows: int, columns: int, size: tuple[float, float], **options) -> tuple:
    """A figure of `size` inches and its axes, always (rows, columns)."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    figure.set_label(label)
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def loss_curves(params: Params) -> "Figure":
    """Training and validation loss of every run that was trained, a panel each.

    Placements share one scale, with the control's validation loss in grey behind each.

    Raises:
        SalemaError: The losses of a run are missing.
    """
    tables = {run: losses(params, run) for run in params.runs}
    tables = {run: table for run, table in tables.items() if len(table)}
    if not tables:
        raise SalemaError("no run was trained (see tune and placements in params.yaml)")
    tuned = [run for run in tables if run in params.tune]
    placed = [run for run in tables if run in params.placements]
    order = [*tuned, *[None] * (-len(tuned) % COLUMNS), *placed]
    rows = -(-len(order) // COLUMNS)
    with style.look():
        figure, axes = _panels("losses", rows, COLUMNS, (9.2, 1.65 * rows))
        for axis, run in zip(axes.flat, [*order, *[None] * (rows * COLUMNS)], strict=False):
            if run is None:
                axis.set_axis_off()
                continue
            if run in placed and run != "static-video" and "static-video" in tables:
                control = tables["static-video"]
                axis.plot(control.epoch, control.val_loss, color=style.PALE, linewidth=3)
            _curves(axis, tables[run])
            axis.set_title(run)
            axis.margins(x=0.08)
        _share(axes.flat, order, placed)
        figure.supxlabel("epoch", fontsize=8.5)
        _key(figure, "static-video" in tables and len(placed) > 1)
    return figure


def _curves(axis: "Axes", table: pd.DataFrame) -> None:
    from matplotlib.ticker import MaxNLocator

    marks = {"marker": "o", "markersize": 3} if len(table) < 10 else {}
    axis.plot(table.epoch, table.train_loss, color=style.SKY, **marks)
    axis.plot(table.epoch, table.val_loss, color=style.BLUE, **marks)
    axis.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axis.yaxis.set_major_locator(MaxNLocator(4))


def _share(axes, order: list, placed: list) -> None:
    """One scale for the panels of the placements: only then can they be compared."""
    mine = [axis for axis, run in zip(axes, order, strict=False) if run in placed]
    if mine:
        limits = np.array([axis.get_ylim() for axis in mine])
        for axis in mine:
            axis.set_ylim(limits[:, 0].min(), limits[:, 1].max())


def _key(figure: "Figure", control: bool) -> None:
    from matplotlib.lines import Line2D

    lines = [Line2D([], [], color=style.SKY), Line2D([], [], color=style.BLUE)]
    names = ["training loss", "validation loss"]
    if control:
        lines.append(Line2D([], [], color=style.PALE, linewidth=3))
        names.append("validation loss of static-video")
    figure.legend(lines, names, loc="outside upper right", ncols=len(lines))


def alpha_curves(params: Params, fps: float = 30.0) -> "Figure":
    """Alpha of every EMA over training; on the right the seconds that it remembers at `fps`.

    A learned alpha is a line from its start (epoch 0), a fixed one a dotted level.

    Raises:
        SalemaError: The losses of a run are missing.
    """
    with style.look():
        figure, axes = _panels("alpha", 1, 1, (6.4, 3.0))
        axis, last, fixed = axes[0, 0], 1, {}
        colors = iter(style.CYCLE * 9)
        for run, placement in params.placements.items():
            table = losses(params, run)
            if placement.recurrence != "ema" or table.empty:
                continue
            last = max(last, int(table.epoch.max()))
            if not placement.learned:
                fixed.setdefault(placement.alpha, []).append(run)
                continue
            for layer in placement.after:
                values = [placement.alpha, *table[f"alpha_{layer}"]]
                name = f"{run}, learned" + f" (layer {layer})" * (len(placement.after) > 1)
                axis.plot([0, *table.epoch], values, color=next(colors), marker="o", markersize=3,
                          label=name)  # fmt: skip
        for alpha, runs in fixed.items():
            axis.axhline(alpha, color=style.GREY, linewidth=1, linestyle=(0, (1, 2)))
            names = ", ".join(runs) if len(runs) < 4 else f"{', '.join(runs[:3])}, ..."
            axis.annotate(f"{alpha:g}, fixed: {names}", (0.01, alpha), (0, 2), fontsize=7,
                          xycoords=axis.get_yaxis_transform(), textcoords="offset points",
                          color=style.GREY)  # fmt: skip
        axis.set(xlabel="epoch", ylabel="alpha, weight of the newest frame", ylim=(0, None))
        axis.set_xlim(-0.02 * last, last * 1.02)
        axis.xaxis.get_major_locator().set_params(integer=True)
        _seconds(axis, fps)
        if axis.get_legend_handles_labels()[0]:
            axis.legend(loc="upper right")
    return figure


def _seconds(axis: "Axes", fps: float) -> None:
    """A scale on the right: the time constant that belongs to each alpha."""
    low, high = axis.get_ylim()
    times = [t * 10.0**e for e in range(-3, 2) for t in (1, 2, 5)]
    places = {time: 1 - np.exp(-1 / (fps * time)) for time in times}
    apart, ticks = (high - low) / 14, []
    for time, place in sorted(places.items(), key=lambda item: -item[1]):
        if low < place < high and (not ticks or abs(ticks[-1][1] - place) > apart):
            ticks.append((time, place))
    right = axis.twinx()
    right.spines["right"].set_visible(True)
    right.set_ylim(low, high)
    right.set_yticks([place for _, place in ticks], [f"{time:g}" for time, _ in ticks])
    right.set_ylabel(f"time constant at {fps:g} fps, seconds")


def _rows(names: list[tuple[str, list[str]]]) -> tuple[list[tuple[float, str, bool]], dict]:
    """Groups (title, runs) -> tick (place, words, is title), and the place of each run."""
    ticks, places, y = [], {}, 0.0
    for title, runs in names:
        ticks.append((y, title, True))
        for run in runs:
            y += 1
            ticks.append((y, run, False))
            places[title, run] = y
        y += 1.4
    return ticks, places


def _name_rows(axes: "list[Axes]", ticks: list[tuple[float, str, bool]]) -> None:
    axis = axes[0]  # the others share its scale
    axis.set_yticks([place for place, _, _ in ticks], [words for _, words, _ in ticks])
    for words, (_, _, title) in zip(axis.get_yticklabels(), ticks, strict=True):
        words.set_fontweight("bold" if title else "normal")
    axis.set_ylim(max(place for place, _, _ in ticks) + 0.7, -0.6)
    for axis in axes:
        axis.tick_params(axis="y", length=0)


def paired_dots(params: Params, differences: pd.DataFrame, dataset: str) -> "Figure":
    """Paired differences on one set as dots with their 95 % intervals, a column a metric.

    Right is better in every column (KLD's axis is turned round). Blue: better; red:
    worse; grey: the interval holds 0, or the clips are too few.

    Args:
        params: The study.
        differences: From `paired`.
        dataset: The set.

    Raises:
        SalemaError: There is no difference on this set.
    """
    here = differences[(differences.dataset == dataset) & (differences.control != "centre-prior")]
    if here.empty:
        raise SalemaError(f"no paired differences on {dataset} (see runs in params.yaml)")
    groups = [(f"less {name}", list(dict.fromkeys(group.run)))
              for name, group in here.groupby("control", sort=False)]  # fmt: skip
    groups.sort(key=lambda group: -len(group[1]))
    ticks, places = _rows(groups)
    shown = [metric for metric in METRICS if metric in set(here.metric)]
    with style.look():
        size = (9.4, 0.9 + 0.185 * ticks[-1][0])
        figure, axes = _panels(f"paired-{dataset}", 1, len(shown), size, sharey=True)
        for axis, metric in zip(axes[0], shown, strict=True):
            for row in here[here.metric == metric].itertuples():
                color = VERDICTS.get(row.verdict, style.GREY)
                _whisker(axis, row.low, row.difference, row.high,
                         places[f"less {row.control}", row.run], color)  # fmt: skip
            axis.axvline(0, color=style.INK, linewidth=0.8, zorder=0)
            _scale(axis, metric)
        _name_rows(axes[0], ticks)
        clips = int(here.clips.max())
        figure.suptitle(f"{dataset}, {params.data.evaluate[dataset]}, n = {clips}: paired "
                        "difference with its 95 % interval; right is better, in colour where the "
                        "interval leaves out 0", fontsize=8.5, x=0.01, ha="left")  # fmt: skip
    return figure


def _whisker(axis: "Axes", low: float, mean: float, high: float, place: float, color: str) -> None:
    axis.plot([low, high], [place, place], color=color, linewidth=1.3, solid_capstyle="butt")
    axis.plot(mean, place, "o", color=color, markersize=4.2)


def _scale(axis: "Axes", metric: str) -> None:
    from matplotlib.ticker import MaxNLocator

    lower = metric in LOWER_IS_BETTER
    axis.set_title(METRICS[metric] + (" (axis turned)" if lower else ""))
    axis.xaxis.set_major_locator(MaxNLocator(3))
    axis.grid(axis="x", color=style.PALE, linewidth=0.6)
    axis.set_axisbelow(True)
    axis.spines["left"].set_visible(False)
    if lower:
        axis.invert_xaxis()


def score_dots(params: Params, tidy: pd.DataFrame, dataset: str) -> "Figure":
    """Means on one set as dots with their 95 % intervals, a column a metric.

    The dashed line is the centre prior. These intervals are wide because clips differ;
    whether two runs differ is for `paired_dots` to say.

    Args:
        params: The study.
        tidy: From `summary`.
        dataset: The set.

    Raises:
        SalemaError: The set has no scores.
    """
    here = tidy[tidy.dataset == dataset]
    if here.empty:
        raise SalemaError(f"no scores on {dataset} (run `dvc repro` first)")
    kinds = {"run": "runs", "baseline": "to read them by"}
    groups = [(title, list(dict.fromkeys(here[here.kind == kind].run)))
              for kind, title in kinds.items() if (here.kind == kind).any()]  # fmt: skip
    ticks, places = _rows(groups)
    shown = [metric for metric in METRICS if metric in set(here.metric)]
    with style.look():
        size = (9.4, 0.9 + 0.185 * ticks[-1][0])
        figure, axes = _panels(f"scores-{dataset}", 1, len(shown), size, sharey=True)
        for axis, metric in zip(axes[0], shown, strict=True):
            for row in here[here.metric == metric].itertuples():
                color = style.BLUE if row.kind == "run" else style.GREY
                _whisker(axis, row.low, row.mean, row.high, places[kinds[row.kind], row.run], color)
                if row.run == "centre-prior":
                    axis.axvline(row.mean, color=style.GREY, linewidth=0.9, linestyle="--",
                                 zorder=0)  # fmt: skip
            _scale(axis, metric)
        _name_rows(axes[0], ticks)
        figure.suptitle(f"{dataset}, {params.data.evaluate[dataset]}, n = {int(here.clips.max())}: "
                        "mean with its 95 % interval; right is better; dashed: the centre prior",
                        fontsize=8.5, x=0.01, ha="left")  # fmt: skip
    return figure


def clip_grid(params: Params, dataset: str, metric: str = "nss") -> "Figure":
    """Each run less its control, clip by clip: where a memory helps, and where it harms.

    Blue is better, red worse; both ends of the colours lie equally far from 0.

    Args:
        params: The study.
        dataset: A set of few clips.
        metric: A key of `METRICS`.

    Raises:
        SalemaError: The set has no scores.
    """
    import seaborn

    scores = per_clip(params)
    scores = scores[scores.dataset == dataset].pivot(index="run", columns="clip", values=metric)
    pairs = [(run, control(params, run)) for run in params.runs]
    rows = {f"{run} less {against}": scores.loc[run] - scores.loc[against]
            for run, against in pairs if {run, against} <= set(scores.index)}  # fmt: skip
    if not rows:
        raise SalemaError(f"no scores on {dataset} (run `dvc repro` first)")
    table = pd.DataFrame(rows).T.dropna(axis=1, how="all")
    better = -1 if metric in LOWER_IS_BETTER else 1
    with style.look():
        size = (9.4, 1.3 + 0.22 * len(table))
        figure, axes = _panels(f"clips-{dataset}", 1, 1, size)
        # Not the largest: one clip must not wash out the rest.
        ends = float(np.nanquantile(table.abs(), 0.95)) or 1.0
        palette = seaborn.diverging_palette(12, 245, s=85, l=45, as_cmap=True)
        figures = table if table.shape[1] <= 20 else None
        seaborn.heatmap(table * better, ax=axes[0, 0], cmap=palette, vmin=-ends, vmax=ends,
                        annot=figures, fmt="+.2f", annot_kws={"size": 6.5}, linewidths=0.4,
                        cbar=False)  # fmt: skip
        axes[0, 0].set(xlabel="", ylabel="")
        axes[0, 0].tick_params(length=0)
        axes[0, 0].set_xticks(axes[0, 0].get_xticks(), axes[0, 0].get_xticklabels(), rotation=30,
                              ha="right")  # fmt: skip
        figure.suptitle(f"{dataset}, {params.data.evaluate[dataset]}: {METRICS[metric]} less the "
                        "control's, clip by clip; blue is better", fontsize=8.5, x=0.01,
                        ha="left")  # fmt: skip
    return figure


def response(alphas: list[float], frames: int = 40, shown: int = 12) -> "Figure":
    """What an EMA does to time: the weights of past frames, and its answer to a flash.

    Left: the weight of the frame k frames ago in today's average, far from the clip's
    start. Right: something is there for `shown` frames and then gone.

    Args:
        alphas: Weights of the newest frame, in (0, 1].
        frames: How far the axes go.
        shown: How long the thing is there.
    """
    with style.look():
        figure, axes = _panels("response", 1, 2, (8.6, 2.7))
        ages, times = np.arange(frames), np.arange(-4, frames)
        there = ((times >= 0) & (times < shown)).astype(float)
        axes[0, 1].fill_between(times, there, step="mid", color=style.PALE, linewidth=0)
        for alpha, color in zip(alphas, style.CYCLE, strict=False):
            name = f"{alpha:g}: {time_constant(alpha):.1f} frames"
            axes[0, 0].plot(ages, alpha * (1 - alpha) ** ages, color=color, label=name)
            state, answer = 0.0, []
            for value in there:
                state = alpha * value + (1 - alpha) * state
                answer.append(state)
            axes[0, 1].plot(times, answer, color=color)
        axes[0, 0].set(title="Weight of a past frame", xlabel="frames ago", ylabel="weight")
        axes[0, 0].legend(title="alpha: time constant", alignment="left")
        axes[0, 1].set(title="Answer to a thing that comes and goes", xlabel="frame",
                       ylabel="average of the frames")  # fmt: skip
        axes[0, 1].annotate("it is there", (shown / 2 - 0.5, 0.03), ha="center", color=style.GREY)
        for axis in axes.flat:
            axis.set_ylim(0, None)
            axis.margins(x=0.01)
    return figure
