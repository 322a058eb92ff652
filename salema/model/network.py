"""The network: 62 layers with a placement of recurrences among them.

Features
- SalGAN's generator as ONE Sequential with the official numbering 0-61 (VGG-16's
  convolutions without the last pooling, and their mirror image); no batch norm. Another
  encoder stands at 0, with nothing at 1-29.
- A placement puts a recurrence behind layers: EMA or ConvLSTM, with dropout, residual,
  fresh layers, a smaller working size. No recurrence is the static network.
- Everything before and after a recurrence is independent of time: T frames are one batch.

Source: Pan et al., arXiv 1701.01081 (SalGAN); Linardos et al., BMVC 2019 (SalEMA).
"""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from salema.files import SalemaError
from salema.model.efficientnet import Lite
from salema.model.layers import (
    FIRST_DECODER,
    LOGITS,
    MEAN_BGR,
    SIGMOID,
    Branches,
    reset,
    salgan,
    scaled,
)
from salema.model.recurrence import EMA, ConvLSTM, MapLSTM
from salema.params import Model, Placement
from salema.predict.cpu import faster

PLACEMENTS = {  # those with a name of their own; `params.yaml` may define others
    "static": Placement(recurrence="none"),
    "ema7": Placement(recurrence="ema", after=[7], alpha=0.1),
    "ema30": Placement(recurrence="ema", after=[30], alpha=0.1),
    "ema30-dropout": Placement(recurrence="ema", after=[30], alpha=0.1, dropout="always"),
    "ema30-residual": Placement(recurrence="ema", after=[30], alpha=0.1, residual=True),
    "ema30-learned": Placement(recurrence="ema", after=[30], alpha=0.56, learned=True),
    "ema54": Placement(recurrence="ema", after=[54], alpha=0.1),
    "ema61": Placement(recurrence="ema", after=[61], alpha=0.1),
    "ema7-54": Placement(recurrence="ema", after=[7, 54], alpha=0.3),
    "clstm30": Placement(recurrence="convlstm", after=[29]),
    "clstm56": Placement(recurrence="convlstm", after=[55], fresh=[56, 58, 60]),
    "videosalgan": Placement(recurrence="convlstm", after=[61], hidden=128, short_side=64),
}

# Bytes of the largest activation, on a CPU: larger ones leave the cache, and glibc gives their
# memory back after each layer, to fault it in anew.
IN_CACHE = 12 * 2**20
ON_GPU = 64  # frames of a batch there, where a chunk has so many


class State(NamedTuple):
    """What a model remembers between chunks: frames seen, and each recurrence's state."""

    frame: int = 0
    memories: dict[int, Tensor | tuple[Tensor, Tensor]] = {}  # noqa: RUF012 - never mutated

    def detach(self) -> "State":
        """The same state without its history, for truncated backpropagation."""
        cut = {
            layer: memory.detach() if isinstance(memory, Tensor)
            else tuple(part.detach() for part in memory)
            for layer, memory in self.memories.items()
        }  # fmt: skip
        return State(self.frame, cut)


