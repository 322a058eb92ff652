"""Frames in: a video file, a folder of frames, one image, a camera.

Reading is sequential and never seeks. Interlaced fields stay woven, and pixels that are not square
stay as stored, so that frame and ground truth share one grid.
"""

import re
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import av
import cv2
import numpy as np

from salema.files import MOST_PIXELS, SalemaError
from salema.media.image import IMAGES, fit, natural, over_black, quiet, read_image
from salema.media.whole import cut_short, lost_frames

FALLBACK_FPS = 25.0  # of a source that does not report its own
# Some formats only name the files that hold the pictures, or draw a text: they are not opened.
NAMING = {"concat", "concatf", "dash", "hls", "imf", "image2", "sdp", "tty", "vobsub", "lavfi"}
OPTIONS = {"protocol_whitelist": "file"}
OPTIONS["format_whitelist"] = ",".join(sorted(av.formats_available - NAMING))
Picture = tuple[np.ndarray, str | None, float | None]  # the image, its name, its time


@dataclass(frozen=True)
class Frame:
    """One picture of a source."""

    image: np.ndarray  # uint8 (H, W, 3) RGB
    name: str  # the stem of its file; `00001`, `00002`, ... in a video
    time: float | None = None  # seconds since the start of the source; None for pictures


@dataclass
class Source:
    """One source of frames. Iterating gives each `Frame`, all of one size.

    Files may be iterated more than once, always from the first frame; a camera only once.
    """

    name: str  # the file's name without its suffix, the folder's name, or "camera0"
    size: tuple[int, int]  # (H, W) after rotation; a later frame of another size is resized to it
    # Gives the pictures with their names (None: numbers) and times, and sets `stopped`.
    decode: Callable[["Source"], Iterator[Picture]] = field(repr=False)
    fps: float | None = None  # frames per second, on average; None for images
    hint: int | None = None  # the number of frames that the header promises, which may be wrong
    stopped: str | None = None  # afterwards, what is missing: "broken packet after 57 frames"
    names: frozenset[str] | None = None  # those of the frames, where they are files

    def __iter__(self) -> Iterator[Frame]:
        self.stopped, number = None, 0
        try:
            for number, (image, name, moment) in enumerate(self.decode(self), 1):
                image = np.ascontiguousarray(fit(image, self.size))
                yield Frame(image, name or f"{number:05d}", moment)
        except OSError as error:  # of reading, and not of whoever uses the frames
            self.stopped = f"cannot be read after {number} frames: {error.strerror or error}"


def open(source: str | Path | int) -> Source:
    """The frames of a video file, a folder of images, an image, or a camera (`camera:0`, 0)."""
    if camera := re.fullmatch(r"camera:(\d{1,4})", str(source)):
        source = int(camera[1])
    if isinstance(source, int):
        return _camera(source)
    path = Path(source)
    try:
        if path.is_dir():
            return _folder(path)
        if not path.exists():
            raise SalemaError(f"no such file: {path} (check the path)")
        if not path.is_file():
            raise SalemaError(f"not a file or a folder: {path} (give a video, images or camera:0)")
        if path.stat().st_size == 0:
            raise SalemaError(f"empty file: {path} (0 bytes; copy or download it again)")
        return _images(name(path), [path]) if path.suffix.lower() in IMAGES else _video(path)
    except OSError as error:
        raise SalemaError(f"cannot read {path}: {error.strerror} (check the path)") from error


def name(path: Path, folder: bool = False) -> str:
    """The name of a source, from its path alone: without the suffix, if it is not a folder.

    Of "..mp4" it is the whole, as "." names a folder of output.
    """
    if folder:
        return path.resolve().name or "root"
    return path.stem if path.stem.strip(".") else path.name


def _folder(folder: Path) -> Source:
    paths = [p for p in folder.iterdir() if p.suffix.lower() in IMAGES and p.name[0] != "."]
    if not paths:
        raise SalemaError(f"no images in the folder {folder} (expected .jpg, .png, ...)")
    paths.sort(key=natural)
    stems = {}
    for path in paths:
        if (twin := stems.setdefault(path.stem, path)) is not path:
            both = f"{twin.name} and {path.name}"
            raise SalemaError(f"one frame twice in {folder}: {both} (keep one of them)")
    return _images(name(folder, folder=True), paths)


