"""Checkpoints in the original release's formats: the same maps, and nothing is ever run."""

import os
import pickle
import re
import warnings
import zipfile
from collections import OrderedDict

import numpy as np
import oracle
import pytest
import torch
from oracle import agree, video

from salema.__main__ import main
from salema.files import SalemaError
from salema.model import weights
from salema.model.layers import salgan
from salema.model.network import SaliencyModel
from salema.model.placements import named
from salema.params import Model, Placement
from salema.predict.authors import LEAK_NOTE
from salema.predict.load import convert, read
from salema.predict.predictor import Predictor

TINY = [32, 48]


def static_part(prefix="salgan.", seed=0, upto=62):
    """Random weights of the static network, in its working range, under the original names."""
    torch.manual_seed(seed)
    layers = salgan(0.125)
    with torch.no_grad():
        layers[0].weight.div_(64)
        layers[60].weight.mul_(0.4)
        for layer in layers:
            if hasattr(layer, "bias"):
                layer.bias.normal_(0, 0.2)
    return {f"{prefix}{name}": tensor for name, tensor in layers.state_dict().items()
            if int(name.split(".")[0]) < upto}  # fmt: skip


def gates(channels):
    torch.manual_seed(channels)
    return {"Gates.weight": 0.05 * torch.randn(4 * channels, 2 * channels, 3, 3),
            "Gates.bias": 0.2 * torch.randn(4 * channels)}  # fmt: skip


def final_convs():
    """The new tail of SalCLSTM56: three convolutions with ReLUs between them."""
    tail = static_part("", seed=9)
    places = [(0, 56), (2, 58), (4, 60)]
    return {f"final_convs.{place}.{kind}": tail[f"{layer}.{kind}"]
            for place, layer in places for kind in ("weight", "bias")}  # fmt: skip


def on_maps(kind, hidden=16):
    """VideoSalGAN's own part, which is all that its checkpoints hold; or its control's."""
    torch.manual_seed(hidden)
    state = {"Gates.weight": 0.3 * torch.randn(4 * hidden, hidden + 1, 3, 3),
             "Gates.bias": 0.2 * torch.randn(4 * hidden)}  # fmt: skip
    if kind == "conv":
        state = {"conv.weight": torch.randn(hidden, 1, 3, 3), "conv.bias": torch.randn(hidden)}
    return state | {"conv1x1.weight": torch.randn(1, hidden, 1, 1), "conv1x1.bias": torch.zeros(1)}


def with_adam(state):
    """As their training left it: a wrapper with the optimizer's state."""
    groups = [{"lr": 1e-6, "betas": (0.9, 0.999), "params": [0]}]
    moments = {0: {"step": 3, "exp_avg": torch.zeros(2), "exp_avg_sq": torch.zeros(2)}}
    adam = {"state": moments, "param_groups": groups}
    return {"epoch": 7, "state_dict": state, "optimizer": adam}


def in_module(state):
    """As `DataParallel` saves it."""
    return OrderedDict((f"module.{name}", tensor) for name, tensor in state.items())


