"""The 62 layers: where the landmarks are, the number of weights, and their initial values."""

import sys
from importlib.util import find_spec
from types import SimpleNamespace
from urllib.error import URLError

import pytest
import torch
from torch import nn

from salema.files import SalemaError
from salema.model.layers import (
    MEAN_BGR,
    Branches,
    _declare_operators,
    imagenet_encoder,
    salgan,
    scaled,
)
from salema.model.network import SaliencyModel
from salema.model.placements import ENCODER, named
from salema.params import Model

needs_torchvision = pytest.mark.skipif(not find_spec("torchvision"), reason="no torchvision")


@pytest.fixture(scope="module")
def full():
    """The network at full width, without memory for its weights."""
    with torch.device("meta"):
        return salgan()


def parameters(placement):
    with torch.device("meta"):
        model = SaliencyModel(Model(), named(placement))
    return sum(weight.numel() for weight in model.parameters())


# ---------------------------------------------------------------- the official numbering


def test_a_placement_knows_the_convolutions_of_the_encoder_which_have_a_relu_behind_them(full):
    kinds = ["".join(type(layer).__name__ for layer in full[i : i + 2]) for i in range(30)]
    assert [index for index, kind in enumerate(kinds) if kind == "Conv2dReLU"] == [*ENCODER]
    assert all(named(f"ema{index}").rectified == (index in ENCODER) for index in range(62))
    assert not any(named(f"ema{index}-residual").rectified for index in range(62))
    assert not named("ema7-30").rectified and named("ema0-54").rectified


def test_there_are_62_layers_of_five_kinds_and_one_for_the_logits(full):
    kinds = [type(layer).__name__ for layer in full]
    assert len(kinds) == 62
    counts = {kind: kinds.count(kind) for kind in set(kinds)}
    assert counts == {
        "Conv2d": 26,
        "Logits": 1,
        "ReLU": 26,
        "MaxPool2d": 4,
        "Upsample": 4,
        "Sigmoid": 1,
    }


@pytest.mark.parametrize(
    ("index", "kind", "channels"),
    [
        (7, nn.Conv2d, 128),  # the second convolution of VGG's second block
        (28, nn.Conv2d, 512),
        (29, nn.ReLU, None),  # of conv5_3
        (30, nn.Conv2d, 512),  # the first of the decoder: the bottleneck
        (31, nn.ReLU, None),
        (53, nn.Conv2d, 128),  # the second with 128 channels
        (54, nn.ReLU, None),
        (55, nn.Upsample, None),  # the last
        (56, nn.Conv2d, 64),
        (58, nn.Conv2d, 64),
        (60, nn.Conv2d, 1),
        (61, nn.Sigmoid, None),
    ],
)
def test_the_landmarks_are_where_the_paper_counts_them(full, index, kind, channels):
    assert isinstance(full[index], kind)
    if channels:
        assert full[index].out_channels == channels


def test_only_the_last_convolution_is_one_by_one(full):
    sizes = {i: layer.kernel_size for i, layer in enumerate(full) if isinstance(layer, nn.Conv2d)}
    assert sizes.pop(60) == (1, 1)
    assert set(sizes.values()) == {(3, 3)}


def test_the_channels_mirror_each_other(full):
    channels = [layer.out_channels for layer in full if isinstance(layer, nn.Conv2d)]
    encoder = [64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512]
    assert channels == [*encoder, *encoder[::-1], 1]


def test_layer_29_is_a_sixteenth_and_the_map_is_whole():
    layers, x = salgan(0.125), torch.zeros(1, 3, 192, 256)
    assert layers[:30](x).shape == (1, 64, 12, 16)
    assert layers(x).shape == (1, 1, 192, 256)


@pytest.mark.parametrize(
    ("placement", "count"),
    [
        ("static", 31_787_009),
        ("ema30", 31_787_009),
        ("ema7-54", 31_787_009),
        ("ema30-learned", 31_787_010),
        ("clstm30", 50_663_425),
    ],
)
def test_the_number_of_parameters_is_the_published_one(placement, count):
    assert parameters(placement) == count


@pytest.mark.parametrize(
    ("channels", "width", "expected"),
    [(64, 1.0, 64), (64, 0.125, 8), (64, 0.01, 8), (512, 0.25, 128), (256, 0.3, 80)],
)
def test_a_width_gives_multiples_of_eight(channels, width, expected):
    assert scaled(channels, width) == expected


