"""Clips -> windows of frames and targets, in the order of an epoch, augmented.

Random numbers are drawn in order, and windows are read later, perhaps in another thread: a function
for each window reads it.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor

from salema.data import Clip, FrameCache, blur, sigma
from salema.files import SalemaError
from salema.model.layers import MEAN_BGR
from salema.params import Finetune, Tune
from salema.train import ranks
from salema.train.features import FeatureCache

SALBCE = ("flip", "flip-vertical", "rotate", "none")
MEAN_RGB = tuple(round(value) for value in reversed(MEAN_BGR))
Pair = tuple[np.ndarray, np.ndarray]  # an image uint8 (H, W, 3) and its map uint8 (H, W)
Cache = FrameCache | FeatureCache


class Window(NamedTuple):
    """Frames and targets of one backward pass: B clips in parallel, T frames of each.

    With several processes, B is the share of one. A clip that cannot be read is black.
    """

    first: bool  # whether the clips start here, with an empty memory
    frames: np.ndarray  # uint8 (B, T, H, W, 3) RGB, or features, float16 (B, T, h, w, C)
    targets: np.ndarray  # uint8 (B, T, H, W), as `FrameCache.maps` gives them
    weights: np.ndarray  # float32 (B,), 0 where a clip cannot be read or is a repeat, else 1
    clips: list[str]  # of the whole group: "<data set> <name>"
    problems: list[str]  # of the clips that cannot be read

    def tensors(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return the frames as they are, and float32 targets (B, T, H, W) in [0, 1]."""
        frames, targets = torch.from_numpy(self.frames), torch.from_numpy(self.targets)
        if device.type == "cuda":
            frames, targets = frames.pin_memory(), targets.pin_memory()
        targets = targets.to(device, non_blocking=True).float().div_(255)
        return frames.to(device, non_blocking=True), targets


Reader = Callable[[], Window]


def image_windows(
    clips: list[Clip], cache: Cache, settings: Tune, rng: Generator, epoch: int | None
) -> Iterator[Reader]:
    """Batches of single frames: every image once, and some frames of every video.

    `epoch` is counted from 0. None is validation, in order and without augmentation.
    """
    training = epoch is not None
    items = [(clip, frame) for clip in clips for frame in _some(clip, settings, rng, training)]
    if training:
        items = [items[i] for i in rng.permutation(len(items))]
    half = training and epoch < settings.half_epochs
    augment = settings.augment if training else "none"
    for start in range(0, len(items), settings.batch):
        batch = items[start : start + settings.batch]
        if training and start and len(batch) < settings.batch:
            return  # a small last batch would have the weight of a whole one
        # Each image has its own numbers, whatever process reads it.
        seeds = rng.integers(2**63, size=len(batch))
        group = [
            (clip, partial(_image, clip, frame, cache, augment, int(seed), half))
            for (clip, frame), seed in zip(batch, seeds, strict=True)
        ]
        size = [side // 2 for side in cache.size] if half else cache.size
        yield partial(_read, True, group, _blank(cache, (1, *size)))


def _some(clip: Clip, settings: Tune, rng: Generator, training: bool) -> list[int]:
    count = min(settings.frames_per_clip, clip.n_frames)
    if training:
        return sorted(rng.choice(clip.n_frames, count, replace=False).tolist())
    return np.linspace(0, clip.n_frames - 1, count).round().astype(int).tolist()


def _image(clip: Clip, frame: int, cache: Cache, augment: str, seed: int, half: bool) -> Pair:
    rng = np.random.default_rng(seed)
    if isinstance(cache, FeatureCache):
        return _frames(clip, frame, 1, augment == "flip" and rng.random() < 0.5, cache)
    image = _part(cache.frames(clip), clip, frame, 1)[0]
    target = _part(cache.maps(clip), clip, frame, 1)[0]
    if augment == "zoom":
        counts = _part(cache.fixations(clip), clip, frame, 1)[0]
        image, target = zoomed(image, target, counts, rng)
    else:
        image, target = augmented(image, target, augment, rng)
    if half:
        small = (image.shape[1] // 2, image.shape[0] // 2)
        image, target = (
            cv2.resize(x, small, interpolation=cv2.INTER_AREA) for x in (image, target)
        )
    return image[None], target[None]


def clip_windows(
    clips: list[Clip], cache: Cache, settings: Finetune, rng: Generator, epoch: int | None
) -> Iterator[Reader]:
    """Windows of `bptt_frames` in order, for groups of `batch` clips in parallel.

    A group lasts as long as its shortest clip, at most `frames_per_clip`, from a random start.
    Without `shuffle` the clips come in the order of their names, as in the released code.
    Validation (`epoch` is None) takes the first two windows of every group.
    """
    training = epoch is not None
    shuffled = training and settings.shuffle
    order = rng.permutation(len(clips)) if shuffled else range(len(clips))
    for at in range(0, len(order), settings.batch):
        together = [clips[i] for i in order[at : at + settings.batch]]
        length = min(clip.n_frames for clip in together)
        longest = settings.frames_per_clip if training else 2 * settings.bptt_frames
        length = min(length, longest or length)
        starts = [int(rng.integers(c.n_frames - length + 1)) if training else 0 for c in together]
        flips = [settings.augment == "flip" and training and rng.random() < 0.5 for _ in together]
        for offset in range(0, length, settings.bptt_frames):
            count = min(settings.bptt_frames, length - offset)
            group = [
                (clip, partial(_frames, clip, start + offset, count, flip, cache))
                for clip, start, flip in zip(together, starts, flips, strict=True)
            ]
            yield partial(_read, offset == 0, group, _blank(cache, (count, *cache.size)))


def _frames(clip: Clip, start: int, count: int, flip: bool, cache: Cache) -> Pair:
    maps = _part(cache.maps(clip), clip, start, count)[:, :, :: -1 if flip else 1]
    if isinstance(cache, FeatureCache):
        return _part(cache.frames(clip, flip), clip, start, count), maps
    return _part(cache.frames(clip), clip, start, count)[:, :, :: -1 if flip else 1], maps


def _blank(cache: Cache, shape: tuple[int, ...]) -> Callable[[], Pair]:
    """What stands for a clip that cannot be read; `shape` is (T, H, W)."""
    features = isinstance(cache, FeatureCache)
    frames = (shape[0], *cache.row) if features else (*shape, 3)
    return lambda: (np.zeros(frames, cache.dtype), np.zeros(shape, np.uint8))


def _read(first: bool, group: list[tuple[Clip, Callable[[], Pair]]], blank: Callable) -> Window:
    """This process's share of a group of clips, read."""
    pairs, weights, problems = [], [], []
    for index in ranks.indices(len(group)):
        clip, read = group[min(index, len(group) - 1)]
        try:
            pairs.append(read())
            weights.append(float(index < len(group)))
        except SalemaError as error:
            pairs.append(blank())
            weights.append(0.0)
            problems.append(str(error))
        except Exception as error:
            what = f"the reader of {clip.dataset} {clip.name} died of {error!r}"
            raise SalemaError(f"{what} (run again to resume)", 1) from error
    arrays = (np.stack(arrays) for arrays in zip(*pairs, strict=True))
    names = [f"{clip.dataset} {clip.name}" for clip, _ in group]
    return Window(first, *arrays, np.float32(weights), names, problems)


def _part(array: np.ndarray, clip: Clip, start: int, count: int) -> np.ndarray:
    """`count` frames of a clip's array; an error if the source ends before them."""
    part = np.asarray(array[start : start + count])
    if len(part) < count:
        ends = f"{clip.dataset} {clip.name} ends after {len(array)} of {clip.n_frames} frames"
        raise SalemaError(f"{ends} (copy it again; `salema index --check` shows more)")
    return part


def augmented(image: np.ndarray, target: np.ndarray, augment: str, rng: Generator) -> Pair:
    """Apply one random change to an image and its map.

    "flip" mirrors half of the images. "salbce" mirrors an image, turns it upside down, rotates it
    by 45 degrees or leaves it as it is, as SalBCE was trained. The rotation is about the centre,
    without zoom; the corners get ImageNet's mean color and a saliency of 0.
    """
    # Both are drawn in any case: the random numbers that follow depend on it.
    flip, salbce = rng.choice(["flip", "none"]), rng.choice(SALBCE)
    match {"none": "none", "flip": flip, "salbce": salbce}[augment]:
        case "flip":
            return image[:, ::-1], target[:, ::-1]
        case "flip-vertical":
            return image[::-1], target[::-1]
        case "rotate":
            height, width = target.shape
            turn = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), 45, 1)
            turned = cv2.warpAffine(image, turn, (width, height), borderValue=MEAN_RGB)
            return turned, cv2.warpAffine(target, turn, (width, height))
    return image, target


