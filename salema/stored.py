"""Where the maps of a clip come from: anybody's folder, or a baseline."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from salema import baselines, writers
from salema.datasets import Clip
from salema.files import SalemaError


@dataclass(frozen=True)
class Maps:
    """Where the maps of a clip come from: a folder, or a baseline."""

    folder: Path | None = None
    baseline: str | None = None
    prior: np.ndarray | None = field(default=None, repr=False)

    def of(self, clip: Clip) -> Iterator[np.ndarray]:
        """One (h, w) map a frame, in order.

        Raises:
            SalemaError: There are none for this clip, or one is missing or broken.
        """
        if self.baseline is not None:
            return baselines.maps(self.baseline, clip, self.prior)
        return _stored(self.folder, clip)


def _stored(folder: Path, clip: Clip) -> Iterator[np.ndarray]:
    """Maps that lie in a folder: a gray video, an array, or pictures named like the frames."""
    for base in (folder / clip.dataset, folder):
        if (path := base / f"{clip.name}.mkv").exists():
            return writers.read_gray(path)
        if (path := base / f"{clip.name}.npy").exists():
            return iter(np.load(path, mmap_mode="r"))
        if clip.n_frames == 1 and (path := base / f"{clip.name}.png").exists():
            return iter([_picture(path)])
        if (path := base / clip.name).is_dir():
            inner = [p for p in path.iterdir() if p.is_dir() and p.name.endswith("_predictions")]
            return _pictures(inner[0] if inner else path, clip)
    raise SalemaError(
        f"no maps of {clip.dataset} {clip.name} in {folder} (expected {clip.name}/<frame>.png, "
        f"{clip.name}.npy or {clip.name}.mkv)"
    )


def _pictures(folder: Path, clip: Clip) -> Iterator[np.ndarray]:
    """Pictures by the frames' names, as text or as numbers (0001 is 00001)."""
    numbered = {p.stem: p for p in folder.glob("*.png")}
    by_number = {int(stem): p for stem, p in numbered.items() if stem.isdigit()}
    for name in clip.frame_names:
        path = numbered.get(name) or (by_number.get(int(name)) if name.isdigit() else None)
        if path is None:
            raise SalemaError(f"no map {name}.png in {folder} (predict this clip again)")
        yield _picture(path)


def _picture(path: Path) -> np.ndarray:
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise SalemaError(f"broken picture: {path} (predict this clip again)")
    if image.ndim == 3:
        image = image[..., :3].mean(2)
    return image.astype(np.float32)
