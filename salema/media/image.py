"""The one reader of image files: in color, in gray, as a saliency map, or only the size."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import cv2
import numpy as np

from salema.files import SalemaError

# The suffixes that OpenCV reads as one picture; every other file goes to FFmpeg, GIF too.
IMAGES = frozenset({".jpg", ".jpeg", ".jpe", ".png", ".bmp", ".dib", ".tif", ".tiff", ".webp"})
IMAGES |= {".jp2", ".pgm", ".ppm", ".pbm", ".pnm"}


def natural(path: str | Path) -> tuple:
    """Sorting key of a file name that reads digits as numbers: "2.png" before "10.png"."""
    name = os.path.basename(path)
    key = [re.split(r"(\d+)", part) for part in os.path.splitext(name)]  # the stem, the suffix
    for pieces in key:
        pieces[1::2] = map(int, pieces[1::2])
    return (*key, name)  # the name decides between "1" and "01"


def fit(image: np.ndarray, size: tuple[int, int], by: int = cv2.INTER_AREA) -> np.ndarray:
    """An (H, W) or (H, W, C) image, resized if it is not of this size (h, w) already."""
    if image.shape[:2] == tuple(size):
        return image
    return cv2.resize(image, size[::-1], interpolation=by)


def read_image(path: str | Path) -> np.ndarray:
    """One picture as uint8 (H, W, 3) RGB: upright by its EXIF data, alpha over black."""
    data = _bytes(path)
    head = data[:32].tobytes()
    png = head.startswith(b"\x89PNG")
    if not (head.startswith(b"\xff\xd8") or (png and head[25:26] in (b"\x00", b"\x02"))):
        # IMREAD_UNCHANGED is the only way to the alpha, and it ignores the EXIF orientation.
        image = _decoded(path, data, cv2.IMREAD_UNCHANGED)
        if image.shape[2:] == (4,):
            return over_black(cv2.cvtColor(image, cv2.COLOR_BGRA2RGBA))
    return _decoded(path, data, cv2.IMREAD_COLOR_RGB)


def read_gray(path: str | Path) -> np.ndarray:
    """One picture as uint8 (H, W): colors by their luma, 16 bits reduced to 8."""
    return _decoded(path, _bytes(path), cv2.IMREAD_GRAYSCALE)


def read_map(path: str | Path) -> np.ndarray:
    """One saliency map (H, W) as stored: uint8, uint16, or float for the mean of the colors."""
    image = _decoded(path, _bytes(path), cv2.IMREAD_UNCHANGED)
    return image if image.ndim == 2 else image[..., :3].mean(2)


def image_size(path: str | Path) -> tuple[int, int]:
    """(H, W) of a picture, from its header where that is plain PNG or JPEG, else decoded."""
    head = _bytes(path, 64 * 1024).tobytes()
    if head.startswith(b"\x89PNG") and len(head) >= 24 and b"eXIf" not in head:
        return int.from_bytes(head[20:24]), int.from_bytes(head[16:20])
    at = 2 if head.startswith(b"\xff\xd8") else len(head)
    while at + 9 <= len(head) and head[at] == 0xFF and head[at + 1] != 0xE1:  # EXIF may turn it
        # Start of frame: all of C0-CF except for the tables C4, C8 and CC.
        if 0xC0 <= head[at + 1] <= 0xCF and head[at + 1] not in (0xC4, 0xC8, 0xCC):
            return int.from_bytes(head[at + 5 : at + 7]), int.from_bytes(head[at + 7 : at + 9])
        at += 2 + int.from_bytes(head[at + 2 : at + 4])
    return read_image(path).shape[:2]


def over_black(rgba: np.ndarray) -> np.ndarray:
    """(H, W, 4), uint8 or uint16, straight alpha -> uint8 (H, W, 3)."""
    top = np.iinfo(rgba.dtype).max
    color = rgba[..., :3] * (rgba[..., 3:] * np.float32(255 / top / top))
    return np.rint(color).astype(np.uint8)


@contextmanager
def quiet() -> Iterator[None]:
    """OpenCV prints nothing inside: the caller reports what went wrong, in one line."""
    level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        cv2.utils.logging.setLogLevel(level)


def _bytes(path: str | Path, count: int = -1) -> np.ndarray:
    try:
        return np.fromfile(path, np.uint8, count)  # unlike imread, takes any file name everywhere
    except OSError as error:
        raise SalemaError(f"cannot read {path}: {error.strerror} (check the path)") from error


def _decoded(path: str | Path, data: np.ndarray, flags: int) -> np.ndarray:
    image = None
    # libpng would print a complaint about a file without its end.
    cut = data[:4].tobytes() == b"\x89PNG" and b"IEND" not in data[-4096:].tobytes()
    if data.size and not cut:
        with quiet(), suppress(cv2.error):
            image = cv2.imdecode(data, flags)
    if image is None:
        raise SalemaError(f"unreadable image: {path} (not a picture, or broken)")
    return image
