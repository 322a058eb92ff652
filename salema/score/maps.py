"""The maps of a clip: from anybody's folder, or of a baseline."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import repeat
from pathlib import Path

import numpy as np

from salema.data import Clip
from salema.data.sets import PARTS
from salema.files import SalemaError
from salema.media import read
from salema.media.image import read_map
from salema.score import baselines


@dataclass(frozen=True)
class Maps:
    """Where maps come from: a folder, or "chance", "spectral-residual" or "centre-prior"."""

    folder: Path | None = None
    baseline: str | None = None
    prior: np.ndarray | None = field(default=None, repr=False)  # of "centre-prior"

    def of(self, clip: Clip) -> Iterator[np.ndarray]:
        """One (h, w) map per frame, in order."""
        match self.baseline:
            case None:
                return _stored(self.folder, clip)
            case "spectral-residual":
                return map(baselines.spectral_residual, clip.frames())
            case "chance":
                return repeat(np.ones((2, 2), np.float32), clip.n_frames)
        return repeat(self.prior, clip.n_frames)


def _stored(folder: Path, clip: Clip) -> Iterator[np.ndarray]:
    """The maps in a folder: a gray video, an array, or pictures named after the frames."""
    found, of = _places(folder, clip), f"of {clip.dataset} {clip.name} in {folder}"
    if not found:
        names = f"{clip.name}/<frame>.png, {clip.name}.npy or {clip.name}.mkv"
        fix = f"expected {names}; --split and --videos choose clips"
        raise SalemaError(f"no maps {of} ({fix})")
    if len(found) > 1:
        both = " and ".join(str(path.relative_to(folder)) for path in found[:2])
        raise SalemaError(f"two sets of maps {of}: {both} (keep one of them)")
    path = found[0]
    if path.is_dir():
        pictures = _pictures(path, clip)
    elif path.suffix == ".mkv":
        return read.maps(path)
    elif path.suffix == ".npy":
        return _array(path, clip)
    else:
        pictures = [path]
    return (read_map(picture).astype(np.float32) for picture in pictures)


def _places(folder: Path, clip: Clip) -> list[Path]:
    """The files and folders that hold the maps of a clip, wherever `salema predict` puts them.

    They are in the folder itself, below the name of the data set (and of its part), below
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
    except Exception as error:  # NumPy raises whatever its parser fails with
        raise SalemaError(f"no array of numbers in {path} (predict this clip again)") from error
    if maps.ndim != 3 or maps.dtype.kind not in "fiu":
        shape = f"{maps.dtype} {maps.shape}, not maps (T, H, W)"
        raise SalemaError(f"{path} holds {shape} (predict this clip again)")
    return iter(maps)


def _pictures(folder: Path, clip: Clip) -> Iterator[Path]:
    """The pictures by the names of the frames, as text or as numbers (0001 is 00001)."""
    numbered = {p.stem: p for p in folder.glob("*.png")}
    by_number = {int(stem): p for stem, p in numbered.items() if stem.isdecimal()}
    for name in clip.frame_names:
        path = numbered.get(name) or (by_number.get(int(name)) if name.isdecimal() else None)
        if path is None:
            raise SalemaError(f"no map {name}.png in {folder} (predict this clip again)")
        yield path
