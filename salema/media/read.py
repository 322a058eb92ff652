"""Frames in: a video file, a folder of frames, one image, a camera.

Reading is sequential: it never seeks, and the number of frames that a header promises
is only a hint for a progress bar. Interlaced fields are left woven and pixels that are
not square are left as stored: frame and ground truth keep one grid.
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

from salema.files import SalemaError

# What OpenCV reads as one picture; every other file goes to FFmpeg, GIF too.
IMAGES = frozenset({".jpg", ".jpeg", ".jpe", ".png", ".bmp", ".dib", ".tif", ".tiff", ".webp"})
IMAGES |= {".jp2", ".pgm", ".ppm", ".pbm", ".pnm"}
FALLBACK_FPS = 25.0  # of a video or a camera that does not tell


@dataclass(frozen=True)
class Frame:
    """One picture of a source.

    Attributes:
        image: uint8 (H, W, 3) RGB.
        name: The stem of its file; `00001`, `00002`, ... in a video.
        time: Seconds since the start of the source; None for pictures.
    """

    image: np.ndarray
    name: str
    time: float | None = None


@dataclass
class Frames:
    """One source of frames; iterating gives uint8 (H, W, 3) RGB, all of one size.

    Files may be iterated more than once, always from the first frame; a camera once.

    Attributes:
        name: The file's name without its suffix, the folder's name, or "camera0".
        size: (H, W) of every frame, after rotation. A later frame of another size is
            resized to it.
        fps: Frames per second, on average; None for images.
        hint: The number of frames that the header promises, which may be wrong.
        names: The stem of each frame's file; None for a video.
        times: Seconds since the start of the source, one for each frame so far, rising;
            filled while iterating. Empty for images.
        stopped: After iterating, None or one clause on what is missing and how many
            frames there were, e.g. "broken packet after 57 frames".
    """

    name: str
    size: tuple[int, int]
    read: Callable[["Frames"], Iterator[np.ndarray]] = field(repr=False)
    fps: float | None = None
    hint: int | None = None
    names: tuple[str, ...] | None = None
    times: list[float] = field(default_factory=list, repr=False)
    stopped: str | None = None

    def __iter__(self) -> Iterator[np.ndarray]:
        """Frames from the first on; `times` and `stopped` start anew."""
        self.times, self.stopped = [], None
        for frame in self.read(self):
            if frame.shape[:2] != self.size:
                frame = cv2.resize(frame, self.size[::-1], interpolation=cv2.INTER_AREA)
            yield np.ascontiguousarray(frame)


def open(source: str | Path | int) -> Frames:
    """The frames of a video file, a folder of images, an image, or a camera.

    Args:
        source: A path, or `camera:0` (or 0) for the first camera.

    Raises:
        SalemaError: The source is missing, empty, or holds no picture.
    """
    if isinstance(source, int):
        return _camera(source)
    if camera := re.fullmatch(r"camera:(\d+)", str(source)):
        return _camera(int(camera[1]))
    path = Path(source)
    try:
        return _path(path)
    except OSError as error:
        raise SalemaError(f"cannot read {path}: {error.strerror} (check the path)") from error


def _path(path: Path) -> Frames:
    if path.is_dir():
        return _folder(path)
    if not path.exists():
        raise SalemaError(f"no such file: {path} (check the path)")
    if not path.is_file():
        raise SalemaError(f"not a file or a folder: {path} (give a video, images or camera:0)")
    if path.stat().st_size == 0:
        raise SalemaError(f"empty file: {path} (0 bytes; copy or download it again)")
    if path.suffix.lower() in IMAGES:
        return _images(path.stem, [path])
    return _video(path)


def read_image(path: str | Path) -> np.ndarray:
    """One picture as uint8 (H, W, 3) RGB: upright by its EXIF, alpha over black.

    Raises:
        SalemaError: The file cannot be read, or is no picture that OpenCV knows.
    """
    try:
        data = np.fromfile(path, np.uint8)  # unlike imread, takes any file name everywhere
    except OSError as error:
        raise SalemaError(f"cannot read {path}: {error.strerror} (check the path)") from error
    head, image = data[:32].tobytes(), None
    png = head.startswith(b"\x89PNG")
    opaque = head.startswith(b"\xff\xd8") or (png and head[25:26] in (b"\x00", b"\x02"))
    whole = not png or b"IEND" in data[-4096:].tobytes()  # libpng would print its complaint
    if data.size and whole:
        with _quiet(), suppress(cv2.error):
            # IMREAD_UNCHANGED is the only way to the alpha, and ignores the EXIF orientation.
            image = None if opaque else cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
            if image is None or image.ndim < 3 or image.shape[2] != 4:
                image = cv2.imdecode(data, cv2.IMREAD_COLOR_RGB)
            else:
                image = _over_black(cv2.cvtColor(image, cv2.COLOR_BGRA2RGBA))
    if image is None:
        raise SalemaError(f"unreadable image: {path} (not a picture, or broken)")
    return image


def _over_black(rgba: np.ndarray) -> np.ndarray:
    """(H, W, 4), uint8 or uint16, straight alpha -> uint8 (H, W, 3)."""
    top = np.iinfo(rgba.dtype).max
    color = rgba[..., :3] * (rgba[..., 3:] * np.float32(255 / top / top))
    return np.rint(color).astype(np.uint8)


@contextmanager
def _quiet() -> Iterator[None]:
    """OpenCV prints nothing meanwhile: what went wrong is ours to say, in one line."""
    level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        cv2.utils.logging.setLogLevel(level)


def _numbered(path: Path) -> list[tuple[bool, int, str]]:
    """Sorting key: runs of digits as numbers ("2" before "10"), the rest as text."""
    parts = re.findall(r"[0-9]+|[^0-9]+", path.stem)
    return [(False, int(p), "") if p[0] in "0123456789" else (True, 0, p) for p in parts]


def _folder(folder: Path) -> Frames:
    paths = [p for p in folder.iterdir() if p.suffix.lower() in IMAGES and p.name[0] != "."]
    if not paths:
        raise SalemaError(f"no images in the folder {folder} (expected .jpg, .png, ...)")
    paths.sort(key=lambda path: (_numbered(path), path.name))
    stems = {}
    for path in paths:
        if (twin := stems.setdefault(path.stem, path)) is not path:
            raise SalemaError(
                f"one frame twice in {folder}: {twin.name} and {path.name} (keep one of them)"
            )
    return _images(folder.resolve().name, paths)


def _images(name: str, paths: list[Path]) -> Frames:
    def read(frames: Frames) -> Iterator[np.ndarray]:
        for done, path in enumerate(paths):
            try:
                image = read_image(path)
            except SalemaError:
                frames.stopped = f"unreadable image {path.name} after {done} frames"
                return
            yield image

    size = read_image(paths[0]).shape[:2]
    return Frames(name, size, read, hint=len(paths), names=tuple(path.stem for path in paths))


def _camera(index: int) -> Frames:
    with _quiet():
        capture = cv2.VideoCapture(index)
        found, first = capture.read() if capture.isOpened() else (False, None)
    if not found:
        capture.release()
        raise SalemaError(f"no camera {index} (connect one, or give a video file)")

    def read(frames: Frames) -> Iterator[np.ndarray]:
        begin, found, frame = time.monotonic(), capture.isOpened(), first
        try:
            while found:
                frames.times.append(time.monotonic() - begin)
                yield frame[:, :, ::-1]
                found, frame = capture.read()
            frames.stopped = f"no more from camera {index} after {len(frames.times)} frames"
        finally:
            capture.release()

    fps = capture.get(cv2.CAP_PROP_FPS) or FALLBACK_FPS
    return Frames(f"camera{index}", first.shape[:2], read, fps=fps)


def _video(path: Path) -> Frames:
    with opened(path) as (container, stream):
        first = next(_pictures(container, stream, []), None)
        if first is None:
            raise SalemaError(f"not a video: {path} (not one frame of it can be decoded)")
        turn = _display_matrix(first)
        rate = stream.average_rate or stream.guessed_rate
        fps = float(rate) if rate else FALLBACK_FPS
        seconds = (container.duration or 0) / av.time_base
        hint = stream.frames or round(seconds * fps) or None

    def read(frames: Frames) -> Iterator[np.ndarray]:
        broken: list[int] = []
        with opened(path) as (container, stream):
            for picture in _pictures(container, stream, broken):
                frames.times.append(_moment(picture, container, stream, frames))
                yield _rgb(picture, turn)
            kind = container.format.name
            # A byte stream has no length to compare with: its last picture tells.
            cut = cut_short(path, kind) or (kind.startswith("mpeg") and picture.is_corrupt)
        done = len(frames.times)
        if cut:
            frames.stopped = f"file cut short after {done} frames"
        elif broken:
            several = f"{len(broken)} broken packets" if len(broken) > 1 else "broken packet"
            frames.stopped = f"{several} after {broken[0]} frames"
            if done > broken[0]:
                frames.stopped += f", {done} frames in all"

    return Frames(path.stem, _rgb(first, turn).shape[:2], read, fps=fps, hint=hint)


@contextmanager
def opened(path: Path) -> Iterator[tuple]:
    """The container and its best video stream. Only this file is read, whatever it names."""
    try:
        container = av.open(f"file:{path}", options={"protocol_whitelist": "file"})
    except (av.error.FFmpegError, OSError) as error:
        raise SalemaError(f"not a video: {path} ({error.strerror.lower()})") from error
    with container:
        stream = container.streams.best("video")
        if stream is None or container.format.name == "tty":  # FFmpeg would draw a text
            raise SalemaError(f"not a video: {path} (it holds no pictures)")
        # Frame threads lose what is in flight when the last packets are broken, and hide
        # the error: the number of frames would depend on the number of cores.
        stream.thread_type = "SLICE"
        yield container, stream


def _pictures(container, stream, broken: list[int]) -> Iterator[av.VideoFrame]:
    """Decoded pictures; `broken` gets the number of frames before each bad packet."""
    done = 0
    # Where packets are cut out of a byte stream the flag says little about this one.
    exact = not container.format.name.startswith("mpeg")
    try:
        for packet in container.demux(stream):
            if exact and packet.is_corrupt:  # the file ended within it
                broken.append(done)
                continue
            try:
                pictures = packet.decode()
            except av.error.FFmpegError:
                broken.append(done)
                continue
            done += len(pictures)
            yield from pictures
    except av.error.FFmpegError:  # the demuxer gave up; the decoder may hold some pictures
        broken.append(done)
        with suppress(av.error.FFmpegError):
            yield from stream.codec_context.decode(None)


def _moment(picture: av.VideoFrame, container, stream, frames: Frames) -> float:
    """Seconds since the container's start, later than the frame before."""
    # AVI stores decoding times only, which run ahead by the pictures held for reordering.
    stamp = None if container.format.name == "avi" else picture.pts
    if stamp is None:
        moment = len(frames.times) / frames.fps
    else:
        moment = float(stamp * stream.time_base) - (container.start_time or 0) / av.time_base
    if frames.times and moment <= frames.times[-1]:
        moment = frames.times[-1] + 1 / frames.fps
    return max(moment, 0.0)


