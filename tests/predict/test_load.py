"""Loading: ours and the authors' files, hashes, placements; other files give one line."""

import hashlib

import numpy as np
import pytest
import torch
from oracle import video

import salema
from salema.files import SalemaError
from salema.model import weights
from salema.model.network import SaliencyModel
from salema.model.placements import named
from salema.model.weights import Card
from salema.params import Model
from salema.predict.load import build, convert, identity, load, read

TINY = Model(size=[32, 48], width=0.125, std=64.0)


def stored(folder, placement="ema30", card=None, seed=0):
    torch.manual_seed(seed)
    path = folder / f"{placement}-{seed}.safetensors"
    weights.save(SaliencyModel(TINY, named(placement)), path, card or Card(placement))
    return path


@pytest.fixture
def file(tmp_path):
    return stored(tmp_path)


def refused(path, **keywords):
    with pytest.raises(SalemaError) as raised:
        read(path, **keywords)
    assert "\n" not in str(raised.value) and str(path) in str(raised.value)
    return str(raised.value)


# ---------------------------------------------------------------- load and build


def test_the_package_hands_out_build_and_load(file):
    assert salema.load(file, device="cpu").predict(video(1, (40, 60))).shape == (1, 40, 60)
    model = salema.build("ema61", width=0.125)
    assert model.placement == named("ema61") and model.config == Model(width=0.125)
    assert salema.build("static", config=TINY).config == TINY
    assert salema.build(named("ema7"), width=0.125).placement == named("ema7")


def test_a_loaded_model_has_the_card_and_the_precision(file):
    model = load(file, "cpu", "fp32")
    assert model.precision == "fp32" and model.card.run == "ema30"
    assert load(file, "cpu", "bf16").prepared.layers[58].weight.dtype == torch.bfloat16


def test_a_model_that_was_built_predicts_the_same_twice():
    model = build("ema30-dropout", config=TINY)
    np.testing.assert_array_equal(model.predict(video(2)), model.predict(video(2)))


def test_an_unknown_placement_is_reported_with_the_nearest():
    with pytest.raises(SalemaError, match=r"unknown placement 'clstm3' \(did you mean clstm30\?\)"):
        build("clstm3")


@pytest.mark.parametrize("device", ["cuda:99", "toaster"])
def test_a_device_that_is_absent_is_reported_in_one_line(file, device):
    with pytest.raises(SalemaError, match=f"no such device: {device}"):
        load(file, device)


# ---------------------------------------------------------------- the starter weights


def test_without_starter_weights_the_line_says_what_to_pass(tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "STARTER", tmp_path / "starter.safetensors")
    with pytest.raises(SalemaError, match=r"no starter weights.*--weights"):
        load()


def test_without_a_path_the_starter_weights_are_read(file, monkeypatch):
    monkeypatch.setattr(weights, "STARTER", file)
    assert read()[0].placement == named("ema30")


# ---------------------------------------------------------------- the hash


def test_a_hash_that_fits_lets_the_file_in_whatever_its_case(file):
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    read(file, sha256=digest)
    read(file, sha256=f" {digest.upper()}\n")


def test_a_hash_that_does_not_fit_is_reported_with_both(file):
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    told = refused(file, sha256="0" * 64)
    assert digest in told and "0" * 64 in told


# ---------------------------------------------------------------- other files


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "empty file"),
        (b"<!DOCTYPE html><html>Not Found</html>", "a web page, not weights"),
        (b"\n\n  <html>", "a web page, not weights"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "cannot read weights"),
        (b"\x00", "cannot read weights"),
        (b"\x10\x00\x00\x00\x00\x00\x00\x00{", "broken weights file"),
        (b"\x02\x00\x00\x00\x00\x00\x00\x00{}", "not a weights file of ours"),
    ],
)
def test_a_file_without_weights_is_reported_in_one_line(tmp_path, content, told):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(content)
    assert told in refused(path, placement="static")


def test_a_missing_file_and_a_folder_are_reported(tmp_path):
    assert "cannot read" in refused(tmp_path / "none.safetensors")
    assert "cannot read" in refused(tmp_path)


# ---------------------------------------------------------------- another placement


def test_an_untrained_ema_goes_into_a_static_file(tmp_path):
    path = stored(tmp_path, "static", Card("static", {"OSIE": ["1001"]}))
    static, _ = read(path)
    placed, card = read(path, "ema61", 0.25)
    assert placed.placement.after == [61]
    assert placed.alphas()["61"] == pytest.approx(0.25)
    assert card.seen == {"OSIE": ["1001"]}
    for key, tensor in static.state_dict().items():
        assert torch.equal(placed.state_dict()[key], tensor)


def test_another_alpha_replaces_the_one_of_the_file(file):
    assert read(file, alpha=0.5)[0].alphas()["30"] == pytest.approx(0.5)
    with pytest.raises(SalemaError, match="another placement"):
        read(file, "ema61")
    with pytest.raises(SalemaError, match=r"in \(0, 1\]"):
        read(file, alpha=1.5)


# ---------------------------------------------------------------- convert and identity


def test_ours_need_neither_placement_nor_alpha_to_be_converted(tmp_path, file):
    convert(file, tmp_path / "new.safetensors")
    assert (tmp_path / "new.safetensors").read_bytes() == file.read_bytes()
    convert(file, tmp_path / "small.safetensors", half=True)
    assert (tmp_path / "small.safetensors").stat().st_size < 0.52 * file.stat().st_size


def test_converting_never_overwrites(tmp_path, file):
    taken = tmp_path / "taken.safetensors"
    taken.write_bytes(b"mine")
    with pytest.raises(SalemaError, match="exists"):
        convert(file, taken)
    assert taken.read_bytes() == b"mine"


def test_the_identity_depends_on_weights_placement_and_precision_and_not_on_the_card(tmp_path):
    seen = {"DHF1K": ["001"]}
    model = load(stored(tmp_path), "cpu", "fp32")
    same = load(stored(tmp_path, card=Card("another", seen)), "cpu", "fp32")
    assert identity(same) == {"model": identity(model)["model"], "seen": seen}
    model.predict(video(2))
    assert identity(model)["model"] == identity(same)["model"]
    others = [
        load(stored(tmp_path, seed=1), "cpu", "fp32"),
        load(stored(tmp_path), "cpu", "bf16"),
        load(stored(tmp_path, "ema61"), "cpu", "fp32"),
    ]
    assert len({identity(other)["model"] for other in [model, *others]}) == 4
