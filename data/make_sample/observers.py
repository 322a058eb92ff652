"""Simulated observers: where each looks, frame by frame, and the maps made of it.

A look is planned from what was there one saccade latency ago, lasts a few hundred
milliseconds, follows its thing while it moves, and stays for a while where a thing has
just blinked out or gone. So the gaze of a moment depends on the frames before it.
"""

import cv2
import numpy as np

from data.make_sample.scenes import Scene

OBSERVERS = 17  # as in DHF1K
SIGMA = 12.74 / 640  # blur of a fixation, in frame widths: DHF1K's 12.74 pixels at 640 x 360
LATENCY = (0.2, 0.25)  # seconds between seeing and looking
DURATION = (0.25, 0.4)  # seconds of a fixation
RETURN_SECONDS = 0.6  # inhibition of return fades over this time
ELSEWHERE = 0.12  # share of looks at no thing at all
ONSET_BOOST = 3.0  # weight of a thing that has just appeared
ONSET_SECONDS = 0.3


def _choose(
    rng: np.random.Generator,
    weights: np.ndarray,
    places: np.ndarray,
    gaze: np.ndarray,
    since: np.ndarray,
    size: tuple[int, int],
) -> int | None:
    """Index of the next thing to look at, or None for a place without a thing.

    Args:
        rng: Source of chance.
        weights: (K,) conspicuity, 0 where a thing cannot be seen.
        places: (K, 2) centres.
        gaze: (2,) where the eye is.
        since: (K,) seconds since each was last left (inf: never).
        size: (H, W).
    """
    inside = ((places >= 0) & (places < (size[1], size[0]))).all(1)
    near = np.exp(-np.hypot(*(places - gaze).T) / (0.7 * size[1]))
    chances = weights * inside * near * (1 - 0.9 * np.exp(-since / RETURN_SECONDS))
    total = chances.sum()
    if total <= 0 or rng.random() < ELSEWHERE:
        return None
    return int(rng.choice(len(chances), p=chances / total))


def _anywhere(rng: np.random.Generator, size: tuple[int, int], spread: float) -> np.ndarray:
    """(2,) x and y around the centre; `spread` in frame widths and heights."""
    height, width = size
    return np.array([width, height]) * (0.5 + rng.normal(0, spread, 2))


def _weights(world: Scene, frame: int) -> np.ndarray:
    """(K,) conspicuity of each thing as it can be seen at a frame; a blink keeps it."""
    weights = np.zeros(len(world.things))
    for index, thing in enumerate(world.things):
        if thing.first <= frame <= thing.last:
            fresh = thing.first > 0 and (frame - thing.first) / world.fps < ONSET_SECONDS
            weights[index] = thing.weight * (ONSET_BOOST if fresh else 1.0)
    return weights


def _captured(world: Scene, frame: int, latency: float, rng: np.random.Generator) -> int | None:
    """The thing whose sudden onset, one latency ago, pulls the eye now; or None."""
    seen = frame - round(latency * world.fps)
    for index, thing in enumerate(world.things):
        if thing.first == seen > 0 and rng.random() < thing.weight / (thing.weight + 1.0):
            return index
    return None


def watch(world: Scene, rng: np.random.Generator) -> np.ndarray:
    """One observer's gaze on a clip.

    Returns:
        (T, 2) float, x and y in pixels (0-based, perhaps outside the frame); NaN while
        the eye is in a saccade.
    """
    frames = len(world.camera)
    paths = np.stack([thing.path for thing in world.things])  # (K, T, 2)
    ends = np.array([thing.last for thing in world.things])
    left = np.full(len(paths), -np.inf)
    gaze = np.full((frames, 2), np.nan)
    latency = rng.uniform(*LATENCY)
    # The eye starts near the centre, but soon leaves: the first planned look is under way.
    target, place = None, _anywhere(rng, world.size, 0.1)
    until = rng.uniform(0.0, latency)
    offset, drift = np.zeros(2), np.zeros(2)
    for frame in range(frames):
        now = frame / world.fps
        caught = _captured(world, frame, latency, rng)
        if now >= until or (caught is not None and caught != target):
            seen = max(0, frame - round(latency * world.fps))
            if target is not None:
                left[target] = now
            eye = place if target is None else paths[target, min(frame, ends[target])]
            weights = _weights(world, seen)
            target = caught
            if caught is None:
                target = _choose(rng, weights, paths[:, frame], eye, now - left, world.size)
            place = _anywhere(rng, world.size, 0.25)
            if target is not None:
                offset = rng.normal(0, 0.3 * world.things[target].radius, 2)
            until = now + rng.uniform(*DURATION) + 1 / world.fps
            continue  # the frame of the saccade has no fixation
        drift = 0.8 * drift + rng.normal(0, 0.003 * world.size[1], 2)
        follow = place if target is None else paths[target, min(frame, ends[target])] + offset
        gaze[frame] = follow + drift
    return gaze


def view(world: Scene, rng: np.random.Generator, seconds: float = 5.0) -> np.ndarray:
    """One observer's fixations on a still.

    Returns:
        (N, 3) float: x, y in pixels (0-based, inside the frame), start in seconds.
    """
    height, width = world.size
    places = np.stack([thing.path[0] for thing in world.things])
    weights = _weights(world, 0)
    left = np.full(len(places), -np.inf)
    eye, now, fixations = _anywhere(rng, world.size, 0.06), 0.0, []
    while now < seconds:
        fixations.append((*eye, now))
        now += rng.uniform(*LATENCY) + rng.uniform(*DURATION) * 0.5
        target = _choose(rng, weights, places, eye, now - left, world.size)
        if target is None:
            eye = _anywhere(rng, world.size, 0.25)
        else:
            left[target] = now
            eye = places[target] + rng.normal(0, 0.3 * world.things[target].radius, 2)
    kept = np.array(fixations)
    inside = ((kept[:, :2] >= 0) & (kept[:, :2] < (width - 0.5, height - 0.5))).all(1)
    return kept[inside]


def points(fixations: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(N, 2+) x, y -> (H, W) uint8: 255 on each fixated pixel; what lies outside is dropped."""
    picture = np.zeros(size, np.uint8)
    at = np.floor(fixations[~np.isnan(fixations[:, 0]), :2] + 0.5).astype(int)
    at = at[((at >= 0) & (at < (size[1], size[0]))).all(1)]
    picture[at[:, 1], at[:, 0]] = 255
    return picture


def blur(fixations: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(N, 2+) x, y -> (H, W) uint8 saliency map with maximum 255 (0 without a fixation)."""
    count = np.zeros(size, np.float32)
    at = np.floor(fixations[~np.isnan(fixations[:, 0]), :2] + 0.5).astype(int)
    at = at[((at >= 0) & (at < (size[1], size[0]))).all(1)]
    np.add.at(count, (at[:, 1], at[:, 0]), 1)
    sigma = SIGMA * size[1]
    smooth = cv2.GaussianBlur(count, (0, 0), sigma, borderType=cv2.BORDER_CONSTANT)
    return np.round(255 * smooth / max(float(smooth.max()), 1e-9)).astype(np.uint8)
