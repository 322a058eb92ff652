"""Maps out: PNG, one lossless gray video, one array, an overlay that browsers play.

Every writer is a context manager with `write(map, frame, name, time=None)`: a float32
(H, W) map in [0, 1], its uint8 (H, W, 3) RGB frame (None where the writer needs none),
the frame's name and its time in seconds (None: evenly spaced). What it writes gets its
final name only when all of it is there.
"""

import difflib
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

from salema.files import SalemaError, atomic
from salema.media.read import FALLBACK_FPS, cut_short, opened

TICKS = 90_000  # time base of the videos, a second: fine enough for any frame rate
PICTURES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp"})
AAC_RATES = (48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000)  # Hz


def to_byte(map: np.ndarray) -> np.ndarray:
    """(H, W) float in [0, 1] -> uint8 in [0, 255], rounded; outside values are clipped."""
    return cv2.multiply(map, 255.0, dtype=cv2.CV_8U)


def min_max(map: np.ndarray) -> np.ndarray:
    """Stretches a map of any shape and scale to exactly [0, 1], float32; a flat map gives zeros.

    Raises:
        ValueError: A value is NaN or infinite.
    """
    low, high = float(map.min()), float(map.max())
    if not np.isfinite(high - low):
        raise ValueError(f"a map must be finite, and this one goes from {low} to {high}")
    if high == low:
        return np.zeros(map.shape, np.float32)
    return ((map - low) / (high - low)).astype(np.float32, copy=False)


def color_table(name: str) -> np.ndarray:
    """OpenCV's color map of that name in lower case ("turbo") as uint8 (256, 3) RGB.

    Raises:
        SalemaError: No color map has this name.
    """
    index = getattr(cv2, f"COLORMAP_{name.upper()}", None)
    if index is None:
        known = [key[9:].lower() for key in dir(cv2) if key.startswith("COLORMAP_")]
        near = (difflib.get_close_matches(name.lower(), known, 1) or ["turbo"])[0]
        raise SalemaError(f"no color map '{name}' (did you mean '{near}'? {', '.join(known)})")
    ramp = np.arange(256, dtype=np.uint8)[:, None]
    return np.ascontiguousarray(cv2.applyColorMap(ramp, index)[:, 0, ::-1])


