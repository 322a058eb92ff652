"""Weights files: what goes in comes out, and what is no weights file is told in one line."""

import hashlib
import json
import struct

import numpy as np
import pytest
import safetensors.torch
import torch
from oracle import video

import salema
from salema.files import SalemaError
from salema.model import weights
from salema.model.network import PLACEMENTS, SaliencyModel
from salema.model.weights import Card, build, read, save
from salema.params import Model, Placement

TINY = Model(size=[32, 48], width=0.125, std=64.0)


def built(placement="ema30", seed=0, branches=False):
    torch.manual_seed(seed)
    place = PLACEMENTS[placement] if isinstance(placement, str) else placement
    return SaliencyModel(TINY, place, branches).eval()


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "weights.safetensors"
    weights.save(built(), path, Card())
    return path


def described(path):
    """The JSON that a file holds, read without the library."""
    raw = path.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    return json.loads(json.loads(raw[8 : 8 + length])["__metadata__"]["salema"])


def rewritten(path, **changes):
    """The same tensors under another description; a value of None takes a key away."""
    words = described(path) | changes
    words = {key: value for key, value in words.items() if value is not None}
    tensors = safetensors.torch.load_file(path)
    safetensors.torch.save_file(tensors, path, metadata={"salema": json.dumps(words)})
    return path


def refused(path, **keywords):
    with pytest.raises(SalemaError) as raised:
        weights.read(path, **keywords)
    assert "\n" not in str(raised.value) and str(path) in str(raised.value)
    return str(raised.value)


# ---------------------------------------------------------------- there and back


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_a_model_comes_back_as_it_was_saved(tmp_path, placement):
    model, path = built(placement), tmp_path / "weights.safetensors"
    weights.save(model, path, Card())
    again = weights.read(path)
    assert again.config == model.config and again.placement == model.placement
    assert again.state_dict().keys() == model.state_dict().keys()
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], tensor, rtol=0, atol=0)
    frames = video(3, (40, 60))
    maps = weights.load(path, "cpu", "fp32").predict(frames)
    np.testing.assert_allclose(maps, model.predict(frames), atol=1e-6)


def test_the_card_comes_back_and_stands_in_one_key(tmp_path):
    card = Card("ema30", {"DHF1K": ["001", "002"]}, {"seed": 1}, {"val_loss": 0.25}, "abc1234")
    path = tmp_path / "weights.safetensors"
    weights.save(built(), path, card)
    assert weights.read(path).card == card
    words = described(path)
    assert words["format"] == 1
    assert words["model"] == TINY.model_dump()
    assert words["placement"]["after"] == [30]
    assert words["seen"] == {"DHF1K": ["001", "002"]}


def test_the_static_part_keeps_the_official_numbering(file):
    tensors = safetensors.torch.load_file(file)
    assert "layers.0.weight" in tensors and "layers.60.bias" in tensors
    assert tensors.keys() - {"memories.30.alpha_logit"} == {
        f"layers.{index}.{kind}"
        for index, layer in enumerate(built().layers)
        if isinstance(layer, torch.nn.Conv2d)
        for kind in ("weight", "bias")
    }


def test_half_precision_is_half_the_size_and_nearly_the_same(tmp_path, file):
    small = tmp_path / "half.safetensors"
    weights.save(built(), small, Card(), half=True)
    assert small.stat().st_size < 0.52 * file.stat().st_size
    again = weights.read(small)
    assert {tensor.dtype for tensor in again.state_dict().values()} == {torch.float32}
    assert again.alphas() == pytest.approx({"30": 0.1}, abs=1e-4)
    for name, tensor in built().state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], tensor, rtol=1e-3, atol=1e-6)


def test_an_alpha_of_one_is_stored_too(tmp_path):
    path = tmp_path / "weights.safetensors"
    off = Placement(recurrence="ema", after=[30], alpha=1.0)
    for half in (False, True):
        weights.save(built(off), path, Card(), half)
        assert weights.read(path).alphas() == {"30": 1.0}


def test_branches_are_folded_in_the_file_and_stay_in_the_model(tmp_path):
    model, path = built("static", branches=True), tmp_path / "weights.safetensors"
    keys = set(model.state_dict())
    weights.save(model, path, Card())
    assert set(model.state_dict()) == keys
    frames, again = video(1, (32, 48)), weights.read(path).eval()
    np.testing.assert_allclose(again.predict(frames), model.predict(frames), atol=1e-4)


def test_two_saves_give_the_same_bytes(tmp_path):
    card = Card("ema30", {"DHF1K": ["001"], "SALICON": ["x"]}, {"b": 1, "a": 2})
    paths = [tmp_path / name for name in ("one.safetensors", "two.safetensors")]
    for path in paths:
        weights.save(built(), path, card)
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_loading_makes_a_model_ready_to_predict(file):
    model = weights.load(file, "cpu", "fp32")
    assert not model.training and model.precision == "fp32"
    assert not any(weight.requires_grad for weight in model.parameters())
    assert weights.load(file, "cpu", "bf16").layers[0].weight.dtype == torch.bfloat16


def test_ours_need_neither_placement_nor_alpha_to_be_converted(tmp_path, file):
    new = tmp_path / "new.safetensors"
    weights.convert(file, new)
    assert new.read_bytes() == file.read_bytes()
    small = tmp_path / "small.safetensors"
    weights.convert(file, small, half=True)
    assert small.stat().st_size < 0.52 * file.stat().st_size


