"""The network: 62 layers with a placement of recurrences among them.

Features
- SalGAN's generator is ONE Sequential with the official numbering 0-61 (VGG-16's
  convolutions without the last pooling, and their mirror image); no batch norm. With another
  encoder, that encoder is layer 0, and layers 1-29 do nothing.
- A placement puts a recurrence after layers: EMA or ConvLSTM, with dropout, residual,
  fresh layers, a smaller working size. No recurrence is the static network.
- Everything before and after a recurrence is independent of time: T frames are one batch.

Source: Pan et al., arXiv 1701.01081 (SalGAN); Linardos et al., BMVC 2019 (SalEMA).
"""

from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

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
    Branched,
    Branches,
    reset,
    salgan,
    scaled,
)
from salema.model.recurrence import EMA, ConvLSTM, MapLSTM
from salema.params import Model, Placement

Memory = Tensor | tuple[Tensor, Tensor]  # state of an EMA; cell and hidden state of a ConvLSTM


class State(NamedTuple):
    """What a model remembers between chunks: frames seen, and each recurrence's state."""

    frame: int = 0
    memories: dict[int, Memory] = {}  # noqa: RUF012 - never mutated

    def detach(self) -> "State":
        """The same state without its history, for truncated backpropagation."""
        cut = {}
        for layer, memory in self.memories.items():
            whole = isinstance(memory, Tensor)
            cut[layer] = memory.detach() if whole else tuple(part.detach() for part in memory)
        return State(self.frame, cut)


class Dropout(nn.Module):
    """Drops half of the channels of each frame; `kind` is that of a placement's `dropout`."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, x: Tensor, batch: int, first: int) -> Tensor:
        """(B * T, C, H, W), B and the number of the first frame -> the same shape."""
        if self.kind == "none":
            return x
        if self.training:
            return F.dropout2d(x, 0.5)
        if self.kind == "train":
            return x
        # Differs: the released code drew at random at inference. Here the channels depend on
        # the number of the frame only, so that maps can be repeated with any chunk length.
        time, channels = x.shape[0] // batch, x.shape[1]
        keep = [np.random.default_rng([7, first + t]).random(channels) < 0.5 for t in range(time)]
        mask = torch.from_numpy(np.stack(keep)).to(x).mul(2)
        return x * mask.repeat(batch, 1)[:, :, None, None]


@dataclass
class Placed:
    """A layer with a recurrence after it."""

    index: int
    dropout: Dropout
    layer: nn.Module
    memory: nn.Module
    residual: bool

    def __call__(self, x: Tensor, batch: int, state: State) -> tuple[Tensor, Memory]:
        """Input of the layer (B * T, C, H, W) -> averages of its output, state of the memory."""
        before = x
        x = self.layer(self.dropout(x, batch, state.frame))
        x, memory = self.memory(x.unflatten(0, (batch, -1)), state.memories.get(self.index))
        x = x.flatten(0, 1)
        return (x + before if self.residual else x), memory


class SaliencyModel(nn.Module):
    """SalGAN's layers with a placement: frames and a state to maps and the next state.

    Args:
        config: Size, width, input scale.
        placement: Where the recurrence is.
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
        after = accumulate(
            self.layers, lambda n, layer: getattr(layer, "out_channels", n), initial=3
        )
        self.widths = list(after)[1:]  # channels after each layer
        self.memories = nn.ModuleDict(
            {str(layer): self._memory(layer) for layer in placement.after}
        )
        for layer in placement.fresh:
            if not isinstance(self.layers[layer], nn.Conv2d):
                raise SalemaError(f"fresh: {layer} in a placement (no convolution is there)")
            reset(self.layers[layer])
        for index in placement.after:  # a ReLU there must not overwrite a state or a residual
            for layer in self.layers[index : index + 2]:
                if isinstance(layer, nn.ReLU):
                    layer.inplace = False
        self.branches = nn.ModuleDict()
        if branches:
            for index, layer in enumerate(self.layers[:LOGITS]):
                if isinstance(layer, nn.Conv2d):
                    self.branches[str(index)] = Branches(layer)
        self.dropout = Dropout(placement.dropout)
        self.register_buffer("mean", torch.tensor(MEAN_BGR).view(1, 3, 1, 1), persistent=False)
        self.assemble()

    def _replace_encoder(self, branches: bool) -> None:
        """EfficientNet-Lite0 for layers 0-29; their last output has as many channels."""
        for layer in self.placement.after:
            if layer < FIRST_DECODER - 1:
                raise SalemaError(f"no layer {layer} in efficientnet-lite0 (after: 29 to 61)")
        self.layers[0] = Lite(self.layers[FIRST_DECODER].in_channels, branches)
        for index in range(1, FIRST_DECODER):
            self.layers[index] = nn.Identity()

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

    def assemble(self) -> None:
        """Make `segments`: layers, a placed layer, layers, ... up to the last layers.

        Call it again after a layer, a memory or a branch was replaced by another module.
        A list is not part of the module tree, which has all of these modules already.
        """
        layers = [
            Branched(layer, self.branches[str(index)]) if str(index) in self.branches else layer
            for index, layer in enumerate(self.layers)
        ]
        self.segments: list[tuple[nn.Sequential, Placed | None]] = []
        start, residual = 0, self.placement.residual
        for index, memory in zip(self.placement.after, self.memories.values(), strict=True):
            placed = Placed(index, self.dropout, layers[index], memory, residual)
            self.segments.append((nn.Sequential(*layers[start:index]), placed))
            start = index + 1
        self.segments.append((nn.Sequential(*layers[start:]), None))

    def forward(self, frames: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Maps of a chunk.

        Args:
            frames: (B, T, H, W, 3) uint8 RGB at the model's size.
            state: After the previous chunk; None at a clip's start.

        Returns:
            (B, T, H, W) float32 in [0, 1] (raw: no min-max), and the new state.
        """
        batch, time = frames.shape[:2]
        state, memories = state or State(), {}
        x = self.normalise(frames.flatten(0, 1))
        for layers, placed in self.segments:
            x = layers(x)  # independent of time: B * T frames are one batch
            if placed is not None:
                x, memories[placed.index] = placed(x, batch, state)
        maps = x.float().view(batch, time, *x.shape[-2:])
        return maps, State(state.frame + time, memories)

    def normalise(self, frames: Tensor) -> Tensor:
        """(N, H, W, 3) uint8 RGB -> (N, 3, H, W) BGR, mean subtracted, over `std`."""
        # Whole rows at once: operations on three channels at a time are slow.
        mean = self.mean.flatten().repeat(frames.shape[2])
        rows = frames.flip(3).flatten(2).to(mean.dtype)  # flip: RGB to BGR
        x = rows.sub_(mean).div_(self.config.std).view(frames.shape).permute(0, 3, 1, 2)
        return x.to(self.layers[FIRST_DECODER].weight.dtype)

    def fold(self) -> "SaliencyModel":
        """Turn the branches into their convolutions' weights, in place; exact in eval mode."""
        for index, branch in self.branches.items():
            branch.fold(self.layers[int(index)])
        if isinstance(self.layers[0], Lite):
            self.layers[0].fold()
        self.branches = nn.ModuleDict()
        self.assemble()
        return self

    def alphas(self) -> dict[str, float]:
        """Effective weight of the newest frame, per EMA."""
        emas = {k: m for k, m in self.memories.items() if isinstance(m, EMA)}
        return {layer: float(memory.alpha.detach()) for layer, memory in emas.items()}
