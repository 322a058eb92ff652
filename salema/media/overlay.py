"""The map in color over its frame: an mp4 that browsers play, with the sound of the source."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import av
import cv2
import numpy as np

from salema.files import SalemaError, atomic
from salema.media.image import fit
from salema.media.read import FALLBACK_FPS, OPTIONS
from salema.media.write import Video, Write, container, picture, to_byte
from salema.params import choose

PICTURES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp"})
AAC_RATES = (48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000)  # Hz
SECONDS_BETWEEN_KEYS = 2  # a player can jump to any key frame
LARGEST = 16384  # pixels of a side, in H.264
ROWS = 1080  # of a frame that are blended at once


def color_table(name: str) -> np.ndarray:
    """OpenCV's color map of that name in lower case ("turbo") as uint8 (256, 3) RGB."""
    known = [key[9:].lower() for key in dir(cv2) if key.startswith("COLORMAP_")]
    kind = getattr(cv2, f"COLORMAP_{choose(name.lower(), known, 'color map').upper()}")
    colors = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[:, None], kind)
    return np.ascontiguousarray(colors[:, 0, ::-1])


def blend(frame: np.ndarray, map: np.ndarray, lut: np.ndarray, opacity: float) -> np.ndarray:
    """Blends a map's colors over a frame: (1 - opacity * map) * frame + opacity * map * lut[map].

    It is computed in bytes, by tables, and exact within 2 of 255. The frame is uint8 (H, W, 3) RGB;
    the map, (h, w) float in [0, 1], is resized to it; `lut` is uint8 (256, 3), see `color_table`.
    """
    level = fit(to_byte(map), frame.shape[:2], cv2.INTER_LINEAR)
    weight = opacity * np.arange(256) / 255
    tint = np.rint(lut * weight[:, None]).astype(np.uint8).reshape(256, 1, 3)
    keep = np.rint(255 * (1 - weight)).astype(np.uint8)
    blended = np.empty(frame.shape, np.uint8)
    for top in range(0, len(frame), ROWS):  # for a large frame, the rest would need much memory
        rows = slice(top, top + ROWS)
        shares = cv2.merge([cv2.LUT(level[rows], keep)] * 3)
        background = cv2.multiply(frame[rows], shares, scale=1 / 255)
        blended[rows] = cv2.add(background, cv2.applyColorMap(level[rows], tint))
    return blended


@contextmanager
def overlay(
    path: Path,
    size: tuple[int, int],
    fps: float | None,
    colormap: str = "turbo",
    opacity: float = 0.6,
    audio_from: str | Path | None = None,
) -> Iterator[Write]:
    """The writer of overlays: H.264 in .mp4 that browsers play, or one picture (.png, .jpg, ...).

    Frames are brought to `size` (H, W); an odd one is padded by a row or column of its own edge.
    `fps` counts where the frames have no time, and sets the length of the last one. For `colormap`
    and `opacity` see `color_table` and `blend`. The sound of `audio_from` is added: AAC and MP3
    as they are, others as AAC.
    """
    suffix, lut = path.suffix.lower(), color_table(colormap)
    if suffix != ".mp4" and suffix not in PICTURES:
        raise SalemaError(f"unknown kind of overlay: {path} (name it .mp4, .png or .jpg)")
    if suffix == ".mp4" and max(size) > LARGEST:
        raise SalemaError(f"a side above {LARGEST} pixels, for {path} (leave --overlay out)")
    if not 0 <= opacity <= 1:
        raise SalemaError(f"opacity must be from 0 to 1, and not {opacity}")
    with _picture(path) if suffix in PICTURES else _film(path, size, fps, audio_from) as put:
        yield lambda map, frame: put(blend(fit(frame.image, size), map, lut, opacity), frame.time)


@contextmanager
def _picture(path: Path) -> Iterator:
    def put(image: np.ndarray, time: float | None) -> None:
        if part.exists():
            raise SalemaError(f"{path} holds one picture only (name a video .mp4)")
        part.write_bytes(picture(image, path.suffix.lower()))

    with atomic(path) as part:
        yield put


