"""The one reader of image files: in color, in gray, as a saliency map, or only the size."""

import os
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from threading import Lock
from typing import BinaryIO

import cv2
import numpy as np

from salema.files import MOST_PIXELS, SalemaError

# The suffixes that OpenCV reads as one picture; every other file goes to FFmpeg, GIF too.
IMAGES = frozenset({".jpg", ".jpeg", ".jpe", ".png", ".bmp", ".dib", ".tif", ".tiff", ".webp"})
IMAGES |= {".jp2", ".pgm", ".ppm", ".pbm", ".pnm"}
LIBRARIES = (b"Corrupt JPEG", b"Premature end of JPEG", b"Invalid ", b"Unsupported ", b"libpng ")
LIBRARIES += (b"Inconsistent ", b"Unknown Adobe", b"Warning: unknown JFIF")
ONE_AT_A_TIME = Lock()
MOST_BYTES = 2**29  # of a file; a larger one is not read
PNG, TIFF = b"\x89PNG\r\n\x1a\n", (b"II*\0", b"MM\0*")
# What OpenCV uses of a PNG file; libpng prints complaints about some of the others.
CHUNKS = {b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"eXIf", b"acTL", b"fcTL", b"fdAT"}


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
    """One picture as uint8 (H, W, 3) RGB: upright by its EXIF data, alpha over black.

    For numbers of 32 bits and floats see `_eight_bits`.
    """
    data = _bytes(path)
    head = data[:32].tobytes()
    png = head.startswith(PNG)
    if not (head.startswith(b"\xff\xd8") or (png and head[25:26] in (b"\x00", b"\x02"))):
        # IMREAD_UNCHANGED is the only way to the alpha, and it ignores the EXIF orientation.
        image = _decoded(path, data, cv2.IMREAD_UNCHANGED)
        if image.shape[2:] == (4,) and image.dtype in (np.uint8, np.uint16):
            stored = _tag(data.tobytes(), 338) if head.startswith(TIFF) else None
            if stored == 1 or (stored == 2 and image.dtype == np.uint8):
                image[..., 3] = np.iinfo(image.dtype).max  # multiplied by the file, by libtiff
            image = over_black(cv2.cvtColor(image, cv2.COLOR_BGRA2RGBA))
            return _upright(image, _orientation(data.tobytes())) if png else image
        del image
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
    top, result = np.iinfo(rgba.dtype).max, np.empty((*rgba.shape[:2], 3), np.uint8)
    for row in range(0, len(rgba), 256):  # floats of a whole large picture would fill memory
        part = rgba[row : row + 256]
        color = part[..., :3] * (part[..., 3:] * np.float32(255 / top / top))
        result[row : row + 256] = np.rint(color)
    return result


def _eight_bits(image: np.ndarray, path: str | Path) -> np.ndarray:
    """A picture of other numbers as uint8: floats in [0, 1] times 255, values in [0, 255] kept.

    All others are stretched from their minimum and maximum to [0, 255].
    """
    low, high = float(image.min()), float(image.max())
    if not np.isfinite(high - low):
        raise SalemaError(f"unreadable image: {path} (its values are not finite)")
    if low >= 0 and high <= 255:
        low, high = 0, 1 if image.dtype.kind == "f" and high <= 1 else 255
    return np.rint((image - low) * (255 / (high - low or 1))).astype(np.uint8)


