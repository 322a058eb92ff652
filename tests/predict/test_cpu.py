"""Faster equals of the layers: each against the layers it stands for."""

import copy

import numpy as np
import pytest
import torch
from oracle import video
from torch import nn
from torch.nn import functional as F

from salema.model.network import PLACEMENTS, SaliencyModel
from salema.params import Model, Placement
from salema.predict.cpu import faster, max_pool

LAST = torch.channels_last


def layers(*items):
    torch.manual_seed(0)
    return nn.Sequential(*items).eval().requires_grad_(False).to(memory_format=LAST)


def called(stack, x, apart=()):
    calls = faster(stack, apart, torch.float32)
    for index, layer in enumerate(stack):
        x = calls.get(index, layer)(x)
    return x


def picture(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(memory_format=LAST)


@pytest.mark.parametrize("shape", [(1, 3, 2, 2), (2, 5, 6, 4), (3, 8, 16, 32)])
def test_the_maximum_is_that_of_every_two_by_two_pixels(shape):
    x = picture(*shape)
    assert torch.equal(max_pool(x), F.max_pool2d(x, 2))
    assert torch.equal(max_pool(x.contiguous()), F.max_pool2d(x, 2))


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 5), (4, 3), (12, 16)])
def test_a_convolution_of_an_enlarged_map_is_computed_on_the_small_one(height, width):
    stack = layers(nn.Upsample(scale_factor=2), nn.Conv2d(6, 8, 3, padding=1), nn.ReLU())
    x = picture(2, 6, height, width)
    torch.testing.assert_close(called(stack, x), stack(x), atol=1e-5, rtol=0)


def test_four_pixels_of_one_see_the_sums_of_its_weights():
    stack = layers(nn.Upsample(scale_factor=2), nn.Conv2d(1, 1, 3, padding=1), nn.ReLU())
    stack[1].weight.copy_(torch.arange(1.0, 10).view(1, 1, 3, 3))
    stack[1].bias.zero_()
    by_hand = [[5 + 6 + 8 + 9, 4 + 5 + 7 + 8], [2 + 3 + 5 + 6, 1 + 2 + 4 + 5]]
    assert called(stack, torch.ones(1, 1, 1, 1)).tolist() == [[by_hand]]


def test_a_convolution_takes_its_relu_with_it():
    stack = layers(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(inplace=True))
    x = picture(2, 3, 6, 4)
    before = x.clone()
    torch.testing.assert_close(called(stack, x), stack(x), atol=1e-5, rtol=0)
    assert torch.equal(x, before)


def test_what_stands_beside_a_memory_stays_as_it_is():
    stack = layers(
        nn.Upsample(scale_factor=2), nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(),
        nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(),
    )  # fmt: skip
    assert set(faster(stack, [], torch.float32)) == {0, 1, 2, 3, 4}
    assert set(faster(stack, [0], torch.float32)) == {1, 2, 3, 4}  # the enlarged map is needed
    assert set(faster(stack, [1], torch.float32)) == {3, 4}
    assert set(faster(stack, [2], torch.float32)) == {3, 4}
    assert set(faster(stack, [3], torch.float32)) == {0, 1, 2}
    for apart in ([], [0], [1], [2], [3]):
        x = picture(1, 4, 3, 5)
        torch.testing.assert_close(called(stack, x, apart), stack(x), atol=1e-5, rtol=0)


@pytest.mark.parametrize("where", [*range(62)])
def test_a_memory_behind_any_layer_sees_the_same_activations(where):
    placement = Placement(recurrence="ema", after=[where], alpha=0.3, dropout="always")
    torch.manual_seed(0)
    plain = SaliencyModel(Model(size=[32, 48], width=0.125, std=64.0), placement).eval()
    frames = video(3, (32, 48))
    prepared = copy.deepcopy(plain).prepare("cpu", "fp32")
    np.testing.assert_allclose(prepared.predict(frames), plain.predict(frames), atol=1e-5)


def test_without_onednn_the_maps_are_the_same(monkeypatch):
    torch.manual_seed(0)
    plain = SaliencyModel(Model(size=[32, 48], width=0.125, std=64.0), PLACEMENTS["ema30"]).eval()
    frames = video(3, (32, 48))
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    prepared = copy.deepcopy(plain).prepare("cpu", "fp32")
    np.testing.assert_allclose(prepared.predict(frames), plain.predict(frames), atol=1e-5)


@pytest.mark.parametrize("name", ["ema30", "clstm30", "ema61"])
def test_maps_do_not_depend_on_how_many_frames_are_one_batch(name):
    torch.manual_seed(0)
    model = SaliencyModel(Model(size=[32, 48], width=0.125, std=64.0), PLACEMENTS[name])
    model.prepare("cpu", "fp32")
    frames, maps = video(7, (32, 48)), []
    for model.at_once in (1, 3, 16):
        maps.append((model.step(frames)[0], model.step_images(frames)))
    for map_, images in maps[1:]:
        np.testing.assert_allclose(map_, maps[0][0], atol=2e-6)
        np.testing.assert_allclose(images, maps[0][1], atol=2e-6)


def test_a_prepared_model_can_be_prepared_again_copied_and_folded():
    torch.manual_seed(0)
    model = SaliencyModel(Model(size=[32, 48], width=0.125, std=64.0), PLACEMENTS["ema30"])
    frames = video(3, (32, 48))
    expected = model.eval().predict(frames)
    model.prepare("cpu", "fp32")
    assert model.faster
    np.testing.assert_allclose(model.prepare("cpu", "fp32").predict(frames), expected, atol=1e-5)
    twin = copy.deepcopy(model).fold()
    assert not twin.faster and model.faster
    np.testing.assert_allclose(twin.predict(frames), expected, atol=1e-5)


def test_it_can_be_prepared_again_in_bf16():
    model = SaliencyModel(Model(size=[32, 48], width=0.125, std=64.0), PLACEMENTS["ema30"])
    frames = video(3, (32, 48))
    once = model.prepare("cpu", "bf16").predict(frames)
    again = model.prepare("cpu", "bf16").predict(frames)  # of weights that are rounded by now
    np.testing.assert_allclose(again, once, atol=2e-3)
