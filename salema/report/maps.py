"""Figures of maps: beside their frames and the observers' maps, over time, and as slices."""

from typing import TYPE_CHECKING

import numpy as np

from salema.data import Clip
from salema.params import Params
from salema.report import style
from salema.report.clips import (
    choose_clips,
    frame_at,
    human_at,
    human_maps,
    map_at,
    maps_of,
    memory_frames,
    shows_frames,
    telling_frame,
    trace,
)
from salema.report.scores import per_clip

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, GAP = 9.4, 0.04  # inches: a full figure, and between two cells
CAPTION, TITLE = 0.17, 0.24  # inches: the line under a row, and over the first


def _grid(
    label: str, heights: list[float], widths: list[float], left: float = 0.0, caption: bool = True
) -> tuple:
    """A figure of cells and its axes (rows, columns), placed to the hundredth of an inch.

    Args:
        label: Name of the figure.
        heights: Of the rows, in units of `widths`.
        widths: Of the columns; together they fill the figure, but no cell is over 2 inches.
        left: Inches for the names of the rows.
        caption: Whether there is a line under each row.
    """
    from matplotlib.figure import Figure

    room = WIDTH - left - GAP * (len(widths) - 1)
    inch = min(room / sum(widths), 2.0 / max(widths))
    lines = CAPTION if caption else GAP
    width = left + inch * sum(widths) + GAP * (len(widths) - 1)
    height = TITLE + sum(inch * h + lines for h in heights)
    figure = Figure(figsize=(width, height))
    figure.set_label(label)
    axes, y = np.empty((len(heights), len(widths)), object), height - TITLE
    for row, tall in enumerate(heights):
        x, y = left, y - inch * tall
        for column, wide in enumerate(widths):
            box = (x / width, y / height, inch * wide / width, inch * tall / height)
            axes[row, column] = figure.add_axes(box)
            x += inch * wide + GAP
        y -= lines
    return figure, axes


def _show(axis: "Axes", image: np.ndarray | None, size: tuple[int, int]) -> None:
    """A frame (H, W, 3) or a map (h, w) stretched to `size`; a dash where there is none."""
    axis.set_xticks([])
    axis.set_yticks([])
    for spine in axis.spines.values():
        spine.set_visible(False)
    height, width = size
    axis.set(xlim=(0, width), ylim=(height, 0), aspect="equal")
    if image is None:
        axis.text(width / 2, height / 2, "–", ha="center", va="center", color=style.GREY)
        return
    extent = (0, width, height, 0)
    if image.ndim == 3:
        axis.imshow(image, extent=extent)
    else:
        axis.imshow(image, extent=extent, cmap=style.MAPS, vmin=0, vmax=max(image.max(), 1e-9))


def _aspect(clip: Clip) -> float:
    return clip.size[0] / clip.size[1]


def compare_maps(
    params: Params, clips: list[Clip], runs: list[str], local: bool = False
) -> "Figure":
    """A row a clip: the frame (where it may be shown), the observers' map, each run's map.

    The frame lies in the last third of the clip: a memory has had its time. The number
    is the run's NSS over the whole clip.

    Args:
        params: The study.
        clips: Of one data set.
        runs: Of params.
        local: The report is not for git, so frames of any set may be shown.

    Raises:
        SalemaError: Maps of a run are missing or broken.
    """
    pictures = shows_frames(params, local)
    scores = per_clip(params).set_index(["run", "dataset", "clip"])["nss"].to_dict()
    heads = [*(["frame"] if pictures else []), "observers", *runs]
    with style.look():
        label = f"maps-{clips[0].dataset}"
        figure, axes = _grid(label, [_aspect(clip) for clip in clips], [1.0] * len(heads))
        for row, clip in zip(axes, clips, strict=True):
            at = telling_frame(clip)
            images = [frame_at(clip, at)] if pictures else []
            images += [human_at(clip, at), *(map_at(params, run, clip, at) for run in runs)]
            for axis, head, image in zip(row, heads, images, strict=True):
                _show(axis, image, clip.size)
                nss = scores.get((head, clip.dataset, clip.name))
                words = "" if nss is None else f"NSS {nss:.2f}"
                axis.set_xlabel(words, fontsize=7, color=style.GREY, labelpad=1.5)
            row[0].set_xlabel(_short(clip.name) + (f", frame {at + 1}" * (clip.n_frames > 1)),
                              fontsize=7, color=style.GREY, labelpad=1.5)  # fmt: skip
        for axis, head in zip(axes[0], heads, strict=True):
            axis.set_title(head, loc="center", fontsize=8)
        above = 1 + 0.06 / figure.get_figheight()
        figure.text(0, above, f"{clips[0].dataset}, {clips[0].split}", fontweight="bold")
    return figure


def _short(name: str) -> str:
    return name if len(name) < 16 else f"...{name[-12:]}"


