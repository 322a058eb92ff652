"""Frames and ground truth at the model's size, decoded once and memory-mapped after.

A cache, not a result: any file of it, or the whole folder, may be deleted at any moment.
A file holds the frames of one clip as raw uint8 and ends with a line of JSON that tells
the shape, a checksum, and which state of which source files it was made from. It is
renamed into place when complete, so there is no half one; one that is short, broken, or
made from other files is made anew.
"""

import hashlib
import json
import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import chain, islice
from pathlib import Path

import numpy as np

from salema.data.clip import Clip, Files
from salema.data.gaze import Size, blur, fixation_counts, read_grey
from salema.data.listing import Problem
from salema.data.sets import sigma
from salema.files import SCRATCH, SalemaError, atomic

FOOTER = 4096  # bytes, in which the closing line of JSON fits
BUDGET = 80 * 2**30  # bytes of a study's cache; beyond it frames are read from the source
VERSION = 1  # of what the functions below make of a source


class FrameCache:
    """The clips' frames, maps and fixations as uint8 arrays at the model's size.

    Each array is a memory map, or, where the disk budget is used up, an object that reads
    the source again whenever it is sliced: `array[i]`, `array[a:b]`, `len(array)` and
    `.shape` work on both. An array is shorter than `clip.n_frames` where the source
    breaks off; `problems` tells.

    Args:
        folder: Where the files go; made when needed.
        size: (h, w) of the model's input.
        budget_bytes: The most bytes that the folder may hold.
    """

    def __init__(self, folder: str | Path, size: Size, budget_bytes: int) -> None:
        self.folder = Path(folder)
        self.size = (int(size[0]), int(size[1]))
        self.budget_bytes = budget_bytes
        self._problems: dict[Path, Problem] = {}
        self._checked: set[Path] = set()
        self._used: int | None = None
        self._since = 0

    @property
    def problems(self) -> list[Problem]:
        """One for each array that is shorter than its clip."""
        return list(self._problems.values())

    def frames(self, clip: Clip) -> "np.ndarray | SourceArray":
        """Uint8 (T, h, w, 3) RGB: resized by area, the aspect is not kept.

        Raises:
            SalemaError: Not a single frame can be read.
        """
        return self._array(clip, "frames", (3,))

    def maps(self, clip: Clip) -> "np.ndarray | SourceArray":
        """Uint8 (T, h, w): maps resized by area, then each stretched to 0-255.

        A flat or missing map is zeros: nothing to learn from, nothing to score.

        Raises:
            SalemaError: The first map cannot be read.
        """
        return self._array(clip, "maps", ())

    def fixations(self, clip: Clip) -> "np.ndarray | SourceArray":
        """Uint8 (T, h, w): how many fixations fall into each cell.

        Raises:
            SalemaError: The fixations of the first frame cannot be read.
        """
        return self._array(clip, "fixations", ())

    @staticmethod
    def identity(clip: Clip) -> str:
        """Hash of what a clip's arrays depend on: its files' states, its fixations, the blur."""
        return " ".join(_key(clip, kind) for kind in ("frames", "maps", "fixations"))

    def _array(self, clip: Clip, kind: str, last: tuple) -> "np.ndarray | SourceArray":
        path = self._path(clip, kind)
        key = _key(clip, kind)
        self._problems.pop(path, None)
        shape = (clip.n_frames, *self.size, *last)
        if (array := self._open(path, key)) is not None:
            return array
        if self._room() >= np.prod(shape, dtype=np.int64) + FOOTER:
            self._write(path, key, clip, kind)
            if (array := self._open(path, key)) is not None:
                return array
        return SourceArray(lambda start: self._readable(clip, kind, start), shape)

    def _path(self, clip: Clip, kind: str) -> Path:
        height, width = self.size
        return self.folder / clip.dataset / f"{clip.name}.{kind}.{height}x{width}"

    def _open(self, path: Path, key: str) -> np.ndarray | None:
        """The array in a file that is whole and was made from these sources, else None."""
        try:
            with path.open("rb") as file:
                length = os.fstat(file.fileno()).st_size
                file.seek(max(length - FOOTER, 0))
                footer = json.loads(file.read().rpartition(b"\n")[2])
                shape = tuple(footer["shape"])
                problem = footer["problem"]
            data = np.memmap(path, np.uint8, "r")[: int(np.prod(shape))].reshape(shape)
            if footer["key"] != key or not len(data):
                return None
            if path not in self._checked and zlib.crc32(data) != footer["crc32"]:
                return None
        except (OSError, ValueError, KeyError, TypeError):
            return None
        self._checked.add(path)
        if problem:
            self._problems[path] = Problem(*problem)
        return data

    def _write(self, path: Path, key: str, clip: Clip, kind: str) -> None:
        rows = self._readable(clip, kind, 0)
        first = next(rows)
        count = checksum = 0
        # Where nothing can be written, the source still can be read.
        with suppress(SalemaError, OSError), atomic(path) as part, part.open("wb") as file:
            for row in chain([first], rows):
                checksum = zlib.crc32(row, checksum)
                file.write(row)
                count += 1
            footer = {"key": key, "shape": (count, *first.shape), "crc32": checksum}
            footer["problem"] = self._problems.get(path)
            file.write(b"\n" + json.dumps(footer).encode())
            self._since += file.tell()
        self._checked.discard(path)

    def _readable(self, clip: Clip, kind: str, start: int) -> Iterator[np.ndarray]:
        """The rows up to the first that is broken, which becomes a problem."""
        count = start
        try:
            for row in self._rows(clip, kind, start):
                yield row
                count += 1
        except SalemaError as error:
            if count == 0:
                raise
            reason = f"{kind} of {count} of {clip.n_frames} frames read: {error}"[:400]
            file = f"{clip.dataset}/{clip.name}"
            self._problems[self._path(clip, kind)] = Problem(clip.dataset, clip.split, file, reason)

    def _room(self) -> int:
        """Bytes left of the budget; the folder is summed up anew after each 1 % of it."""
        if self._used is None or self._since > self.budget_bytes // 100:
            self._used, self._since = 0, 0
            for path in self.folder.rglob("*"):
                with suppress(OSError):
                    self._used += path.stat().st_size if path.is_file() else 0
        return self.budget_bytes - self._used - self._since

    def _rows(self, clip: Clip, kind: str, start: int) -> Iterator[np.ndarray]:
        match kind:
            case "frames":
                return (_resize(frame, self.size) for frame in clip.frames(start))
            case "maps":
                return (stretch(map_) for map_ in self._small_maps(clip, start))
            case _:
                return (
                    fixation_counts(points, clip.size, self.size)
                    for points in clip.fixations(start)
                )

    def _small_maps(self, clip: Clip, start: int) -> Iterator[np.ndarray]:
        """Float32 (h, w): an official map resized from its file, else blurred at this size."""
        if clip.map_files is None and clip.points is None:
            yield from (np.zeros(self.size, np.float32) for _ in range(start, clip.n_frames))
        elif clip.map_files is None:
            for points in clip.fixations(start):
                yield blur(points, clip.size, sigma(clip.size), self.size)
        else:
            for path in clip.map_files.paths(start):
                grey = np.zeros(self.size, np.uint8) if path is None else read_grey(path)
                yield _resize(grey.astype(np.float32), self.size)


