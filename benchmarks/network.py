"""The network alone: the machine's limit, full width, placements, widths and sizes."""

import statistics
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.scale import Scale, random_model, scenes
from benchmarks.straightforward import Straightforward
from benchmarks.timing import Row, row, take_turns
from salema.media.write import min_max
from salema.model import weights
from salema.model.network import SaliencyModel, pick_precision

TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
CONVOLVED = (2, 256, 48, 64)  # frames, channels, rows, columns: a layer of the network's middle


def matrix_rates(side: int, device: torch.device) -> dict[str, tuple[Callable[[], object], float]]:
    """Calls that measure the machine, and the GFLOP of each."""
    calls = {}
    count, channels, height, width = CONVOLVED
    channels, height, width = min(channels, side), min(height, side), min(width, side)
    for name, dtype in TYPES.items():
        a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
        x = torch.randn(count, channels, height, width, device=device).to(dtype)
        kernel = torch.randn(channels, channels, 3, 3, device=device).to(dtype)
        x, kernel = (t.contiguous(memory_format=torch.channels_last) for t in (x, kernel))
        calls[f"matrix product, {name}"] = (_done(lambda a=a, b=b: a @ b, device), 2e-9 * side**3)
        convolve = _done(lambda x=x, k=kernel: F.conv2d(x, k, padding=1), device)
        calls[f"3x3 convolution, {name}"] = (convolve, 18e-9 * x.numel() * channels)
    return calls


def _done(call: Callable[[], object], device: torch.device) -> Callable[[], object]:
    @torch.inference_mode()
    def finished() -> None:
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return finished


def gflop(model: SaliencyModel) -> float:
    """GFLOP of a frame by the definition of the network, before `prepare`."""
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        model(torch.zeros(1, 1, *model.config.size, 3, dtype=torch.uint8))
    return 1e-9 * counter.get_total_flops()


