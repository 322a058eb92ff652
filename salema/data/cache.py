"""Frames and ground truth at the model's size, decoded once and memory-mapped afterwards.

Any file of the cache, or the whole folder, may be deleted at any moment. Each clip has one `.npy`
file per kind and size, named after a hash of the state of its sources. It gets its name when it is
complete; one that is short or of another kind is made again.
"""

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import chain, islice
from pathlib import Path

import numpy as np

from salema.data.clip import Clip, Files, is_image
from salema.data.gaze import Size, blur, fixation_counts, sigma
from salema.data.listing import Problem
from salema.files import SCRATCH, SalemaError, atomic
from salema.media.image import fit, read_gray

BUDGET = 80 * 2**30  # bytes of a study's cache; beyond it frames are read from the source
OPEN = 20_000  # memory maps that are kept; Linux allows a process 65,530
HEADER = 128  # bytes of a `.npy` file before its numbers
VERSION = 2  # of what `_rows` makes of a source


class SourceArray:
    """What a cached array would hold, read from the source each time: a loop, `array[a:b]`.

    A slice that begins where the last one stopped continues reading; any other starts again.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, read: Callable[[int], Iterator[np.ndarray]], shape: tuple) -> None:
        self.shape = shape
        self._read = read
        self._rows: Iterator[np.ndarray] = iter(())
        self._at = -1

    def __len__(self) -> int:
        return self.shape[0]

    def __iter__(self) -> Iterator[np.ndarray]:
        return self._read(0)

    def __getitem__(self, part: slice) -> np.ndarray:
        start, stop, _ = part.indices(len(self))
        if start != self._at:
            self._rows, self._at = self._read(start), start
        rows = list(islice(self._rows, max(stop - start, 0)))
        self._at += len(rows)
        return np.stack(rows) if rows else np.empty((0, *self.shape[1:]), np.uint8)


class FrameCache:
    """The clips' frames, maps and fixations as uint8 arrays at the model's size (h, w).

    Each array is a memory map, or a `SourceArray` where `folder` would exceed `budget_bytes`. A
    memory map is shorter than `clip.n_frames` where the source breaks off. It stays the same while
    the cache is in use: a source that changes is decoded again by the next run.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, folder: str | Path, size: Size, budget_bytes: int) -> None:
        self.folder = Path(folder)
        self.size = (int(size[0]), int(size[1]))
        self.budget_bytes = budget_bytes
        self._maps: dict[tuple[Clip, str], np.ndarray] = {}
        self.problems: dict[tuple[Clip, str], Problem] = {}  # of arrays shorter than their clips
        self._room: int | None = None
        self._written = 0

    def frames(self, clip: Clip) -> np.ndarray | SourceArray:
        """Uint8 (T, h, w, 3) RGB: resized by area, the aspect is not kept."""
        return self._array(clip, "frames", 3)

    def maps(self, clip: Clip) -> np.ndarray | SourceArray:
        """Uint8 (T, h, w): resized by area; zeros where there is none.

        Maps of videos, and those blurred from points, are stretched to 0-255 each, and a flat one
        becomes zeros. Official maps of images keep their values, as SalBCE was trained.
        """
        return self._array(clip, "maps")

    def fixations(self, clip: Clip) -> np.ndarray | SourceArray:
        """Uint8 (T, h, w): how many fixations fall into each cell."""
        return self._array(clip, "fixations")

    @staticmethod
    def identity(clip: Clip) -> str:
        """Hashes of what a clip's arrays depend on now: its files' states, fixations, the blur."""
        return " ".join(_key(clip, kind) for kind in ("frames", "maps", "fixations"))

    def _array(self, clip: Clip, kind: str, *channels: int) -> np.ndarray | SourceArray:
        if (array := self._maps.get((clip, kind))) is not None:
            return array
        shape = (clip.n_frames, *self.size, *channels)
        name = "{}.{}x{}.{:.16}.npy".format(kind, *self.size, _key(clip, kind))
        path = self.folder / clip.dataset / clip.name / name
        array = _open(path, shape)
        if array is not None and len(array) < clip.n_frames:
            # Reading on reports why it is short, unless the source can be read by now.
            more = next(self._readable(clip, kind, len(array)), None)
            array = array if more is None else None
        if array is None and self._fits(HEADER + int(np.prod(shape))):
            self._write(path, clip, kind)
            array = _open(path, shape)
        if array is None:
            return SourceArray(lambda start: self._readable(clip, kind, start), shape)
        if len(self._maps) < OPEN:
            self._maps[clip, kind] = array
        return array

    def _write(self, path: Path, clip: Clip, kind: str) -> None:
        rows = self._readable(clip, kind, 0)
        first = next(rows)
        # Where nothing can be written, the source still can be read.
        with suppress(SalemaError, OSError):
            for old in path.parent.glob(f"{path.name.rsplit('.', 2)[0]}.*.npy"):
                old.unlink(missing_ok=True)  # made from sources that have changed
            with atomic(path) as part, part.open("wb") as file:
                file.seek(HEADER)
                file.writelines(chain([first], rows))
                count = (file.tell() - HEADER) // first.size
                header = {"descr": "|u1", "fortran_order": False, "shape": (count, *first.shape)}
                file.seek(0)
                np.lib.format.write_array_header_1_0(file, header)
                self._written += HEADER + count * first.size

    def _readable(self, clip: Clip, kind: str, start: int) -> Iterator[np.ndarray]:
        """The rows up to the first that is broken, which becomes a problem."""
        count = start
        try:
            for row in _rows(clip, kind, self.size, start):
                yield row
                count += 1
        except SalemaError as error:
            if count == 0:
                raise
            reason = f"{kind} of {count} of {clip.n_frames} frames read: {error}"[:400]
            file = f"{clip.dataset}/{clip.name}"
            self.problems[clip, kind] = Problem(clip.dataset, clip.split, file, reason)

    def _fits(self, size: int) -> bool:
        """Whether `size` bytes are left; the folder is measured again after each 1 % written."""
        if self._room is None or self._written > self.budget_bytes // 100:
            self._room, self._written = self.budget_bytes, 0
            for folder, _, names in os.walk(self.folder):
                for name in names:
                    with suppress(OSError):
                        self._room -= os.stat(os.path.join(folder, name)).st_size
        return size <= self._room - self._written


