"""One self-contained HTML page for a video: player, curves over time, contact sheet.

The page needs no network, and forbids the browser to use it. Its film holds three panes (source,
map, overlay) in each picture; the page draws two, left and right of a line that can be moved.
"""

import base64
import html
import json
import re
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

import salema
from salema.files import SalemaError, atomic, scratch
from salema.media import read, write
from salema.media.image import fit
from salema.media.overlay import blend, color_table, overlay
from salema.media.read import Frame, Source
from salema.predict.predictor import Predictor
from salema.predict.sources import Output, bounded

LONGEST = 640  # pixels of a pane's longer side
THUMBNAILS, THUMBNAIL_WIDTH = 12, 240
POINTS = 1500  # of a curve, at most
DEMO = Path(__file__).parent / "bigbuckbunny.mp4"  # 5 s, 320x180, 25 frames a second
DEMO_CREDIT = "© Blender Foundation, www.bigbuckbunny.org, CC BY 3.0"


def entropy(saliency: np.ndarray) -> float:
    """Entropy in bits of an (H, W) map: 0 (one pixel) to log2(H * W) (an even spread, or blank)."""
    total = float(saliency.sum(dtype=np.float64))
    if total <= 0:
        return float(np.log2(saliency.size))
    values = saliency[saliency > 0].astype(np.float64)
    return max(0.0, float(np.log2(total) - (values * np.log2(values)).sum() / total))


def centre(saliency: np.ndarray) -> tuple[float, float]:
    """Centre of gravity (x, y) of a map, in shares of width and height; the middle if blank."""
    total = float(saliency.sum(dtype=np.float64))
    if total <= 0:
        return 0.5, 0.5
    height, width = saliency.shape
    x = saliency.sum(0, dtype=np.float64) @ (np.arange(width) + 0.5) / (width * total)
    y = saliency.sum(1, dtype=np.float64) @ (np.arange(height) + 0.5) / (height * total)
    return float(x), float(y)


