"""One step of the network as ONNX: `(frame, state) -> (map, state)`, or frames -> maps.

The static network takes any number of frames. A placement takes one frame and its state,
and gives the map and the next state: zeros at a clip's start, then what came out last. The
file's metadata tell the names, the shapes and this rule, so it needs nothing of ours.
"""

import copy
import json
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from salema.files import SalemaError, atomic
from salema.model.network import SaliencyModel, State
from salema.model.recurrence import EMA, MapLSTM

OPSET = 17
RULE = (
    "Start a clip with zeros for every input but `frame`; then feed each output `next_X` to the "
    "input `X`. `frame` is uint8 RGB at the model's size, `map` is in [0, 1], not stretched."
)


class _Average(nn.Module):
    """An EMA of one frame: the first one enters whole, told by a count of frames seen."""

    def __init__(self, memory: EMA) -> None:
        super().__init__()
        self.alpha = float(memory.alpha)

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor] | None) -> tuple:
        """(B, 1, C, H, W), (memory (B, C, H, W), frames seen (1,)) -> averages, new state."""
        if state is None:
            return x, (x[:, 0], torch.ones(1, dtype=torch.int64))
        memory, seen = state
        alpha = torch.where(seen == 0, 1.0, self.alpha)
        memory = alpha * x[:, 0] + (1 - alpha) * memory
        return memory[:, None], (memory, seen + 1)


class _OnMaps(nn.Module):
    """A `MapLSTM` whose area resize is two matrix products: ONNX has no such operator."""

    def __init__(self, memory: MapLSTM, size: tuple[int, int]) -> None:
        super().__init__()
        self.memory, self.project, self.size = memory.memory, memory.project, size
        ratio = (memory.short_side or min(size)) / min(size)
        for name, side in zip(("rows", "columns"), size, strict=True):
            pool = F.adaptive_avg_pool1d(torch.eye(side)[None], round(side * ratio))[0]
            self.register_buffer(name, pool)  # (side, small side)

    def forward(self, x: Tensor, state: tuple | None) -> tuple[Tensor, tuple]:
        """(B, 1, 1, H, W) maps and a state -> new maps of the same size, state."""
        small = self.rows.T @ x @ self.columns
        cells, state = self.memory(small, state)
        logits = self.project(cells[:, 0])
        maps = torch.sigmoid(F.interpolate(logits, self.size, mode="bilinear"))
        return maps[:, None], state


class _Network(nn.Module):
    """The model with tensors in and out, in float32 on the CPU."""

    def __init__(self, model: SaliencyModel) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).cpu().float().fold().eval()
        self.names: list[str] = []
        for layer, memory in self.model.memories.items():
            parts = ("cell", "hidden")
            if isinstance(memory, EMA):
                parts, self.model.memories[layer] = ("memory", "seen"), _Average(memory)
            elif isinstance(memory, MapLSTM):
                self.model.memories[layer] = _OnMaps(memory, tuple(model.config.size))
            self.names += [f"{part}_{layer}" for part in parts]

    def forward(self, frame: Tensor, *parts: Tensor) -> tuple[Tensor, ...]:
        """(B, H, W, 3) uint8 and the parts of the state -> (B, H, W), the parts after it."""
        layers = map(int, self.model.memories)
        pairs = zip(layers, zip(parts[::2], parts[1::2], strict=True), strict=False)
        maps, state = self.model(frame[:, None], State(0, dict(pairs)))
        return maps[:, 0], *(part for pair in state.memories.values() for part in pair)


def export(model: SaliencyModel, out: str | Path) -> None:
    """Write a model as ONNX, in float32 whatever its precision is.

    Inputs `frame` uint8 (1, H, W, 3) and, for each recurrence behind layer L, `memory_L`
    and `seen_L` (EMA) or `cell_L` and `hidden_L` (ConvLSTM); outputs `map` float32
    (1, H, W) and `next_*` of the same. The static network has only `frame` and `map`, and
    any number of them.

    Raises:
        SalemaError: The file exists or cannot be written, a package is missing, or the
            placement draws random numbers while it predicts.
    """
    out = Path(out)
    if out.exists():
        raise SalemaError(f"{out} exists (choose another name, or remove it yourself)")
    if model.placement.dropout == "always" and model.placement.after:
        raise SalemaError(
            "`dropout: always` draws NumPy's random numbers, which ONNX lacks "
            "(export another placement)"
        )
    try:
        import onnx
    except ImportError as error:
        raise SalemaError("ONNX needs one more package (pip install salema[export])") from error
    network = _Network(model)
    frame = torch.zeros(1, *model.config.size, 3, dtype=torch.uint8)
    with torch.no_grad(), atomic(out) as part:
        state = [torch.zeros_like(part) for part in network(frame)[1:]]
        _trace(network, (frame, *state), part)
        graph = onnx.load(part)
        onnx.helper.set_model_props(graph, _described(model, graph))
        graph.doc_string = RULE
        onnx.checker.check_model(graph)
        onnx.save(graph, part)


def _trace(network: _Network, inputs: tuple[Tensor, ...], path: Path) -> None:
    axes = {} if network.names else {"frame": {0: "frames"}, "map": {0: "frames"}}
    with warnings.catch_warnings():
        # The tracer warns of every shape that is a number, as they all are; and the newer
        # exporter, which it recommends, needs one more package.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            inputs,
            path,
            dynamo=False,
            opset_version=OPSET,
            input_names=["frame", *network.names],
            output_names=["map", *(f"next_{name}" for name in network.names)],
            dynamic_axes=axes,
        )


def _described(model: SaliencyModel, graph: object) -> dict[str, str]:
    """What the file says of itself, as text and JSON."""
    from onnx import TensorProto

    def shapes(values: object) -> str:
        told = {}
        for value in values:
            kind = value.type.tensor_type
            sides = [axis.dim_param or axis.dim_value for axis in kind.shape.dim]
            told[value.name] = [TensorProto.DataType.Name(kind.elem_type).lower(), *sides]
        return json.dumps(told)

    return {
        "rule": RULE,
        "inputs": shapes(graph.graph.input),
        "outputs": shapes(graph.graph.output),
        "opset": str(OPSET),
        "placement": model.placement.model_dump_json(),
        "run": getattr(getattr(model, "card", None), "run", "unnamed"),
    }
