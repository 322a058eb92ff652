"""The maps of a clip: from anybody's folder, or of a baseline."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from salema.data import Clip
from salema.data.sets import PARTS
from salema.files import SalemaError
from salema.media import read
from salema.score import baselines


@dataclass(frozen=True)
class Maps:
    """Where maps come from: a folder, or a baseline with its prior, if it has one."""

    folder: Path | None = None
    baseline: str | None = None
    prior: np.ndarray | None = field(default=None, repr=False)

    def of(self, clip: Clip) -> Iterator[np.ndarray]:
        """One (h, w) map per frame, in order."""
        if self.baseline is not None:
            return baselines.maps(self.baseline, clip, self.prior)
        return _stored(self.folder, clip)


def _stored(folder: Path, clip: Clip) -> Iterator[np.ndarray]:
    """The maps in a folder: a gray video, an array, or pictures named after the frames."""
    found = _places(folder, clip)
    if not found:
        raise SalemaError(
            f"no maps of {clip.dataset} {clip.name} in {folder} (expected {clip.name}/<frame>.png, "
            f"{clip.name}.npy or {clip.name}.mkv; --split and --videos choose clips)"
        )
    if len(found) > 1:
        both = " and ".join(str(path.relative_to(folder)) for path in found[:2])
        raise SalemaError(
            f"two sets of maps of {clip.dataset} {clip.name} in {folder}: {both} (keep one of them)"
        )
    path = found[0]
    if path.is_dir():
        return _pictures(path, clip)
    match path.suffix:
        case ".mkv":
            return read.maps(path)
        case ".npy":
            return _array(path, clip)
    return iter([_picture(path)])


def _places(folder: Path, clip: Clip) -> list[Path]:
    """The files and folders that hold the maps of a clip, wherever `salema predict` puts them.

    This is in the folder itself, below the name of the data set (and of its part), below
    `<model>_predictions`, or, as in the original, in such a folder inside the clip's own.
    """
    parts = [folder / PARTS[clip.split], folder / clip.dataset / PARTS[clip.split]]
    bases = [folder, folder / clip.dataset, *parts, *sorted(folder.glob("*_predictions"))]
    kinds = [".mkv", ".npy", *([".png"] if clip.n_frames == 1 else [])]
    found = []
    for base in bases:
        found += [p for kind in kinds if (p := base / f"{clip.name}{kind}").is_file()]
        if (inside := base / clip.name).is_dir():
            found += sorted(inside.glob("*_predictions*")) or [inside]
    return found


def _array(path: Path, clip: Clip) -> Iterator[np.ndarray]:
    """The maps in a `.npy` file: (T, H, W), or (H, W) for an image."""
    try:
        maps = np.load(path, mmap_mode="r", allow_pickle=False)
        maps = maps[None] if maps.ndim == 2 and clip.n_frames == 1 else maps
    except (OSError, ValueError, EOFError, AttributeError) as error:
        raise SalemaError(f"no array of numbers in {path} (predict this clip again)") from error
    if maps.ndim != 3 or maps.dtype.kind not in "fiu":
        raise SalemaError(
            f"{path} holds {maps.dtype} {maps.shape}, not maps (T, H, W) (predict this clip again)"
        )
    return iter(maps)


def _pictures(folder: Path, clip: Clip) -> Iterator[np.ndarray]:
    """Pictures by the names of the frames, as text or as numbers (0001 is 00001)."""
    numbered = {p.stem: p for p in folder.glob("*.png")}
    by_number = {int(stem): p for stem, p in numbered.items() if stem.isdecimal()}
    for name in clip.frame_names:
        path = numbered.get(name) or (by_number.get(int(name)) if name.isdecimal() else None)
        if path is None:
            raise SalemaError(f"no map {name}.png in {folder} (predict this clip again)")
        yield _picture(path)


def _picture(path: Path) -> np.ndarray:
    """Float32 (H, W) in the gray levels of the file, 8 or 16 bits; the mean of its channels."""
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise SalemaError(f"broken picture: {path} (predict this clip again)")
    if image.ndim == 3:
        image = image[..., :3].mean(2)
    return image.astype(np.float32)
