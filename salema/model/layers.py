"""The 62 layers, and the branches that they train with.

Source: Simonyan & Zisserman, ICLR 2015 (VGG-16); Pan et al., arXiv 1701.01081 (SalGAN);
Ding et al., CVPR 2021 (RepVGG: branches while training, plain convolutions after).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from salema.files import SalemaError

MEAN_BGR = (103.939, 116.779, 123.68)  # ImageNet's, as Caffe's VGG-16 was trained with
ENCODER = [64, 64, "pool", 128, 128, "pool", 256, 256, 256, "pool", 512, 512, 512, "pool"]
BOTTLENECK = [512, 512, 512]
DECODER = [512, 512, 512, "up", 512, 512, 512, "up", 256, 256, 256, "up", 128, 128, "up", 64, 64]
FIRST_DECODER, LOGITS, SIGMOID = 30, 60, 61


def salgan(width: float = 1.0) -> nn.Sequential:
    """SalGAN's generator, layers 0-61, with `width` times its channels (multiples of 8).

    (N, 3, H, W) -> (N, 1, H, W) in (0, 1); H and W are multiples of 16.
    """
    layers: list[nn.Module] = []
    channels = 3
    for item in [*ENCODER, *BOTTLENECK, *DECODER]:
        if item == "pool":
            layers.append(nn.MaxPool2d(2))
        elif item == "up":
            layers.append(nn.Upsample(scale_factor=2, mode="nearest"))
        else:
            out = scaled(item, width)
            layers += [nn.Conv2d(channels, out, 3, padding=1), nn.ReLU(inplace=True)]
            channels = out
    layers += [Logits(channels, 1, 1), nn.Sigmoid()]
    for layer in layers:
        if isinstance(layer, nn.Conv2d):
            reset(layer)
    return nn.Sequential(*layers)


class Logits(nn.Conv2d):
    """The last convolution. It works in float32, so that bf16 costs no gray levels."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) of any floating type -> (N, 1, H, W) float32."""
        with torch.autocast(x.device.type, enabled=False):
            return F.conv2d(x.float(), self.weight.float(), self.bias.float())


def scaled(channels: int, width: float) -> int:
    """Channels at a width: a multiple of 8, at least 8."""
    return max(8, round(channels * width / 8) * 8)


def reset(convolution: nn.Conv2d) -> None:
    """He-normal weights and zero biases."""
    nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
    nn.init.zeros_(convolution.bias)


class Branches(nn.Module):
    """Batch norm behind a convolution, and an identity branch where the channels stay.

    A plain network of 26 convolutions learns slowly from random weights; with these it
    learns fast, and `fold` leaves the plain network behind, exactly.
    """

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(convolution.out_channels)
        same = convolution.in_channels == convolution.out_channels
        self.identity = nn.BatchNorm2d(convolution.out_channels) if same else None

    def forward(self, x: Tensor, convolved: Tensor) -> Tensor:
        """The input and the output of the convolution, (N, C, H, W) -> their normed sum."""
        y = self.norm(convolved)
        return y if self.identity is None else y + self.identity(x)

    @torch.no_grad()
    def fold(self, convolution: nn.Conv2d) -> None:
        """Change `convolution` so that alone it gives what both gave in eval mode."""
        absorb(convolution, self.norm)
        if self.identity is not None:
            scale, shift = _affine(self.identity)
            every = torch.arange(len(scale))
            convolution.weight[every, every, 1, 1] += scale  # the centre of 3x3
            convolution.bias.add_(shift)


class Branched(nn.Module):
    """A convolution with its branches, as one layer."""

    def __init__(self, convolution: nn.Conv2d, branches: Branches) -> None:
        super().__init__()
        self.convolution, self.branches = convolution, branches

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', H, W)."""
        return self.branches(x, self.convolution(x))


@torch.no_grad()
def absorb(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    """Change `convolution` so that alone it gives what `norm` gave behind it in eval mode."""
    scale, shift = _affine(norm)
    convolution.weight.mul_(scale[:, None, None, None])
    convolution.bias.mul_(scale).add_(shift)


def _affine(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    return scale, norm.bias - norm.running_mean * scale


def imagenet_encoder(layers: nn.Sequential, std: float) -> None:
    """Put ImageNet's VGG-16 features into layers 0-29, in place.

    torchvision's IMAGENET1K_FEATURES expect RGB, 0-255, mean subtracted, no division: the
    first convolution's input channels are reversed for BGR and scaled by `std`.
    """
    if layers[0].out_channels != 64:
        raise SalemaError("model.encoder: imagenet fits model.width: 1.0 only (set one of them)")
    try:
        _declare_operators()
        from torchvision.models import VGG16_Weights, vgg16
    except ImportError as error:
        needs = "model.encoder: imagenet needs torchvision"
        raise SalemaError(f"{needs} (pip install 'salema[imagenet]')") from error
    try:
        features = vgg16(weights=VGG16_Weights.IMAGENET1K_FEATURES).features
    except (OSError, RuntimeError) as error:
        fix = (
            "check the network, put the file into torch.hub's folder, or set model.encoder: random"
        )
        what = "cannot download ImageNet's VGG-16 features for model.encoder: imagenet"
        raise SalemaError(f"{what} ({fix})") from error
    for ours, theirs in zip(layers[:FIRST_DECODER], features, strict=False):
        if isinstance(ours, nn.Conv2d):
            ours.load_state_dict(theirs.state_dict())
    with torch.no_grad():
        layers[0].weight.copy_(layers[0].weight.flip(1) * std)


def _declare_operators() -> None:
    """Let torchvision import with a CPU-only torch, whose wheel lacks its operators."""
    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        library = torch.library.Library("torchvision", "DEF")
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _declare_operators.library = library  # it lives as long as the process
