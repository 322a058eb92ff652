"""Controls of a memory over time: maps that share one property with an average over time.

An average over time changes maps in several ways at once: it smooths them, it delays them, it
reduces their noise. Each control is made from the same maps and does one of these things to the
same extent, so that a gain that a control has too is no gain of the memory. In the table, a is the
weight of the newest frame, and x_t is the map of frame t without a memory.

    ema        the average itself: s_t = a x_t + (1 - a) s_{t-1}, s_1 = x_1
    blur       a blur in space that changes the maps as much as `ema` does (mean squared difference)
    delay      the map of as many frames ago as the mean age of what `ema` holds, (1 - a) / a
    shuffled   the weights of `ema` on the same frames in random order
    acausal    the mean of the frames around t, as many as reduce independent noise like `ema`
    mean       the mean map of the clip
"""

import math
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from salema.data import Clip
from salema.files import SalemaError, absent, atomic
from salema.media import write
from salema.media.read import Frame
from salema.score.maps import Maps
from salema.score.negatives import generator

NAMES = ("ema", "blur", "delay", "shuffled", "acausal", "mean")
SOME = 40  # maps of a clip, about, by which the blur is chosen
HISTORY = 3.0  # of the time constant: older frames have 5 % of the weight


def alpha_of(tau: float, fps: float) -> float:
    """The weight of the newest frame in an average with a time constant of `tau` seconds."""
    if not (tau > 0 and fps > 0 and math.isfinite(tau * fps)):
        raise SalemaError(f"tau and the frame rate must be above 0, not {tau} s and {fps} (--tau)")
    return 1 - math.exp(-1 / (fps * tau))


def control(name: str, maps: np.ndarray, alpha: float, seed: int = 0) -> np.ndarray:
    """The maps (T, H, W) of one clip, float, changed as `NAMES` says; float32 of the same shape.

    `alpha` is in (0, 1]; at 1 nothing but `mean` changes a map.
    """
    maps = np.asarray(maps, np.float32)
    match name:
        case "ema":
            return _average(maps, alpha)
        case "blur":
            return _blurred(maps, alpha)
        case "delay":
            age = round((1 - alpha) / alpha)
            return maps[np.maximum(np.arange(len(maps)) - age, 0)]
        case "shuffled":
            return _shuffled(maps, alpha, seed)
        case "acausal":
            return _centred(maps, round(((2 - alpha) / alpha - 1) / 2))
        case "mean":
            return np.broadcast_to(maps.mean(0, dtype=np.float64).astype(np.float32), maps.shape)
    raise SalemaError(f"no control is called {name!r} (choose one of {', '.join(NAMES)})")


def _average(maps: np.ndarray, alpha: float) -> np.ndarray:
    averages = maps.copy()
    for frame in range(1, len(maps)):
        averages[frame] = alpha * maps[frame] + (1 - alpha) * averages[frame - 1]
    return averages


def _blurred(maps: np.ndarray, alpha: float) -> np.ndarray:
    """Blurred with the sigma, in pixels, that changes the maps as much as the average does."""
    wanted = float(np.square(_average(maps, alpha) - maps).mean())

    def blurred(maps: np.ndarray, sigma: float) -> np.ndarray:
        return np.stack([cv2.GaussianBlur(map_, (0, 0), sigma) for map_ in maps])

    low, high = 0.05, max(maps.shape[1:]) / 2
    if wanted < 1e-12:
        return maps
    some = maps[:: max(1, len(maps) // SOME)]
    for _ in range(12):  # to 1 % of sigma
        sigma = math.sqrt(low * high)
        more = float(np.square(blurred(some, sigma) - some).mean()) > wanted
        low, high = (low, sigma) if more else (sigma, high)
    return blurred(maps, high)


def _shuffled(maps: np.ndarray, alpha: float, seed: int) -> np.ndarray:
    """Weights of the last frames, permuted; the oldest frame has the weight of all before it."""
    longest = 1 + math.ceil(HISTORY / -math.log(1 - alpha)) if alpha < 1 else 1
    changed = np.empty_like(maps)
    for frame in range(len(maps)):
        length = min(frame + 1, longest)
        weights = alpha * (1 - alpha) ** np.arange(length)
        weights[-1] += 1 - weights.sum()
        weights = generator(seed, "shuffled", frame).permutation(weights).astype(np.float32)
        changed[frame] = np.tensordot(weights, maps[frame + 1 - length : frame + 1], 1)
    return changed


def _centred(maps: np.ndarray, reach: int) -> np.ndarray:
    """The mean of each frame and `reach` frames on either side, fewer at both ends."""
    sums = np.concatenate([np.zeros((1, *maps.shape[1:])), np.cumsum(maps, 0, dtype=np.float64)])
    frames = np.arange(len(maps))
    first, last = np.maximum(frames - reach, 0), np.minimum(frames + reach + 1, len(maps))
    return ((sums[last] - sums[first]) / (last - first)[:, None, None]).astype(np.float32)


def write_controls(clips: list[Clip], maps: Path, out: Path, tau: float, seed: int = 0) -> Path:
    """Write the controls of the maps of some clips: `<out>/<control>/<clip>.mkv`, 16-bit gray.

    The folder `out` appears when all are written. The maps of one clip are in memory at once,
    scaled to a maximum of 1. `tau` is in seconds. An error if a clip has no frame rate.
    """
    absent(out)
    with atomic(out) as part:
        for clip in tqdm(clips, unit="clip", disable=None):
            if clip.fps is None:
                what = f"no frame rate is known for {clip.dataset} {clip.name}"
                raise SalemaError(f"{what} (leave it out with --videos or --split)")
            alpha = alpha_of(tau, clip.fps)
            stored = np.stack([np.asarray(map_, np.float32) for map_ in Maps(maps).of(clip)])
            stored /= max(float(stored.max()), 1e-12)
            for name in NAMES:
                path = part / name / f"{clip.name}.mkv"
                with write.gray(path, stored.shape[1:], clip.fps) as add:
                    for map_ in control(name, stored, alpha, seed):
                        add(map_, Frame(map_, ""))
    return out