def overlay(frame: np.ndarray, map: np.ndarray, lut: np.ndarray, opacity: float) -> np.ndarray:
    """Blends a map's colors over a frame; where the map is 0, the frame is untouched.

    out = (1 - opacity * map) * frame + opacity * map * lut[map], within 2 of 255: all
    of it is done in bytes, by tables.

    Args:
        frame: uint8 (H, W, 3) RGB.
        map: (h, w) float in [0, 1], resized to the frame.
        lut: uint8 (256, 3) RGB, as from `color_table`.
        opacity: In [0, 1], the weight of the color where the map is 1.

    Returns:
        uint8 (H, W, 3) RGB.
    """
    level = to_byte(map)
    if level.shape != frame.shape[:2]:
        level = cv2.resize(level, frame.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    weight = opacity * np.arange(256) / 255
    tint = np.rint(lut * weight[:, None]).astype(np.uint8).reshape(256, 1, 3)
    keep = cv2.LUT(level, np.rint(255 * (1 - weight)).astype(np.uint8))
    background = cv2.multiply(frame, cv2.merge([keep, keep, keep]), scale=1 / 255)
    return cv2.add(background, cv2.applyColorMap(level, tint))


def read_gray(path: str | Path) -> Iterator[np.ndarray]:
    """The maps of a gray video, float32 (H, W) in [0, 1], one at a time.

    Raises:
        SalemaError: The file is missing, no video, or broken somewhere.
    """
    with opened(Path(path)) as (container, stream):
        if cut_short(Path(path), container.format.name):
            raise SalemaError(f"maps cut short: {path} (predict or copy it again)")
        try:
            for picture in container.decode(stream):
                deep = picture.format.components[0].bits > 8
                values = picture.to_ndarray(format="gray16le" if deep else "gray")
                yield values.astype(np.float32) / np.float32(65535 if deep else 255)
        except av.error.FFmpegError as error:
            raise SalemaError(f"broken maps: {path} (predict or copy it again)") from error


class _Writer:
    """Runs one `_session`, which makes the temporary file, yields, and finishes the file."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.count = 0

    def __enter__(self):
        self._running: AbstractContextManager = self._session()
        self._running.__enter__()
        return self

    def __exit__(self, kind, error, trace) -> bool | None:
        if kind is None and self.count == 0:
            error = SalemaError(f"nothing to write to {self.path} (not one frame came)")
            self._running.__exit__(SalemaError, error, None)
            raise error
        return self._running.__exit__(kind, error, trace)


class PngWriter(_Writer):
    """A folder of 8-bit gray PNG, `<name>.png` each; it appears when the last is written.

    Args:
        path: The folder.
        replace: Whether it replaces a folder that exists.

    Raises:
        SalemaError: The folder exists and is not empty, or the device is full.
    """

    def __init__(self, path: str | Path, replace: bool = False) -> None:
        super().__init__(path)
        self.replace = replace

    @contextmanager
    def _session(self) -> Iterator[None]:
        with atomic(self.path, self.replace) as self._part:
            self._part.mkdir()
            yield

    def write(self, map, frame, name: str, time: float | None = None) -> None:
        """One file; `frame` and `time` are not used."""
        data = cv2.imencode(".png", to_byte(map))[1]
        (self._part / f"{name}.png").write_bytes(data)
        self.count += 1


class NpyWriter(_Writer):
    """One float32 (T, H, W) array in a .npy file, streamed; `numpy.load` may map it."""

    @contextmanager
    def _session(self) -> Iterator[None]:
        with atomic(self.path) as part, part.open("wb") as self._file:
            yield
            self._file.seek(0)
            self._header()

    def _header(self) -> None:
        # numpy pads a header so that the first axis can grow without moving the data.
        shape = (self.count, *self._size)
        layout = {"descr": "<f4", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self._file, layout)

    def write(self, map, frame, name: str, time: float | None = None) -> None:
        """Appends one map; only `map` is used.

        Raises:
            ValueError: The map's shape is not that of the first.
        """
        if self.count == 0:
            self._size = map.shape
            self._header()
        if map.shape != self._size:
            raise ValueError(f"maps of {self._size} and {map.shape} in one array: {self.path}")
        self._file.write(np.ascontiguousarray(map, "<f4").data)
        self.count += 1


class _Clock:
    """Presentation stamps in ticks, strictly rising whatever the times are."""

    def __init__(self, fps: float) -> None:
        self.step, self.count, self.last = TICKS / fps, 0, -1

    def stamp(self, picture: av.VideoFrame, time: float | None) -> None:
        wanted = self.count * self.step if time is None else time * TICKS
        self.last = max(round(wanted), self.last + 1)
        self.count += 1
        picture.pts, picture.time_base = self.last, Fraction(1, TICKS)
        picture.duration = round(self.step)

    def seconds(self, steps: int = 0) -> float:
        """Time of the newest picture, plus so many steps."""
        return (self.last + steps * self.step) / TICKS


@contextmanager
def _container(path: Path, kind: str, options: dict[str, str]) -> Iterator:
    """An FFmpeg container under a temporary name; its errors become one line."""
    with atomic(path) as part:
        try:
            with av.open(f"file:{part}", "w", format=kind, container_options=options) as container:
                yield container
        except av.error.FFmpegError as error:
            if isinstance(error, OSError):  # `atomic` tells these: no space left, ...
                raise
            raise SalemaError(f"cannot encode {path}: {error.strerror} (try another)") from error


def _add_pictures(container, codec: str, fps: float, size: tuple[int, int], pixels: str):
    rate = Fraction(fps).limit_denominator(1001)
    stream = container.add_stream(codec, rate=rate)
    stream.height, stream.width = size
    stream.pix_fmt = pixels
    stream.time_base = stream.codec_context.time_base = Fraction(1, TICKS)
    return stream


class GrayWriter(_Writer):
    """A lossless gray video: FFV1 in Matroska, the same bytes for the same maps.

    Args:
        path: Ends in .mkv.
        fps: Frames per second where `write` gets no time.
        size: (H, W) of the video; a map of another size is resized.
        bits: 8 or 16; a map comes back within half a step.
    """

    def __init__(self, path, fps: float | None, size: tuple[int, int], bits: int = 16) -> None:
        super().__init__(path)
        if bits not in (8, 16):
            raise ValueError(f"bits must be 8 or 16, not {bits}")
        self.fps, self.size, self.bits = fps or FALLBACK_FPS, size, bits

    @contextmanager
    def _session(self) -> Iterator[None]:
        with _container(self.path, "matroska", {"fflags": "+bitexact"}) as self._output:
            self._format = "gray" if self.bits == 8 else "gray16le"
            self._stream = _add_pictures(self._output, "ffv1", self.fps, self.size, self._format)
            # Left alone, the number of slices would follow the number of cores.
            slices = "4" if min(self.size) >= 16 else "1"
            self._stream.options = {"level": "3", "slices": slices, "slicecrc": "1"}
            self._clock = _Clock(self.fps)
            yield
            self._output.mux(self._stream.encode(None))

    def write(self, map, frame, name: str, time: float | None = None) -> None:
        """Appends one map; `frame` and `name` are not used."""
        if map.shape != self.size:
            map = cv2.resize(map, self.size[::-1], interpolation=cv2.INTER_LINEAR)
        depth, top = (cv2.CV_8U, 255.0) if self.bits == 8 else (cv2.CV_16U, 65535.0)
        values = cv2.multiply(map, top, dtype=depth)
        picture = av.VideoFrame.from_ndarray(values, format=self._format)
        self._clock.stamp(picture, time)
        self._output.mux(self._stream.encode(picture))
        self.count += 1


class OverlayWriter(_Writer):
    """The map in color over its frame: H.264 in mp4 that browsers play, or one picture.

    Args:
        path: Ends in .mp4, or for a single image in .png, .jpg, .jpeg, .bmp or .webp.
        fps: Frames per second where `write` gets no time; also sets the last frame's length.
        size: (H, W) of the frames; an odd one is padded by a row or column of its own edge.
        colormap: Any of OpenCV's, in lower case.
        opacity: In [0, 1], see `overlay`.
        audio_from: A file whose sound goes along: AAC and MP3 as they are, others as AAC.

    Raises:
        SalemaError: Unknown suffix or color map, opacity out of range; on leaving, that
            the file cannot be written.
    """

    def __init__(
        self,
        path: str | Path,
        fps: float | None,
        size: tuple[int, int],
        colormap: str = "turbo",
        opacity: float = 0.6,
        audio_from: str | Path | None = None,
    ) -> None:
        super().__init__(path)
        self.picture = self.path.suffix.lower() in PICTURES
        if not self.picture and self.path.suffix.lower() != ".mp4":
            raise SalemaError(f"cannot tell what to make of {path} (name it .mp4, .png or .jpg)")
        if not 0 <= opacity <= 1:
            raise SalemaError(f"opacity must be from 0 to 1, and not {opacity}")
        self.fps, self.size, self.opacity = fps or FALLBACK_FPS, size, opacity
        self.lut, self.audio_from = color_table(colormap), audio_from

    @contextmanager
    def _session(self) -> Iterator[None]:
        if self.picture:
            with atomic(self.path) as self._part:
                yield
            return
        with _container(self.path, "mp4", {"movflags": "+faststart"}) as self._output:
            even = tuple(side + side % 2 for side in self.size)
            self._stream = _add_pictures(self._output, "libx264", self.fps, even, "yuv420p")
            seconds_between_keys = 2  # a player can jump to any of them
            self._stream.options = {
                "preset": "superfast",
                "crf": "20",
                "g": str(max(1, round(self.fps * seconds_between_keys))),
            }
            context = self._stream.codec_context
            context.colorspace, context.color_range = 6, 1  # BT.601, as OpenCV converts
            self._clock = _Clock(self.fps)
            with _Sound(self.audio_from, self._output) as self._sound:
                yield
                self._output.mux(self._stream.encode(None))
                self._sound.finish(self._clock.seconds(1))

    def write(self, map, frame: np.ndarray, name: str, time: float | None = None) -> None:
        """Appends one blended frame; `name` is not used."""
        if frame.shape[:2] != self.size:
            frame = cv2.resize(frame, self.size[::-1], interpolation=cv2.INTER_AREA)
        image = overlay(frame, map, self.lut, self.opacity)
        if self.picture:
            if self.count:
                raise SalemaError(f"{self.path} holds one picture only (name a video .mp4)")
            data = cv2.imencode(self.path.suffix.lower(), image[:, :, ::-1])[1]
            self._part.write_bytes(data)
        else:
            down, right = self.size[0] % 2, self.size[1] % 2
            if down or right:
                image = cv2.copyMakeBorder(image, 0, down, 0, right, cv2.BORDER_REPLICATE)
            planes = cv2.cvtColor(image, cv2.COLOR_RGB2YUV_I420)
            picture = av.VideoFrame.from_ndarray(planes, format="yuv420p")
            self._clock.stamp(picture, time)
            self._output.mux(self._stream.encode(picture))
            self._sound.until(self._clock.seconds())
        self.count += 1


class _Sound:
    """The audio of a source, put into an mp4 in step with the pictures; silent without one."""

    def __init__(self, source: str | Path | None, output) -> None:
        self._output, self._tracks, self._input = output, {}, None
        self._packets, self._ahead = iter(()), None
        if source is None:
            return
        with suppress(av.error.FFmpegError):
            self._input = av.open(f"file:{source}", options={"protocol_whitelist": "file"})
            self._start = (self._input.start_time or 0) / av.time_base
            for stream in self._input.streams.audio:
                self._add(stream)
            if self._tracks:
                self._packets = self._input.demux(*self._tracks)
                self._step()

    def _add(self, stream) -> None:
        """Plans one track: (output stream, whether its packets are copied)."""
        context = stream.codec_context
        if context is None or not context.sample_rate:
            return
        name, rate = context.codec.canonical_name, context.sample_rate
        if name == "aac" or (name == "mp3" and rate >= 16000):  # mp4 takes no slower MP3
            self._tracks[stream] = self._output.add_stream_from_template(stream), True
        else:
            layout = "mono" if context.channels == 1 else "stereo"
            rate = rate if rate in AAC_RATES else AAC_RATES[0]
            self._tracks[stream] = self._output.add_stream("aac", rate=rate, layout=layout), False

    def __enter__(self) -> "_Sound":
        return self

    def __exit__(self, *error) -> None:
        if self._input is not None:
            self._input.close()

    def _step(self) -> None:
        """Reads one packet ahead; sound that breaks off just ends."""
        self._ahead = None
        with suppress(av.error.FFmpegError):
            self._ahead = next(self._packets, None)

    def until(self, seconds: float) -> None:
        """Muxes what sounds before this time."""
        while (packet := self._ahead) is not None:
            if packet.dts is not None:
                if float(packet.dts * packet.time_base) - self._start >= seconds:
                    return
                self._put(packet)
            self._step()

    def _put(self, packet) -> None:
        stream, copied = self._tracks[packet.stream]
        if copied:
            shift = round(self._start / packet.time_base)
            packet.pts = (packet.dts if packet.pts is None else packet.pts) - shift
            packet.dts -= shift
            packet.stream = stream
            self._output.mux(packet)
            return
        frames = []
        with suppress(av.error.FFmpegError):  # a broken packet is a moment of silence
            frames = packet.decode()
        for frame in frames:
            frame.pts -= round(self._start / frame.time_base)
            self._output.mux(stream.encode(frame))

    def finish(self, seconds: float) -> None:
        """Muxes the sound up to the end of the pictures."""
        self.until(seconds)
        for stream, copied in self._tracks.values():
            if not copied:
                self._output.mux(stream.encode(None))