def zoomed(image: np.ndarray, target: np.ndarray, counts: np.ndarray, rng: Generator) -> Pair:
    """Crop a random part (at least 0.7 of each side), resize it, mirror it or not, recolour it.

    The fixations are moved and blurred again, so that every target has the same blur. If `counts`,
    uint8 (H, W) fixations per pixel, are all 0, the map is resized: the data set only has maps. A
    part with less than half of the gaze is redrawn.
    """
    height, width = target.shape
    part = _part_with_gaze(counts if counts.any() else target, rng)
    if image[part].shape != image.shape:
        image = cv2.resize(image[part], (width, height))
        if counts.any():
            rows, columns = np.nonzero(counts[part])
            tall, wide = counts[part].shape
            points = np.stack([(columns + 0.5) * width / wide, (rows + 0.5) * height / tall], 1)
            points = np.repeat(points, counts[part][rows, columns], axis=0)
            target = blur(points, (height, width), sigma((height, width)))
            target = np.round(255 * target).astype(np.uint8)
        else:
            target = cv2.resize(target[part], (width, height))
    if rng.random() < 0.5:
        image, target = image[:, ::-1], target[:, ::-1]
    return recoloured(image, rng), target


def _part_with_gaze(gaze: np.ndarray, rng: Generator) -> tuple[slice, slice]:
    """Rows and columns of a random part with at least half of the gaze, or the whole."""
    height, width = gaze.shape
    for _ in range(4 if rng.random() < 0.7 else 0):
        zoom, aspect = rng.uniform(0.7, 1.0), np.exp(rng.uniform(-0.12, 0.12))
        tall = min(height, round(height * zoom / aspect))
        wide = min(width, round(width * zoom * aspect))
        top = int(rng.integers(height - tall + 1))
        left = int(rng.integers(width - wide + 1))
        part = slice(top, top + tall), slice(left, left + wide)
        if 2 * gaze[part].sum() >= gaze.sum():
            return part
    return slice(0, height), slice(0, width)


def recoloured(image: np.ndarray, rng: Generator) -> np.ndarray:
    """Change brightness, contrast, saturation and tint of a uint8 (H, W, 3) image at random."""
    pixels = image.astype(np.float32) * rng.uniform(0.7, 1.3)
    mean = pixels.mean()
    pixels = (pixels - mean) * rng.uniform(0.7, 1.3) + mean
    if rng.random() < 0.6:
        gray = pixels.mean(2, keepdims=True)
        pixels = (pixels - gray) * rng.uniform(0.0, 1.4) + gray
    pixels *= rng.uniform(0.9, 1.1, 3).astype(np.float32)
    return np.clip(pixels, 0, 255).astype(np.uint8)
