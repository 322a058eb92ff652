"""Synthetic scenes: a textured background, things on it, a camera, and what moves when.

Lengths are pixels, times seconds, colours RGB in [0, 1] unless a line says otherwise.
"""

from dataclasses import dataclass

import cv2
import numpy as np

CONTRAST = 0.25  # colour difference (root mean square, RGB in [0, 1]) of a thing with weight 1
RADIUS = 0.1  # radius, in frame heights, of a thing with weight 1
FACE_WEIGHT = 2.2  # faces draw more gaze than other things of their size and contrast
FLASHES_PER_FRAME = 1.6  # things shown for one or two frames: too short to draw a saccade


@dataclass(frozen=True)
class Thing:
    """One object of a scene.

    Attributes:
        sprite: (h, w, 4) float32, RGB premultiplied by the opacity in channel 3.
        path: (T, 2) float, x and y of the centre in pixels of the frame; defined also
            where the thing is not shown, so that a gaze can wait for it.
        shown: (T,) bool, whether it is drawn.
        first: Frame at which it appears.
        last: Last frame before it goes for good (blinks do not count).
        radius: Half its mean width, in pixels.
        weight: Conspicuity: contrast x size x kind x motion; what a choice is proportional to.
    """

    sprite: np.ndarray
    path: np.ndarray
    shown: np.ndarray
    first: int
    last: int
    radius: float
    weight: float


@dataclass(frozen=True)
class Scene:
    """Everything that a clip (or, with T = 1, a still) shows.

    Attributes:
        size: (H, W) of the frames.
        fps: Frames a second.
        background: (H + 2 m, W + 2 m, 3) float32; the frame is a window into it.
        camera: (T, 2) float, x and y of the window's upper left corner in the background.
        things: What observers may look at, in drawing order.
        flashes: Things too short to be looked at: they differ from frame to frame.
        gain: (T,) float, brightness of each frame.
        noise: Standard deviation of the sensor's noise.
    """

    size: tuple[int, int]
    fps: float
    background: np.ndarray
    camera: np.ndarray
    things: list[Thing]
    flashes: list[Thing]
    gain: np.ndarray
    noise: float