def test_the_package_hands_out_build_and_load(file):
    assert salema.load(file, device="cpu").predict(video(1, (40, 60))).shape == (1, 40, 60)
    model = salema.build("ema61", width=0.125)
    assert model.placement == PLACEMENTS["ema61"] and model.config == Model(width=0.125)
    assert salema.build("static", config=TINY).config == TINY
    assert salema.build(PLACEMENTS["ema7"], width=0.125).placement == PLACEMENTS["ema7"]


# ---------------------------------------------------------------- the hash


def test_a_hash_that_fits_lets_the_file_in_whatever_its_case(file):
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    weights.read(file, sha256=digest)
    weights.read(file, sha256=f" {digest.upper()}\n")


def test_a_hash_that_does_not_fit_is_told_with_both(file):
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    told = refused(file, sha256="0" * 64)
    assert digest in told and "0" * 64 in told


# ---------------------------------------------------------------- no weights file


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
def test_what_is_no_weights_file_is_told_in_one_line(tmp_path, content, told):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(content)
    assert told in refused(path, placement="static")


@pytest.mark.parametrize("keep", [9, 200, 5000, -1])
def test_a_truncated_file_is_told_in_one_line(file, keep):
    file.write_bytes(file.read_bytes()[:keep])
    assert "broken weights file" in refused(file)


def test_a_missing_file_and_a_folder_are_told(tmp_path):
    assert "cannot read" in refused(tmp_path / "none.safetensors")
    assert "cannot read" in refused(tmp_path)


def test_a_newer_format_is_told(file):
    assert "newer salema" in refused(rewritten(file, format=2))


@pytest.mark.parametrize("key", ["format", "model", "placement"])
def test_a_description_that_lacks_a_key_is_told(file, key):
    refused(rewritten(file, **{key: None}))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"format": "one"}, "not a weights file of ours"),
        ({"model": {"widht": 1.0}}, "widht"),
        ({"model": TINY.model_dump() | {"width": 0.25}}, "size mismatch"),
        ({"placement": {"recurrence": "gru"}}, "recurrence"),
        ({"placement": PLACEMENTS["clstm30"].model_dump()}, "memories.29.gates"),
        ({"colour": "blue"}, "colour"),
    ],
)
def test_a_description_that_does_not_fit_is_told(file, changes, named):
    assert named in refused(rewritten(file, **changes))


def test_other_peoples_safetensors_are_told(tmp_path):
    path = tmp_path / "other.safetensors"
    safetensors.torch.save_file({"x": torch.ones(2)}, path)
    assert "not a weights file of ours" in refused(path)


def test_without_starter_weights_the_line_says_what_to_pass(tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "STARTER", tmp_path / "starter.safetensors")
    with pytest.raises(SalemaError, match=r"no starter weights.*--weights"):
        weights.load()


def test_without_a_path_the_starter_weights_are_read(file, monkeypatch):
    monkeypatch.setattr(weights, "STARTER", file)
    assert weights.read().placement == PLACEMENTS["ema30"]


def test_an_unknown_placement_is_told_with_the_nearest():
    with pytest.raises(SalemaError, match=r"unknown placement 'clstm3' \(did you mean clstm30\?\)"):
        weights.build("clstm3")


# ---------------------------------------------------------------- writing


def test_a_model_that_was_built_predicts_the_same_twice():
    model = build("ema30-dropout", width=0.125)
    frames = np.random.default_rng(0).integers(0, 256, (2, 192, 256, 3), dtype=np.uint8)
    np.testing.assert_array_equal(model.predict(frames), model.predict(frames))


def test_converting_never_overwrites(tmp_path, file):
    taken = tmp_path / "taken.safetensors"
    taken.write_bytes(b"mine")
    with pytest.raises(SalemaError, match="exists"):
        weights.convert(file, taken)
    assert taken.read_bytes() == b"mine"


def test_a_save_that_fails_leaves_the_old_file_whole(file, monkeypatch):
    before = file.read_bytes()

    def full(tensors, path, metadata):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    with pytest.raises(SalemaError, match="No space left"):
        weights.save(built(), file, Card())
    assert file.read_bytes() == before
    assert [item.name for item in file.parent.iterdir()] == [file.name]


def test_saving_below_a_file_is_told(file):
    with pytest.raises(SalemaError, match="cannot"):
        weights.save(built(), file / "below.safetensors", Card())


def test_an_untrained_ema_goes_into_a_static_file(tmp_path):
    static = build("static", config=Model(size=[32, 48], width=0.125))
    save(static, tmp_path / "static.safetensors", Card(run="static", seen={"OSIE": ["1001"]}))
    placed = read(tmp_path / "static.safetensors", "ema61", 0.25)
    assert placed.placement.after == [61]
    assert placed.alphas()["61"] == pytest.approx(0.25)
    assert placed.card.seen == {"OSIE": ["1001"]}
    for key, tensor in static.state_dict().items():
        assert torch.equal(placed.state_dict()[key], tensor)


def test_another_alpha_takes_the_place_of_ours(tmp_path):
    path = tmp_path / "ema30.safetensors"
    save(build("ema30", config=Model(size=[32, 48], width=0.125)), path, Card())
    assert read(path, alpha=0.5).alphas()["30"] == pytest.approx(0.5)
    with pytest.raises(SalemaError, match="another placement"):
        read(path, "ema61")
    with pytest.raises(SalemaError, match=r"in \(0, 1\]"):
        read(path, alpha=1.5)