SALGAN = static_part()
LOGIT = {"alpha": torch.tensor([0.25])}
CLSTM30 = SALGAN | gates(64)
CLSTM56 = static_part(upto=55) | gates(16) | final_convs()
FORMATS = {  # what lies in the file, the placement, --alpha
    "SalGAN bare": (static_part(""), "static", None),
    "SalGAN bare, wrapped": ({"state_dict": static_part("")}, "static", None),
    "SalGAN prefixed": (SALGAN, "static", None),
    "SalBCE with its optimizer": (with_adam(SALGAN), "static", None),
    "SalGAN in a module": (in_module(SALGAN), "static", None),
    "SalEMA30 of 2018": (with_adam(SALGAN), "ema30", 0.1),
    "SalEMA61 in a module": (with_adam(in_module(SALGAN)), "ema61", 0.1),
    "SalEMA7 bare": (static_part(""), "ema7", 0.1),
    "SalEMA54": (SALGAN, "ema54", 0.2),
    "SalEMA30 with dropout": (SALGAN, "ema30-dropout", 0.1),
    "SalEMA30 residual": (SALGAN, "ema30-residual", 0.1),
    "SalEMA30 learned": (with_adam(LOGIT | SALGAN), "ema30", None),
    "SalEMA30 learned, another alpha": (with_adam(LOGIT | SALGAN), "ema30", 0.2),
    "SalEMA7 residual": (SALGAN, "ema7-residual", 0.1),
    "SalEMA7 with dropout": (SALGAN, "ema7-dropout", 0.1),
    "SalEMA30 learned, placed so": (in_module(LOGIT | SALGAN), "ema30-learned", None),
    "SalEMA61 learned": (LOGIT | SALGAN, "ema61", None),
    "SalEMA7&54": (SALGAN, "ema7-54", 0.3),
    "SalEMA7&54 learned": (LOGIT | SALGAN, "ema7-54", None),
    "SalCLSTM30": (with_adam(CLSTM30), "clstm30", None),
    "SalCLSTM30 in a module": (in_module(CLSTM30), "clstm30", None),
    "SalCLSTM30 residual": (CLSTM30, "clstm30-residual", None),
    "SalCLSTM56": (with_adam(CLSTM56), "clstm56", None),
    "SalCLSTM56 with the old tail too": (SALGAN | gates(16) | final_convs(), "clstm56", None),
    "SalCLSTM56, new tail first": (final_convs() | SALGAN | gates(16), "clstm56", None),
}  # fmt: skip


def stored(folder, content, legacy=True):
    """Written as torch wrote it in 2019 (or as it does today)."""
    path = folder / "checkpoint.pt"
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    return path


def quietly(function, *arguments, **keywords):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=re.escape(LEAK_NOTE))
        warnings.filterwarnings("ignore", message="note: alpha is")
        return function(*arguments, **keywords)


def tiny(path, *arguments, **keywords):
    """The authors' files do not hold the size: here it is small, to be quick."""
    network, _ = quietly(read, path, *arguments, **keywords)
    network.config = Model(size=TINY, width=network.config.width)
    return Predictor(network, "cpu", "fp32")


def renamed(content, after):
    """Their names -> the transcription's, written out again."""
    state = content.get("state_dict", content)
    state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    ours = {}
    for name, tensor in state.items():
        owner, _, rest = name.rpartition(".")
        if name.startswith("Gates."):
            ours[f"memories.{after}.gates.{rest}"] = tensor
        elif name != "alpha" and not name.startswith("final_convs."):
            ours[f"layers.{owner.removeprefix('salgan.')}.{rest}"] = tensor
    for theirs, layer in ((0, 56), (2, 58), (4, 60)):
        for kind in ("weight", "bias"):
            if f"final_convs.{theirs}.{kind}" in state:
                ours[f"layers.{layer}.{kind}"] = state[f"final_convs.{theirs}.{kind}"]
    return ours


# ---------------------------------------------------------------- the same maps


@pytest.mark.parametrize("name", FORMATS)
def test_each_format_gives_the_transcribed_maps_before_and_after_conversion(tmp_path, name):
    content, placement, alpha = FORMATS[name]
    path = stored(tmp_path, content)
    model = tiny(path, placement, alpha)
    frames = video(4, (50, 70))
    maps = model.predict(frames, "model")

    settings = named(placement).model_dump() | {"learned": False}
    if settings["recurrence"] == "ema":
        settings["alpha"] = alpha if alpha is not None else 1 / (1 + np.exp(-0.25))
    state = renamed(content, next(iter(settings["after"]), None))
    expected = oracle.gray_levels(state, settings, frames, TINY)
    agree(np.stack([oracle.eight_bits(saliency) for saliency in maps]), expected)
    assert expected.std() > 10

    new = tmp_path / "new.safetensors"
    quietly(convert, path, new, placement, alpha)
    again = tiny(new)
    assert again.placement == model.placement
    np.testing.assert_array_equal(again.predict(frames, "model"), maps)


