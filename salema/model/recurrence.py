"""Memories over time: an exponential moving average and a ConvLSTM; a convolution as its control.

Each maps `(B, T, C, H, W)` and the state after the previous chunk to the same shape and the
new state, so a video may be cut into chunks anywhere without changing a map.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Cells = tuple[Tensor, Tensor]  # cell in float32 and hidden state, (B, hidden, H, W) each


def xavier(convolution: nn.Conv2d) -> None:
    """Xavier-normal weights and zero biases, in place: how the original starts what is new."""
    nn.init.xavier_normal_(convolution.weight)
    nn.init.zeros_(convolution.bias)


class EMA(nn.Module):
    """Exponential moving average of one layer's activations over time.

    s_t = alpha * x_t + (1 - alpha) * s_{t-1}, and the first frame is its own state, so a
    clip of one frame leaves the static network unchanged. A chunk is one product with a
    lower triangular T x T matrix. The state is kept in float32.

    Args:
        alpha: Weight of the newest frame, in (0, 1]; 1 switches the memory off.
        learned: Whether `alpha_logit`, its logit, is a parameter; it is infinite at alpha 1.
        rectified: s_t = alpha * x_t + (1 - alpha) * relu(s_{t-1}), in a loop over time: so the
            released code averages behind VGG's convolutions, whose ReLUs work in place.

    Raises:
        ValueError: alpha is outside (0, 1], or is 1 and learned.

    Source: Linardos et al., BMVC 2019.
    """

    def __init__(self, alpha: float, learned: bool = False, rectified: bool = False) -> None:
        super().__init__()
        self.rectified = rectified
        if not 0 < alpha <= 1:
            raise ValueError(f"alpha must be in (0, 1], not {alpha}")
        if learned and alpha == 1:
            raise ValueError("a learned alpha must start below 1")
        logit = torch.tensor(math.log(alpha / (1 - alpha)) if alpha < 1 else math.inf)
        if learned:
            self.alpha_logit = nn.Parameter(logit)
        else:
            self.register_buffer("alpha_logit", logit)

    @property
    def alpha(self) -> Tensor:
        """The effective weight of the newest frame, a scalar in (0, 1]."""
        return torch.sigmoid(self.alpha_logit.float())

    def forward(self, x: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        """(B, T, C, H, W) of any floating type -> averages like it, and the new state.

        The state is (B, 1, H*W*C) float32; it is None at a clip's start.
        """
        _, _, channels, height, width = x.shape
        flat = x.permute(0, 1, 3, 4, 2).flatten(2)  # a view where the layout is channels_last
        out, last = self._loop(flat, state) if self.rectified else self._product(flat, state)
        averages = out.unflatten(2, (height, width, channels)).permute(0, 1, 4, 2, 3)
        return averages, last

    def _loop(self, flat: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        """(B, T, H*W*C) and the state -> averages, and the new state, frame by frame."""
        averages = []
        for x in flat.float().split(1, dim=1):
            state = x if state is None else torch.lerp(state.relu(), x, self.alpha)
            averages.append(state.to(flat.dtype))
        return torch.cat(averages, 1), state

    def _product(self, flat: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        """(B, T, H*W*C) and the state -> averages, and the new state, by matrix products."""
        keep, time = 1 - self.alpha, flat.shape[1]
        step = torch.arange(time, device=keep.device, dtype=keep.dtype)
        age = step[:, None] - step[None, :]
        # 0 ** 0 is 1 with a gradient of 0: alpha = 1 is safe.
        power = keep ** age.clamp(min=0)
        scale = self.alpha.expand(time)
        if state is None:  # the first frame enters whole
            scale = torch.cat([torch.ones_like(scale[:1]), scale[1:]])
        weights = torch.where(age >= 0, power * scale[None, :], 0.0)  # of frame j in average i
        decay = keep ** (step[:, None] + 1)  # of the state before
        # Plain products, outside autocast: what is rounded is chosen here.
        with torch.autocast(flat.device.type, enabled=False):
            out = torch.matmul(weights.to(flat.dtype), flat)
            last = torch.matmul(weights[-1:], flat.float())
            if state is not None:
                out = torch.addcmul(out, decay.to(flat.dtype), state.to(flat.dtype))
                last = last + decay[-1:] * state
        return out, last


class ConvLSTM(nn.Module):
    """Convolutional LSTM with one 3x3 convolution for all gates, in the order i, f, o, g.

    The half of the gates that depends on the input is one convolution over the whole chunk; only
    the half that depends on the hidden state walks over time. The input has `channels`, both parts
    of the state have `hidden`. `decode` is the output: "cell", as in the original, or "hidden".

    With `zero` what enters the cell starts at 0, and so does the output.

    Source: Shi et al., NeurIPS 2015; initialisation and decoded cell: Linardos et al., 2019.
    """

    def __init__(
        self, channels: int, hidden: int, decode: str = "cell", zero: bool = False
    ) -> None:
        super().__init__()
        if decode not in ("cell", "hidden"):
            raise ValueError(f"decode must be 'cell' or 'hidden', not {decode!r}")
        self.channels = channels
        self.decode = decode
        self.gates = nn.Conv2d(channels + hidden, 4 * hidden, 3, padding=1)
        xavier(self.gates)
        if zero:
            nn.init.zeros_(self.gates.weight[-hidden:])

    def forward(self, x: Tensor, state: Cells | None) -> tuple[Tensor, Cells]:
        """(B, T, C, H, W) -> cells (or hidden states) (B, T, hidden, H, W), and the new state.

        The state is None at a clip's start, where cell and hidden state are zero.
        """
        # Contiguous halves: a slice of the weight would be copied at every step.
        last = torch.channels_last
        of_input = self.gates.weight[:, : self.channels].contiguous(memory_format=last)
        of_hidden = self.gates.weight[:, self.channels :].contiguous(memory_format=last)
        x = x.to(self.gates.weight.dtype)
        from_input = F.conv2d(x.flatten(0, 1), of_input, self.gates.bias, padding=1)
        from_input = from_input.unflatten(0, x.shape[:2])
        cell, hidden = state or (None, None)
        outputs = []
        for step in range(x.shape[1]):
            gates = from_input[:, step]
            if hidden is not None:
                gates = gates + F.conv2d(hidden, of_hidden, padding=1)
            enter, forget, out, new = gates.float().chunk(4, 1)
            fresh = torch.sigmoid(enter) * torch.tanh(new)
            cell = fresh if cell is None else torch.sigmoid(forget) * cell + fresh
            hidden = (torch.sigmoid(out) * torch.tanh(cell)).to(gates.dtype)
            outputs.append(cell.to(gates.dtype) if self.decode == "cell" else hidden)
        return torch.stack(outputs, 1), (cell, hidden)


class Convolution(nn.Module):
    """A 3x3 convolution in a ConvLSTM's place, without memory and activation: its control."""

    def __init__(self, channels: int, hidden: int, zero: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, hidden, 3, padding=1)
        xavier(self.conv)
        if zero:
            nn.init.zeros_(self.conv.weight)

    def forward(self, x: Tensor, state: tuple | None) -> tuple[Tensor, tuple]:
        """(B, T, C, H, W) and a state that is not used -> (B, T, hidden, H, W), empty state."""
        y = self.conv(x.flatten(0, 1).to(self.conv.weight.dtype))
        return y.unflatten(0, x.shape[:2]), ()