def filmstrip(
    params: Params, clip: Clip, runs: list[str], count: int = 6, local: bool = False
) -> "Figure":
    """One clip over time: columns are moments, rows the frame, the observers, the runs.

    Raises:
        SalemaError: Maps of a run are missing or broken.
    """
    moments = memory_frames(clip, count)
    rows = {"observers": [human_at(clip, at) for at in moments]}
    if shows_frames(params, local):
        rows = {"frame": [frame_at(clip, at) for at in moments], **rows}
    for run in runs:
        maps = list(maps_of(params, run, clip))
        rows[run] = [maps[at] if at < len(maps) else None for at in moments]
    with style.look():
        heights, widths = [_aspect(clip)] * len(rows), [1.0] * len(moments)
        figure, axes = _grid(f"film-{clip.name}", heights, widths, left=0.95, caption=False)
        for row, (name, images) in zip(axes, rows.items(), strict=True):
            for axis, image in zip(row, images, strict=True):
                _show(axis, image, clip.size)
            row[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=8)
        for axis, at in zip(axes[0], moments, strict=True):
            when = f"{(at + 1) / clip.fps:.2f} s" if clip.fps else f"frame {at + 1}"
            axis.set_title(when, loc="center", fontsize=8, fontweight="normal")
    return figure


def slices(params: Params, clip: Clip, runs: list[str]) -> "Figure":
    """One clip as space over time: each map averaged over its rows, one column a frame.

    The top of a strip is the left edge of the picture, its bottom the right edge. A still
    bright line is something that stays salient; a memory draws lines longer and smoother.
    Below: how much consecutive maps differ.

    Raises:
        SalemaError: Maps of a run are missing or broken.
    """
    from matplotlib.figure import Figure

    films = {"observers": trace(human_maps(clip, tuple(params.model.size)))}
    films |= {run: trace(maps_of(params, run, clip)) for run in runs}
    with style.look():
        figure = Figure(figsize=(8.4, 0.72 * len(films) + 1.7), layout="constrained")
        figure.set_label(f"slices-{clip.name}")
        ratios = [1] * len(films) + [1.8]
        axes = figure.subplots(len(films) + 1, 1, sharex=True, height_ratios=ratios)
        colors = [style.GREY, *style.CYCLE]
        for axis, (name, film), color in zip(axes, films.items(), colors * 9, strict=False):
            profile, change = film
            edges = (0.5, profile.shape[1] + 0.5, 1, 0)
            axis.imshow(profile, cmap=style.MAPS, vmin=0, vmax=max(profile.max(), 1e-9),
                        aspect="auto", extent=edges, interpolation="nearest")  # fmt: skip
            axis.set_yticks([])
            axis.tick_params(axis="x", length=0)
            axis.spines[:].set_visible(False)
            axis.set_ylabel(name, rotation=0, ha="right", va="center")
            axes[-1].plot(np.arange(2, len(change) + 2), change, color=color, linewidth=1.2,
                          label=f"{name}: {change.mean():.4f}")  # fmt: skip
        axes[-1].set(xlabel="frame", ylabel="mean change from\nthe map before", ylim=(0, None))
        axes[-1].legend(loc="center left", bbox_to_anchor=(1, 0.5), title="mean", alignment="left")
    return figure


def examples(params: Params, local: bool = False) -> "Figure":
    """A clip of every set that is scored: the frame with its fixations, and their map.

    Where pictures may not be shown, the maps alone.
    """
    pictures = shows_frames(params, local)
    clips = [clip for name in params.data.evaluate for clip in choose_clips(params, name)]
    with style.look():
        widths = [1 / _aspect(clip) for clip in clips]
        figure, axes = _grid("examples", [1.0] * (1 + pictures), widths, caption=False)
        for column, clip in zip(axes.T, clips, strict=True):
            at = telling_frame(clip)
            _show(column[-1], human_at(clip, at), clip.size)
            if pictures:
                _show(column[0], frame_at(clip, at), clip.size)
                points = next(clip.fixations(at, at + 1))
                column[0].plot(*(points[:, :2].T + 0.5), "o", color="white", markersize=3.2,
                               markeredgecolor=style.INK, markeredgewidth=0.6)  # fmt: skip
            column[0].set_title(clip.dataset, loc="center", fontsize=8)
            column[-1].set_xlabel(_short(clip.name), fontsize=7, color=style.GREY, labelpad=2)
    return figure


def mean_map_grid(means: dict[str, np.ndarray]) -> "Figure":
    """Mean maps of the training clips side by side, from `mean_maps`."""
    with style.look():
        size = next(iter(means.values())).shape
        figure, axes = _grid("centre", [size[0] / size[1]], [1.0] * len(means))
        for axis, (name, image) in zip(axes[0], means.items(), strict=True):
            _show(axis, image, size)
            axis.set_title(name, loc="center", fontsize=8)
    return figure
