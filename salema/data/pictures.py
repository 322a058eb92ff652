"""One reader of maps and one natural sort, until `salema.media.image` has them."""

import re
from pathlib import Path

import numpy as np

from salema.files import SalemaError


def natural(name: str) -> tuple:
    """Sorting key that puts "2" before "10": digits count as numbers."""
    pieces = re.split(r"(\d+)", name)
    pieces[1::2] = map(int, pieces[1::2])
    return pieces, name


def read_gray(path: Path) -> np.ndarray:
    """One map as uint8 (H, W)."""
    import cv2

    try:
        data = np.fromfile(path, np.uint8)
    except OSError as error:
        raise SalemaError(f"cannot read {path}: {error.strerror} (copy it again)") from error
    image = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE) if data.size else None
    if image is None:
        raise SalemaError(f"unreadable map: {path} (not a picture, or broken)")
    return image


def image_size(path: Path) -> tuple[int, int]:
    """(H, W) of a picture, from its header where that is plain PNG or JPEG.

    A JPEG with EXIF may have to be turned, so it is decoded, like every other kind.
    """
    try:
        with path.open("rb") as file:
            head = file.read(64 * 1024)
    except OSError as error:
        raise SalemaError(f"cannot read {path}: {error.strerror} (copy it again)") from error
    if head.startswith(b"\x89PNG") and len(head) >= 24 and b"eXIf" not in head:
        return int.from_bytes(head[20:24]), int.from_bytes(head[16:20])
    at = 2 if head.startswith(b"\xff\xd8") else len(head)
    while at + 9 <= len(head) and head[at] == 0xFF and head[at + 1] != 0xE1:
        # Start of frame: all of C0-CF but the tables C4, C8 and CC.
        if 0xC0 <= head[at + 1] <= 0xCF and head[at + 1] not in (0xC4, 0xC8, 0xCC):
            return int.from_bytes(head[at + 5 : at + 7]), int.from_bytes(head[at + 7 : at + 9])
        at += 2 + int.from_bytes(head[at + 2 : at + 4])
    from salema.media import read

    return read.read_image(path).shape[:2]
