"""One self-contained HTML page for a video: player, curves over time, contact sheet.

The page asks nothing of the network, and says so to the browser. Its film holds three
panes, one below the other (source, map, overlay), so that they cannot run apart; the page
draws two of them at a time, left and right of a line that can be moved.
"""

import base64
import html
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
from tqdm import tqdm

import salema
from salema.files import SalemaError, atomic
from salema.media import read as video
from salema.media import write as writers
from salema.model.network import SaliencyModel
from salema.predict.predictor import maps_of

LONGEST = 640  # pixels of a pane's longer side
THUMBNAILS, THUMBNAIL_WIDTH = 12, 240
POINTS = 1500  # of a curve, at most


def entropy(saliency: np.ndarray) -> float:
    """Shannon entropy in bits of an (H, W) map that is scaled to sum to 1.

    Lower means more insistent. From 0 (one pixel) to log2(H * W) (an even spread, which a
    blank map counts as too).
    """
    total = float(saliency.sum(dtype=np.float64))
    if total <= 0:
        return float(np.log2(saliency.size))
    values = saliency[saliency > 0].astype(np.float64)
    return max(0.0, float(np.log2(total) - (values * np.log2(values)).sum() / total))


def centre(saliency: np.ndarray) -> tuple[float, float]:
    """Centre of gravity (x, y) of an (H, W) map, as shares of width and height in [0, 1].

    (0.5, 0.5) is the middle, where a blank map has it too.
    """
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
        """Keep every `step`-th image; when there are too many, every second of them."""
        if self.count % self.step == 0:
            if len(self.kept) == 8 * THUMBNAILS:
                self.kept, self.step = self.kept[::2], 2 * self.step
            if self.count % self.step == 0:
                self.kept.append((moment, _jpeg(image)))
        self.count += 1

    def chosen(self) -> list[tuple[float, bytes]]:
        places = np.linspace(0, len(self.kept) - 1, min(THUMBNAILS, len(self.kept)))
        return [self.kept[round(place)] for place in places]