def _images(name: str, paths: list[Path]) -> Source:
    def decode(source: Source) -> Iterator[Picture]:
        for done, path in enumerate(paths):
            try:
                image = read_image(path)
            except SalemaError:
                source.stopped = f"unreadable image {path.name} after {done} frames"
                return
            yield image, path.stem, None

    names = frozenset(path.stem for path in paths)
    return Source(name, read_image(paths[0]).shape[:2], decode, hint=len(paths), names=names)


def _camera(index: int) -> Source:
    with quiet():
        capture = cv2.VideoCapture(index)
        found, first = capture.read() if capture.isOpened() else (False, None)
    if not found:
        capture.release()
        raise SalemaError(f"no camera {index} (connect one, or give a video file)")

    def decode(source: Source) -> Iterator[Picture]:
        begin, done, found, frame = time.monotonic(), 0, capture.isOpened(), first
        try:
            while found:
                yield frame[:, :, ::-1], None, time.monotonic() - begin
                done += 1
                found, frame = capture.read()
            source.stopped = f"no more from camera {index} after {done} frames"
        finally:
            capture.release()

    fps = capture.get(cv2.CAP_PROP_FPS) or FALLBACK_FPS
    return Source(f"camera{index}", first.shape[:2], decode, fps=fps)


def _video(path: Path) -> Source:
    with opened(path) as (container, stream):
        first = next(_pictures(container, stream, []), None)
        if first is None:
            raise SalemaError(f"not a video: {path} (not one frame of it can be decoded)")
        turn = _display_matrix(first)
        fps = float(stream.average_rate or stream.guessed_rate or FALLBACK_FPS)
        hint = stream.frames or round((container.duration or 0) / av.time_base * fps) or None

    def decode(source: Source) -> Iterator[Picture]:
        broken: list[int] = []
        done, before, picture = 0, -1.0, None
        with opened(path) as (container, stream):
            for picture in _pictures(container, stream, broken):
                moment = _seconds(picture, container, stream, done / fps)
                before = moment if moment > before else before + 1 / fps
                done += 1
                yield _rgb(picture, turn), None, before
            kind, promised = container.format.name, stream.frames
        # A byte stream has no length to compare with, but its last picture is marked.
        last = picture is not None and kind.startswith("mpeg") and picture.is_corrupt
        if last or cut_short(path, kind):
            source.stopped = f"file cut short after {done} frames"
        elif broken:
            what = f"{len(broken)} broken packets" if len(broken) > 1 else "broken packet"
            total = f", {done} frames in all" if done > broken[0] else ""
            source.stopped = f"{what} after {broken[0]} frames{total}"
        elif lost_frames(path, kind, done, promised):
            what = "file damaged: frames are lost, and later ones have too low numbers"
            source.stopped = f"{what}; {done} frames in all"

    return Source(name(path), _rgb(first, turn).shape[:2], decode, fps=fps, hint=hint)


def maps(path: str | Path) -> Iterator[np.ndarray]:
    """The maps of a gray video that is whole, float32 (H, W) in [0, 1], one at a time."""
    with opened(Path(path)) as (container, stream):
        if cut_short(Path(path), container.format.name):
            raise SalemaError(f"maps cut short: {path} (predict or copy it again)")
        if lost_frames(Path(path), container.format.name, -1, 0):
            raise SalemaError(f"broken maps: {path} (predict or copy it again)")
        try:
            for picture in container.decode(stream):
                deep = picture.format.components[0].bits > 8
                values = picture.to_ndarray(format="gray16le" if deep else "gray")
                yield values.astype(np.float32) / np.float32(65535 if deep else 255)
        except av.error.FFmpegError as error:
            raise SalemaError(f"broken maps: {path} (predict or copy it again)") from error


