"""One clip: where its frames and its ground truth lie, and readers over a range of them."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from salema.data.gaze import Size, blur, inside, read_fixations, read_grey
from salema.data.sets import sigma
from salema.files import SalemaError


class Files(NamedTuple):
    """The files of one kind, one a frame; None for a frame that has none."""

    folder: Path
    names: tuple[str | None, ...]

    def paths(self, start: int = 0, stop: int | None = None) -> Iterator[Path | None]:
        """One path a frame."""
        for name in self.names[start:stop]:
            yield None if name is None else self.folder / name


@dataclass(frozen=True)
class Clip:
    """A video, a shot or an image. Cheap to make and to pickle: it reads when asked.

    Attributes:
        name: As predictions call it, e.g. "0601" or "actioncliptest00001_1".
        dataset: One of `DATASETS`.
        split: "train", "val" or "test".
        frame_names: What the ground truth calls each frame, e.g. "0001"; unique in the clip.
        images: A video file, or one picture a frame.
        map_files: The official maps, where the set has them.
        fixation_files: The official fixations, where they are files.
        points: (N, 5) fixations of the sets that keep them in a table: x, y in pixels,
            observer, first frame, frame after the last.
        fps: Frames per second; None for an image and where the set does not tell.
        has_observers: Whether fixations tell the observers apart.
        probed: (H, W) where the loader knows it already.
    """

    name: str
    dataset: str
    split: str
    frame_names: tuple[str, ...] = field(repr=False)
    images: Files | Path = field(repr=False)
    map_files: Files | None = field(default=None, repr=False)
    fixation_files: Files | None = field(default=None, repr=False)
    points: np.ndarray | None = field(default=None, repr=False, compare=False)
    fps: float | None = None
    has_observers: bool = False
    probed: Size | None = field(default=None, repr=False)

    @property
    def n_frames(self) -> int:
        """Frames that the clip should have; a damaged source may hold fewer."""
        return len(self.frame_names)

    @cached_property
    def size(self) -> Size:
        """(H, W) of the first frame in pixels, read on first use.

        Raises:
            SalemaError: The source is missing or broken.
        """
        if self.probed:
            return self.probed
        if isinstance(self.images, Files):
            return image_size(next(self.images.paths()))
        from salema.media import read

        return read.open(self.images).size

    @cached_property
    def annotated(self) -> int:
        """Number of frames with a map file or with fixations, by the listing alone."""
        if self.points is not None:
            return int(self._covered().sum())
        listed = [files.names for files in (self.map_files, self.fixation_files) if files]
        return sum(any(names) for names in zip(*listed, strict=True))

    @cached_property
    def dropped(self) -> int:
        """Rows of `points` outside the picture or past the last frame: never used."""
        if self.points is None:
            return 0
        shown = np.minimum(self.points[:, 4], self.n_frames) > np.maximum(self.points[:, 3], 0)
        return int((~(inside(self.points, self.size) & shown)).sum())

    def _covered(self) -> np.ndarray:
        covered = np.zeros(self.n_frames, bool)
        for first, stop in self.points[:, 3:].astype(int):
            covered[max(first, 0) : max(stop, 0)] = True
        return covered

    def files(self) -> Iterator[Path]:
        """Every file of this clip alone: pictures or video, maps, fixations."""
        if isinstance(self.images, Path):
            yield self.images
        for kind in (self.images, self.map_files, self.fixation_files):
            if isinstance(kind, Files):
                yield from filter(None, kind.paths())

    def frames(self, start: int = 0, stop: int | None = None) -> Iterator[np.ndarray]:
        """Frames [start, stop) as uint8 (H, W, 3) RGB, sequential and lazy.

        Raises:
            SalemaError: A frame is missing or broken; those before it came out.
        """
        from salema.media import image, read

        start, stop, _ = slice(start, stop).indices(self.n_frames)
        if isinstance(self.images, Files):
            for path in self.images.paths(start, stop):
                if not path.is_file():
                    raise SalemaError(f"no such file: {path} (removed since the listing)", 1)
                yield _fit(image.read_image(path), self.size)
            return
        if start >= stop:
            return
        source = read.open(self.images)
        done = start
        for frame in islice(source, start, stop):
            yield frame.image
            done += 1
        if done < stop:
            reason = f": {source.stopped}" if source.stopped else ""
            raise SalemaError(
                f"{self.images} ends early{reason} ({self.n_frames} frames expected)", 1
            )

    def maps(self, start: int = 0, stop: int | None = None) -> Iterator[np.ndarray | None]:
        """Maps of frames [start, stop): float32 (H, W) in [0, 1], or None without one.

        Official maps are divided by 255 and nothing else; a blank one is zeros. Where
        the set publishes fixations only, they are blurred with `splits.sigma`.

        Raises:
            SalemaError: A file is missing or broken.
        """
        for index, path in self._ground_truth(self.map_files, start, stop):
            if self.points is not None:
                yield blur(self._points_at(index), self.size, sigma(self.size))
            elif path is None:
                yield None
            else:
                yield _fit(read_grey(path), self.size).astype(np.float32) / 255

    def fixations(self, start: int = 0, stop: int | None = None) -> Iterator[np.ndarray]:
        """Fixations of frames [start, stop): float (N, 3), x, y in pixels and the observer.

        A fixation counts once in every frame that it covers; a frame without any, or
        without annotation, gives (0, 3).

        Raises:
            SalemaError: A file is missing or broken.
        """
        for index, path in self._ground_truth(self.fixation_files, start, stop):
            if self.points is not None:
                yield self._points_at(index)
            elif path is None:
                yield np.empty((0, 3))
            else:
                yield read_fixations(path, self.size)

    def _ground_truth(
        self, files: Files | None, start: int, stop: int | None
    ) -> Iterator[tuple[int, Path | None]]:
        for index in range(*slice(start, stop).indices(self.n_frames)):
            yield index, next(files.paths(index, index + 1)) if files else None

    def _points_at(self, index: int) -> np.ndarray:
        points = self.points
        now = (points[:, 3] <= index) & (index < points[:, 4]) & inside(points, self.size)
        return points[now, :3]


def _fit(image: np.ndarray, size: Size) -> np.ndarray:
    """The image, resized if it is not of the clip's size, as some extracted frames are not."""
    if image.shape[:2] == size:
        return image
    import cv2

    return cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR)