@dataclass
class _Sheet:
    """Evenly spaced thumbnails of a video whose length is not known before its end."""

    step: int = 1
    count: int = 0
    kept: list[tuple[float, bytes]] = field(default_factory=list)

    def add(self, image: np.ndarray, moment: float) -> None:
        """Keep every `step`-th image; when there are too many, drop every second of them."""
        if self.count % self.step == 0:
            if len(self.kept) == 8 * THUMBNAILS:
                self.kept, self.step = self.kept[::2], 2 * self.step
            if self.count % self.step == 0:
                height, width = image.shape[:2]
                small = min(width, THUMBNAIL_WIDTH)
                image = fit(image, (max(1, height * small // width), small))
                jpeg = write.picture(image, ".jpg", cv2.IMWRITE_JPEG_QUALITY, 75)
                self.kept.append((moment, jpeg))
        self.count += 1

    def chosen(self) -> list[tuple[float, bytes]]:
        places = np.linspace(0, len(self.kept) - 1, min(THUMBNAILS, len(self.kept)))
        return [self.kept[round(place)] for place in places]


def page(predictor: Predictor, source: str, out: Path, output: Output) -> str | None:
    """Write the page of a video, a folder of frames or an image, in constant memory.

    Of `output`, only the colors, the opacity, `overwrite` and `shot_reset` count. Returns None,
    or why the source ended early; the page then shows what was decoded and says so.
    """
    if out.exists() and not output.overwrite:
        raise SalemaError(f"{out} exists (choose another name, or pass --overwrite)")
    if re.fullmatch(r"camera:\d+", source):
        raise SalemaError(f"no page of a camera: {source} (record it first, then view the file)")
    panes = _Panes(read.open(source), color_table(output.colormap), output.opacity)
    with atomic(out) as part, scratch(part.with_name("film.mp4")) as film:
        with bounded(predictor, panes.source.size):
            shown = panes.encode(film, predictor, output.shot_reset)
        if len(panes.times) == 1:
            film.write_bytes(write.picture(shown, ".png"))
        _write(part, film, _fields(panes, predictor, source == str(DEMO)))
    return panes.source.stopped


class _Panes:
    """The film, and what the page reports about it over time."""

    def __init__(self, source: Source, lut: np.ndarray, opacity: float) -> None:
        self.source, self.lut, self.opacity = source, lut, opacity
        ratio = min(1, LONGEST / max(source.size))
        self.size = tuple(max(2, 2 * round(side * ratio / 2)) for side in source.size)
        self.fps = source.fps or read.FALLBACK_FPS
        self.times: list[float] = []
        self.values: list[tuple[float, float, float]] = []  # entropy in bits; x, y in percent
        self.sheet = _Sheet()

    def encode(self, path: Path, predictor: Predictor, shot_reset: bool) -> np.ndarray:
        """Write the film; returns its first picture, uint8 (3 * H, W, 3) RGB."""
        first, size = None, (3 * self.size[0], self.size[1])
        nothing = np.zeros(size, np.float32)
        pairs = predictor.maps(self.source, shot_reset)
        hint, name = self.source.hint, self.source.name
        # At opacity 0 an overlay is the frame as it is.
        with overlay(path, size, self.fps, opacity=0) as film:
            for frame, saliency in tqdm(pairs, name, hint, unit="frame", disable=None):
                moment = len(self.times) / self.fps if frame.time is None else frame.time
                picture = self._picture(frame.image, write.min_max(saliency), moment)
                film(nothing, Frame(picture, "", moment))
                first = picture if first is None else first
            if first is None:
                raise SalemaError(f"no frame could be decoded: {name} (is it a video?)")
        return first

    def _picture(self, image: np.ndarray, saliency: np.ndarray, moment: float) -> np.ndarray:
        self.times.append(moment)
        x, y = centre(saliency)
        self.values.append((entropy(saliency), 100 * x, 100 * y))
        image, saliency = fit(image, self.size), fit(saliency, self.size, cv2.INTER_LINEAR)
        blended = blend(image, saliency, self.lut, self.opacity)
        self.sheet.add(blended, moment)
        return np.concatenate([image, self.lut[write.to_byte(saliency)], blended])

    def curves(self) -> tuple[np.ndarray, np.ndarray]:
        """At most `POINTS` moments (N,) in seconds, and the mean values from each on (N, 3)."""
        step = -(-len(self.times) // POINTS)
        starts = np.arange(0, len(self.times), step)
        sums = np.add.reduceat(np.array(self.values), starts)
        counts = np.diff([*starts, len(self.times)])
        return np.array(self.times)[starts], sums / counts[:, None]


def _fields(panes: _Panes, predictor: Predictor, demo: bool) -> dict[str, str | float]:
    """The values of the template's fields, as HTML or numbers, except for the film."""
    source, (times, values) = panes.source, panes.curves()
    still, step = len(panes.times) == 1, 1 / panes.fps
    seconds = panes.times[-1] + step
    bits, x, y = values.T
    low, high = float(bits.min()), float(bits.max())
    pad = max(0.05, 0.1 * (high - low))
    facts = f"{source.size[1]} x {source.size[0]} pixels"
    if not still:
        facts += f", {len(panes.times)} frames, {panes.fps:.4g} a second, {_clock(seconds)}"
    facts += f". {DEMO_CREDIT}" if demo else ""
    place = predictor.placement
    names = {"none": "no memory", "ema": "EMA", "convlstm": "ConvLSTM", "conv": "convolution"}
    memory = names[place.recurrence]
    after = f" after layer {' and '.join(map(str, place.after))}" if place.after else ""
    made = f"{salema.__version__}: {memory}{after}, weights {predictor.card.run}"
    data = {"still": still, "seconds": round(seconds, 4), "step": round(step, 5)}
    data |= {"times": times.round(4).tolist(), "entropy": bits.round(3).tolist()}
    data |= {"x": x.round(1).tolist(), "y": y.round(1).tolist()}
    fields = {"title": html.escape(source.name), "facts": facts, "made": html.escape(made)}
    fields |= {"kind": "still" if still else "film", "precision": predictor.precision}
    fields |= {"height": panes.size[0], "width": panes.size[1], "seconds": seconds, "step": step}
    fields |= {"entropy": bits[0], "low": low, "high": high, "floor": low - pad, "top": high + pad}
    fields |= {"x": x[0], "x_low": x.min(), "x_high": x.max()}
    fields |= {"y": y[0], "y_low": y.min(), "y_high": y.max()}
    fields["entropy_line"] = _line(times / seconds, (bits - low + pad) / (high - low + 2 * pad))
    fields["x_line"] = _line(times / seconds, 1 - x / 100)
    fields["y_line"] = _line(times / seconds, 1 - y / 100)
    fields["most"] = np.log2(np.prod(predictor.size))
    note = f'<p class="note">Ended early: {html.escape(source.stopped or "")}.</p>'
    fields["note"] = note if source.stopped else ""
    fields["sheet"] = "".join(_thumbnail(*pair) for pair in panes.sheet.chosen())
    fields["data"] = json.dumps(data).replace("<", "\\u003c")
    return fields


def _clock(seconds: float) -> str:
    tenths = round(10 * seconds)
    return f"{tenths // 600}:{tenths % 600 / 10:04.1f}"


def _line(x: np.ndarray, y: np.ndarray) -> str:
    """Points of a polyline, from shares of its width and (upwards) height."""
    return " ".join(f"{1000 * a:.1f},{100 - 100 * b:.1f}" for a, b in zip(x, y, strict=True))


def _thumbnail(moment: float, data: bytes) -> str:
    image, time = f"data:image/jpeg;base64,{base64.b64encode(data).decode()}", _clock(moment)
    picture = f'<img src="{image}" alt="Overlay at {time}"><time>{time}</time>'
    return f'<li><button type="button" value="{moment:.4f}">{picture}</button></li>'


def _write(path: Path, film: Path, fields: dict[str, str | float]) -> None:
    """Fill in the template; the film is encoded in pieces of a multiple of three bytes."""
    template = (Path(__file__).parent / "view.html").read_text(encoding="utf-8")
    head, tail = (
        re.sub(r"{{(\w+):?(.*?)}}", lambda field: format(fields[field[1]], field[2]), half).encode()
        for half in template.split("{{film}}")
    )
    with path.open("wb") as target, film.open("rb") as picture:
        target.write(head)
        while piece := picture.read(3 * 2**18):
            target.write(base64.b64encode(piece))
        target.write(tail)