def test_weights_start_he_normal_and_biases_at_zero():
    torch.manual_seed(0)
    layers = salgan(0.5)
    weight = layers[30].weight
    assert float(weight.detach().std()) == pytest.approx((2 / (256 * 9)) ** 0.5, rel=0.01)
    assert not any(layer.bias.any() for layer in layers if isinstance(layer, nn.Conv2d))


# ---------------------------------------------------------------- branches


def worn(channels_in, channels_out):
    """A convolution and its branches, with statistics and weights that are not the initial."""
    torch.manual_seed(channels_in + channels_out)
    convolution = nn.Conv2d(channels_in, channels_out, 3, padding=1)
    branches = Branches(convolution)
    for norm in (branches.norm, branches.identity):
        if norm is not None:
            nn.init.normal_(norm.running_mean)
            nn.init.uniform_(norm.running_var, 0.2, 3)
            nn.init.normal_(norm.weight)
            nn.init.normal_(norm.bias)
    return convolution.double(), branches.double().eval()


@pytest.mark.parametrize(("before", "after"), [(3, 8), (8, 8)])
def test_fold_gives_what_convolution_and_branches_gave(before, after):
    convolution, branches = worn(before, after)
    x = torch.randn(2, before, 6, 7, dtype=torch.float64)
    with torch.no_grad():
        apart = branches(x, convolution(x))
        assert (apart - convolution(x)).abs().max() > 0.1
        branches.fold(convolution)
        torch.testing.assert_close(convolution(x), apart, rtol=1e-12, atol=1e-12)


def test_there_is_an_identity_branch_only_where_the_channels_stay():
    assert worn(3, 8)[1].identity is None
    assert worn(8, 8)[1].identity is not None


# ---------------------------------------------------------------- ImageNet's encoder


def refuse(*_, **__):
    raise URLError("no network")


@needs_torchvision
@pytest.mark.parametrize("std", [1.0, 64.0])
def test_imagenet_features_of_bgr_input_are_those_of_rgb_input(monkeypatch, std):
    _declare_operators()
    from torchvision.models import VGG16_Weights, vgg

    torch.manual_seed(0)
    features = vgg.make_layers(vgg.cfgs["D"])
    asked = []
    monkeypatch.setattr(
        "torchvision.models.vgg16",
        lambda weights: asked.append(weights) or SimpleNamespace(features=features),
    )
    model = SaliencyModel(Model(std=std), named("static"))
    decoder = model.layers[30].weight.clone()
    imagenet_encoder(model.layers, std)
    assert asked == [VGG16_Weights.IMAGENET1K_FEATURES]

    frames = torch.randint(0, 256, (1, 32, 32, 3), dtype=torch.uint8)
    mean_rgb = torch.tensor(MEAN_BGR[::-1])
    with torch.no_grad():
        ours = model.layers[:30](model.normalise(frames))
        theirs = features[:30]((frames.float() - mean_rgb).permute(0, 3, 1, 2))
    assert theirs.std() > 0
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4 * float(theirs.abs().max()))
    torch.testing.assert_close(model.layers[30].weight, decoder)

    documented = VGG16_Weights.IMAGENET1K_FEATURES.transforms()
    assert documented.std == pytest.approx([1 / 255] * 3)  # no division by a std
    assert [255 * m for m in documented.mean] == pytest.approx(mean_rgb.tolist(), abs=1)  # RGB


@needs_torchvision
def test_a_failed_download_is_reported_in_one_line(monkeypatch):
    _declare_operators()
    monkeypatch.setattr("torchvision.models.vgg16", refuse)
    with torch.device("meta"):
        layers = salgan()
    with pytest.raises(SalemaError, match="cannot download") as raised:
        imagenet_encoder(layers, 1.0)
    assert "\n" not in str(raised.value) and "model.encoder: random" in str(raised.value)


def test_imagenet_without_torchvision_says_what_to_install(monkeypatch, full):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(SalemaError, match="needs torchvision"):
        imagenet_encoder(full, 1.0)


def test_imagenet_fits_the_full_width_only():
    with pytest.raises(SalemaError, match=r"model.width: 1.0 only"):
        imagenet_encoder(salgan(0.125), 1.0)