class OnMaps(nn.Module):
    """VideoSalGAN: a ConvLSTM (or its control) over the static maps, decoded to one logit map.

    `memory` maps 1 to `hidden` channels, with the maps' short side at `short_side` (None: as is).

    Source: Linardos et al., 2018 (VideoSalGAN).
    """

    def __init__(self, memory: nn.Module, hidden: int, short_side: int | None = None) -> None:
        super().__init__()
        self.memory, self.short_side = memory, short_side
        self.project = nn.Conv2d(hidden, 1, 1)

    def forward(self, x: Tensor, state: Cells | tuple | None) -> tuple[Tensor, Cells | tuple]:
        """(B, T, 1, H, W) maps in (0, 1) and a state -> new maps of the same size, state."""
        batch, time, _, height, width = x.shape
        maps = x.flatten(0, 1)
        # Differs: VideoSalGAN read 8-bit maps from files; these come from the network, unrounded.
        if self.short_side is not None:
            ratio = self.short_side / min(height, width)
            small = (round(height * ratio), round(width * ratio))
            maps = F.interpolate(maps, small, mode="area")
        cells, state = self.memory(maps.unflatten(0, (batch, time)), state)
        logits = self.project(cells.flatten(0, 1)).float()
        maps = torch.sigmoid(F.interpolate(logits, (height, width), mode="bilinear"))
        return maps.unflatten(0, (batch, time)), state