def _jpeg(image: np.ndarray) -> bytes:
    height, width = image.shape[:2]
    small = (min(width, THUMBNAIL_WIDTH), max(1, height * min(width, THUMBNAIL_WIDTH) // width))
    image = cv2.resize(image, small, interpolation=cv2.INTER_AREA)
    options = [cv2.IMWRITE_JPEG_QUALITY, 75]
    return cv2.imencode(".jpg", image[:, :, ::-1], options)[1].tobytes()


def page(
    model: SaliencyModel,
    source: str | Path,
    out: str | Path,
    overwrite: bool = False,
    colormap: str = "turbo",
    opacity: float = 0.7,
    shot_reset: bool = False,
) -> str | None:
    """Write the page of a video, a folder of frames or an image, in constant memory.

    Args:
        model: Makes the maps.
        source: As of `video.open`, but not a camera, which has no end.
        out: The page, `.html`.
        overwrite: Whether a page that exists is made anew.
        colormap: Any of OpenCV's, in lower case.
        opacity: Of the overlay where saliency is highest, in [0, 1].
        shot_reset: Whether the memory starts anew at a cut.

    Returns:
        None, or why the source ended early; the page holds what there was, and says so.

    Raises:
        SalemaError: The source cannot be read, or the page exists or cannot be written.
    """
    out = Path(out)
    if out.exists() and not overwrite:
        raise SalemaError(f"{out} exists (choose another name, or pass --overwrite)")
    if isinstance(source, int) or re.fullmatch(r"camera:\d+", str(source)):
        raise SalemaError(f"no page of a camera: {source} (record it first, then view the file)")
    frames = video.open(source)
    with atomic(out) as part, TemporaryDirectory(prefix=f".{out.name}.", dir=part.parent) as folder:
        film = Path(folder) / "film.mp4"
        panes = _Panes(frames, writers.color_table(colormap), opacity)
        shown = panes.encode(film, model, shot_reset)
        if len(panes.times) == 1:
            film = film.with_suffix(".png")
            film.write_bytes(cv2.imencode(".png", shown[:, :, ::-1])[1].tobytes())
        _write(part, film, _texts(panes, model))
    return frames.stopped


class _Panes:
    """The film, and what is told about it over time."""

    def __init__(self, frames: video.Frames, lut: np.ndarray, opacity: float) -> None:
        self.frames, self.lut, self.opacity = frames, lut, opacity
        ratio = min(1, LONGEST / max(frames.size))
        self.size = tuple(max(2, 2 * round(side * ratio / 2)) for side in frames.size)
        self.fps = frames.fps or video.FALLBACK_FPS
        self.times: list[float] = []
        self.values: list[tuple[float, float, float]] = []  # entropy in bits; x, y in percent
        self.sheet = _Sheet()

    def encode(self, path: Path, model: SaliencyModel, shot_reset: bool) -> np.ndarray:
        """Write the film; returns its first picture, uint8 (3 * H, W, 3) RGB."""
        height, width = self.size
        first, nothing = None, np.zeros((3 * height, width), np.float32)
        # At opacity 0 the writer of overlays writes a frame as it is.
        film = writers.OverlayWriter(path, self.fps, (3 * height, width), opacity=0)
        bar = tqdm(total=self.frames.hint, desc=self.frames.name, unit="frame", disable=None)
        with bar, film:
            for frame, saliency in maps_of(model, self.frames, shot_reset):
                count = len(self.times)
                told = self.frames.times
                moment = told[count] if count < len(told) else count / self.fps
                picture = self._picture(frame, writers.min_max(saliency), moment)
                film.write(nothing, picture, "", moment)
                first = picture if first is None else first
                bar.update()
            if first is None:
                raise SalemaError(f"no frame could be decoded: {self.frames.name} (is it a video?)")
        return first

    def _picture(self, frame: np.ndarray, saliency: np.ndarray, moment: float) -> np.ndarray:
        self.times.append(moment)
        x, y = centre(saliency)
        self.values.append((entropy(saliency), 100 * x, 100 * y))
        frame = cv2.resize(frame, self.size[::-1], interpolation=cv2.INTER_AREA)
        saliency = cv2.resize(saliency, self.size[::-1])
        blended = writers.overlay(frame, saliency, self.lut, self.opacity)
        self.sheet.add(blended, moment)
        return np.concatenate([frame, self.lut[writers.to_byte(saliency)], blended])

    def curves(self) -> tuple[np.ndarray, np.ndarray]:
        """At most `POINTS` moments (N,) in seconds, and the mean values from each on (N, 3)."""
        step = -(-len(self.times) // POINTS)
        starts = np.arange(0, len(self.times), step)
        sums = np.add.reduceat(np.array(self.values), starts)
        counts = np.diff([*starts, len(self.times)])
        return np.array(self.times)[starts], sums / counts[:, None]


def _texts(panes: _Panes, model: SaliencyModel) -> dict[str, str]:
    """What goes between the template's braces, but for the film."""
    frames, (times, values) = panes.frames, panes.curves()
    still = len(panes.times) == 1
    seconds = panes.times[-1] + 1 / panes.fps
    bits, x, y = values.T
    low, high = float(bits.min()), float(bits.max())
    pad = max(0.05, 0.1 * (high - low))
    height, width = frames.size
    facts = [f"{width} x {height} pixels"]
    if not still:
        facts += [f"{len(panes.times)} frames", f"{panes.fps:.4g} a second", _clock(seconds)]
    card = getattr(model, "card", None)
    place = model.placement
    memory = {"none": "no memory", "ema": "EMA", "convlstm": "ConvLSTM"}[place.recurrence]
    after = f" after layer {' and '.join(map(str, place.after))}" if place.after else ""
    data = {"still": still, "seconds": round(seconds, 4), "step": round(1 / panes.fps, 5),
            "times": times.round(4).tolist(), "entropy": bits.round(3).tolist(),
            "x": x.round(1).tolist(), "y": y.round(1).tolist()}  # fmt: skip
    texts = {
        "title": frames.name,
        "facts": ", ".join(facts),
        "kind": "still" if still else "film",
        "height": panes.size[0], "width": panes.size[1],
        "seconds": f"{seconds:.3f}", "step": f"{1 / panes.fps:.5f}",
        "entropy": f"{bits[0]:.2f}", "x": f"{x[0]:.0f}", "y": f"{y[0]:.0f}",
        "entropy_low": f"{low - pad:.2f}", "entropy_high": f"{high + pad:.2f} bits",
        "entropy_line": _line(times / seconds, (bits - low + pad) / (high - low + 2 * pad)),
        "x_line": _line(times / seconds, 1 - x / 100),
        "y_line": _line(times / seconds, 1 - y / 100),
        "entropy_told": f"Entropy over time, from {low:.2f} to {high:.2f} bits",
        "centre_told": f"Centre of gravity over time: x from {x.min():.0f} to {x.max():.0f} "
        f"percent of the width, y from {y.min():.0f} to {y.max():.0f} percent of the height",
        "most": f"{np.log2(np.prod(model.config.size)):.1f}",
        "footer": f"Made by salema {salema.__version__}: {memory}{after}, weights "
        f"{getattr(card, 'run', 'unnamed')}, {model.precision}. "
        "Each map is stretched to its own range.",
    }  # fmt: skip
    texts = {key: html.escape(str(text)) for key, text in texts.items()}
    note = f'<p class="note">Ended early: {html.escape(frames.stopped or "")}.</p>'
    texts["note"] = note if frames.stopped else ""
    texts["sheet"] = "".join(_thumbnail(*pair) for pair in panes.sheet.chosen())
    texts["data"] = json.dumps(data).replace("<", "\\u003c")
    return texts


def _clock(seconds: float) -> str:
    tenths = round(10 * seconds)
    return f"{tenths // 600}:{tenths % 600 / 10:04.1f}"


def _line(x: np.ndarray, y: np.ndarray) -> str:
    """Points of a polyline, from shares of its width and (upwards) height."""
    return " ".join(f"{1000 * a:.1f},{100 - 100 * b:.1f}" for a, b in zip(x, y, strict=True))


def _thumbnail(moment: float, data: bytes) -> str:
    image = f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"
    told = _clock(moment)
    picture = f'<img src="{image}" alt="Overlay at {told}"><time>{told}</time>'
    return f'<li><button type="button" value="{moment:.4f}">{picture}</button></li>'


def _write(path: Path, film: Path, texts: dict[str, str]) -> None:
    """Fill the template; the film goes through in pieces of a multiple of three bytes."""
    template = (Path(__file__).parent / "view.html").read_text(encoding="utf-8")
    head, tail = (
        re.sub(r"\{\{(\w+)\}\}", lambda match: texts[match[1]], half).encode()
        for half in template.split("{{film}}")
    )
    with path.open("wb") as target, film.open("rb") as picture:
        target.write(head)
        while piece := picture.read(3 * 2**18):
            target.write(base64.b64encode(piece))
        target.write(tail)
