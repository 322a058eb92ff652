"""Fixations and maps: reading fixations from files, and making maps of fixations.

Points are float (N, 3): x, y in pixels (0-based; pixel k covers [k, k + 1)) and the
observer, -1 where the data set merges its observers.
"""

import json
from collections.abc import Iterator
from functools import lru_cache
from itertools import islice
from pathlib import Path

import numpy as np

from salema.files import MOST_PIXELS, SalemaError, one_line
from salema.media.image import read_gray

Size = tuple[int, int]  # (H, W) in pixels


def inside(points: np.ndarray, size: Size) -> np.ndarray:
    """Bool (N,): which of the points (N, 2 or more) lie in a picture of `size`; NaN never."""
    x, y = points[:, 0], points[:, 1]
    return (x >= 0) & (x < size[1]) & (y >= 0) & (y < size[0])


def fixation_counts(fixations: np.ndarray, size: Size, grid: Size) -> np.ndarray:
    """Fixations in each cell of a grid (h, w) laid over a picture of `size`: uint8, up to 255."""
    points = np.floor(fixations[inside(fixations, size), :2]) + 0.5
    columns, rows = (points * grid[::-1] / size[::-1]).astype(int).T
    counts = np.bincount(rows * grid[1] + columns, minlength=grid[0] * grid[1])
    return np.minimum(counts, 255).astype(np.uint8).reshape(grid)


def sigma(size: Size) -> float:
    """Standard deviation (pixels) of the blur for sets without maps: a 33rd of the longer side."""
    return max(size) / 33


def blur(fixations: np.ndarray, size: Size, sigma: float, grid: Size | None = None) -> np.ndarray:
    """A saliency map: one Gaussian per fixation, summed and divided by the maximum.

    Gaussians are not truncated. Points (N, 2 or more) outside the picture of `size` (H, W) are left
    out; `sigma`, above 0, is in its pixels. The result is float32 in [0, 1], zeros where nobody
    fixated, of `size` or of the (h, w) of a `grid` that is laid over the picture.
    """
    points = np.floor(fixations[inside(fixations, size), :2]) + 0.5
    profiles = []
    for axis, cells in enumerate(reversed(grid or size)):
        scale = cells / size[1 - axis]
        # At least half a cell: a narrower one could fall between the cells and vanish.
        spread = max(sigma * scale, 0.5)
        away = np.arange(cells) + 0.5 - points[:, axis, None] * scale
        profiles.append(np.exp(-0.5 * (away / spread) ** 2).astype(np.float32))
    columns, rows = profiles
    density = rows.T @ columns
    return density / density.max() if len(points) else density


def load_mat(path: Path) -> dict:
    """The variables of a MATLAB file up to v7."""
    try:
        from scipy.io import loadmat

        # Version 7.3 is HDF5, which SciPy does not read.
        with one_line(f"unreadable MATLAB file: {path} (save it with -v7, or copy it again)"):
            return loadmat(path)
    except ImportError as error:
        raise SalemaError(f"{path.name} needs SciPy (pip install 'salema[data]')") from error


def read_fixations(path: Path, size: Size) -> np.ndarray:
    """The points (N, 3) of one frame, scaled to pixels of `size` (H, W) and none outside.

    The file is a map (PNG, or one matrix in MATLAB) or has a struct per observer (SALICON's).
    """
    if path.suffix.lower() != ".mat":
        points, of = _points(read_gray(path))
    else:
        variables = load_mat(path)
        points, of = (_observers if "gaze" in variables else _matrix)(variables, path)
    if of != size and len(points):  # scales the centres of the pixels
        points[:, :2] = (points[:, :2] + 0.5) * (size[1] / of[1], size[0] / of[0])
    return points[inside(points, size)]


def _points(fixated: np.ndarray) -> tuple[np.ndarray, Size]:
    y, x = np.nonzero(fixated)
    return np.stack([x, y, np.full(len(x), -1)], axis=1).astype(float), fixated.shape


def _matrix(variables: dict, path: Path) -> tuple[np.ndarray, Size]:
    for name, value in variables.items():
        numeric = isinstance(value, np.ndarray) and value.dtype.kind in "buif"
        if not name.startswith("__") and numeric and value.ndim == 2:
            return _points(value)
    raise SalemaError(f"no fixation map in {path} (expected one matrix, or the struct gaze)")


def _observers(variables: dict, path: Path) -> tuple[np.ndarray, Size]:
    """SALICON, 2015 and 2017: `gaze(n).fixations` is (N, 2) x, y counted from 1."""
    points = [np.empty((0, 3))]
    with one_line(f"no SALICON fixations in {path} (copy it again)"):
        for observer, entry in enumerate(variables["gaze"].ravel()):
            xy = np.asarray(entry["fixations"], float).reshape(-1, 2) - 1
            points.append(np.column_stack([xy, np.full(len(xy), float(observer))]))
        with np.errstate(invalid="ignore"):  # of a NaN, which is refused below
            rows, columns = np.asarray(variables.get("resolution", (480, 640)), int).ravel()
    if not (0 < rows <= MOST_PIXELS and 0 < columns <= MOST_PIXELS):
        raise SalemaError(f"resolution {rows} x {columns} in {path} (copy it again)")
    return np.concatenate(points), (int(rows), int(columns))


@lru_cache(maxsize=2)
def json_fixations(path: Path) -> list[np.ndarray]:
    """A list a frame of [row, column] -> (N, 3) for each frame: x, y in pixels, -1; repeats count.

    Source: `fixations.json` of NTIRE26 and AViMoS, whose observers are merged.
    """
    with one_line(f"no fixations in {path} (copy it again)"):
        frames = json.loads(path.read_text(encoding="utf-8"))
        pairs = [np.array(frame, float).reshape(-1, 2) for frame in frames]
    return [np.column_stack([p[:, 1], p[:, 0], np.full(len(p), -1.0)]) for p in pairs]


class GrayVideo:
    """The maps of a gray video, float32 (H, W), read forwards; going back starts it again."""

    def __init__(self, path: Path) -> None:
        self.path, self.at = path, 0
        self._rows: Iterator[np.ndarray] | None = None

    def read(self, start: int, stop: int) -> Iterator[np.ndarray]:
        """The maps [start, stop), of which the first is mostly the one after the last."""
        from salema.media import read

        if self._rows is None or start < self.at:
            self._rows, self.at = read.maps(self.path), 0
        for map_ in islice(self._rows, stop - self.at):
            self.at += 1
            if self.at > start:
                yield map_


@lru_cache(maxsize=2)
def gray_video(path: Path) -> GrayVideo:
    """The reader of a map video, which goes on where it was."""
    return GrayVideo(path)
