"""Reference rows: chance, centre prior, spectral residual, one half of the observers ("human").

They use only what is available for real data: the centre prior is fitted on training clips,
and the row of the observers uses fixations.
"""

from collections.abc import Sequence

import cv2
import numpy as np

from salema.data import Clip

PRIOR_SIZE = (96, 128)  # rows, columns: a mean of maps is smooth
PRIOR_FRAMES = 600  # largest number of training maps, evenly spread over the clips
SPLITS = 20  # random halves of the observers, over which their row is averaged


def centre_prior(clips: Sequence[Clip]) -> np.ndarray:
    """The mean ground-truth map of some clips, float32 `PRIOR_SIZE`, maximum 1.

    Every frame has the same weight; frames with a blank map are left out. If all maps are
    blank, the prior is zero everywhere.
    """
    per_clip = max(1, PRIOR_FRAMES // len(clips))
    total = np.zeros(PRIOR_SIZE, np.float64)
    for clip in clips[:: max(1, len(clips) // PRIOR_FRAMES)]:
        count = min(per_clip, clip.n_frames)
        for frame in np.linspace(0, clip.n_frames - 1, count).astype(int).tolist():
            truth = next(clip.maps(frame, frame + 1))
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
    frames: Sequence[np.ndarray], random: np.random.Generator
) -> list[tuple[np.ndarray, np.ndarray]]:
    """The fixations of one random half of the observers, and those of the other half.

    `frames` are the fixations (N, 3) of each frame of a clip: x, y, observer. The half is drawn
    once for all frames. Of an odd number of observers, the second half has one more.
    """
    observers = np.unique(np.concatenate(frames)[:, 2])
    half = random.permutation(observers)[: len(observers) // 2]
    sides = [np.isin(points[:, 2], half) for points in frames]
    return [(points[side], points[~side]) for points, side in zip(frames, sides, strict=True)]