def study_cache(size: Size) -> FrameCache:
    """The cache that the stages of a study share, in the scratch folder."""
    return FrameCache(SCRATCH / "frames", size, BUDGET)


def _open(path: Path, shape: tuple) -> np.ndarray | None:
    """The array in a file that is whole and fits the clip, else None."""
    try:
        array = np.lib.format.open_memmap(path, mode="r")
    except Exception:  # there is no such file, or whatever NumPy's parser fails with
        return None
    fits = array.dtype == np.uint8 and array.shape[1:] == shape[1:] and array.ndim == len(shape)
    return array if fits and 0 < len(array) <= shape[0] else None


def _rows(clip: Clip, kind: str, size: Size, start: int) -> Iterator[np.ndarray]:
    """The rows of an array, uint8 (h, w) or (h, w, 3), from frame `start` on."""
    if kind == "frames":
        yield from (np.ascontiguousarray(fit(frame, size)) for frame in clip.frames(start))
    elif kind == "fixations":
        yield from (fixation_counts(points, clip.size, size) for points in clip.fixations(start))
    elif clip.points is not None:  # blurred at this size
        for points in clip.fixations(start):
            yield stretch(blur(points, clip.size, sigma(clip.size), size))
    elif isinstance(clip.map_files, Path):
        yield from (stretch(fit(map_, size)) for map_ in clip.maps(start))
    else:
        for path in clip.paths(clip.map_files, start):
            gray = np.zeros(size, np.uint8) if path is None else read_gray(path)
            map_ = fit(gray.astype(np.float32), size)
            yield np.rint(map_).astype(np.uint8) if is_image(clip) else stretch(map_)


def stretch(map_: np.ndarray) -> np.ndarray:
    """Float (h, w) -> uint8: its minimum becomes 0 and its maximum 255; a flat map zeros."""
    low, high = float(map_.min()), float(map_.max())
    if high - low < 1e-6:
        return np.zeros(map_.shape, np.uint8)
    return np.rint((map_ - low) * (255 / (high - low))).astype(np.uint8)


def _key(clip: Clip, kind: str) -> str:
    """Hash of what an array depends on: names, sizes and times of change of its files."""
    digest = hashlib.sha256(f"{VERSION} {clip.n_frames}".encode())
    if kind != "frames" and clip.points is not None:
        digest.update(repr((clip.size, sigma(clip.size))).encode() + clip.points.tobytes())
        return digest.hexdigest()
    source = {"frames": clip.images, "maps": clip.map_files, "fixations": clip.fixation_files}[kind]
    for path in source.paths() if isinstance(source, Files) else [source]:
        identity = "-"
        if path is not None:
            state = path.stat() if path.exists() else None
            identity = repr((path.name, state and state.st_size, state and state.st_mtime_ns))
        digest.update(identity.encode())
    return digest.hexdigest()