@contextmanager
def _film(path: Path, size, fps: float | None, audio_from: str | Path | None) -> Iterator:
    down, right = (side % 2 for side in size)
    keys = max(1, round((fps or FALLBACK_FPS) * SECONDS_BETWEEN_KEYS))
    options = {"preset": "superfast", "crf": "20", "g": str(keys)}
    if size[0] * size[1] > 2**24:  # 5k: each frame that the encoder holds takes 25 MB or more
        options |= {"threads": "1", "bf": "0"}
    with container(path, "mp4", {"movflags": "+faststart"}) as output:
        even = (size[0] + down, size[1] + right)
        video = Video(output, "libx264", fps, even, "yuv420p", options)
        context = video.stream.codec_context
        context.colorspace, context.color_range = 6, 1  # BT.601, as OpenCV converts
        with _sound(audio_from, output) as sound_until:

            def put(image: np.ndarray, time: float | None) -> None:
                if down or right:
                    image = cv2.copyMakeBorder(image, 0, down, 0, right, cv2.BORDER_REPLICATE)
                video.add(cv2.cvtColor(image, cv2.COLOR_RGB2YUV_I420), time)
                sound_until(video.seconds())

            yield put
            video.finish()
            sound_until(video.seconds(1))


@contextmanager
def _sound(path: str | Path | None, output) -> Iterator[Callable[[float], None]]:
    """Gives a function that adds the audio of a file up to a time; silent without audio."""
    tracks, packets, start = {}, iter(()), 0.0
    with ExitStack() as stack:
        if path is not None:
            with suppress(av.error.FFmpegError):
                source = av.open(f"file:{path}", options=OPTIONS, metadata_errors="replace")
                stack.enter_context(source)
                start = (source.start_time or 0) / av.time_base
                for stream in source.streams.audio:
                    if stream.codec_context is not None and stream.codec_context.sample_rate:
                        tracks[stream] = _add_track(stream, output)
                packets = _packets(source, tracks)
        ahead = next(packets, None)

        def until(seconds: float) -> None:
            nonlocal ahead
            while ahead is not None and float(ahead.dts * ahead.time_base) - start < seconds:
                with suppress(ValueError):  # times that go back: a moment of silence
                    _mux(ahead, start, output, *tracks[ahead.stream])
                ahead = next(packets, None)

        yield until
        for stream, steady in tracks.values():
            if steady:
                with suppress(ValueError):
                    output.mux(stream.encode(None))


def _add_track(stream, output) -> tuple:
    """A stream of the output for one of the source, and `_steady`; None: packets are copied."""
    name, rate = stream.codec_context.codec.canonical_name, stream.codec_context.sample_rate
    if name == "aac" or (name == "mp3" and rate >= 16000):  # mp4 takes no slower MP3
        return output.add_stream_from_template(stream), None
    layout = "mono" if stream.codec_context.channels == 1 else "stereo"
    rate = rate if rate in AAC_RATES else AAC_RATES[0]
    return output.add_stream("aac", rate=rate, layout=layout), _steady()


def _steady() -> Callable:
    """Gives a function that brings sound frames to the format of the first one, as a list."""
    resamplers: dict[tuple, av.AudioResampler | None] = {}  # the first format needs none

    def bring(frame) -> list:
        kind = (frame.format.name, frame.layout.name, frame.sample_rate)
        if kind not in resamplers:
            first = next(iter(resamplers), None)
            resamplers[kind] = av.AudioResampler(*first) if first else None
        if (resampler := resamplers[kind]) is None:
            return [frame]
        parts = resampler.resample(frame)
        for part in parts:
            part.pts = round(part.pts * part.time_base / frame.time_base)
            part.time_base = frame.time_base
        return parts

    return bring


def _packets(source, tracks) -> Iterator:
    """The packets of the tracks in order; sound that breaks off just ends."""
    if tracks:
        with suppress(av.error.FFmpegError):
            yield from (packet for packet in source.demux(*tracks) if packet.dts is not None)


def _mux(packet, start: float, output, stream, steady: Callable | None) -> None:
    if steady is None:
        shift = round(start / packet.time_base)
        packet.pts = (packet.dts if packet.pts is None else packet.pts) - shift
        packet.dts -= shift
        packet.stream = stream
        output.mux(packet)
        return
    frames = []
    with suppress(av.error.FFmpegError):  # a broken packet is a moment of silence
        frames = packet.decode()
    for frame in frames:
        frame.pts -= round(start / frame.time_base)
        for part in steady(frame):
            output.mux(stream.encode(part))
