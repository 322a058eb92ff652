"""The network: SalGAN's 62 layers with a placement of recurrences among them.

Everything before and after a recurrence is independent of time: T frames are one batch.

Source: Pan et al., arXiv 1701.01081 (SalGAN); Linardos et al., BMVC 2019 (SalEMA).
"""

from collections.abc import Callable
from itertools import accumulate
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from salema.files import SalemaError
from salema.model.efficientnet import Lite
from salema.model.layers import (
    FIRST_DECODER,
    LOGITS,
    MEAN_BGR,
    SIGMOID,
    Branched,
    Branches,
    salgan,
    scaled,
)
from salema.model.recurrence import EMA, Cells, ConvLSTM, Convolution, OnMaps, xavier
from salema.params import LITE, Model, Placement


class State(NamedTuple):
    """What a model remembers between chunks: frames seen, and each recurrence's state."""

    frame: int = 0
    memories: dict[int, Tensor | Cells | tuple[()]] = {}  # noqa: RUF012 - never mutated

    def each(self, change: Callable[[Tensor], Tensor]) -> "State":
        """A state with each tensor (B, ...) changed; `Tensor.detach` cuts off its history."""
        changed = {}
        for layer, memory in self.memories.items():
            whole = isinstance(memory, Tensor)
            changed[layer] = change(memory) if whole else tuple(change(part) for part in memory)
        return State(self.frame, changed)


