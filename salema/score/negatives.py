"""The negatives of the shuffled AUC (s-AUC): fixations of other clips, drawn by each protocol.

`Pool` holds the fixations of a set of clips, and the `draw_*` functions take from it the
negatives of one clip. A draw depends only on the seed, the protocol, the clip's name and
the frame, so that neither the order of the clips nor the number of workers changes a score.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b

import cv2
import numpy as np

from salema.data.gaze import Size, inside
from salema.media.image import fit

Places = list[np.ndarray]  # flat indices of a grid: one array for all frames of a clip, or each


def generator(seed: int, *names: str | int) -> np.random.Generator:
    """Random numbers that depend only on the seed and these names."""
    digest = blake2b(repr((seed, *names)).encode(), digest_size=16).digest()
    return np.random.default_rng(int.from_bytes(digest, "big"))


def to_cells(x: np.ndarray, y: np.ndarray, size: np.ndarray | Size, grid: Size) -> np.ndarray:
    """Points on pictures of `size` ((H, W), or one per point) -> flat indices of `grid`."""
    height, width = np.asarray(size).T
    column = np.minimum((x * grid[1] / width).astype(np.int64), grid[1] - 1)
    return np.minimum((y * grid[0] / height).astype(np.int64), grid[0] - 1) * grid[1] + column


def halve(gray: np.ndarray) -> np.ndarray:
    """uint8 (H, W) -> half the size, linear: each pixel is the mean of four."""
    return cv2.resize(gray, (0, 0), fx=0.5, fy=0.5)


class Pool:
    """The fixations of every clip in one array: 12 bytes per fixation and frame.

    It is made from the size (H, W) of each clip and, frame by frame, (N, 3) x, y in pixels,
    observer. Fixations outside the picture are left out.
    """

    def __init__(self, clips: Mapping[str, tuple[Size, Sequence[np.ndarray]]]) -> None:
        self.size = {name: clips[name][0] for name in sorted(clips)}
        self._sizes = np.array(list(self.size.values()))
        frames = [np.zeros((0, 3), np.float32)]
        for name, size in self.size.items():
            frames += [p[inside(p, size)].astype(np.float32) for p in clips[name][1]]
        self.points = np.concatenate(frames)
        self.frame_starts = np.cumsum([len(points) for points in frames])
        self.clip_starts = np.cumsum([0, *(len(clips[name][1]) for name in self.size)])
        ranges = map(range, self.clip_starts[:-1], self.clip_starts[1:])
        self.frames = dict(zip(self.size, ranges, strict=True))  # numbered over all clips

    def __len__(self) -> int:
        """Number of frames of all clips."""
        return len(self.frame_starts) - 1

    def rows(self, frame: int) -> np.ndarray:
        """The rows of `points` in one frame."""
        return np.arange(self.frame_starts[frame], self.frame_starts[frame + 1])

    def own(self, clip: str) -> slice:
        """The rows of `points` in one clip."""
        frames = self.frames[clip]
        return slice(self.frame_starts[frames.start], self.frame_starts[frames.stop])

    def cells(self, rows: np.ndarray, grid: Size) -> np.ndarray:
        """Rows of `points` -> flat indices at the same relative places of `grid`."""
        clips = np.searchsorted(self.frame_starts[self.clip_starts], rows, "right") - 1
        x, y = self.points[rows, :2].astype(np.float64).T
        return to_cells(x, y, self._sizes[clips], grid).astype(np.int32)

    @cached_property
    def onsets(self) -> np.ndarray:
        """(N,) True in the first frame of each fixation: a fixation covers many frames.

        A row continues a fixation if the previous frame has the same place and observer. Of
        several equal rows in one frame, only as many continue as there are in the previous one.
        """
        frame = np.repeat(np.arange(len(self)), np.diff(self.frame_starts))
        frame += np.searchsorted(self.clip_starts, frame, "right")  # a gap between clips
        order = np.lexsort((frame, *self.points.T))
        where = self.points[order]
        place = (np.diff(where, axis=0, prepend=where[:1]) != 0).any(axis=1).cumsum()
        key = place * (len(self) + len(self.clip_starts) + 1) + frame[order]
        first = np.searchsorted(key, key)  # the first of the equal rows in this frame
        before = first - np.searchsorted(key, key - 1)  # equal rows in the previous frame
        onsets = np.zeros(len(order), dtype=bool)
        onsets[order] = np.arange(len(order)) - first >= before
        return onsets


@dataclass(frozen=True)
class Negatives:
    """The negatives of one clip."""

    clip: str
    seed: int
    grid: Size
    places: Places

    def at(self, frame: int) -> np.ndarray:
        """(M,) flat indices for one frame of the clip; M may be 0."""
        return self.places[frame if len(self.places) > 1 else 0]


def draw_fixations(pool: Pool, clip: str, grid: Size, random: np.random.Generator) -> Places:
    """`exact`: 10,000 fixations of other clips, or all if there are fewer (`ntire26`: none)."""
    own = pool.own(clip)
    n_others = len(pool.points) - (own.stop - own.start)
    rows = random.choice(n_others, min(10_000, n_others), replace=False)
    rows[rows >= own.start] += own.stop - own.start
    return [pool.cells(rows, grid)]


def draw_frames(pool: Pool, clip: str, grid: Size, random: np.random.Generator) -> Places:
    """`dhf1k`: for each frame, the fixated pixels of 10 frames of any clip, its own too."""
    places = []
    for _ in pool.frames[clip]:
        frames = random.choice(len(pool), min(10, len(pool)), replace=False)
        rows = np.concatenate([pool.rows(frame) for frame in frames])
        places.append(np.unique(pool.cells(rows, grid)))
    return places


def draw_clips(pool: Pool, clip: str, grid: Size, random: np.random.Generator, n: int) -> Places:
    """`salema2019`: one frame of each of `n` other clips, averaged in 8 bits and halved."""
    size = pool.size[clip]
    others = [name for name, frames in pool.frames.items() if name != clip and frames]
    chosen = random.choice(len(others), min(n, len(others)), replace=False)
    total = np.zeros(size, np.float32)
    for number in chosen:
        frames, shape = pool.frames[others[number]], pool.size[others[number]]
        rows = pool.rows(frames[random.integers(len(frames))])
        points = np.zeros(shape, np.float32)
        points.flat[pool.cells(rows, shape)] = 255
        total += fit(points, size)  # by area
    mean = (total / max(1, len(chosen))).astype(np.uint8)
    return [np.flatnonzero(halve(mean)).astype(np.int32)]


def draw_once(pool: Pool, clip: str, grid: Size, random: np.random.Generator) -> Places:
    """`hevc33-peer`: every fixation of every other clip, once for all frames it covers."""
    onsets = pool.onsets.copy()
    onsets[pool.own(clip)] = False
    return [pool.cells(np.flatnonzero(onsets), grid)]