class SaliencyModel(nn.Module):
    """SalGAN's layers with a placement: frames and a state to maps and the next state.

    Args:
        config: Size, width, input scale.
        placement: Where the recurrence sits.
        branches: Whether each 3x3 convolution trains with `Branches`; `fold` turns them
            into plain convolutions.

    Raises:
        SalemaError: A residual around a layer that changes the shape, a `hidden` that is not
            the layer's, a fresh layer without weights, or a layer that the encoder lacks.
    """

    def __init__(self, config: Model, placement: Placement, branches: bool = False) -> None:
        super().__init__()
        self.config, self.placement = config, placement
        self.layers = salgan(config.width)
        if config.encoder == "efficientnet-lite0":
            self._replace_encoder(branches)
        self.widths = self._widths()
        self.memories = nn.ModuleDict(
            {str(layer): self._memory(layer) for layer in placement.after}
        )
        for layer in placement.fresh:
            if not isinstance(self.layers[layer], nn.Conv2d):
                raise SalemaError(f"fresh: {layer} in a placement (no convolution is there)")
            reset(self.layers[layer])
        self.branches = nn.ModuleDict()
        if branches:
            for index, layer in enumerate(self.layers[:LOGITS]):
                if isinstance(layer, nn.Conv2d):
                    self.branches[str(index)] = Branches(layer)
        self.precision = "fp32"
        self.chunk = 16  # frames that are read, computed and written together
        self.at_once = 16  # frames of them that the network takes as one batch
        self.faster: dict[int, Callable[[Tensor], Tensor]] = {}
        self.register_buffer("mean", torch.tensor(MEAN_BGR).view(1, 3, 1, 1), persistent=False)

    def _replace_encoder(self, branches: bool) -> None:
        """EfficientNet-Lite0 for layers 0-29; their last output has as many channels."""
        for layer in self.placement.after:
            if layer < FIRST_DECODER - 1:
                raise SalemaError(f"no layer {layer} in efficientnet-lite0 (after: 29 to 61)")
        self.layers[0] = Lite(self.layers[FIRST_DECODER].in_channels, branches)
        for index in range(1, FIRST_DECODER):
            self.layers[index] = nn.Identity()

    def _widths(self) -> list[int]:
        """Channels after each layer."""
        widths, channels = [], 3
        for layer in self.layers:
            channels = getattr(layer, "out_channels", channels)
            widths.append(channels)
        return widths

    def _memory(self, after: int) -> nn.Module:
        place, channels = self.placement, self.widths[after]
        resized = isinstance(self.layers[after], nn.MaxPool2d | nn.Upsample)
        if place.residual and (resized or after == 0 or self.widths[after - 1] != channels):
            raise SalemaError(f"a residual around layer {after}, which changes the shape (move it)")
        match place.recurrence:
            case "ema":
                return EMA(place.alpha, place.learned)
            case "convlstm" if after == SIGMOID:
                hidden = scaled(place.hidden or 128, self.config.width)
                return MapLSTM(hidden, place.short_side, place.decode)
            case "convlstm":
                if place.hidden not in (None, channels):
                    raise SalemaError(
                        f"hidden: {place.hidden} after layer {after} (leave it out: {channels})"
                    )
                return ConvLSTM(channels, channels, place.decode)
        raise ValueError(f"no recurrence is called {place.recurrence!r}")

    def forward(self, frames: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Maps of a chunk.

        Args:
            frames: (B, T, H, W, 3) uint8 RGB at the model's size.
            state: After the previous chunk; None at a clip's start.

        Returns:
            (B, T, H, W) float32 in [0, 1] (raw: no min-max), and the new state.
        """
        batch, time = frames.shape[:2]
        state = state or State()
        memories = {}
        x = self.normalise(frames.flatten(0, 1))
        for index, layer in enumerate(self.layers):
            placed = str(index) in self.memories
            before = x
            if placed and self.placement.dropout != "none":
                x = self._dropout(x, batch, state.frame)
            x = self._layer(index, layer, x)
            if placed:
                y, memories[index] = self.memories[str(index)](
                    x.unflatten(0, (batch, time)), state.memories.get(index)
                )
                x = y.flatten(0, 1)
                if self.placement.residual:
                    x = x + before
        maps = x.float().view(batch, time, *x.shape[-2:])
        return maps, State(state.frame + time, memories)

    def _layer(self, index: int, layer: nn.Module, x: Tensor) -> Tensor:
        if index in self.faster:
            return self.faster[index](x)
        if index == LOGITS:  # in float32, so that bf16 costs no grey levels
            with torch.autocast(x.device.type, enabled=False):
                return F.conv2d(x.float(), layer.weight.float(), layer.bias.float())
        if str(index) in self.branches:
            return self.branches[str(index)](x, layer(x))
        if isinstance(layer, nn.ReLU) and {str(index - 1), str(index)} & set(self.memories):
            return F.relu(x)  # not in place: the input may be a state, or a residual's start
        return layer(x)

    def normalise(self, frames: Tensor) -> Tensor:
        """(N, H, W, 3) uint8 RGB -> (N, 3, H, W) BGR, mean subtracted, over `std`."""
        # Whole rows at once: operations on three channels at a time are slow.
        mean = self.mean.flatten().repeat(frames.shape[2])
        rows = frames.flip(3).flatten(2).to(mean.dtype)  # flip: RGB to BGR
        x = rows.sub_(mean).div_(self.config.std).view(frames.shape).permute(0, 3, 1, 2)
        return x.to(self.layers[FIRST_DECODER].weight.dtype)

    def _dropout(self, x: Tensor, batch: int, first: int) -> Tensor:
        """Drop half of the channels; while predicting, the same ones for a frame's number."""
        if self.training:
            return F.dropout2d(x, 0.5)
        if self.placement.dropout != "always":
            return x
        # Differs: the released code drew at random at inference; ours can be repeated, and
        # does not depend on the chunk length.
        time, channels = x.shape[0] // batch, x.shape[1]
        keep = [np.random.default_rng([7, first + t]).random(channels) < 0.5 for t in range(time)]
        mask = torch.from_numpy(np.stack(keep)).to(x).mul(2)
        return x * mask.repeat(batch, 1)[:, :, None, None]

    # ------------------------------------------------------------------ inference

    def prepare(self, device: str = "auto", precision: str = "auto") -> "SaliencyModel":
        """Ready for inference: evaluation mode, device, precision, channels_last, in place.

        Raises:
            SalemaError: The device is unknown or not there.
        """
        place = pick_device(device)
        self.precision = pick_precision(precision, place)
        self.fold().eval().requires_grad_(False).float()
        self.to(place).to(memory_format=torch.channels_last)
        if place.type == "cpu":
            dtype = torch.bfloat16 if self.precision == "bf16" else torch.float32
            self.faster = faster(self.layers, self.placement.after, dtype)
            height, width = self.config.size
            channels = getattr(self.layers[0], "largest", self.widths[0])
            largest = channels * height * width * dtype.itemsize
            self.at_once = max(1, IN_CACHE // largest)
        else:
            self.at_once = ON_GPU
        if self.precision == "bf16":
            for module in [*self.layers[:LOGITS], *self.memories.values()]:
                if not isinstance(module, EMA):
                    module.to(torch.bfloat16)
        return self

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.layers[LOGITS].weight.device

    @torch.inference_mode()
    def step(self, frames: np.ndarray, state: State | None = None) -> tuple[np.ndarray, State]:
        """One chunk at the model's size: uint8 (T, H, W, 3) RGB -> float32 (T, H, W), state."""
        maps = []
        for some in self._batches(frames):
            part, state = self(some[None], state)
            maps.append(part[0])
        return torch.cat(maps).cpu().numpy(), state  # one copy: a GPU waits for none between

    @torch.inference_mode()
    def step_images(self, images: np.ndarray) -> np.ndarray:
        """Images at the model's size, uint8 (N, H, W, 3) RGB -> float32 (N, H, W).

        Each is a clip of its own: no memory goes from one to the next.
        """
        maps = [self(some[:, None])[0][:, 0] for some in self._batches(images)]
        return torch.cat(maps).cpu().numpy()

    def _batches(self, frames: np.ndarray) -> Iterator[Tensor]:
        """The frames, `at_once` at a time, where the model is."""
        for start in range(0, len(frames), self.at_once):
            some = np.require(frames[start : start + self.at_once], requirements="CW")
            some = torch.from_numpy(some)
            if self.device.type == "cuda":
                some = some.pin_memory()
            yield some.to(self.device, non_blocking=True)

    def fit(self, frame: np.ndarray) -> np.ndarray:
        """A uint8 (H, W, 3) RGB frame at the model's size, by area; the aspect is not kept."""
        height, width = self.config.size
        if frame.shape[:2] == (height, width):
            return frame
        return cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA)

    def predict(self, frames: np.ndarray, size: str = "source") -> np.ndarray:
        """Maps of a whole clip, in one call.

        Args:
            frames: uint8 (T, H, W, 3) RGB, any T, any size; the memory starts anew.
            size: "source": maps as large as the frames (bilinear); "model": as computed.

        Returns:
            float32 (T, H, W) in [0, 1], raw: the scale is the network's own.

        Raises:
            ValueError: The frames are not uint8 (T, H, W, 3).
        """
        if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8:
            raise ValueError(
                f"frames must be uint8 (T, H, W, 3), not {frames.dtype} {frames.shape}"
            )
        shape = frames.shape[1:3] if size == "source" else tuple(self.config.size)
        maps = np.empty((len(frames), *shape), np.float32)
        for index, saliency in enumerate(self.stream(frames, size)):
            maps[index] = saliency
        return maps

    def stream(self, frames: Iterable[np.ndarray], size: str = "source") -> Iterator[np.ndarray]:
        """One float32 (H, W) map a frame, in constant memory; each call has its own state.

        Frames are taken `self.chunk` at a time; for a live source set it to 1.
        """
        state: State | None = None
        waiting: list[np.ndarray] = []
        shapes: list[tuple[int, int]] = []

        def maps_of_chunk() -> Iterator[np.ndarray]:
            nonlocal state
            maps, state = self.step(np.stack(waiting), state)
            for saliency, (height, width) in zip(maps, shapes, strict=True):
                if size == "source" and saliency.shape != (height, width):
                    saliency = cv2.resize(saliency, (width, height))
                yield saliency
            waiting.clear()
            shapes.clear()

        for frame in frames:
            waiting.append(self.fit(frame))
            shapes.append(frame.shape[:2])
            if len(waiting) == self.chunk:
                yield from maps_of_chunk()
        if waiting:
            yield from maps_of_chunk()

    # ------------------------------------------------------------------ weights

    def fold(self) -> "SaliencyModel":
        """Turn the branches into their convolutions' weights, in place; exact in eval mode."""
        for index, branch in self.branches.items():
            branch.fold(self.layers[int(index)])
        if isinstance(self.layers[0], Lite):
            self.layers[0].fold()
        self.branches, self.faster = nn.ModuleDict(), {}
        return self

    def alphas(self) -> dict[str, float]:
        """Effective weight of the newest frame, per EMA."""
        emas = {k: m for k, m in self.memories.items() if isinstance(m, EMA)}
        return {layer: float(memory.alpha.detach()) for layer, memory in emas.items()}


def pick_device(device: str) -> torch.device:
    """`auto` is the GPU where there is one.

    Raises:
        SalemaError: The device is unknown or not there.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        place = torch.device(device)
        torch.empty(1, device=place)
    except (RuntimeError, AssertionError) as error:
        raise SalemaError(f"no such device: {device} (use cpu, or auto)") from error
    return place


def pick_precision(precision: str, device: torch.device) -> str:
    """`auto` is bf16 where the hardware multiplies it natively, else fp32."""
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    native = device.type == "cpu" and (
        torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    )
    return "bf16" if native else "fp32"
