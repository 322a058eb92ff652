"""Weights files of ours: reading gives what was saved, and other files give one line."""

import json
import struct

import pytest
import safetensors.torch
import torch
from oracle import video

from salema.files import SalemaError
from salema.model.network import SaliencyModel
from salema.model.placements import named
from salema.model.weights import Card, read, save
from salema.params import Model, Placement

TINY = Model(size=[32, 48], width=0.125, std=64.0)


def built(placement="ema30", seed=0, branches=False):
    torch.manual_seed(seed)
    place = named(placement) if isinstance(placement, str) else placement
    return SaliencyModel(TINY, place, branches).eval()


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "weights.safetensors"
    save(built(), path, Card())
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


def maps(model):
    with torch.no_grad():
        return model(torch.from_numpy(video(3, (32, 48)))[None])[0]


def refused(path):
    with pytest.raises(SalemaError) as raised:
        read(path)
    assert "\n" not in str(raised.value) and str(path) in str(raised.value)
    return str(raised.value)


# ---------------------------------------------------------------- there and back


KINDS = ("static", "ema30-learned", "ema7-54", "clstm56", "videosalgan-conv")


@pytest.mark.parametrize("placement", KINDS)
def test_a_network_is_read_as_it_was_saved(tmp_path, placement):
    model, path = built(placement), tmp_path / "weights.safetensors"
    save(model, path, Card())
    again, _ = read(path)
    assert again.config == model.config and again.placement == model.placement
    assert again.state_dict().keys() == model.state_dict().keys()
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], tensor, rtol=0, atol=0)
    torch.testing.assert_close(maps(again.eval()), maps(model), rtol=0, atol=0)


def test_the_card_is_read_from_one_key_of_the_file(tmp_path):
    card = Card("ema30", {"DHF1K": ["001", "002"]}, {"seed": 1}, {"val_loss": 0.25})
    path = tmp_path / "weights.safetensors"
    save(built(), path, card)
    assert read(path)[1] == card
    words = described(path)
    assert words["format"] == 1
    assert words["model"] == TINY.model_dump()
    assert words["placement"]["after"] == [30]
    assert words["seen"] == {"DHF1K": ["001", "002"]}


def test_a_file_of_an_earlier_version_with_a_commit_is_read(file):
    assert read(rewritten(file, commit="abc1234", run="ema30"))[1] == Card("ema30")


def test_a_placement_of_an_earlier_version_has_a_plain_state(tmp_path):
    path = tmp_path / "weights.safetensors"
    save(built("ema7"), path, Card())
    placement = described(path)["placement"]
    assert placement.pop("rectified")
    network, _ = read(rewritten(path, placement=placement))
    assert not network.placement.rectified and not network.memories["7"].rectified


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
    save(built(), small, Card(), half=True)
    assert small.stat().st_size < 0.52 * file.stat().st_size
    again, _ = read(small)
    assert {tensor.dtype for tensor in again.state_dict().values()} == {torch.float32}
    assert again.alphas() == pytest.approx({"30": 0.1}, abs=1e-4)
    for name, tensor in built().state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], tensor, rtol=1e-3, atol=1e-6)


def test_an_alpha_of_one_is_stored_too(tmp_path):
    path = tmp_path / "weights.safetensors"
    off = Placement(recurrence="ema", after=[30], alpha=1.0)
    for half in (False, True):
        save(built(off), path, Card(), half)
        assert read(path)[0].alphas() == {"30": 1.0}


def test_branches_are_folded_in_the_file_and_stay_in_the_model(tmp_path):
    model, path = built("static", branches=True), tmp_path / "weights.safetensors"
    keys = set(model.state_dict())
    save(model, path, Card())
    assert set(model.state_dict()) == keys
    torch.testing.assert_close(maps(read(path)[0].eval()), maps(model), atol=1e-4, rtol=0)


def test_two_saves_give_the_same_bytes(tmp_path):
    card = Card("ema30", {"DHF1K": ["001"], "SALICON": ["x"]}, {"b": 1, "a": 2})
    paths = [tmp_path / name for name in ("one.safetensors", "two.safetensors")]
    for path in paths:
        save(built(), path, card)
    assert paths[0].read_bytes() == paths[1].read_bytes()


# ---------------------------------------------------------------- no weights file


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "broken weights file"),
        (b"\x10\x00\x00\x00\x00\x00\x00\x00{", "broken weights file"),
        (b"\x02\x00\x00\x00\x00\x00\x00\x00{}", "not a weights file of ours"),
    ],
)
def test_another_file_is_reported_in_one_line(tmp_path, content, told):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(content)
    assert told in refused(path)


@pytest.mark.parametrize("keep", [9, 200, 5000, -1])
def test_a_truncated_file_is_reported_in_one_line(file, keep):
    file.write_bytes(file.read_bytes()[:keep])
    assert "broken weights file" in refused(file)


def test_a_missing_file_and_a_folder_are_reported(tmp_path):
    assert "cannot read" in refused(tmp_path / "none.safetensors")
    assert "cannot read" in refused(tmp_path)


def test_a_newer_format_is_reported(file):
    assert "newer salema" in refused(rewritten(file, format=2))


@pytest.mark.parametrize("key", ["format", "model", "placement"])
def test_a_description_that_lacks_a_key_is_reported(file, key):
    refused(rewritten(file, **{key: None}))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"format": "one"}, "not a weights file of ours"),
        ({"model": {"widht": 1.0}}, "widht"),
        ({"model": TINY.model_dump() | {"width": 0.25}}, "size mismatch"),
        ({"placement": {"recurrence": "gru"}}, "recurrence"),
        ({"placement": named("clstm30").model_dump()}, "memories.29.gates"),
        ({"colour": "blue"}, "colour"),
    ],
)
def test_a_description_that_does_not_fit_is_reported(file, changes, named):
    assert named in refused(rewritten(file, **changes))


def test_other_peoples_safetensors_are_reported(tmp_path):
    path = tmp_path / "other.safetensors"
    safetensors.torch.save_file({"x": torch.ones(2)}, path)
    assert "not a weights file of ours" in refused(path)


# ---------------------------------------------------------------- writing


def test_a_save_that_fails_leaves_the_old_file_whole(file, monkeypatch):
    before = file.read_bytes()

    def full(tensors, path, metadata):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    with pytest.raises(SalemaError, match="No space left"):
        save(built(), file, Card())
    assert file.read_bytes() == before
    assert [item.name for item in file.parent.iterdir()] == [file.name]


def test_saving_below_a_file_is_reported(file):
    with pytest.raises(SalemaError, match="cannot"):
        save(built(), file / "below.safetensors", Card())