@contextmanager
def opened(path: Path) -> Iterator[tuple]:
    """The container and its best video stream. Only this file is read, whatever it names."""
    try:
        # Titles may be in any encoding: they are not used.
        container = av.open(f"file:{path}", options=OPTIONS, metadata_errors="replace")
    except (av.error.FFmpegError, OSError) as error:
        reason = (error.strerror or str(error)).lower()
        raise SalemaError(f"not a video: {path} ({reason})") from error
    with container:
        stream = container.streams.best("video")
        if stream is None:
            raise SalemaError(f"not a video: {path} (it holds no pictures)")
        if (context := stream.codec_context) is None:
            raise SalemaError(f"no decoder for {path} (convert it, to H.264 for example)")
        if context.width * context.height > MOST_PIXELS:
            size = f"{context.width} x {context.height}"
            raise SalemaError(f"{path} has {size} pixels, above {MOST_PIXELS} (make it smaller)")
        context.options = {"max_pixels": str(MOST_PIXELS)}
        if stream.codec.intra_only:  # the rotation of the file counts, and not that of EXIF in it
            context.options |= {"side_data_prefer_packet": "displaymatrix"}
        # Frame threads lose what is in flight when the last packets are broken, and hide
        # the error: the number of frames would depend on the number of cores.
        stream.thread_type = "SLICE"
        yield container, stream


def _pictures(container, stream, broken: list[int]) -> Iterator[av.VideoFrame]:
    """Decoded pictures; `broken` gets the number of frames before each bad packet."""
    # Other codecs have delay, or packets without a picture to show.
    done, instant = 0, stream.codec.intra_only and stream.codec.delay is False
    try:
        for packet in container.demux(stream):
            if packet.is_corrupt:
                broken.append(done)
                # Else the file ended within it; a byte stream lost a part of it or before it.
                if not container.format.name.startswith("mpeg"):
                    continue
            try:
                pictures = packet.decode()
            except av.error.FFmpegError:
                broken.append(done)
                continue
            if instant and packet.size and not pictures:  # refused without an error
                broken.append(done)
            done += len(pictures)
            yield from pictures
    except av.error.FFmpegError:  # the demuxer gave up; the decoder may hold some pictures
        broken.append(done)
        with suppress(av.error.FFmpegError):
            yield from stream.codec_context.decode(None)


def _seconds(picture: av.VideoFrame, container, stream, counted: float) -> float:
    """Seconds since the container's start, not below 0; without a usable time stamp, `counted`."""
    # AVI stores decoding times only, which run ahead by the pictures held for reordering.
    if picture.pts is None or container.format.name == "avi":
        return counted
    start = (container.start_time or 0) / av.time_base
    return max(float(picture.pts * stream.time_base) - start, 0.0)


def _display_matrix(first: av.VideoFrame) -> tuple[int, ...]:
    """a, b, 0, c, d of how the pictures are to be turned: x' = a x + c y, y' = b x + d y."""
    # Side data of every picture would keep them all in memory until the garbage collector runs.
    try:
        matrix = first.side_data.get("DISPLAYMATRIX")
    except ValueError:  # PyAV does not know EXIF, which is there too
        quarters = [(1, 0, 0, 0, 1), (0, -1, 0, 1, 0), (-1, 0, 0, 0, -1), (0, 1, 0, -1, 0)]
        return quarters[round(first.rotation / 90) % 4]
    return (1, 0, 0, 0, 1) if matrix is None else struct.unpack("=5i", bytes(matrix)[:20])


def _rgb(picture: av.VideoFrame, turn: tuple[int, ...]) -> np.ndarray:
    """uint8 (H, W, 3), alpha over black, turned and mirrored as the file asks."""
    alpha = picture.format.has_palette or any(c.is_alpha for c in picture.format.components)
    image = picture.to_ndarray(format="rgba" if alpha else "rgb24")
    image = over_black(image) if alpha else image
    a, b, _, c, d = turn  # only quarter turns and mirrors are kept
    if abs(b) > abs(a):
        image, a, d = image.swapaxes(0, 1), c, b
    return image[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]
