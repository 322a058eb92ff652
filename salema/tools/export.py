"""One step of the network as ONNX: `(frame, state) -> (map, state)`, or frames -> maps.

The names and shapes of inputs and outputs, and the rule of the state, are in the file's metadata.
"""

import copy
import json
import warnings
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from salema.files import SalemaError, absent, atomic
from salema.model.network import SaliencyModel, State
from salema.model.recurrence import EMA, OnMaps
from salema.model.weights import Card

OPSET = 17
RULE = (
    "Start a clip with zeros for every input but `frame`; then feed each output `next_X` to the "
    "input `X`. `frame` is uint8 RGB at the model's size, `map` is in [0, 1], not stretched."
)


class _Average(nn.Module):
    """An EMA of one frame, with a count of the frames so far: the first one enters whole."""

    def __init__(self, memory: EMA) -> None:
        super().__init__()
        self.alpha, self.rectified = float(memory.alpha.detach()), memory.rectified

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor] | None) -> tuple:
        """(B, 1, C, H, W), (memory (B, C, H, W), frames seen (1,)) -> averages, new state."""
        if state is None:
            return x, (x[:, 0], torch.ones(1, dtype=torch.int64))
        memory, seen = state
        alpha = torch.where(seen == 0, 1.0, self.alpha)
        memory = memory.relu() if self.rectified else memory
        memory = alpha * x[:, 0] + (1 - alpha) * memory
        return memory[:, None], (memory, seen + 1)


class _Resized(nn.Module):
    """An `OnMaps` whose area resize is two matrix products: ONNX has no such operator."""

    def __init__(self, memory: OnMaps, size: tuple[int, int]) -> None:
        super().__init__()
        self.memory, self.project, self.size = memory.memory, memory.project, size
        ratio = (memory.short_side or min(size)) / min(size)
        for name, side in zip(("rows", "columns"), size, strict=True):
            pool = F.adaptive_avg_pool1d(torch.eye(side)[None], round(side * ratio))[0]
            self.register_buffer(name, pool)  # (side, small side)

    def forward(self, x: Tensor, state: tuple | None) -> tuple[Tensor, tuple]:
        """(B, 1, 1, H, W) maps and a state -> new maps of the same size, state."""
        cells, state = self.memory(self.rows.T @ x @ self.columns, state)
        logits = F.interpolate(self.project(cells[:, 0]), self.size, mode="bilinear")
        return torch.sigmoid(logits)[:, None], state


class _Step(nn.Module):
    """The network with tensors in and out, in float32 on the CPU."""

    def __init__(self, network: SaliencyModel) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).cpu().float().fold().eval()
        self.names: list[str] = []
        memories = self.network.memories
        named = {"ema": ("memory", "seen"), "convlstm": ("cell", "hidden"), "conv": ()}
        for layer, memory in memories.items():
            if isinstance(memory, EMA):
                memories[layer] = _Average(memory)
            elif isinstance(memory, OnMaps):
                memories[layer] = _Resized(memory, tuple(network.config.size))
            self.names += [f"{part}_{layer}" for part in named[network.placement.recurrence]]
        self.network.assemble()

    def forward(self, frame: Tensor, *parts: Tensor) -> tuple[Tensor, ...]:
        """(B, H, W, 3) uint8 and the parts of the state -> (B, H, W), the parts after it."""
        layers = map(int, self.network.memories)
        pairs = zip(layers, zip(parts[::2], parts[1::2], strict=True), strict=False)
        maps, state = self.network(frame[:, None], State(0, dict(pairs)))
        return maps[:, 0], *(part for pair in state.memories.values() for part in pair)


def export(network: SaliencyModel, out: Path, card: Card | None = None) -> Path:
    """Write a network as ONNX, in float32; returns the path.

    Inputs are `frame` uint8 (1, H, W, 3) and, for each recurrence after layer L, `memory_L`
    and `seen_L` (EMA) or `cell_L` and `hidden_L` (ConvLSTM); outputs are `map` float32
    (1, H, W) and the same parts as `next_*`. The static network and `conv` have only `frame`
    and `map`; the static one takes any number of frames.
    """
    absent(out)
    if network.placement.dropout == "always" and network.placement.after:
        raise SalemaError("ONNX lacks the draws of `dropout: always` (export another placement)")
    try:
        import onnx
    except ImportError as error:
        raise SalemaError("ONNX needs one more package (pip install salema[export])") from error
    step = _Step(network)
    frame = torch.zeros(1, *network.config.size, 3, dtype=torch.uint8)
    with torch.no_grad(), atomic(out) as part:
        _trace(step, (frame, *(torch.zeros_like(tensor) for tensor in step(frame)[1:])), part)
        graph = onnx.load(part)
        shapes = [_shapes(values) for values in (graph.graph.input, graph.graph.output)]
        described = {"rule": RULE, "inputs": shapes[0], "outputs": shapes[1], "opset": str(OPSET)}
        described["placement"] = network.placement.model_dump_json()
        described["run"] = (card or Card()).run
        onnx.helper.set_model_props(graph, described)
        graph.doc_string = RULE
        onnx.checker.check_model(graph)
        onnx.save(graph, part)
    return out


def _trace(step: _Step, inputs: tuple[Tensor, ...], path: Path) -> None:
    names = ["frame", *step.names], ["map", *(f"next_{name}" for name in step.names)]
    axes = {} if step.network.memories else {"frame": {0: "frames"}, "map": {0: "frames"}}
    options = {"input_names": names[0], "output_names": names[1], "dynamic_axes": axes}
    # It warns of shapes, all constants here, and recommends an exporter with one more dependency.
    with warnings.catch_warnings(action="ignore"):
        torch.onnx.export(step, inputs, path, dynamo=False, opset_version=OPSET, **options)


def _shapes(values: Iterable) -> str:
    from onnx import TensorProto

    shapes = {}
    for value in values:
        kind = value.type.tensor_type
        sides = [axis.dim_param or axis.dim_value for axis in kind.shape.dim]
        shapes[value.name] = [TensorProto.DataType.Name(kind.elem_type).lower(), *sides]
    return json.dumps(shapes)
