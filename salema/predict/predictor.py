"""The one path from frames to maps: in order, chunk by chunk, in constant memory."""

import copy
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import chain, groupby, islice
from operator import itemgetter
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
import torch

from salema.media import read
from salema.media.image import fit
from salema.media.read import Frame
from salema.media.threads import ahead
from salema.model.device import pick_device, pick_precision
from salema.model.layers import LOGITS
from salema.model.network import SaliencyModel, State
from salema.model.recurrence import EMA
from salema.model.weights import Card
from salema.predict import cpu
from salema.predict.arrays import frames as read_frames

# Bytes of the largest activation on a CPU. Larger ones leave the cache, and glibc returns their
# memory after each layer, only to page it in again for the next one.
IN_CACHE = 12 * 2**20
ON_GPU = 64  # frames of a batch there, where a chunk has so many
AHEAD_BYTES = 256 * 2**20  # of decoded frames that wait for the network
CUT = 0.5  # share of pixels that change their colour bin at a cut

Item = TypeVar("Item")
Shape = tuple[int, ...]


class Predictor:
    """A network at work.

    The network itself is never changed. Its weights are copied when the first map is computed;
    make a new Predictor to use weights that are changed after that.

    Args:
        network: On any device, in float32; with or without branches.
        device: "auto" (the GPU where there is one), "cpu", "cuda" or "cuda:1".
        precision: "auto" (bf16 where the hardware has it), "fp32" or "bf16".
        chunk: Frames that are read, computed and written together; set it to 1 for a live
            source. The maps do not depend on it.
        card: The description in the weights file.
    """

    def __init__(
        self,
        network: SaliencyModel,
        device: str = "auto",
        precision: str = "auto",
        chunk: int = 16,
        card: Card | None = None,
    ) -> None:
        self.network, self.chunk, self.card = network, chunk, card or Card()
        self.config, self.placement = network.config, network.placement
        self.size: tuple[int, int] = tuple(network.config.size)  # (H, W) of input and maps
        self.device = pick_device(device)
        self.precision = pick_precision(precision, self.device)
        self._dtype = torch.bfloat16 if self.precision == "bf16" else torch.float32
        self.at_once = ON_GPU
        if self.device.type == "cpu":
            channels = getattr(network.layers[0], "largest", network.widths[0])
            largest = channels * self.size[0] * self.size[1] * self._dtype.itemsize
            self.at_once = max(1, IN_CACHE // largest)
        self.reset()

    @cached_property
    def prepared(self) -> SaliencyModel:
        """The copy of the network that computes the maps, made on first use."""
        network = copy.deepcopy(self.network).fold().eval().requires_grad_(False).float()
        network.to(self.device).to(memory_format=torch.channels_last)
        if self.device.type == "cpu":
            cpu.replace(network.layers, network.placement.after, self._dtype)
        if self.precision == "bf16":
            for module in [*network.layers[:LOGITS], *network.memories.values()]:
                if not isinstance(module, EMA):
                    module.to(torch.bfloat16)
        network.assemble()
        return network

    def at(self, fps: float | None) -> "Predictor":
        """The same model for frames of another rate, with an empty memory.

        An EMA whose placement names the rate of its alpha keeps its time constant in seconds; any
        other averages frames, whatever their rate. None: the rate is not known.
        """
        own, meant = copy.copy(self), self.placement.fps
        if meant and fps and fps != meant:
            own.prepared = network = copy.copy(self.prepared)  # with the same layers
            network._modules = network._modules | {"memories": copy.deepcopy(network.memories)}
            for memory in network.memories.values():
                keep = (1 - memory.alpha) ** (meant / fps)
                memory.alpha_logit.copy_(torch.logit(1 - keep))
        else:
            own.prepared = self.prepared  # one copy of the weights for all
        own.reset()
        return own

    def reset(self) -> None:
        """Empty the memory: the next `step` starts a clip."""
        self.state: State | None = None  # of the memory after the last `step`
        self._shape: Shape = ()

    def step(self, frames: np.ndarray) -> np.ndarray:
        """Maps of the next frames of a clip, at the model's size; continues `state`.

        As `predict`, but frames of another size than those before start a new clip.
        """
        _check(frames)
        if frames.shape[1:] != self._shape:
            self.reset()
            self._shape = frames.shape[1:]
        if not len(frames):
            return np.empty((0, *self.size), np.float32)
        if frames.shape[1:3] != self.size:
            frames = np.stack([self.fit(frame) for frame in frames])
        return self.compute(frames, in_time=True)

    @torch.inference_mode()
    def compute(self, frames: np.ndarray, in_time: bool) -> np.ndarray:
        """Float32 maps (T, H, W) of frames at the model's size: of one clip, or each of its own.

        `frames` are uint8 (T, H, W, 3), or an encoder's features, float16 (T, h, w, C).
        """
        maps = []
        for start in range(0, len(frames), self.at_once):
            part = np.require(frames[start : start + self.at_once], requirements="CW")
            batch = torch.from_numpy(part)
            if self.device.type == "cuda":
                batch = batch.pin_memory()
            batch = batch.to(self.device, non_blocking=True)
            if in_time:
                clip, self.state = self.prepared(batch[None], self.state)
                maps.append(clip[0])
            else:
                maps.append(self.prepared(batch[:, None])[0][:, 0])
        return torch.cat(maps).cpu().numpy()  # one copy: a GPU waits for none between

    def fit(self, frame: np.ndarray) -> np.ndarray:
        """A uint8 (H, W, 3) RGB frame at the model's size, by area; the aspect is not kept."""
        return fit(frame, self.size)

    def predict(
        self,
        frames: np.ndarray | Sequence[np.ndarray] | str | Path,
        size: str = "source",
        fps: float | None = None,
    ) -> np.ndarray:
        """Maps of a whole clip, in one call.

        Args:
            frames: uint8 (T, H, W, 3) RGB, any T, any size, or a list of such frames (H, W, 3);
                or a path: a video, a folder of frames or an image. The memory starts empty.
            size: "source": maps as large as the frames (bilinear); "model": as computed.
            fps: Their frame rate (see `at`); a video has its own.

        Returns:
            float32 (T, H, W) in [0, 1], raw: the scale is the network's own.

        Raises:
            ValueError: The frames are not uint8 (T, H, W, 3), or the path cannot be read.
        """
        if isinstance(frames, str | Path):
            fps = fps or read.open(frames).fps
            frames = read_frames(frames)
        frames = _stacked(frames)
        _check(frames)
        shape = frames.shape[1:3] if size == "source" else self.size
        maps = np.empty((len(frames), *shape), np.float32)
        for index, saliency in enumerate(self.stream(frames, size, fps)):
            maps[index] = saliency
        return maps

    def stream(
        self, frames: Iterable[np.ndarray], size: str = "source", fps: float | None = None
    ) -> Iterator[np.ndarray]:
        """One float32 (H, W) map for each uint8 (H, W, 3) RGB frame, in constant memory.

        Frames are taken `chunk` at a time; each call has a memory of its own. For `fps` see `at`.
        """
        fitted = ((frame.shape[:2], frame.shape, self.fit(frame)) for frame in frames)
        for source, saliency in self._walk(fitted, fps):
            yield fit(saliency, source, cv2.INTER_LINEAR) if size == "source" else saliency

    def maps(
        self, frames: Iterable[Frame], shot_reset: bool = False, fps: float | None = None
    ) -> Iterator[tuple[Frame, np.ndarray]]:
        """Pairs of a frame and its float32 map at the model's size, in order.

        Decoding and resizing run ahead in a thread; each call has a memory of its own. With
        `shot_reset` the memory is emptied at every cut. A `Source` knows its frame rate.
        """
        fps, frames = fps or getattr(frames, "fps", None), iter(frames)
        if first := next(frames, None):
            depth = max(2, min(2 * self.chunk, AHEAD_BYTES // first.image.nbytes))
            frames = chain([first], frames)
            fitted = ((frame, frame.image.shape, self.fit(frame.image)) for frame in frames)
            yield from self._walk(ahead(fitted, depth), fps, shot_reset)

    def images(self, pictures: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """One float32 map at the model's size for each uint8 (H, W, 3) RGB picture of any size.

        Pictures are computed in batches, and each one is a clip of its own.
        """
        fitted = ahead(map(self.fit, pictures), 2 * self.chunk)
        while batch := list(islice(fitted, self.chunk)):
            yield from self.compute(np.stack(batch), in_time=False)

    def _walk(
        self,
        fitted: Iterable[tuple[Item, Shape, np.ndarray]],
        fps: float | None,
        shot_reset: bool = False,
    ) -> Iterator[tuple[Item, np.ndarray]]:
        """Pairs of an item and its map, from an item, its frame's shape and its frame resized."""
        own = self.at(fps)
        for _, shot in groupby(_numbered(fitted, shot_reset), itemgetter(0)):
            own.reset()
            while chunk := list(islice(shot, self.chunk)):
                maps = own.step(np.stack([small for *_, small in chunk]))
                yield from zip((item for _, item, _ in chunk), maps, strict=True)


def _numbered(
    fitted: Iterable[tuple[Item, Shape, np.ndarray]], shot_reset: bool
) -> Iterator[tuple[int, Item, np.ndarray]]:
    """Items and resized frames with a number, which grows where the memory must be emptied."""
    number, before = 0, None
    for item, shape, small in fitted:
        if before and (shape != before[0] or (shot_reset and is_cut(before[1], small))):
            number += 1
        before = shape, small
        yield number, item, small


def _stacked(frames: np.ndarray | Sequence[np.ndarray]) -> np.ndarray:
    """Frames as one array; an error if they are neither an array nor a list of one size."""
    if isinstance(frames, list | tuple) and len({np.shape(frame) for frame in frames}) == 1:
        return np.stack(frames)
    if not isinstance(frames, np.ndarray):
        wanted = "a uint8 array (T, H, W, 3), a list of frames of one size or a path"
        raise ValueError(f"frames must be {wanted}, not {type(frames).__name__} (or use stream)")
    return frames


def _check(frames: np.ndarray) -> None:
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8:
        raise ValueError(f"frames must be uint8 (T, H, W, 3), not {frames.dtype} {frames.shape}")


def is_cut(before: np.ndarray, after: np.ndarray) -> bool:
    """Whether the 8x8x8 colour histograms of two uint8 (H, W, 3) frames differ in most pixels."""
    options = ([0, 1, 2], None, [8, 8, 8], [0, 256] * 3)
    first, second = (cv2.calcHist([frame], *options) for frame in (before, after))
    return float(np.abs(first - second).sum()) / 2 > CUT * before.shape[0] * before.shape[1]