@pytest.mark.parametrize("kind", ["videosalgan", "videosalgan-conv"])
@pytest.mark.parametrize("wrapped", [dict, with_adam, lambda state: with_adam(in_module(state))])
def test_videosalgan_with_the_static_network_of_another_file_gives_the_transcribed_maps(
    tmp_path, kind, wrapped
):
    part = on_maps(kind.removeprefix("videosalgan-"))
    path, static = stored(tmp_path, wrapped(part)), tmp_path / "SalGAN.pt"
    torch.save(with_adam(SALGAN), static)
    model = tiny(path, kind, static=static)
    frames = video(4, (50, 70))
    maps = model.predict(frames, "model")

    theirs = {"Gates": "memory.gates", "conv": "memory.conv", "conv1x1": "project"}
    names = {name: name.split(".") for name in part}
    state = {f"memories.61.{theirs[a]}.{b}": part[name] for name, (a, b) in names.items()}
    settings = named(kind).model_dump()
    expected = oracle.gray_levels(state | renamed(SALGAN, None), settings, frames, TINY)
    agree(np.stack([oracle.eight_bits(saliency) for saliency in maps]), expected)
    assert expected.std() > 10

    new = tmp_path / "new.safetensors"
    command = ["convert", str(path), str(new), "--placement", kind, "--static", str(static)]
    assert main(command) == 0
    np.testing.assert_array_equal(tiny(new).predict(frames, "model"), maps)


def test_the_static_network_of_videosalgan_may_be_ours_with_its_size_and_its_training_clips(
    tmp_path,
):
    ours, seen = tmp_path / "static.safetensors", {"SALICON": ["1"]}
    static = SaliencyModel(Model(size=[32, 64], width=0.25, std=64.0), named("static"))
    weights.save(static, ours, weights.Card("static", seen))
    network, card = read(stored(tmp_path, on_maps("lstm", 128)), "videosalgan", static=ours)
    assert network.config == static.config and card.seen == seen
    assert network.memories["61"].project.in_channels == 128
    assert torch.equal(network.layers[30].weight, static.layers[30].weight)


def test_todays_torch_files_are_read_too(tmp_path):
    model, _ = read(stored(tmp_path, with_adam(SALGAN), legacy=False), "static")
    torch.testing.assert_close(model.layers[30].weight.detach(), SALGAN["salgan.30.weight"])


def test_an_alpha_in_the_file_is_a_logit_and_one_given_is_the_effective_weight(tmp_path):
    learned, _ = quietly(read, stored(tmp_path, LOGIT | SALGAN), "ema30")
    assert learned.alphas() == pytest.approx({"30": 0.5622}, abs=1e-4)
    given, _ = quietly(read, stored(tmp_path, SALGAN), "ema30", 0.1)
    assert given.alphas() == pytest.approx({"30": 0.1})