def _png(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Kind, begin and end of each chunk of a PNG file; stops where its check sum is wrong."""
    at = len(PNG)
    while at + 12 <= len(data) and data[at - 8 : at - 4] != b"IEND":
        end = at + 12 + int.from_bytes(data[at : at + 4])
        if zlib.crc32(data[at + 4 : end - 4]) == int.from_bytes(data[end - 4 : end]):
            yield data[at + 4 : at + 8], at, end
        elif data[at + 4] & 32 == 0:  # a capital letter: nothing can be decoded without it
            return
        at = end


def _orientation(png: bytes) -> int:
    """The EXIF orientation of a PNG file, 1 (upright) to 8."""
    blocks = (png[at + 8 : end - 4] for kind, at, end in _png(png) if kind == b"eXIf")
    return next((_tag(block, 0x112) for block in blocks), None) or 1


def _tag(tiff: bytes, tag: int) -> int | None:
    """The short number of a tag in the first directory of a TIFF file, or of EXIF data."""
    order = "little" if tiff[:2] == b"II" else "big"
    first = int.from_bytes(tiff[4:8], order) + 2
    count = int.from_bytes(tiff[first - 2 : first], order)
    for at in range(first, min(first + 12 * count, len(tiff) - 11), 12):
        if int.from_bytes(tiff[at : at + 2], order) == tag:
            return int.from_bytes(tiff[at + 8 : at + 10], order)
    return None


def _upright(image: np.ndarray, orientation: int) -> np.ndarray:
    image = image.swapaxes(0, 1) if orientation in (5, 6, 7, 8) else image
    rows, columns = orientation in (3, 4, 7, 8), orientation in (2, 3, 6, 7)
    return np.ascontiguousarray(image[:: -1 if rows else 1, :: -1 if columns else 1])


@contextmanager
def quiet() -> Iterator[list[bytes]]:
    """OpenCV and its libraries print nothing inside: the caller reports what went wrong.

    Gives a list that holds the lines of libjpeg and libpng afterwards. They are caught at the
    standard error of the process; what others print meanwhile is printed at the end.
    """
    level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    caught: list[bytes] = []
    try:
        with ONE_AT_A_TIME, _memory_file() as file:
            try:
                screen = os.dup(2)
            except OSError:  # the process has no standard error
                yield caught
                return
            os.dup2(file.fileno(), 2)
            try:
                yield caught
            finally:
                os.dup2(screen, 2)
                os.close(screen)
                file.seek(0)
                for line in file:
                    caught.append(line) if line.startswith(LIBRARIES) else os.write(2, line)
    finally:
        cv2.utils.logging.setLogLevel(level)


def _memory_file() -> BinaryIO:
    """A file that needs no folder where the system has such; else a temporary one."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("stderr"), "w+b")
    return TemporaryFile()


def _bytes(path: str | Path, count: int = -1) -> np.ndarray:
    try:
        if count < 0 and os.path.getsize(path) > MOST_BYTES:
            raise SalemaError(f"{path} has more than {MOST_BYTES} bytes (is it a picture?)")
        return np.fromfile(path, np.uint8, count)  # unlike imread, takes any file name everywhere
    except OSError as error:
        raise SalemaError(f"cannot read {path}: {error.strerror} (check the path)") from error


def _decoded(path: str | Path, data: np.ndarray, flags: int) -> np.ndarray:
    image, raw, usual = None, data.tobytes(), cv2.IMREAD_UNCHANGED
    try:
        with quiet() as caught:
            if (file := _whole(raw)) is not None:
                image = cv2.imdecode(np.frombuffer(file, np.uint8), flags)
    except cv2.error as error:
        if "MAX_IMAGE_PIXELS" in str(error):
            what = f"{path} has more than {MOST_PIXELS} pixels (make it smaller)"
            raise SalemaError(what) from error
    # Some cameras write a few bytes too many before the end (D9); all else is damage.
    if any(line.startswith(b"Corrupt JPEG") and b"marker 0xd9" not in line for line in caught):
        image = None
    if image is None and raw.startswith(TIFF) and flags != usual:  # floats, or 32 bits
        image = _eight_bits(_decoded(path, data, usual), path)
        image = image if image.ndim == 2 else image[..., 2::-1]
        of_gray, gray = image.ndim == 2, flags == cv2.IMREAD_GRAYSCALE
        if of_gray != gray:
            image = cv2.cvtColor(image, cv2.COLOR_GRAY2RGB if of_gray else cv2.COLOR_RGB2GRAY)
    if image is None:
        raise SalemaError(f"unreadable image: {path} (not a picture, or broken)")
    return image


def _whole(data: bytes) -> bytes | None:
    """The file as OpenCV gets it; None if it is empty, or a PNG file that is not whole."""
    if not data.startswith(PNG):
        return data or None
    chunks = list(_png(data))
    if not chunks or chunks[-1][0] != b"IEND":
        return None
    return PNG + b"".join(data[at:end] for kind, at, end in chunks if kind in CHUNKS)
