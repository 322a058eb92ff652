"""Maps out: a folder of PNG files, one lossless gray video, or one array.

Every writer is a context manager that gives a function `write(map, frame)`: it resizes a float32
map (h, w) in [0, 1] to the writer's `size`, and names or dates it by its `Frame`. The output gets
its final name only when all of it is written.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

from salema.files import SalemaError, atomic
from salema.media.image import fit
from salema.media.read import FALLBACK_FPS, Frame
from salema.params import choose

Write = Callable[[np.ndarray, Frame], None]
SUFFIX = {"png": "", "gray": ".mkv", "npy": ".npy"}  # by format; a folder has none
TICKS = 90_000  # time base of the videos, per second: fine enough for any frame rate


def to_byte(map: np.ndarray) -> np.ndarray:
    """(H, W) float in [0, 1] -> uint8 in [0, 255], rounded; outside values are clipped."""
    return cv2.multiply(map, 255.0, dtype=cv2.CV_8U)


def min_max(map: np.ndarray) -> np.ndarray:
    """Stretches a finite map of any scale to exactly [0, 1], float32; a flat map gives zeros."""
    low, high = float(map.min()), float(map.max())
    if not np.isfinite(high - low):
        what = f"a map must be finite, and this one goes from {low} to {high}"
        raise SalemaError(f"{what} (are the weights broken? or pass --precision fp32)")
    if high == low:
        return np.zeros(map.shape, np.float32)
    return ((map - low) / (high - low)).astype(np.float32, copy=False)


def picture(image: np.ndarray, suffix: str, *options: int) -> bytes:
    """A gray or RGB image as a file of the suffix's format, with OpenCV's options."""
    done, data = cv2.imencode(suffix, image if image.ndim == 2 else image[..., ::-1], options)
    if not done:
        raise SalemaError(f"cannot encode a {suffix} file (choose another format)")
    return data.tobytes()


def open(
    path: Path, form: str, size: tuple[int, int], fps: float | None, bits=8, replace=False
) -> AbstractContextManager[Write]:
    """The writer of a format: "png" (a folder), "gray" (one video) or "npy" (one array)."""
    match choose(form, SUFFIX, "format"):
        case "png":
            return png(path, size, bits, replace)
        case "gray":
            return gray(path, size, fps, bits)
    return npy(path, size)


@contextmanager
def png(path: Path, size: tuple[int, int], bits: int = 8, replace: bool = False) -> Iterator[Write]:
    """A folder of gray PNG files named after the frames; to `replace` one is else an error."""

    def write(map: np.ndarray, frame: Frame) -> None:
        map = fit(map, size, cv2.INTER_LINEAR)
        values = to_byte(map) if bits == 8 else np.round(map * 65535).astype(np.uint16)
        (part / f"{frame.name}.png").write_bytes(picture(values, ".png"))

    with atomic(path, replace) as part:
        part.mkdir()
        yield write


@contextmanager
def npy(path: Path, size: tuple[int, int]) -> Iterator[Write]:
    """One float32 (T, H, W) array in a .npy file, streamed; `numpy.load` may map it."""

    def write(map: np.ndarray, frame: Frame) -> None:
        file.write(np.ascontiguousarray(fit(map, size, cv2.INTER_LINEAR), "<f4").data)

    with atomic(path) as part, part.open("wb") as file:
        file.seek(128)  # bytes of the header, which is written last
        yield write
        count = (file.tell() - 128) // (4 * size[0] * size[1])
        layout = {"descr": "<f4", "fortran_order": False, "shape": (count, *size)}
        file.seek(0)
        np.lib.format.write_array_header_1_0(file, layout)


@contextmanager
def gray(path: Path, size: tuple[int, int], fps: float | None, bits: int = 16) -> Iterator[Write]:
    """A lossless gray video (.mkv, FFV1): `read.maps` gives each map back within half a step.

    The same maps give the same bytes; `fps` counts where the frames have no time.
    """
    if bits not in (8, 16):
        raise ValueError(f"bits must be 8 or 16, not {bits}")
    pixels, depth = ("gray", cv2.CV_8U) if bits == 8 else ("gray16le", cv2.CV_16U)
    # By default, the number of slices would follow the number of cores.
    options = {"level": "3", "slices": "4" if min(size) >= 16 else "1", "slicecrc": "1"}
    with container(path, "matroska", {"fflags": "+bitexact"}) as output:
        video = Video(output, "ffv1", fps, size, pixels, options)

        def write(map: np.ndarray, frame: Frame) -> None:
            map = fit(map, size, cv2.INTER_LINEAR)
            video.add(cv2.multiply(map, 2.0**bits - 1, dtype=depth), frame.time)

        yield write
        video.finish()


@contextmanager
def container(path: Path, kind: str, options: dict[str, str]) -> Iterator:
    """An FFmpeg container under a temporary name; its errors become one line."""
    with atomic(path) as part:
        try:
            with av.open(f"file:{part}", "w", format=kind, container_options=options) as output:
                yield output
        except av.error.FFmpegError as error:
            if isinstance(error, OSError):  # `atomic` reports these: no space left, ...
                raise
            reason = f"{error.strerror} (choose another format)"
            raise SalemaError(f"cannot encode {path}: {reason}") from error


class Video:
    """The pictures of a container, with time stamps that rise whatever the times are."""

    def __init__(self, output, codec: str, fps: float | None, size, pixels: str, options) -> None:
        rate = fps or FALLBACK_FPS
        self._output, self._pixels, self._step = output, pixels, TICKS / rate
        self._count, self._last = 0, -1
        self.stream = output.add_stream(codec, rate=Fraction(rate).limit_denominator(1001))
        self.stream.height, self.stream.width = size
        self.stream.pix_fmt, self.stream.options = pixels, options
        self.stream.time_base = self.stream.codec_context.time_base = Fraction(1, TICKS)

    def add(self, planes: np.ndarray, time: float | None) -> None:
        """Encode one picture; without times (in seconds) the pictures are evenly spaced."""
        picture = av.VideoFrame.from_ndarray(planes, format=self._pixels)
        wanted = self._count * self._step if time is None else time * TICKS
        self._last = max(round(wanted), self._last + 1)
        self._count += 1
        picture.pts, picture.time_base = self._last, Fraction(1, TICKS)
        picture.duration = round(self._step)
        self._output.mux(self.stream.encode(picture))

    def finish(self) -> None:
        """Encode what the codec still holds."""
        self._output.mux(self.stream.encode(None))

    def seconds(self, steps: int = 0) -> float:
        """Time of the newest picture, plus so many steps."""
        return (self._last + steps * self._step) / TICKS