def test_the_note_on_the_released_salema30_is_given_and_only_for_it(tmp_path):
    path = stored(tmp_path, SALGAN)
    with pytest.warns(UserWarning, match="validation videos \\(601-700\\)"):
        read(path, "ema30", 0.1)
    with pytest.warns(UserWarning, match="601-700"):
        convert(path, tmp_path / "new.safetensors", "ema30-dropout", 0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read(path, "ema61", 0.1)
        read(path, "static")
        read(tmp_path / "new.safetensors")


# ---------------------------------------------------------------- what does not fit


def refused(path, *arguments, **keywords):
    """The one line of the error, without any warning."""
    with warnings.catch_warnings(), pytest.raises(SalemaError) as raised:
        warnings.simplefilter("error")
        read(path, *arguments, **keywords)
    assert "\n" not in str(raised.value) and str(path) in str(raised.value)
    return str(raised.value)


def test_the_placement_must_be_given(tmp_path):
    told = refused(stored(tmp_path, SALGAN))
    assert "placement is not in" in told and "--placement" in told


def test_an_ema_without_alpha_needs_one_and_the_line_names_both_meanings(tmp_path):
    told = refused(stored(tmp_path, SALGAN), "ema30")
    assert "--alpha" in told and "0.1" in told and "0.525" in told
    assert 1 / (1 + np.exp(-0.1)) == pytest.approx(0.525, abs=1e-3)
    double = refused(stored(tmp_path, SALGAN), "ema7-54")
    assert "0.3" in double and "0.525" not in double


def test_an_alpha_that_is_given_goes_before_the_one_in_the_file_with_a_note(tmp_path):
    path = stored(tmp_path, LOGIT | SALGAN)
    with pytest.warns(UserWarning, match=r"note: alpha is 0\.1; .* has its own, 0\.5622"):
        network, _ = read(path, "ema61", 0.1)
    assert network.alphas() == pytest.approx({"61": 0.1})


def test_a_missing_or_superfluous_static_network_is_reported(tmp_path):
    static = tmp_path / "SalGAN.pt"
    torch.save(SALGAN, static)
    path = stored(tmp_path, on_maps("lstm"))
    for placement, given in [("videosalgan", None), ("ema30", static), ("static", None)]:
        told = refused(path, placement, static=given)
        assert "no static network (pass --placement videosalgan" in told and "--static" in told
    told = refused(path, "videosalgan-conv", static=static)
    assert "lacks conv.weight, conv.bias; has the unexpected Gates.weight, Gates.bias" in told
    ours = tmp_path / "ours.safetensors"
    convert(static, ours, "static")
    cases = [(static, "static"), (static, "ema30"), (static, "videosalgan"), (ours, None)]
    for file, placement in cases:
        told = refused(file, placement, static=static)
        assert told.startswith("--static is for") and f"{file} is none (leave it out)" in told
    memory = tmp_path / "ema61.safetensors"
    convert(static, memory, "ema61", 0.1)
    with pytest.raises(SalemaError, match=r"ema61.safetensors holds another placement"):
        read(path, "videosalgan", static=memory)


@pytest.mark.parametrize("alpha", [0.0, -1.0, 1.5])
def test_an_alpha_outside_its_range_is_refused(tmp_path, alpha):
    with pytest.raises(SalemaError, match=r"--alpha must be in \(0, 1\]"):
        read(stored(tmp_path, SALGAN), "ema30", alpha)


def test_an_alpha_without_an_ema_is_refused(tmp_path):
    with pytest.raises(SalemaError, match="--alpha fits an EMA"):
        read(stored(tmp_path, SALGAN), "static", 0.1)


@pytest.mark.parametrize(
    ("content", "placement", "named"),
    [
        (SALGAN, "clstm30", ["lacks Gates.weight, Gates.bias"]),
        (CLSTM30, "static", ["unexpected Gates.weight, Gates.bias"]),
        (CLSTM30, "ema30", ["unexpected Gates.weight, Gates.bias"]),
        (CLSTM30, "clstm56", ["Gates.weight is (256, 128, 3, 3), not (64, 32, 3, 3)"]),
        (CLSTM56, "clstm30", ["Gates.weight is (64, 32, 3, 3), not (256, 128, 3, 3)"]),
        (CLSTM56, "static", ["unexpected Gates.weight"]),
        (LOGIT | SALGAN, "static", ["unexpected alpha"]),
        (SALGAN | {"alpha": torch.ones(2)}, "ema30", ["unexpected alpha"]),
        (SALGAN | {"alpha": torch.ones(0)}, "ema30", ["unexpected alpha"]),
        (LOGIT | CLSTM30, "clstm30", ["unexpected alpha"]),
        (static_part(upto=56), "static", ["lacks salgan.56.weight, salgan.56.bias", "3 more"]),
        (SALGAN | {"salgan.62.weight": torch.ones(1)}, "static", ["salgan.62.weight"]),
        (SALGAN | {"salgan.5.bias": torch.ones(9)}, "static", ["salgan.5.bias is (9,), not (16,)"]),
        (SALGAN | {"decoder.w": torch.ones(1)}, "static", ["unknown keys", "'decoder.w'"]),
        (SALGAN | {"a\nb": torch.ones(1)}, "static", ["'a\\nb'"]),
    ],
)
def test_a_file_that_does_not_fit_names_keys_or_shapes(tmp_path, content, placement, named):
    told = refused(stored(tmp_path, content), placement)
    for part in named:
        assert part in told


@pytest.mark.parametrize(
    "content",
    [{}, [], 3, torch.ones(3), {"state_dict": {}}, {"epoch": 3}, {"salgan.0.weight": 5},
     {"0.weight": torch.ones(())}, {"0.weight": torch.ones(1000, 3, 3, 3)},
     {"0.weight": torch.ones(0, 3, 3, 3)}],
)  # fmt: skip
def test_a_file_without_the_network_is_refused(tmp_path, content):
    told = refused(stored(tmp_path, content), "static")
    assert "no weights in" in told or "no first convolution in" in told


def test_a_placement_that_cannot_be_is_refused(tmp_path):
    wrong = Placement(recurrence="ema", after=[4], alpha=0.1, residual=True)
    with pytest.raises(SalemaError, match="residual around layer 4"):
        read(stored(tmp_path, SALGAN), wrong, 0.1)
    with pytest.raises(SalemaError, match=r"unknown placement 'ema300' \(did you mean ema30\?\)"):
        read(stored(tmp_path, SALGAN), "ema300", 0.1)


# ---------------------------------------------------------------- nothing is run


class Trap:
    """Whoever unpickles it makes a folder."""

    def __init__(self, folder):
        self.folder = str(folder)

    def __reduce__(self):
        return os.mkdir, (self.folder,)


@pytest.mark.parametrize("form", ["pickle", "legacy", "zip"])
@pytest.mark.parametrize("place", ["whole", "beside", "inside"])
def test_a_pickle_that_runs_code_is_refused_and_the_code_is_not_run(tmp_path, form, place):
    sprung = tmp_path / "sprung"
    trap = Trap(sprung)
    content = {"whole": trap, "beside": {"state_dict": SALGAN, "args": trap},
               "inside": {"state_dict": SALGAN | {"salgan.62.weight": trap}}}[place]  # fmt: skip
    if form == "pickle":
        path = tmp_path / "checkpoint.pt"
        path.write_bytes(pickle.dumps(content))
    else:
        path = stored(tmp_path, content, legacy=form == "legacy")
    told = refused(path, "static")
    assert "never run" in told
    assert not sprung.exists()
    torch.load(path, weights_only=False) if form != "pickle" else pickle.loads(path.read_bytes())
    assert sprung.exists()  # the trap does work


@pytest.mark.parametrize("keep", [1, 7, 9, 200, 5000, -1])
@pytest.mark.parametrize("legacy", [True, False])
def test_half_a_file_is_reported_in_one_line(tmp_path, keep, legacy):
    path = stored(tmp_path, with_adam(SALGAN), legacy)
    path.write_bytes(path.read_bytes()[:keep])
    assert "cannot read weights" in refused(path, "static")


def test_a_file_that_expands_to_much_more_is_refused_before_it_is_read(tmp_path, monkeypatch):
    torch.save({"0.weight": torch.zeros(2**22)}, tmp_path / "a.pt")
    with (
        zipfile.ZipFile(tmp_path / "a.pt") as old,
        zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for name in old.namelist():
            new.writestr(name, old.read(name))
    monkeypatch.setattr(torch, "load", None)
    with pytest.raises(SalemaError, match=r"cannot read weights from .*bomb\.pt") as caught:
        read(tmp_path / "bomb.pt")
    assert "much larger" in str(caught.value.__cause__)
