"""Whole clips as arrays, for a notebook or a script: frames in, overlays out."""

import re
import warnings
from itertools import islice
from pathlib import Path

import numpy as np

from salema.files import SalemaError
from salema.media import read
from salema.media.overlay import blend, color_table
from salema.media.write import min_max


def frames(source: str | Path | int, start: int = 0, stop: int | None = None) -> np.ndarray:
    """Frames [start, stop) of a video, a folder, an image or a camera: uint8 (T, H, W, 3) RGB.

    They are all in memory: a minute of 1280x720 at 25 frames a second takes 4 GB. A damaged file
    gives what could be decoded, with a warning. SalemaError if the source cannot be read, has no
    frame in this range, or is a camera and `stop` is None.
    """
    camera = isinstance(source, int) or re.fullmatch(r"camera:\d+", str(source))
    if camera and stop is None:
        raise SalemaError(f"a camera never ends: {source} (give stop, a number of frames)")
    opened = read.open(source)
    found = [frame.image for frame in islice(opened, start, stop)]
    if opened.stopped:
        warnings.warn(f"{source}: {opened.stopped}", stacklevel=2)
    if not found:
        raise SalemaError(f"no frame of {source} from {start} on (give a smaller start)")
    return np.stack(found)


def overlay(
    frame: np.ndarray, map: np.ndarray, colormap: str = "turbo", opacity: float = 0.7
) -> np.ndarray:
    """Maps in color over their frames, as `salema predict --overlay` and `salema view` draw them.

    `frame` is uint8 (H, W, 3) RGB or (T, H, W, 3), like the result; `map` is (h, w) or (T, h, w) of
    any scale: each is stretched to its own range. For `colormap` and `opacity` see
    `media.overlay.blend`. SalemaError if shapes do not fit, or the color map is unknown.
    """
    frame, map, lut = np.asarray(frame), np.asarray(map), color_table(colormap)
    fits = frame.ndim == map.ndim + 1 and frame.shape[-1] == 3 and map.ndim in (2, 3)
    if not fits or frame.dtype != np.uint8 or (map.ndim == 3 and len(map) != len(frame)):
        given = f"{frame.dtype} {frame.shape} and {map.shape}"
        raise SalemaError(f"no overlay of {given} (give uint8 (T, H, W, 3) frames, (T, h, w) maps)")
    if map.ndim == 2:
        return blend(frame, min_max(map), lut, opacity)
    pairs = zip(frame, map, strict=True)
    return np.stack([blend(f, min_max(m), lut, opacity) for f, m in pairs])
