"""Figures of maps: with their frames and the observers' maps, over time, and as slices."""

from collections.abc import Iterator
from itertools import islice

import cv2
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from mpl_toolkits.axes_grid1 import ImageGrid

from salema import data
from salema.data import Clip
from salema.files import SalemaError
from salema.report import style
from salema.report.study import Study
from salema.report.words import grid
from salema.score.baselines import centre_prior

WIDTH, CELL = 9.4, 2.0  # inches: a full figure, and the widest cell
STRIP = {"cmap": style.MAPS, "aspect": "auto", "interpolation": "nearest"}
NOTE = {"fontsize": 7, "color": style.GREY, "labelpad": 2}  # the line under a picture


def human_at(clip: Clip, frame: int) -> np.ndarray | None:
    """The observers' map of one frame; None where nobody looked."""
    truth = next(clip.maps(frame, frame + 1))
    return truth if truth is not None and truth.max() > 0 else None


def memory_frames(clip: Clip, count: int = 6) -> list[int]:
    """Up to `count` frames with a human map, spread up to the last; not the first of several."""
    places = np.linspace(0, clip.n_frames - 1, count + 1).round().astype(int)[1:]
    return [frame for frame in dict.fromkeys(places.tolist()) if human_at(clip, frame) is not None]


def late_frame(clip: Clip) -> int:
    """A frame in the last third that has a human map, or the nearest before it that has one."""
    start = (clip.n_frames - 1) * 2 // 3
    order = [*range(start, clip.n_frames), *range(start - 1, -1, -1)]
    return next((frame for frame in order if human_at(clip, frame) is not None), start)


def pictures(study: Study, clip: Clip, runs: list[str], frames: list[int]) -> dict[str, list]:
    """Frames (H, W, 3) where they may be shown, the observers' maps and each run's maps (h, w)."""
    found = {}
    if study.shows_frames:
        found["frame"] = [next(clip.frames(frame, frame + 1)) for frame in frames]
    found["observers"] = [human_at(clip, frame) for frame in frames]
    for run in runs:
        maps = list(islice(study.maps(run, clip), max(frames) + 1))
        if len(maps) <= max(frames):
            raise SalemaError(f"{run} has {len(maps)} maps of {clip.name} (predict it again)")
        found[run] = [maps[frame] for frame in frames]
    return found


def human_maps(clip: Clip, size: tuple[int, int]) -> Iterator[np.ndarray]:
    """The observers' map of every frame at a small size (h, w); zeros where nobody looked."""
    if clip.points is not None:  # blurred at the small size: at the size of a video it is slow
        for points in clip.fixations():
            yield data.blur(points, clip.size, data.sigma(clip.size), size)
        return
    for truth in clip.maps():
        truth = np.zeros(size, np.float32) if truth is None else truth
        yield cv2.resize(truth, size[::-1], interpolation=cv2.INTER_AREA)


