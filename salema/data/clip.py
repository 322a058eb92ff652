"""One clip: where its frames and its ground truth lie, and readers over a range of them."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice, repeat
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from salema.data.gaze import (
    Size,
    blur,
    gray_video,
    inside,
    json_fixations,
    read_fixations,
    sigma,
)
from salema.data.sets import SETS
from salema.files import SalemaError
from salema.media.image import fit, image_size, read_gray, read_image


class Files(NamedTuple):
    """The files of one kind, one per frame; None for a frame that has none."""

    folder: Path
    names: tuple[str | None, ...]

    def paths(self, start: int = 0, stop: int | None = None) -> Iterator[Path | None]:
        """One path per frame."""
        for name in self.names[start:stop]:
            yield None if name is None else self.folder / name


Images = Files | Path  # one picture per frame, or a video file


@dataclass(frozen=True)
class Clip:
    """A video, a shot or an image. Cheap to make and to pickle: it reads when asked."""

    name: str  # as predictions call it, e.g. "0601" or "actioncliptest00001_1"
    dataset: str  # one of `DATASETS`
    split: str  # "train", "val" or "test"
    # What the ground truth calls each frame, e.g. "0001"; unique in the clip.
    frame_names: tuple[str, ...] = field(repr=False)
    images: Images = field(repr=False)
    # The official maps, if any: pictures, or one gray video.
    map_files: Images | None = field(default=None, repr=False)
    # Where fixations are files: one a frame, or a JSON of all.
    fixation_files: Images | None = field(default=None, repr=False)
    # (N, 5) where fixations are in a table: x, y in pixels, observer, first frame, last frame + 1.
    points: np.ndarray | None = field(default=None, repr=False, compare=False)
    fps: float | None = None  # None for an image and where the set does not give it
    has_observers: bool = False  # whether the fixations keep the observers apart
    probed: Size | None = field(default=None, repr=False)  # (H, W) where it is known already

    @property
    def n_frames(self) -> int:
        """Frames that the clip should have; a damaged source may hold fewer."""
        return len(self.frame_names)

    @property
    def group(self) -> str:
        """The clips of its set that share a scene or people with it, as one name."""
        return SETS[self.dataset].group_of(self.name)

    @cached_property
    def size(self) -> Size:
        """(H, W) of the first frame in pixels, read on first use."""
        if self.probed:
            return self.probed
        if isinstance(self.images, Files):
            return image_size(next(self.images.paths()))
        from salema.media import read

        return read.open(self.images).size

    @cached_property
    def annotated(self) -> int:
        """Number of frames with a map file or with fixations, by the listing alone."""
        if self.points is None:
            kinds = (self.map_files, self.fixation_files)
            if any(isinstance(kind, Path) for kind in kinds):
                return self.n_frames
            listed = [files.names for files in kinds if files]
            return sum(any(names) for names in zip(*listed, strict=True))
        covered = np.zeros(self.n_frames, bool)
        for first, stop in np.clip(self.points[:, 3:], 0, self.n_frames).astype(int):
            covered[first:stop] = True
        return int(covered.sum())

    @cached_property
    def dropped(self) -> int:
        """Rows of `points` outside the picture or past the last frame: never used."""
        if self.points is None:
            return 0
        shown = np.minimum(self.points[:, 4], self.n_frames) > np.maximum(self.points[:, 3], 0)
        return int((~(inside(self.points, self.size) & shown)).sum())

    def files(self) -> Iterator[Path]:
        """Every file of this clip alone: pictures or video, maps, fixations."""
        for kind in (self.images, self.map_files, self.fixation_files):
            yield from filter(None, kind.paths() if isinstance(kind, Files) else [kind])

    def frames(self, start: int = 0, stop: int | None = None) -> Iterator[np.ndarray]:
        """Frames [start, stop) as uint8 (H, W, 3) RGB, lazily; a broken one is an error."""
        start, stop, _ = slice(start, stop).indices(self.n_frames)
        if isinstance(self.images, Files):
            for path in self.images.paths(start, stop):
                if not path.is_file():
                    raise SalemaError(f"no such file: {path} (removed since the listing)", 1)
                yield fit(read_image(path), self.size, cv2.INTER_LINEAR)
        elif start < stop:
            from salema.media import read

            source, done = read.open(self.images), start
            for frame in islice(source, start, stop):
                yield frame.image
                done += 1
            if done < stop:
                early = f"ends early: {source.stopped}" if source.stopped else "ends early"
                raise SalemaError(f"{self.images} {early} ({self.n_frames} frames expected)", 1)

    def maps(self, start: int = 0, stop: int | None = None) -> Iterator[np.ndarray | None]:
        """Maps of frames [start, stop): float32 (H, W) in [0, 1], or None without one.

        Official maps are divided by 255 and nothing else; a blank one is zeros. Where
        the set publishes fixations only, they are blurred with `sigma`.
        """
        if self.points is not None:
            for points in self.fixations(start, stop):
                yield blur(points, self.size, sigma(self.size))
            return
        if isinstance(self.map_files, Path):
            start, stop, _ = slice(start, stop).indices(self.n_frames)
            for map_ in gray_video(self.map_files).read(start, stop):
                yield fit(map_ / max(float(map_.max()), 1e-12), self.size, cv2.INTER_LINEAR)
            return
        for path in self.paths(self.map_files, start, stop):
            gray = None if path is None else fit(read_gray(path), self.size, cv2.INTER_LINEAR)
            yield None if gray is None else gray.astype(np.float32) / 255

    def fixations(self, start: int = 0, stop: int | None = None) -> Iterator[np.ndarray]:
        """Fixations of frames [start, stop): float (N, 3), x, y in pixels and the observer.

        A fixation counts once in every frame that it covers; a frame without any gives (0, 3).
        """
        if isinstance(self.fixation_files, Path):
            frames = json_fixations(self.fixation_files)
            for index in range(self.n_frames)[start:stop]:
                yield frames[index] if index < len(frames) else np.empty((0, 3))
            return
        if self.points is None:
            for path in self.paths(self.fixation_files, start, stop):
                yield np.empty((0, 3)) if path is None else read_fixations(path, self.size)
            return
        shown, first, end = inside(self.points, self.size), self.points[:, 3], self.points[:, 4]
        for index in range(self.n_frames)[start:stop]:
            yield self.points[shown & (first <= index) & (index < end), :3]

    def paths(self, files: Files | None, start: int = 0, stop: int | None = None) -> Iterator:
        """The path of each of the frames [start, stop) in `files`, or None."""
        return (
            files.paths(start, stop) if files else repeat(None, len(self.frame_names[start:stop]))
        )


def is_image(clip: Clip) -> bool:
    """Whether a clip belongs to a set of images, not to one of videos."""
    return SETS[clip.dataset].kind == "image"
