"""Clips -> windows of frames and targets, in the order of an epoch, augmented.

A window knows what it will hold and reads it when asked (`load`), in another thread.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from salema.data import Clip, FrameCache, blur, sigma
from salema.files import SalemaError
from salema.params import Finetune, Tune

SALBCE = ("flip", "flip-vertical", "rotate", "none")


@dataclass
class Window:
    """Frames of one backward pass: `batch` clips side by side, T frames of each."""

    fresh: bool  # whether the clips start here: the state is new
    read: Callable[[], tuple[np.ndarray, np.ndarray]]
    frames: np.ndarray | None = None  # uint8 (B, T, H, W, 3) RGB
    targets: np.ndarray | None = None  # uint8 (B, T, H, W), maximum 255 or blank

    def load(self) -> "Window":
        """Read what it holds."""
        self.frames, self.targets = self.read()
        return self

    def tensors(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """uint8 frames (B, T, H, W, 3), and float32 targets (B, T, H, W) in [0, 1]."""
        frames, targets = torch.from_numpy(self.frames), torch.from_numpy(self.targets)
        if device.type == "cuda":
            frames, targets = frames.pin_memory(), targets.pin_memory()
        targets = targets.to(device, non_blocking=True).float().div_(255)
        return frames.to(device, non_blocking=True), targets


def image_windows(
    clips: list[Clip],
    cache: FrameCache,
    settings: Tune,
    rng: np.random.Generator,
    epoch: int | None,
) -> Iterator[Window]:
    """Batches of single frames: every image once, and some frames of every video.

    Args:
        clips: Images and videos.
        cache: Their frames at the model's size.
        settings: Batch size, augmentation, frames a video gives.
        rng: Decides order, choice and augmentation.
        epoch: Counted from 0; None while validating: in order, nothing changed.
    """  # fmt: skip
    training = epoch is not None
    items = [(clip, frame) for clip in clips for frame in _some(clip, settings, rng, training)]
    if training:
        items = [items[i] for i in rng.permutation(len(items))]
    half = training and epoch < settings.half_epochs
    augment = settings.augment if training else "none"
    for start in range(0, len(items), settings.batch):
        some = items[start : start + settings.batch]
        if training and start and len(some) < settings.batch:
            return  # a small last batch would count as much as a whole one
        seed = int(rng.integers(2**63))
        yield Window(True, lambda some=some, seed=seed: _images(some, cache, augment, seed, half))


def _some(clip: Clip, settings: Tune, rng: np.random.Generator, training: bool) -> list[int]:
    count = min(settings.frames_per_clip, clip.n_frames)
    if training:
        return sorted(rng.choice(clip.n_frames, count, replace=False).tolist())
    return np.linspace(0, clip.n_frames - 1, count).round().astype(int).tolist()


def _images(
    items: list[tuple[Clip, int]], cache: FrameCache, augment: str, seed: int, half: bool
) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    pairs = []
    for clip, frame in items:
        image = _part(cache.frames(clip), clip, frame, 1)[0]
        target = _part(cache.maps(clip), clip, frame, 1)[0]
        if augment == "zoom":
            counts = _part(cache.fixations(clip), clip, frame, 1)[0]
            image, target = zoomed(image, target, counts, rng)
        else:
            image, target = augmented(image, target, augment, rng)
        if half:
            small = (image.shape[1] // 2, image.shape[0] // 2)
            image = cv2.resize(image, small, interpolation=cv2.INTER_AREA)
            target = cv2.resize(target, small, interpolation=cv2.INTER_AREA)
        pairs.append((image, target))
    frames = np.stack([image for image, _ in pairs])[:, None]
    return frames, np.stack([target for _, target in pairs])[:, None]


def _part(array: np.ndarray, clip: Clip, start: int, count: int) -> np.ndarray:
    """So many rows of a clip's array.

    Raises:
        SalemaError: The source broke off before.
    """
    part = np.asarray(array[start : start + count])
    if len(part) < count:
        raise SalemaError(
            f"{clip.dataset} {clip.name} ends after {len(array)} of {clip.n_frames} frames "
            "(copy it again; `salema index --check` tells more)"
        )
    return part


def augmented(
    image: np.ndarray, target: np.ndarray, augment: str, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """An image (H, W, 3) and its map (H, W), changed alike.

    "flip": mirrored or not. "salbce": one of mirrored, upside down, turned by 45 degrees and
    cropped to the centre, or left as it is, as SalBCE was trained.
    """
    choice = {"none": "none", "flip": rng.choice(["flip", "none"]),
              "salbce": rng.choice(SALBCE)}[augment]  # fmt: skip
    match choice:
        case "flip":
            return image[:, ::-1], target[:, ::-1]
        case "flip-vertical":
            return image[::-1], target[::-1]
        case "rotate":
            height, width = target.shape
            # The square that a turn by 45 degrees fills has 1 / sqrt(2) of the short side.
            scale = 2**0.5 * max(height, width) / min(height, width)
            turn = cv2.getRotationMatrix2D((width / 2, height / 2), 45, scale)
            return tuple(cv2.warpAffine(a, turn, (width, height)) for a in (image, target))
    return image, target


def zoomed(
    image: np.ndarray, target: np.ndarray, counts: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """A random part (at least .7 of each side) at full size, mirrored or not, recoloured.

    Fixations are moved and blurred anew, so that a target is as wide as any other; a set
    that only has maps gets its map resized. A part that loses half of the gaze is drawn again.

    Args:
        image: uint8 (H, W, 3).
        target: uint8 (H, W).
        counts: uint8 (H, W), fixations a cell; all zero where the set only has maps.
        rng: Decides.
    """
    height, width = target.shape
    whole = counts if counts.any() else target
    top, left, tall, wide = 0, 0, height, width
    for _ in range(4 if rng.random() < 0.7 else 0):
        zoom, aspect = rng.uniform(0.7, 1.0), np.exp(rng.uniform(-0.12, 0.12))
        tall = min(height, round(height * zoom / aspect))
        wide = min(width, round(width * zoom * aspect))
        top = int(rng.integers(height - tall + 1))
        left = int(rng.integers(width - wide + 1))
        if 2 * whole[top : top + tall, left : left + wide].sum() >= whole.sum():
            break
    else:
        top, left, tall, wide = 0, 0, height, width
    if (tall, wide) != (height, width):
        image = cv2.resize(image[top : top + tall, left : left + wide], (width, height))
        if counts.any():
            rows, columns = np.nonzero(counts[top : top + tall, left : left + wide])
            times = counts[top + rows, left + columns]
            points = np.stack([(columns + 0.5) * width / wide, (rows + 0.5) * height / tall], 1)
            points = np.repeat(points, times, axis=0)
            target = blur(points, (height, width), sigma((height, width)))
            target = np.round(255 * target).astype(np.uint8)
        else:
            target = cv2.resize(target[top : top + tall, left : left + wide], (width, height))
    if rng.random() < 0.5:
        image, target = image[:, ::-1], target[:, ::-1]
    return recoloured(image, rng), target


def recoloured(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Random brightness, contrast, saturation and tint of a uint8 (H, W, 3) image."""
    pixels = image.astype(np.float32) * rng.uniform(0.7, 1.3)
    mean = pixels.mean()
    pixels = (pixels - mean) * rng.uniform(0.7, 1.3) + mean
    if rng.random() < 0.6:
        gray = pixels.mean(2, keepdims=True)
        pixels = (pixels - gray) * rng.uniform(0.0, 1.4) + gray
    pixels *= rng.uniform(0.9, 1.1, 3).astype(np.float32)
    return np.clip(pixels, 0, 255).astype(np.uint8)