def spared(model: SaliencyModel) -> float:
    """GFLOP of a frame that a prepared model gets around: see `salema.predict.cpu`."""
    gigas, shrunk = 0.0, 1
    for index, layer in enumerate(model.layers):
        shrunk *= 2 if isinstance(layer, torch.nn.MaxPool2d) else 1
        if isinstance(layer, torch.nn.Upsample):
            shrunk //= 2
            if index in model.faster:
                height, width = (side // shrunk for side in model.config.size)
                gigas += 5 / 9 * 2e-9 * model.layers[index + 1].weight.numel() * height * width
    return gigas


class Limits:
    """The rates measured in this run, and what they mean for a network."""

    def __init__(self) -> None:
        self.rates: dict[str, float] = {}  # GFLOP/s of each precision, the better of the two

    def of(self, model: SaliencyModel, work: float) -> float:
        """Least seconds for so many GFLOP in the model's precision."""
        return work / self.rates[model.precision]


def alone(scale: Scale, device: torch.device, limits: Limits) -> Iterator[Row]:
    """The limit, the straightforward path, and ours: all in the same rounds."""
    fp32 = random_model("ema30", scale.width, scale.size)
    work = gflop(fp32)
    fp32.prepare(device.type, "fp32")
    bf16 = random_model("ema30", scale.width, scale.size).prepare(device.type, "bf16")
    simple, frames = Straightforward(fp32), np.stack(list(scenes(scale.frames, scale.size)))
    few = frames[: max(1, scale.frames // 2)]
    rates = matrix_rates(scale.matrix, device)
    calls = {name: call for name, (call, _) in rates.items()} | {
        "straightforward": lambda: [simple(frame) for frame in few],
        "ours, fp32": lambda: fp32.step(few),
        "ours, bf16": lambda: bf16.step(frames),
    }
    seconds = take_turns(calls, scale.rounds)
    height, width = scale.size
    section = f"network alone: ema30, width {scale.width:g}, {height}x{width}"
    for name, (_, gigas) in rates.items():
        speeds = [gigas / value for value in seconds[name]]
        median = statistics.median(speeds)
        kind = name[-4:]
        limits.rates[kind] = max(limits.rates.get(kind, 0), median)
        yield Row(section, name, "GFLOP/s", median, min(speeds), max(speeds))
    base = [value / len(few) for value in seconds["straightforward"]]
    yield row(section, "straightforward, fp32", seconds["straightforward"], len(few), base,
              limits.of(fp32, work), note=f"{work:.1f} GFLOP a frame")  # fmt: skip
    yield row(section, "ours, fp32", seconds["ours, fp32"], len(few), base,
              limits.of(fp32, work), note=f"{work - spared(fp32):.1f} executed")  # fmt: skip
    yield row(section, "ours, bf16", seconds["ours, bf16"], len(frames), base,
              limits.of(bf16, work))  # fmt: skip
    yield from _agreement(section, simple, fp32, bf16, frames)


def _agreement(
    section: str, simple: Straightforward, fp32: SaliencyModel, bf16: SaliencyModel,
    frames: np.ndarray,
) -> Iterator[Row]:  # fmt: skip
    simple.states.clear()
    expected = np.stack([simple(frame) for frame in frames])
    exact, rounded = fp32.step(frames)[0], bf16.step(frames)[0]
    apart = float(np.abs(exact - expected).max())
    yield Row(section, "fp32 from straightforward, at most", "of 1", apart, apart, apart)
    levels = [np.abs(min_max(a) - min_max(b)).mean() for a, b in zip(exact, rounded, strict=True)]
    levels = [255 * float(level) for level in levels]
    yield Row(section, "bf16 from fp32, mean of a map", "of 255", statistics.median(levels),
              min(levels), max(levels))  # fmt: skip


def placements(scale: Scale, device: torch.device, limits: Limits) -> Iterator[Row]:
    """Each placement as it runs by default, against its own straightforward path."""
    section = f"placements: width {scale.narrow:g}, {scale.size[0]}x{scale.size[1]}"
    few, many = (np.stack(list(scenes(count, scale.size))) for count in (2, 16))
    for name in scale.placements:
        model = random_model(name, scale.narrow, scale.size)
        work = gflop(model)
        model.prepare(device.type)
        simple = Straightforward(model)
        seconds = take_turns(
            {"base": lambda s=simple: [s(f) for f in few], "ours": lambda m=model: m.step(many)},
            scale.rounds,
        )
        base = [value / len(few) for value in seconds["base"]]
        yield row(section, f"{name}, {model.precision}", seconds["ours"], len(many), base,
                  limits.of(model, work), note=f"{work:.2f} GFLOP")  # fmt: skip


def dials(scale: Scale, device: torch.device, limits: Limits) -> Iterator[Row]:
    """What width and size buy; the ratio is to the first, which is the largest."""
    section = "dials: ema30, width and size (ratio: to the first)"
    models, work = {}, {}
    for width, size in scale.dials:
        name = f"width {width:g}, {size[0]}x{size[1]}"
        models[name] = random_model("ema30", width, size)
        work[name] = gflop(models[name])
        models[name].prepare(device.type)
    if weights.STARTER.exists() and scale.size == (192, 256):
        name = "starter weights"
        models[name] = weights.read()
        work[name] = gflop(models[name])
        models[name].prepare(device.type)
    counts = {name: scale.frames * (1 if gigas > 30 else 4) for name, gigas in work.items()}
    frames = {
        name: np.stack(list(scenes(counts[name], model.config.size)))
        for name, model in models.items()
    }
    calls = {name: lambda m=m, name=name: m.step(frames[name]) for name, m in models.items()}
    seconds = take_turns(calls, scale.rounds)
    first = next(iter(models))
    base = [value / counts[first] for value in seconds[first]]
    for name, model in models.items():
        yield row(section, f"{name}, {model.precision}", seconds[name], counts[name], base,
                  limits.of(model, work[name]), note=f"{work[name]:.2f} GFLOP")  # fmt: skip


def default_precision(device: torch.device) -> str:
    """What `precision: auto` chooses here."""
    return pick_precision("auto", device)