def study_cache(size: Size) -> FrameCache:
    """The cache that the stages of a study share, in the scratch folder."""
    return FrameCache(SCRATCH / "frames", size, BUDGET)


class SourceArray:
    """What a cached array would hold, read from the source each time.

    Slices that follow one another go on where the last one stopped; any other starts
    the clip again. Steps and negative numbers are not supported.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, read: Callable[[int], Iterator[np.ndarray]], shape: tuple) -> None:
        self.shape = shape
        self._read = read
        self._rows: Iterator[np.ndarray] = iter(())
        self._at = -1

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: int | slice) -> np.ndarray:
        if not isinstance(index, slice):
            if not 0 <= index < len(self):
                raise IndexError(f"frame {index} of {len(self)}")
            return self[index : index + 1][0]
        start, stop, step = index.indices(len(self))
        if step != 1:
            raise IndexError(f"a step of {step} in frames that are read in order")
        if start != self._at:
            self._rows, self._at = self._read(start), start
        rows = list(islice(self._rows, max(stop - start, 0)))
        self._at += len(rows)
        return np.stack(rows) if rows else np.empty((0, *self.shape[1:]), np.uint8)


def stretch(map_: np.ndarray) -> np.ndarray:
    """Float (h, w) -> uint8: its minimum becomes 0 and its maximum 255; a flat map zeros."""
    low, high = float(map_.min()), float(map_.max())
    if high - low < 1e-6:
        return np.zeros(map_.shape, np.uint8)
    return np.rint((map_ - low) * (255 / (high - low))).astype(np.uint8)


def _resize(image: np.ndarray, size: Size) -> np.ndarray:
    import cv2

    if image.shape[:2] == size:
        return np.ascontiguousarray(image)
    return cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA)


def _key(clip: Clip, kind: str) -> str:
    """Hash of what the array depends on: names, sizes and times of change of its files."""
    digest = hashlib.sha256(f"{VERSION} {clip.n_frames}".encode())
    if kind != "frames" and clip.points is not None:
        digest.update(repr((clip.size, sigma(clip.size))).encode() + clip.points.tobytes())
        return digest.hexdigest()
    source = {"frames": clip.images, "maps": clip.map_files, "fixations": clip.fixation_files}[kind]
    paths = source.paths() if isinstance(source, Files) else [source]
    for path in paths:
        if path is not None:
            state = path.stat() if path.exists() else None
            identity = (path.name, state and state.st_size, state and state.st_mtime_ns)
            digest.update(repr(identity).encode())
        else:
            digest.update(b"-")
    return digest.hexdigest()