def clip_windows(
    clips: list[Clip],
    cache: FrameCache,
    settings: Finetune,
    rng: np.random.Generator,
    epoch: int | None,
) -> Iterator[Window]:
    """Windows of `bptt_frames` in order, `batch` clips side by side, clip group after group.

    A group goes on as long as its shortest clip (or `frames_per_clip`, from a random start).
    While validating: the first two windows of every clip.
    """  # fmt: skip
    training = epoch is not None
    order = rng.permutation(len(clips)) if training else range(len(clips))
    ordered = [clips[i] for i in order]
    for group in [ordered[i : i + settings.batch] for i in range(0, len(ordered), settings.batch)]:
        length = min(clip.n_frames for clip in group)
        longest = settings.frames_per_clip if training else 2 * settings.bptt_frames
        length = min(length, longest or length)
        starts = [int(rng.integers(c.n_frames - length + 1)) if training else 0 for c in group]
        flips = [settings.augment == "flip" and training and rng.random() < 0.5 for _ in group]
        for offset in range(0, length, settings.bptt_frames):
            count = min(settings.bptt_frames, length - offset)
            parts = [(c, s + offset, f) for c, s, f in zip(group, starts, flips, strict=True)]
            yield Window(offset == 0, lambda p=parts, n=count: _clips(p, n, cache))


def _clips(
    parts: list[tuple[Clip, int, bool]], count: int, cache: FrameCache
) -> tuple[np.ndarray, np.ndarray]:
    frames, targets = [], []
    for clip, start, flip in parts:
        some = _part(cache.frames(clip), clip, start, count)
        wanted = _part(cache.maps(clip), clip, start, count)
        frames.append(some[:, :, ::-1] if flip else some)
        targets.append(wanted[:, :, ::-1] if flip else wanted)
    return np.stack(frames), np.stack(targets)
