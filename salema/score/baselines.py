"""Rows to read a table by: chance, centre prior, spectral residual, one half of the observers.

None of them looks at more than a user could: the centre prior is fitted on training clips,
and the observers' row uses fixations, never what a generator knows.
"""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from salema import data as datasets
from salema.data import Clip

PRIOR_SIZE = (96, 128)  # rows, columns: a mean of maps is smooth
PRIOR_FRAMES = 600  # at most so many training maps, evenly spread over the clips


def centre_prior(root: Path, dataset: str) -> np.ndarray:
    """The mean ground-truth map of the training clips, float32 `PRIOR_SIZE`, maximum 1.

    Raises:
        SalemaError: The set has no training clips under `root`.
    """
    clips = datasets.load(root, dataset, "train")
    per_clip = max(1, PRIOR_FRAMES // len(clips))
    total = np.zeros(PRIOR_SIZE, np.float64)
    for clip in clips[:: max(1, len(clips) // PRIOR_FRAMES)]:
        for frame in np.linspace(0, clip.n_frames - 1, min(per_clip, clip.n_frames)).astype(int):
            truth = next(clip.maps(int(frame), int(frame) + 1))
            if truth is not None and truth.max() > 0:
                small = cv2.resize(truth, PRIOR_SIZE[::-1], interpolation=cv2.INTER_AREA)
                total += small / max(small.sum(), 1e-12)
    return (total / max(total.max(), 1e-12)).astype(np.float32)


def spectral_residual(frame: np.ndarray) -> np.ndarray:
    """Saliency of a uint8 (H, W, 3) frame from its spectrum alone, float32 (64, 64 * W / H).

    Source: Hou & Zhang, CVPR 2007.
    """
    height, width = frame.shape[:2]
    gray = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
    short = (max(8, round(64 * width / height)), 64)
    spectrum = np.fft.fft2(cv2.resize(gray, short, interpolation=cv2.INTER_AREA).astype(float))
    log = np.log(np.abs(spectrum) + 1e-9)
    residual = log - cv2.blur(log, (3, 3))
    picture = np.abs(np.fft.ifft2(np.exp(residual + 1j * np.angle(spectrum)))) ** 2
    return cv2.GaussianBlur(picture, (0, 0), 2.5).astype(np.float32)


def split_half(
    fixations: np.ndarray, observers: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """The fixations (N, 3) of one random half of the observers, and of the other half."""
    half = rng.permutation(observers)[: len(observers) // 2]
    first = np.isin(fixations[:, 2], half)
    return fixations[first], fixations[~first]


def maps(name: str, clip: Clip, prior: np.ndarray | None) -> Iterator[np.ndarray]:
    """A baseline's map of every frame of a clip, at any size.

    Args:
        name: "chance" (a flat map), "centre-prior" or "spectral-residual".
        clip: Whose frames.
        prior: What `centre_prior` gave, for "centre-prior".
    """
    if name == "spectral-residual":
        yield from map(spectral_residual, clip.frames())
        return
    flat = np.ones((2, 2), np.float32) if name == "chance" else prior
    for _ in range(clip.n_frames):
        yield flat
