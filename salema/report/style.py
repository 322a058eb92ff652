"""One look for all figures: readable, safe for the colour-blind, the same bytes on every run."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import matplotlib
from IPython.display import SVG, Image
from matplotlib.figure import Figure

from salema.files import atomic

ASSETS = Path(__file__).parent / "assets"
# Okabe and Ito's palette: its colours differ in every common kind of colour blindness.
BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"
PURPLE, SKY = "#CC79A7", "#56B4E9"
INK, GREY, PALE = "#222222", "#7A7A7A", "#DDDDDD"
CYCLE = (BLUE, RED, GREEN, ORANGE, PURPLE, SKY)
MAPS = "magma"  # from dark to bright in even steps of lightness
HEAD = {"fontsize": 8.5, "x": 0.01, "ha": "left"}  # the line above a figure


@contextmanager
def look() -> Iterator[None]:
    """Draw in the style of the report; also a decorator of functions that draw."""
    with matplotlib.rc_context(matplotlib.rc_params_from_file(ASSETS / "report.mplstyle")):
        yield


def blank(label: str, width: float, height: float, layout: str = "constrained") -> Figure:
    """An empty figure of this size in inches; its label becomes the name of its file."""
    figure = Figure(figsize=(width, height), layout=layout)
    figure.set_label(label)
    return figure


@look()
def render(figure: Figure, kind: str) -> bytes:
    """A figure as "svg" or "jpg" (smaller than PNG), without a date, a version or a random id."""
    options = {"metadata": {"Date": None, "Creator": None}}
    if kind == "jpg":
        options = {"dpi": 120, "pil_kwargs": {"quality": 88, "subsampling": 0, "optimize": True}}
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, **options)
    return buffer.getvalue()


def keep(figure: Figure, folder: Path) -> Image | SVG:
    """Write a figure under its label, JPEG or SVG; returns what a notebook displays."""
    label = figure.get_label()
    kind = "jpg" if any(axes.images for axes in figure.axes) else "svg"
    data = render(figure, kind)
    with atomic(folder / f"{label}.{kind}") as part:
        part.write_bytes(data)
    return (Image if kind == "jpg" else SVG)(data, metadata={"alt": label})
