"""Faster equivalents of layers: each against the layers that it replaces."""

import copy

import numpy as np
import pytest
import torch
from oracle import video
from torch import nn
from torch.nn import functional as F

from salema.model.network import SaliencyModel
from salema.model.placements import named
from salema.params import Model, Placement
from salema.predict.cpu import MaxPool, replace
from salema.predict.predictor import Predictor

LAST = torch.channels_last


def layers(*items):
    torch.manual_seed(0)
    return nn.Sequential(*items).eval().requires_grad_(False).to(memory_format=LAST)


def faster(stack, apart=()):
    stack = copy.deepcopy(stack)
    replace(stack, apart, torch.float32)
    return stack


def picture(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(memory_format=LAST)


@pytest.mark.parametrize("shape", [(1, 3, 2, 2), (2, 5, 6, 4), (3, 8, 16, 32)])
def test_the_maximum_is_that_of_every_two_by_two_pixels(shape):
    x = picture(*shape)
    assert torch.equal(MaxPool()(x), F.max_pool2d(x, 2))
    assert torch.equal(MaxPool()(x.contiguous()), F.max_pool2d(x, 2))


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 5), (4, 3), (12, 16)])
def test_a_convolution_of_an_enlarged_map_is_computed_on_the_small_one(height, width):
    stack = layers(nn.Upsample(scale_factor=2), nn.Conv2d(6, 8, 3, padding=1), nn.ReLU())
    x = picture(2, 6, height, width)
    torch.testing.assert_close(faster(stack)(x), stack(x), atol=1e-5, rtol=0)


def test_four_pixels_of_one_see_the_sums_of_its_weights():
    stack = layers(nn.Upsample(scale_factor=2), nn.Conv2d(1, 1, 3, padding=1), nn.ReLU())
    stack[1].weight.copy_(torch.arange(1.0, 10).view(1, 1, 3, 3))
    stack[1].bias.zero_()
    by_hand = [[5 + 6 + 8 + 9, 4 + 5 + 7 + 8], [2 + 3 + 5 + 6, 1 + 2 + 4 + 5]]
    assert faster(stack)(torch.ones(1, 1, 1, 1)).tolist() == [[by_hand]]


def test_a_convolution_takes_its_relu_with_it():
    stack = layers(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(inplace=True))
    x = picture(2, 3, 6, 4)
    before = x.clone()
    torch.testing.assert_close(faster(stack)(x), stack(x), atol=1e-5, rtol=0)
    assert torch.equal(x, before)


def test_layers_next_to_a_memory_stay_as_they_are():
    stack = layers(
        nn.Upsample(scale_factor=2),
        nn.Conv2d(4, 4, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(4, 4, 3, padding=1),
        nn.ReLU(),
    )
    replaced = {
        (): {0, 1, 2, 3, 4},
        (0,): {1, 2, 3, 4},  # the enlarged map is needed
        (1,): {3, 4},
        (2,): {3, 4},
        (3,): {0, 1, 2},
    }
    for apart, expected in replaced.items():
        quick = faster(stack, apart)
        pairs = enumerate(zip(stack, quick, strict=True))
        assert {index for index, (old, new) in pairs if type(old) is not type(new)} == expected
        x = picture(1, 4, 3, 5)
        torch.testing.assert_close(quick(x), stack(x), atol=1e-5, rtol=0)


def compare(placement):
    """Maps of a predictor, and of the network itself."""
    torch.manual_seed(0)
    network = SaliencyModel(Model(size=[32, 48], width=0.125, std=64.0), placement).eval()
    frames = video(3, (32, 48))
    with torch.no_grad():
        expected, _ = network(torch.from_numpy(frames)[None])
    maps = Predictor(network, "cpu", "fp32").predict(frames)
    np.testing.assert_allclose(maps, expected[0], atol=1e-5)


@pytest.mark.parametrize("where", [*range(62)])
def test_a_memory_after_any_layer_gets_the_same_activations(where):
    compare(Placement(recurrence="ema", after=[where], alpha=0.3, dropout="always"))


def test_without_onednn_the_maps_are_the_same(monkeypatch):
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    compare(named("ema30"))
