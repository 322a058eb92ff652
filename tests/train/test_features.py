"""A frozen encoder's features: those of the frames, computed once, and read in their place."""

from pathlib import Path

import numpy as np
import pytest
import torch
import trees

from salema import data, params
from salema.files import SalemaError
from salema.model.network import SaliencyModel
from salema.params import LITE, Model, Placement, Tune
from salema.train import features, loop
from salema.train.features import FeatureCache
from salema.train.job import Job

ROOT = Path(__file__).parents[2]
SIZE = (32, 64)
CONFIG = Model(size=[*SIZE], width=0.125, std=64.0, encoder=LITE[0], branches=True)


@pytest.fixture
def clip(tmp_path):
    """A clip of 5 frames, each brighter on the left."""
    folder = tmp_path / "UCF-sports" / "training" / "Run-Side-001"
    random = np.random.default_rng(0)
    for k in range(5):
        name = f"Run-Side_001_{k + 1:03d}.png"
        trees.array(folder / "images" / name, random.integers(0, 256, (*SIZE, 3), np.uint8))
        trees.grey(folder / "maps" / name, [(4 * k, 2 * k)], SIZE)
        trees.grey(folder / "fixation" / name, [(4 * k, 2 * k)], SIZE)
    return data.load(tmp_path, "UCF-sports", "train")[0]


@pytest.fixture
def network():
    torch.manual_seed(0)
    return SaliencyModel(CONFIG, Placement(recurrence="none"), branches=True)


@pytest.fixture
def cache(tmp_path, network, monkeypatch):
    monkeypatch.setattr(features, "pick_precision", lambda *_: "fp32")
    return FeatureCache(data.FrameCache(tmp_path / "cache", SIZE, 2**30), network)


@torch.no_grad()
def test_a_network_makes_the_same_maps_of_features_as_of_frames(clip, network, cache):
    frames = torch.from_numpy(np.stack(list(clip.frames())))[None]
    stored = torch.from_numpy(np.array(cache.frames(clip)))[None]
    assert stored.dtype == torch.float16 and stored.shape[:4] == (1, 5, 2, 4)
    plain = network.eval().fold()
    torch.testing.assert_close(plain(stored)[0], plain(frames)[0], atol=2e-2, rtol=0)
    mirrored = torch.from_numpy(np.array(cache.frames(clip, mirrored=True)))[None]
    torch.testing.assert_close(plain(mirrored)[0], plain(frames.flip(3))[0], atol=2e-2, rtol=0)
    assert (plain(mirrored)[0] - plain(frames)[0]).abs().max() > 0.1


def test_features_are_computed_once(clip, cache, network, monkeypatch):
    before = np.array(cache.frames(clip))
    monkeypatch.setattr(FeatureCache, "_computed", lambda *_: pytest.fail("again"))
    again = FeatureCache(cache.cache, network)
    np.testing.assert_array_equal(again.frames(clip), before)


def test_another_encoder_has_features_of_its_own(clip, cache, network):
    before = np.array(cache.frames(clip))
    with torch.no_grad():
        network.layers[0].stem.convolution.weight.mul_(-1)
    other = FeatureCache(cache.cache, network)
    assert not np.array_equal(other.frames(clip), before)


def test_a_clip_that_ends_early_is_named(clip, cache):
    last = clip.images.folder / clip.images.names[-1]
    last.write_bytes(b"no picture")
    with pytest.raises(SalemaError, match=r"Run-Side-001 ends after 4 of 5 frames"):
        cache.frames(clip)


def test_a_frozen_encoder_leaves_its_mixing_convolution_to_the_decoder(network):
    assert loop.freeze(network, "all") is None
    assert loop.freeze(network, "decoder") is network
    trains = {name for name, p in network.named_parameters() if p.requires_grad}
    assert {n for n in trains if n.startswith("layers.0.")} == {
        f"layers.0.mix.{part}" for part in ("convolution.weight", "convolution.bias",
                                            "norm.weight", "norm.bias")
    }  # fmt: skip
    assert "layers.30.weight" in trains


@pytest.mark.parametrize("change", [{"augment": "zoom"}, {"augment": "salbce"}, {"half_epochs": 1}])
def test_what_features_cannot_follow_is_refused(network, clip, change, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = params.read(ROOT / "params.yaml").model_copy(update={"model": CONFIG})
    settings = Tune(epochs=1, batch=1, learning_rate=1e-3, train="decoder", **change)
    with pytest.raises(SalemaError, match=r"static: features of a frozen encoder .*augment"):
        _ = Job(given, "static", settings, [clip], [], frozen=network).cache
    assert isinstance(Job(given, "static", settings, [clip], []).cache, data.FrameCache)