def texture(rng: np.random.Generator, size: tuple[int, int], channels: int = 1) -> np.ndarray:
    """(H, W, C) float32 noise with about a 1/f amplitude spectrum, mean 0, deviation 1."""
    height, width = size
    total = np.zeros((height, width, channels), np.float32)
    cells, strength = 2, 1.0
    while cells <= max(size):
        grid = (max(2, -(-cells * height // max(size))), max(2, -(-cells * width // max(size))))
        noise = rng.standard_normal((*grid, channels), dtype=np.float32)
        octave = cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
        total += strength * octave.reshape(total.shape)
        cells, strength = 2 * cells, 0.8 * strength
    total -= total.mean((0, 1))
    return total / (total.std((0, 1)) + 1e-6)


def colour(rng: np.random.Generator, saturation: tuple[float, float]) -> np.ndarray:
    """(3,) float32 RGB of random hue, a saturation from the range, and random brightness."""
    hue, strength = rng.uniform(0, 6), rng.uniform(*saturation)
    value = rng.uniform(0.15, 1.0)
    ramp = np.abs((hue + np.array([0, 4, 2])) % 6 - 3) - 1
    return (value * (1 - strength * (1 - np.clip(ramp, 0, 1)))).astype(np.float32)


def _grid(size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates x (1, W) and y (H, 1) from -1 to 1."""
    rows = np.linspace(-1, 1, size[0], dtype=np.float32)[:, None]
    return np.linspace(-1, 1, size[1], dtype=np.float32)[None], rows


def background(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """(H, W, 3) float32 in [0, 1]: textured ground and wall, a lighting gradient, shadows."""
    x, y = _grid(size)
    angle = rng.uniform(0, 2 * np.pi)
    light = np.float32(np.cos(angle)) * x + np.float32(np.sin(angle)) * y
    wall, ground = colour(rng, (0.0, 0.6)), colour(rng, (0.0, 0.6))
    horizon = rng.uniform(-0.6, 0.9) + rng.uniform(-0.3, 0.3) * x
    share = np.clip((y - horizon) / rng.uniform(0.02, 0.8), 0, 1)[..., None]
    picture = 0.15 + 0.7 * (wall + share * (ground - wall))
    picture = picture + rng.uniform(0.04, 0.12) * texture(rng, size)
    picture += rng.uniform(0.01, 0.04) * texture(rng, size, 3)
    lit = 1 + rng.uniform(0.05, 0.25) * light
    for _ in range(rng.integers(0, 3)):
        spread = rng.uniform(0.1, 0.6, 2)
        at = rng.uniform(-1, 1, 2)
        distance = ((x - at[0]) / spread[0]) ** 2 + ((y - at[1]) / spread[1]) ** 2
        lit = lit * (1 - rng.uniform(0.1, 0.4) * np.exp(-(distance**2)))
    return np.clip(picture * lit[..., None], 0, 1).astype(np.float32)


def _disc(x: np.ndarray, y: np.ndarray, at: tuple, spread: tuple, edge: float) -> np.ndarray:
    """Opacity of an ellipse: 1 inside, 0 outside, an edge of about a pixel."""
    distance = np.sqrt(((x - at[0]) / spread[0]) ** 2 + ((y - at[1]) / spread[1]) ** 2)
    return np.clip((1 - distance) * edge + 0.5, 0, 1)


def _face(rng: np.random.Generator, x: np.ndarray, y: np.ndarray, edge: float) -> np.ndarray:
    """(h, w, 3): hair, two eyes and a mouth on a face of any colour."""
    skin = colour(rng, (0.15, 0.7)) * 0.6 + 0.35
    dark = colour(rng, (0.2, 1.0)) * 0.25
    hair = np.clip((-0.55 - y + 0.25 * x**2) * edge, 0, 1)[..., None]
    picture = skin + hair * (colour(rng, (0.2, 1.0)) * 0.6 - skin)
    for at, spread in (((-0.36, -0.18), (0.2, 0.14)), ((0.36, -0.18), (0.2, 0.14))):
        picture = picture + _disc(x, y, at, spread, edge * 0.2)[..., None] * (0.95 - picture)
        pupil = _disc(x, y, at, (0.11, 0.12), edge * 0.12)[..., None]
        picture = picture + pupil * (dark - picture)
    mouth = _disc(x, y, (0.0, 0.48), (0.36, rng.uniform(0.06, 0.16)), edge * 0.15)[..., None]
    return picture + mouth * (np.array([0.55, 0.1, 0.12]) * rng.uniform(0.5, 1.4) - picture)


def sprite(rng: np.random.Generator, radius: float) -> tuple[np.ndarray, bool]:
    """A thing's picture and whether it is a face.

    Returns:
        (h, w, 4) float32, colour premultiplied by opacity; and True for a face.
    """
    kind = rng.choice(["ellipse", "rectangle", "blob", "face"], p=[0.25, 0.25, 0.2, 0.3])
    side = int(np.ceil(1.5 * radius)) * 2 + 1
    aspect = np.sqrt(rng.uniform(0.62, 0.85) if kind == "face" else rng.uniform(0.5, 2.0))
    angle = rng.normal(0, 0.15) if kind == "face" else rng.uniform(0, np.pi)
    span = np.float32(side / 2 / radius)
    u, v = (span * axis for axis in _grid((side, side)))
    x = (np.cos(angle) * u + np.sin(angle) * v) / aspect
    y = (np.cos(angle) * v - np.sin(angle) * u) * aspect
    if kind == "face":
        inside = _disc(x, y, (0, 0), (1, 1), radius)
        picture = _face(rng, x, y, radius)
    else:
        if kind == "rectangle":
            inside = np.clip((0.88 - np.maximum(np.abs(x), np.abs(y))) * radius + 0.5, 0, 1)
        elif kind == "ellipse":
            inside = _disc(x, y, (0, 0), (1, 1), radius)
        else:
            wobble = 0.35 * cv2.GaussianBlur(texture(rng, (side, side))[..., 0], (0, 0), radius / 4)
            inside = np.clip((0.95 - np.sqrt(x**2 + y**2) + wobble) * radius + 0.5, 0, 1)
            inside = inside * _disc(u, v, (0, 0), (span, span), radius)
        picture = colour(rng, (0.2, 1.0)) + np.zeros((side, side, 1), np.float32)
        if rng.random() < 0.4:
            stripes = np.sin(x * rng.uniform(4, 9)) > rng.uniform(-0.3, 0.6)
            picture = np.where(stripes[..., None], picture, colour(rng, (0.0, 1.0)))
    picture = picture + rng.uniform(0.02, 0.1) * texture(rng, (side, side))
    shade = 1 - rng.uniform(0.0, 0.3) * v[..., None] / span
    opacity = inside[..., None]
    drawn = np.concatenate([np.clip(picture * shade, 0, 1) * opacity, opacity], 2)
    return drawn.astype(np.float32), kind == "face"


def _contrast(drawn: np.ndarray, ground: np.ndarray, at: np.ndarray) -> float:
    """Root mean square colour difference between a sprite and the ground under it."""
    side = drawn.shape[0]
    left, top = (np.round(at) - side // 2).astype(int)
    under = ground[max(top, 0) : max(top + side, 1), max(left, 0) : max(left + side, 1)]
    if under.size == 0:
        return CONTRAST
    opacity = drawn[..., 3].sum()
    own = drawn[..., :3].sum((0, 1)) / opacity
    spread = ((drawn[..., :3] - drawn[..., 3:] * own) ** 2).sum((0, 1)) / opacity
    return float(np.sqrt(((own - under.mean((0, 1))) ** 2 + 0.5 * spread).mean()))


def _thing(
    rng: np.random.Generator,
    ground: np.ndarray,
    camera: np.ndarray,
    size: tuple[int, int],
    fps: float,
    flash: bool = False,
) -> Thing:
    """One thing: where it goes, when it is shown, and how much gaze it draws."""
    height, width = size
    frames = len(camera)
    times = np.arange(frames) / fps
    radius = height * (rng.uniform(0.055, 0.1) if flash else rng.uniform(0.05, 0.15))
    drawn, face = sprite(rng, radius)
    if rng.random() < 0.35 and not flash:
        drawn = drawn * np.float32(rng.uniform(0.25, 0.6))  # faint: hardly draws a look
    middle = np.array([width, height]) / 2
    at = middle + np.clip(rng.normal(0, 0.5, 2), -0.85, 0.85) * middle
    speed = 0.0 if flash or rng.random() < 0.4 else height * rng.uniform(0.08, 0.4)
    heading, sway = rng.uniform(0, 2 * np.pi), rng.uniform(-2.0, 2.0)
    turn = heading + sway * (times - times.mean())
    step = speed / fps * np.stack([np.cos(turn), np.sin(turn)], 1)
    path = at + np.cumsum(step, 0) - step.sum(0) / 2 - (camera - camera.mean(0))
    first, last = 0, frames - 1
    shown = np.ones(frames, bool)
    if flash:
        first = int(rng.integers(0, frames))
        last = min(frames - 1, first + int(rng.integers(0, 2)))
    elif frames > 1:
        chance = rng.random()
        if chance < 0.3:
            first = int(rng.uniform(0.1, 0.6) * frames)
        elif chance < 0.55:
            last = int(rng.uniform(0.4, 0.9) * frames)
        if rng.random() < 0.5:  # blinks: hidden for a few frames, now and then
            clock = np.arange(frames) + rng.integers(0, 12)
            shown = clock % rng.integers(8, 13) >= rng.integers(3, 6)
    shown = shown & (np.arange(frames) >= first) & (np.arange(frames) <= last)
    corner = camera[first]
    contrast = drawn[..., 3].max() * _contrast(
        drawn / max(drawn[..., 3].max(), 1e-3), ground, path[first] + corner
    )
    weight = (contrast / CONTRAST) ** 1.5 * (radius / height / RADIUS) ** 0.7
    weight *= (FACE_WEIGHT if face else 1.0) * (1 + speed / height)
    return Thing(drawn, path, shown, first, last, radius, float(weight))


def scene(
    rng: np.random.Generator, size: tuple[int, int], frames: int = 1, fps: float = 30.0
) -> Scene:
    """A scene of `frames` frames of (H, W) pixels; one frame makes a still."""
    height, width = size
    times = np.arange(frames) / fps
    margin = int(0.15 * height) if frames > 1 else 0
    ground = background(rng, (height + 2 * margin, width + 2 * margin))
    pan = rng.uniform(-1, 1, 2) * (0.12 * height if rng.random() < 0.5 else 0.0)
    jitter = np.cumsum(rng.normal(0, 0.002 * height, (frames, 2)), 0)
    camera = np.full((frames, 2), float(margin))
    if frames > 1:
        camera = camera + (times - times.mean())[:, None] * pan + jitter - jitter.mean(0)
        camera = np.clip(camera, 0, 2 * margin)
    count = rng.integers(3, 7)
    things = [_thing(rng, ground, camera, size, fps) for _ in range(count)]
    flashes = []
    gain = np.ones(frames)
    if frames > 1:
        number = rng.poisson(rng.uniform(0.5, 1.0) * FLASHES_PER_FRAME / 1.5 * frames)
        flashes = [_thing(rng, ground, camera, size, fps, flash=True) for _ in range(number)]
        gain = 1 + rng.normal(0, 0.02, frames)
    return Scene(size, fps, ground, camera, things, flashes, gain, rng.uniform(0.003, 0.012))


def _draw(picture: np.ndarray, thing: Thing, frame: int) -> None:
    """Lay a thing and its soft shadow over the picture, in place, with sub-pixel position."""
    side = thing.sprite.shape[0]
    corner = thing.path[frame] - side // 2
    left, top = np.floor(corner).astype(int)
    shift = corner - np.floor(corner)
    move = np.array([[1, 0, shift[0]], [0, 1, shift[1]]], np.float32)
    moved = cv2.warpAffine(thing.sprite, move, (side + 1, side + 1))
    height, width = picture.shape[:2]
    rows = slice(max(top, 0), min(top + side + 1, height))
    columns = slice(max(left, 0), min(left + side + 1, width))
    if rows.start >= rows.stop or columns.start >= columns.stop:
        return
    part = moved[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
    picture[rows, columns] = picture[rows, columns] * (1 - part[..., 3:]) + part[..., :3]


def render(world: Scene, frame: int, rng: np.random.Generator) -> np.ndarray:
    """One frame as uint8 (H, W, 3) RGB; `rng` gives the sensor's noise."""
    height, width = world.size
    x, y = world.camera[frame]
    move = np.array([[1, 0, -x], [0, 1, -y]], np.float32)
    picture = cv2.warpAffine(world.background, move, (width, height), borderMode=cv2.BORDER_REFLECT)
    for thing in (*world.things, *world.flashes):
        if thing.shown[frame]:
            _draw(picture, thing, frame)
    picture = picture * np.float32(world.gain[frame])
    picture += np.float32(world.noise) * rng.standard_normal(picture.shape, dtype=np.float32)
    return np.clip(picture * 255 + 0.5, 0, 255).astype(np.uint8)