def by_number(name: str) -> tuple:
    """Sorting key that puts "2" before "10": digits count as numbers."""
    pieces = re.split(r"(\d+)", name)
    pieces[1::2] = map(int, pieces[1::2])
    return (*pieces, name)


def image_size(path: Path) -> Size:
    """(H, W) of a picture, from its header where that is plain PNG or JPEG.

    A JPEG with EXIF may have to be turned, so it is decoded, like every other kind.

    Raises:
        SalemaError: The file is missing or no picture.
    """
    try:
        with path.open("rb") as file:
            head = file.read(64 * 1024)
    except OSError as error:
        raise SalemaError(f"cannot read {path}: {error.strerror} (copy it again)") from error
    if head.startswith(b"\x89PNG") and len(head) >= 24 and b"eXIf" not in head:
        return int.from_bytes(head[20:24]), int.from_bytes(head[16:20])
    at = 2 if head.startswith(b"\xff\xd8") else len(head)
    while at + 9 <= len(head) and head[at] == 0xFF and head[at + 1] != 0xE1:
        # Start of frame: all of C0-CF but the tables C4, C8 and CC.
        if 0xC0 <= head[at + 1] <= 0xCF and head[at + 1] not in (0xC4, 0xC8, 0xCC):
            return int.from_bytes(head[at + 5 : at + 7]), int.from_bytes(head[at + 7 : at + 9])
        at += 2 + int.from_bytes(head[at + 2 : at + 4])
    from salema.media import image

    return image.read_image(path).shape[:2]


def probe(path: Path) -> tuple[int, float | None, Size]:
    """Frames, frames per second and (H, W) of a video file.

    Counts the packets without decoding them: quick, and no header's promise is trusted.

    Raises:
        SalemaError: The file is no video.
    """
    import av

    try:
        with av.open(f"file:{path}") as container:
            stream = container.streams.video[0]
            count = sum(packet.size > 0 for packet in container.demux(stream))
            rate = stream.average_rate or stream.guessed_rate
            size = (stream.codec_context.height, stream.codec_context.width)
    except (av.error.FFmpegError, IndexError, OSError) as error:
        raise SalemaError(f"not a video: {path} (copy it again)") from error
    if not count or not all(size):
        raise SalemaError(f"not a video: {path} (no frames in it)")
    return count, float(rate) if rate else None, size
