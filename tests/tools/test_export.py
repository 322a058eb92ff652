import json
import sys

import numpy as np
import pytest
import torch

from salema.files import SalemaError
from salema.model.network import SaliencyModel
from salema.model.placements import named
from salema.model.weights import Card
from salema.params import Model, Placement
from salema.predict.predictor import Predictor
from salema.tools.export import OPSET, export

onnxruntime = pytest.importorskip("onnxruntime", reason="needs `pip install salema[export]`")

SIZE = [64, 96]


def network(placement, size=SIZE):
    """Random weights that leave the maps away from 0 and 1, so that a difference shows."""
    torch.manual_seed(3)
    placement = named(placement) if isinstance(placement, str) else placement
    network = SaliencyModel(Model(size=size, width=0.125, std=64.0), placement)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if name.endswith("bias"):
                weight.normal_(0, 0.2)
    return network


def predictor(network):
    return Predictor(network, "cpu", "fp32")


def clip(count=6, size=SIZE, seed=0):
    """Noise whose brightness jumps from frame to frame: a memory shows at once."""
    rng = np.random.default_rng(seed)
    light = rng.integers(40, 256, count)
    return (rng.random((count, *size, 3)) * light[:, None, None, None]).astype(np.uint8)


def run(session, frames):
    """What the ten lines of docs/use.md do: zeros at the start, then what came out last."""
    kinds = {"tensor(float)": np.float32, "tensor(int64)": np.int64}
    inputs = session.get_inputs()[1:]
    state = {value.name: np.zeros(value.shape, kinds[value.type]) for value in inputs}
    maps = []
    for frame in frames:
        saliency, *parts = session.run(None, {"frame": frame[None], **state})
        state = dict(zip(state, parts, strict=True))
        maps.append(saliency[0])
    return np.stack(maps)


ON_MAPS = Placement(recurrence="convlstm", after=[61], hidden=64, short_side=40)


EMAS = ("ema7", "ema30", "ema61", "ema7-54", "ema30-residual", "ema30-learned")


@pytest.mark.parametrize("placement", [*EMAS, "clstm30", "clstm30-residual", "clstm56", ON_MAPS])
def test_step_by_step_onnx_gives_the_maps_of_pytorch(placement, tmp_path):
    model, frames = network(placement), clip()
    export(model, tmp_path / "step.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "step.onnx")
    maps = run(session, frames)
    expected = predictor(model).predict(frames)
    assert maps.dtype == np.float32 and maps.shape == (6, *SIZE)
    np.testing.assert_allclose(maps, expected, atol=1e-3)
    without_memory = np.stack(list(predictor(model).images(frames)))
    assert np.abs(expected[1:] - without_memory[1:]).max() > 0.003  # or nothing was shown
    np.testing.assert_allclose(run(session, frames), maps)  # a new clip starts with zeros


def test_the_control_of_a_convlstm_is_a_step_without_a_state(tmp_path):
    model = network(ON_MAPS.model_copy(update={"recurrence": "conv"}))
    frames = clip()
    export(model, tmp_path / "step.onnx")
    maps = run(onnxruntime.InferenceSession(tmp_path / "step.onnx"), frames)
    np.testing.assert_allclose(maps, predictor(model).predict(frames), atol=1e-3)


def test_the_static_network_takes_any_number_of_frames(tmp_path):
    model, frames = network("static"), clip(5)
    export(model, tmp_path / "static.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "static.onnx")
    assert [value.name for value in session.get_inputs()] == ["frame"]
    for count in (1, 5):
        maps = session.run(None, {"frame": frames[:count]})[0]
        np.testing.assert_allclose(maps, predictor(model).predict(frames[:count]), atol=1e-3)


def test_the_file_describes_its_inputs_outputs_rule_and_opset(tmp_path):
    import onnx

    export(network("ema7-54"), tmp_path / "step.onnx", Card("ema7-54"))
    graph = onnx.load(tmp_path / "step.onnx")
    assert graph.opset_import[0].version == OPSET
    told = {entry.key: entry.value for entry in graph.metadata_props}
    inputs, outputs = json.loads(told["inputs"]), json.loads(told["outputs"])
    assert inputs["frame"] == ["uint8", 1, *SIZE, 3]
    assert outputs["map"] == ["float", 1, *SIZE]
    assert inputs["memory_7"] == ["float", 1, 16, 32, 48]
    assert inputs["seen_54"] == ["int64", 1]
    assert [name.removeprefix("next_") for name in list(outputs)[1:]] == list(inputs)[1:]
    assert "zeros" in told["rule"] and told["opset"] == str(OPSET)
    assert json.loads(told["placement"])["after"] == [7, 54]
    assert told["run"] == "ema7-54"


def test_the_network_itself_is_left_as_it_was(tmp_path):
    model, frames = network("ema30"), clip(3)
    before = predictor(model).predict(frames)
    export(model, tmp_path / "step.onnx")
    np.testing.assert_array_equal(predictor(model).predict(frames), before)


def test_what_cannot_be_exported_is_reported_in_one_line(tmp_path, monkeypatch):
    with pytest.raises(SalemaError, match="dropout: always"):
        export(network("ema30-dropout"), tmp_path / "step.onnx")
    (tmp_path / "there.onnx").write_text("mine")
    with pytest.raises(SalemaError, match="exists"):
        export(network("ema30"), tmp_path / "there.onnx")
    assert (tmp_path / "there.onnx").read_text() == "mine"
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(SalemaError, match=r"pip install salema\[export\]"):
        export(network("ema30"), tmp_path / "step.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["there.onnx"]