class SaliencyModel(nn.Module):
    """SalGAN's layers with a placement: frames and a state to maps and the next state.

    `layers` has the official numbering 0-61. An EfficientNet is layer 0, and layers 1-29 then
    do nothing. With `branches`, each 3x3 convolution trains with `Branches`, until `fold`.
    """

    def __init__(self, config: Model, placement: Placement, branches: bool = False) -> None:
        super().__init__()
        self.config, self.placement = config, placement
        self.draws: list[int] | None = None  # seeds of dropout in training, one for each clip
        self.layers = salgan(config.width)
        if config.encoder in LITE:
            self._replace_encoder(branches)
        own = (getattr(layer, "out_channels", 0) for layer in self.layers)
        self.widths = [*accumulate(own, lambda before, new: new or before)]  # channels after each
        memories = {str(layer): self._memory(layer) for layer in placement.after}
        self.memories = nn.ModuleDict(memories)
        for layer in placement.fresh:
            if not isinstance(self.layers[layer], nn.Conv2d):
                raise SalemaError(f"fresh: {layer} in a placement (no convolution is there)")
            xavier(self.layers[layer])
        for after in placement.after:  # what they read may be a state or a residual
            for layer in self.layers[after : after + 2]:
                if isinstance(layer, nn.ReLU):
                    layer.inplace = False
        self.branches = nn.ModuleDict()
        if branches:
            for index, layer in enumerate(self.layers[:LOGITS]):
                if isinstance(layer, nn.Conv2d):
                    self.branches[str(index)] = Branches(layer)
        self.register_buffer("mean", torch.tensor(MEAN_BGR).view(1, 3, 1, 1), persistent=False)
        self.assemble()

    def _replace_encoder(self, branches: bool) -> None:
        """An EfficientNet-Lite for layers 0-29; their last output has as many channels."""
        for layer in self.placement.after:
            if layer < FIRST_DECODER - 1:
                raise SalemaError(f"no layer {layer} in {self.config.encoder} (after: 29 to 61)")
        self.layers[0] = Lite(self.config.encoder, self.layers[FIRST_DECODER].in_channels, branches)
        for index in range(1, FIRST_DECODER):
            self.layers[index] = nn.Identity()

    def _memory(self, after: int) -> nn.Module:
        place, channels, on_maps = self.placement, self.widths[after], after == SIGMOID
        if place.recurrence == "ema":
            resized = isinstance(self.layers[after], nn.MaxPool2d | nn.Upsample)
            if place.residual and (resized or after == 0 or self.widths[after - 1] != channels):
                raise SalemaError(f"a residual around layer {after} changes the shape (move it)")
            return EMA(place.alpha, place.learned, place.rectified)
        if not on_maps and place.hidden not in (None, channels):
            raise SalemaError(f"hidden: {place.hidden} after layer {after} (make it {channels})")
        hidden = scaled(place.hidden or 128, self.config.width) if on_maps else channels
        if place.recurrence == "convlstm":
            memory = ConvLSTM(channels, hidden, place.decode, place.zero)
        else:
            memory = Convolution(channels, hidden, place.zero)
        return OnMaps(memory, hidden, place.short_side) if on_maps else memory

    def assemble(self) -> None:
        """Make `segments`, from one memory to the next; call it again if a layer was replaced.

        Each is the layers up to a memory's dropout and residual, those from there to the memory,
        and the number of the last one. Dropout and residual are at the input of an EMA's layer,
        but at the output of a ConvLSTM's, whose second part is empty. The last segment is only
        layers. The list is not part of the module tree, which has its modules already.
        """
        layers = [
            Branched(layer, self.branches[str(index)]) if str(index) in self.branches else layer
            for index, layer in enumerate(self.layers)
        ]
        self.segments: list[tuple[nn.Sequential, nn.Module | None, int | None]] = []
        start = 0
        for index in self.placement.after:
            inner = index + (self.placement.recurrence != "ema")
            parts = layers[start:inner], layers[inner : index + 1]
            self.segments.append((*(nn.Sequential(*part) for part in parts), index))
            start = index + 1
        self.segments.append((nn.Sequential(*layers[start:]), None, None))

    def forward(self, frames: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Frames (B, T, H, W, 3) uint8 RGB at the model's size -> maps (B, T, H, W), new state.

        Maps are float32 in [0, 1], raw: no min-max. The state is None at a clip's start.
        The features of an EfficientNet, floats (B, T, h, w, C), may stand for the frames.
        """
        batch, time = frames.shape[:2]
        state, memories = state or State(), {}
        x = frames.flatten(0, 1)
        if x.dtype == torch.uint8:
            x = self.normalise(x)
        else:
            x = x.permute(0, 3, 1, 2).to(self.layers[FIRST_DECODER].weight.dtype)
        for layers, inner, index in self.segments:
            x = layers(x)  # independent of time: B * T frames are one batch
            if inner is not None:
                before, x = x, inner(self._dropped(x, batch, state.frame, index))
                clips, memory = x.unflatten(0, (batch, -1)), state.memories.get(index)
                averages, memories[index] = self.memories[str(index)](clips, memory)
                x = averages.flatten(0, 1)
                x = x + before if self.placement.residual else x
        maps = x.float().view(batch, time, *x.shape[-2:])
        return maps, State(state.frame + time, memories)

    def _dropped(self, x: Tensor, batch: int, first: int, layer: int) -> Tensor:
        """Drop half of the channels of each frame (B * T, C, H, W), where the placement does."""
        kind = self.placement.dropout
        if kind == "none" or (kind == "train" and not self.training):
            return x
        seeds = [7] * batch
        if self.training:  # another mask for each clip and step
            seeds = self.draws or torch.randint(2**31, (batch,)).tolist()
        # Differs: the released code drew at random at inference. Here the channels depend on the
        # layer and the number of the frame, so that maps can be repeated with any chunk length.
        numbers = range(first, first + len(x) // batch)
        draws = [np.random.default_rng([seed, layer, n]) for seed in seeds for n in numbers]
        keep = np.stack([draw.random(x.shape[1]) < 0.5 for draw in draws])
        return x * torch.from_numpy(keep).to(x).mul(2)[:, :, None, None]

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
        memories = self.memories.items()
        return {layer: float(m.alpha.detach()) for layer, m in memories if isinstance(m, EMA)}
