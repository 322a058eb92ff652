"""One look for all figures: readable, safe for the colour-blind, the same bytes on every run."""

import io
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from salema.files import atomic
from salema.params import Params

if TYPE_CHECKING:
    from IPython.display import DisplayObject
    from matplotlib.figure import Figure

# Okabe and Ito's palette: apart in every common kind of colour blindness, and in grey.
BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"
PURPLE, SKY = "#CC79A7", "#56B4E9"
INK, GREY, PALE = "#222222", "#7A7A7A", "#DDDDDD"
CYCLE = (BLUE, RED, GREEN, ORANGE, PURPLE, SKY)
DPI = 120  # of pictures; drawings are SVG
MAPS = "magma"  # dark to bright: even steps of lightness

STYLE = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same everywhere
    "font.size": 8.5,
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 8.5,
    "axes.labelcolor": INK,
    "axes.edgecolor": GREY,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": INK,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.5,
    "figure.dpi": 100,
    "svg.fonttype": "path",
    "svg.hashsalt": "salema",  # else ids are drawn at random
}


@contextmanager
def look():
    """Inside, matplotlib draws in our style; outside, nothing is changed."""
    import matplotlib

    with matplotlib.rc_context({**matplotlib.rcParamsDefault, "backend": "agg", **STYLE}):
        yield


def render(figure: "Figure", kind: str) -> bytes:
    """A figure as "svg" or "jpg"; no date, no version, no random id."""
    buffer = io.BytesIO()
    options = {"metadata": {"Date": None, "Creator": None}}
    if kind == "jpg":  # a quarter of a PNG's bytes, and these go into git
        options = {"dpi": DPI, "pil_kwargs": {"quality": 88, "subsampling": 0, "optimize": True}}
    with look():
        figure.savefig(buffer, format=kind, bbox_inches="tight", pad_inches=0.06,
                       facecolor="white", **options)  # fmt: skip
    return buffer.getvalue()


def keep(figure: "Figure", params: Params, name: str, local: bool = False) -> "DisplayObject":
    """Write a figure under its own label into `figures/<name>/`, and show it in a notebook.

    Pictures and maps become JPEG, drawings SVG.

    Args:
        figure: Its label is the name of the file.
        params: The study.
        name: Of the notebook: each has a folder of its own.
        local: Into the report that git ignores, see `folder`.

    Returns:
        What a notebook displays.

    Raises:
        SalemaError: The file cannot be written.
    """
    from IPython.display import SVG, Image

    kind = "jpg" if any(axes.images for axes in figure.axes) else "svg"
    data = render(figure, kind)
    path = folder(params, local) / "figures" / name / f"{figure.get_label()}.{kind}"
    with atomic(path) as part:
        part.write_bytes(data)
    return Image(data) if kind == "jpg" else SVG(data.decode("utf-8"))


def folder(params: Params, local: bool = False) -> Path:
    """Where a report goes: `reports/<profile>`, or `reports/local/<profile>`, not for git."""
    return Path("reports") / "local" / params.profile if local else params.report_folder