def trace(maps: Iterator[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The mean over each map's rows, (w, T), and how much consecutive maps differ, (T - 1,)."""
    before = next(maps)
    profile, change = [before.mean(0)], []
    for now in maps:
        profile.append(now.mean(0))
        change.append(float(np.abs(now - before).mean()))
        before = now
    return np.stack(profile, 1), np.array(change)


def flicker(study: Study, clips: list[Clip], runs: list[str]) -> str:
    """Mean absolute difference of consecutive maps as Markdown: runs by clips of several frames."""
    moving = [clip for clip in clips if clip.n_frames > 1]
    rows = []
    for run in runs:
        means = {clip.name: trace(study.maps(run, clip))[1].mean() for clip in moving}
        rows.append({"run": run, **means, "mean": np.mean(list(means.values())) if means else 0.0})
    return grid(pd.DataFrame(rows), ".4f")


def _grid(label: str, heights: list[float], widths: list[float], gap: float) -> ImageGrid:
    """Cells for pictures. Heights and widths are in one unit; the gaps of the rows in inches."""
    inch = min(WIDTH / sum(widths), CELL / max(widths))
    size = sum(widths) * inch, sum(heights) * inch + gap * len(heights)
    figure = style.blank(label, *size, layout="none")
    shape = len(heights), len(widths)
    return ImageGrid(figure, (0, 0, 1, 1), shape, axes_pad=(0.04, gap), label_mode="all")


def _show(axis: Axes, image: np.ndarray | None, height: float, width: float) -> None:
    """A frame (H, W, 3) or a map (h, w) stretched to this size; a dash where there is none."""
    axis.set(xticks=[], yticks=[], xlim=(0, width), ylim=(height, 0))
    axis.spines[:].set_visible(False)
    if image is None:
        axis.text(width / 2, height / 2, "–", ha="center", va="center", color=style.GREY)
        return
    options = {"cmap": style.MAPS, "vmin": 0, "vmax": max(image.max(), 1e-9)}
    axis.imshow(image, extent=(0, width, height, 0), **(options if image.ndim == 2 else {}))


def _aspect(clip: Clip) -> float:
    return clip.size[0] / clip.size[1]


def _short(name: str) -> str:
    return name if len(name) < 16 else f"...{name[-12:]}"


@style.look()
def compare(study: Study, clips: list[Clip], runs: list[str]) -> Figure:
    """Late frames (where they may be shown) and maps; below, each run's NSS on the whole clip."""
    scores = study.clip_scores.set_index(["run", "dataset", "clip"])["nss"].to_dict()
    heights, columns = [_aspect(clip) for clip in clips], study.shows_frames + 1 + len(runs)
    cells = _grid(f"maps-{clips[0].dataset}", heights, [1] * columns, 0.19)
    for row, clip in zip(cells.axes_row, clips, strict=True):
        frame = late_frame(clip)
        shown = pictures(study, clip, runs, [frame])
        for axis, (name, (image,)) in zip(row, shown.items(), strict=True):
            _show(axis, image, _aspect(clip), 1)
            nss = scores.get((name, clip.dataset, clip.name))
            axis.set_xlabel("" if nss is None else f"NSS {nss:.2f}", **NOTE)
            if row is cells.axes_row[0]:
                axis.set_title(name, loc="center", fontsize=8)
        row[0].set_xlabel(_short(clip.name) + f", frame {frame + 1}" * (clip.n_frames > 1), **NOTE)
    figure = row[0].figure
    above = 1 + 0.22 / figure.get_figheight()
    figure.text(0, above, f"{clips[0].dataset}, {clips[0].split}", fontweight="bold")
    return figure


@style.look()
def filmstrip(study: Study, clip: Clip, runs: list[str], count: int = 6) -> Figure:
    """One clip over time: columns are moments; rows are the frame, the observers, the runs."""
    frames = memory_frames(clip, count)
    shown = pictures(study, clip, runs, frames)
    cells = _grid(f"film-{clip.name}", [_aspect(clip)] * len(shown), [1] * len(frames), 0.04)
    for row, (name, images) in zip(cells.axes_row, shown.items(), strict=True):
        for axis, image in zip(row, images, strict=True):
            _show(axis, image, _aspect(clip), 1)
        row[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=8)
    for axis, frame in zip(cells.axes_row[0], frames, strict=True):
        when = f"{(frame + 1) / clip.fps:.2f} s" if clip.fps else f"frame {frame + 1}"
        axis.set_title(when, loc="center", fontsize=8, fontweight="normal")
    return cells[0].figure


@style.look()
def slices(study: Study, clip: Clip, runs: list[str]) -> Figure:
    """Maps averaged over their rows, a column for each frame; below, how much maps change."""
    films = {"observers": trace(human_maps(clip, tuple(study.params.model.size)))}
    films |= {run: trace(study.maps(run, clip)) for run in runs}
    figure = style.blank(f"slices-{clip.name}", 8.4, 0.72 * len(films) + 1.7)
    ratios = [1] * len(films) + [1.8]
    *axes, below = figure.subplots(len(films) + 1, 1, sharex=True, height_ratios=ratios)
    colors = [style.GREY, *style.CYCLE * 9]
    for axis, (name, (profile, change)), color in zip(axes, films.items(), colors, strict=False):
        extent = (0.5, profile.shape[1] + 0.5, 1, 0)
        axis.imshow(profile, extent=extent, vmin=0, vmax=max(profile.max(), 1e-9), **STRIP)
        axis.set_yticks([])
        axis.tick_params(axis="x", length=0)
        axis.spines[:].set_visible(False)
        axis.set_ylabel(name, rotation=0, ha="right", va="center")
        label = f"{name}: {change.mean():.4f}"
        below.plot(np.arange(2, len(change) + 2), change, color=color, linewidth=1.2, label=label)
    below.set(xlabel="frame", ylabel="mean change from\nthe map before", ylim=(0, None))
    below.legend(loc="center left", bbox_to_anchor=(1, 0.5), title="mean", alignment="left")
    return figure


@style.look()
def examples(study: Study) -> Figure:
    """A clip of every scored set: the frame (where it may be shown) with fixations, and the map."""
    clips = [clip for name in study.params.data.evaluate for clip in study.clips(name)]
    widths = [1 / _aspect(clip) for clip in clips]
    cells = _grid("examples", [1] * (1 + study.shows_frames), widths, 0.04)
    for column, clip, width in zip(cells.axes_column, clips, widths, strict=True):
        frame = late_frame(clip)
        for axis, (image,) in zip(column, pictures(study, clip, [], [frame]).values(), strict=True):
            _show(axis, image, 1, width)
        if study.shows_frames:
            x, y, _ = (next(clip.fixations(frame, frame + 1)).T + 0.5) / clip.size[0]
            column[0].plot(x, y, "wo", ms=3.2, mec=style.INK, mew=0.6)
        column[0].set_title(clip.dataset, loc="center", fontsize=8)
        column[-1].set_xlabel(_short(clip.name), **NOTE)
    return cells[0].figure


@style.look()
def centre(study: Study) -> Figure:
    """The mean maps of the training clips, which the row `centre-prior` predicts."""
    means = {
        name: centre_prior(data.load(study.params.root, name, "train"))
        for name in study.params.data.evaluate
    }
    shapes = [mean.shape[0] / mean.shape[1] for mean in means.values()]
    cells = _grid("centre", [max(shapes)], [1] * len(means), 0.04)
    for axis, (name, image), height in zip(cells, means.items(), shapes, strict=True):
        _show(axis, image, height, 1)
        axis.set_title(name, loc="center", fontsize=8)
    return cells[0].figure