def _display_matrix(picture: av.VideoFrame) -> tuple[int, int, int, int] | None:
    """How the file asks for its pictures to be turned: x' = a x + c y, y' = b x + d y.

    It stands beside the first picture. Asking each one for it would keep them all in memory
    until Python's garbage collector comes by.
    """
    matrix = picture.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return None
    a, b, _, c, d = struct.unpack("=5i", bytes(matrix)[:20])  # fixed point
    return a, b, c, d


def _rgb(picture: av.VideoFrame, turn: tuple[int, int, int, int] | None) -> np.ndarray:
    """uint8 (H, W, 3), alpha over black, turned and mirrored as the file asks."""
    alpha = picture.format.has_palette or any(c.is_alpha for c in picture.format.components)
    if alpha:
        image = _over_black(picture.to_ndarray(format="rgba"))
    else:
        image = picture.to_ndarray(format="rgb24")
    if turn is None:
        return image
    a, b, c, d = turn  # only quarter turns and mirrors are kept
    if abs(b) > abs(a):
        image, a, d = image.swapaxes(0, 1), c, b
    return image[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]


def cut_short(path: Path, kind: str) -> bool:
    """Whether the file ends before its outermost boxes do (AVI, MP4, MOV, MKV, WebM, GIF)."""
    total = path.stat().st_size
    with path.open("rb") as file:
        if kind == "gif":
            file.seek(-min(total, 64), 2)
            return not file.read().rstrip(b"\0").endswith(b";")
        if kind.startswith("matroska"):
            return _segment_end(file.read(4096)) > total
        at = 0
        while at + 8 <= total:
            file.seek(at)
            head = file.read(16)
            if kind == "avi":
                size = int.from_bytes(head[4:8], "little") + 8
                known = head[:4] == b"RIFF" and 8 < size < 0xFFFFFF00
            elif kind.startswith("mov"):
                size = int.from_bytes(head[:4], "big")
                size = int.from_bytes(head[8:16], "big") if size == 1 else size
                known = head[4:8].isalnum() and size >= 8
            else:
                known = False
            if not known:  # to the end of the file, or not ours to judge
                return False
            at += size
    return at > total + 16  # some writers count their own header twice


def _segment_end(head: bytes) -> int:
    """Where Matroska's segment says it ends; 0 where it does not say."""
    at = head.find(b"\x18\x53\x80\x67") + 4
    if at < 4 or at >= len(head) or not head[at]:
        return 0
    length = 9 - head[at].bit_length()
    size = int.from_bytes(head[at : at + length], "big") & ((1 << 7 * length) - 1)
    return 0 if size == (1 << 7 * length) - 1 else at + length + size
