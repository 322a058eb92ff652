"""The network alone: the limit of the machine, full width, placements, widths and sizes."""

import statistics
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.scale import Scale, maps_of, random_network, scenes, starter
from benchmarks.straightforward import Straightforward
from benchmarks.timing import Row, row, take_turns
from salema.media.write import min_max
from salema.model.network import SaliencyModel
from salema.predict.cpu import OfEnlarged
from salema.predict.predictor import Predictor

TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
CONVOLVED = (2, 256, 48, 64)  # frames, channels, rows, columns: a layer of the network's middle


def matrix_rates(side: int, device: torch.device) -> dict[str, tuple[Callable[[], object], float]]:
    """Calls that measure the arithmetic rate of the machine, and the GFLOP of each."""
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


def gflop(network: SaliencyModel) -> float:
    """GFLOP of a frame by the definition of the network."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.zeros(1, 1, *network.config.size, 3, dtype=torch.uint8))
    return 1e-9 * counter.get_total_flops()


def saved(predictor: Predictor) -> float:
    """GFLOP of a frame that a predictor does not execute; see `salema.predict.cpu`."""
    gigas, shrunk = 0.0, 1
    for layer, replaced in zip(predictor.network.layers, predictor.prepared.layers, strict=True):
        if isinstance(layer, torch.nn.MaxPool2d):
            shrunk *= 2
        if isinstance(layer, torch.nn.Upsample):
            shrunk //= 2
        if isinstance(replaced, OfEnlarged):
            height, width = (side // shrunk for side in predictor.size)
            gigas += 5 / 9 * 2e-9 * layer.weight.numel() * height * width
    return gigas


class Limits:
    """The rates measured in this run, and the shortest possible times that follow from them."""

    def __init__(self) -> None:
        self.rates: dict[str, float] = {}  # GFLOP/s by precision, the higher of the two calls

    def of(self, predictor: Predictor, work: float) -> float:
        """Shortest possible seconds for this much work in GFLOP, in a predictor's precision."""
        return work / self.rates[predictor.precision]


def alone(scale: Scale, device: torch.device, limits: Limits) -> Iterator[Row]:
    """The limit of the machine, the straightforward path and ours, in the same rounds."""
    network = random_network("ema30", scale.width, scale.size)
    work = gflop(network)
    fp32, bf16 = (Predictor(network, device.type, precision) for precision in ("fp32", "bf16"))
    simple, frames = Straightforward(fp32), np.stack(list(scenes(scale.frames, scale.size)))
    few = frames[: max(1, scale.frames // 2)]
    rates = matrix_rates(scale.matrix, device)
    calls = {name: call for name, (call, _) in rates.items()} | {
        "straightforward": lambda: [simple(frame) for frame in few],
        "ours, fp32": lambda: maps_of(fp32, few),
        "ours, bf16": lambda: maps_of(bf16, frames),
    }
    seconds = take_turns(calls, scale.rounds)
    height, width = scale.size
    section = f"network alone: ema30, width {scale.width:g}, {height}x{width}"
    for name, (_, gigas) in rates.items():
        speeds = [gigas / value for value in seconds[name]]
        median, precision = statistics.median(speeds), name[-4:]
        limits.rates[precision] = max(limits.rates.get(precision, 0), median)
        yield Row(section, name, "GFLOP/s", median, min(speeds), max(speeds))
    base = [value / len(few) for value in seconds["straightforward"]]
    limit, note = limits.of(fp32, work), f"{work:.1f} GFLOP a frame"
    yield row(section, "straightforward, fp32", base, 1, base, limit, note=note)
    note = f"{work - saved(fp32):.1f} executed"
    yield row(section, "ours, fp32", seconds["ours, fp32"], len(few), base, limit, note=note)
    limit = limits.of(bf16, work)
    yield row(section, "ours, bf16", seconds["ours, bf16"], len(frames), base, limit)
    yield from _agreement(section, simple, fp32, bf16, frames)


def _agreement(
    section: str, simple: Straightforward, fp32: Predictor, bf16: Predictor, frames: np.ndarray
) -> Iterator[Row]:
    simple.states.clear()
    expected = np.stack([simple(frame) for frame in frames])
    exact, rounded = maps_of(fp32, frames), maps_of(bf16, frames)
    apart = float(np.abs(exact - expected).max())
    yield Row(section, "fp32 from straightforward, at most", "of 1", apart, apart, apart)
    levels = [np.abs(min_max(a) - min_max(b)).mean() for a, b in zip(exact, rounded, strict=True)]
    levels = [255 * float(level) for level in levels]
    middle, what = statistics.median(levels), "bf16 from fp32, mean of a map"
    yield Row(section, what, "of 255", middle, min(levels), max(levels))


def placements(scale: Scale, device: torch.device, limits: Limits) -> Iterator[Row]:
    """Each placement as it runs by default, compared with its own straightforward path."""
    section = f"placements: width {scale.narrow:g}, {scale.size[0]}x{scale.size[1]}"
    few, many = (np.stack(list(scenes(count, scale.size))) for count in (2, 16))
    for name in scale.placements:
        network = random_network(name, scale.narrow, scale.size)
        work = gflop(network)
        predictor = Predictor(network, device.type)
        simple = Straightforward(predictor)
        calls = {
            "base": lambda simple=simple: [simple(frame) for frame in few],
            "ours": lambda predictor=predictor: maps_of(predictor, many),
        }
        seconds = take_turns(calls, scale.rounds)
        base = [value / len(few) for value in seconds["base"]]
        what, note = f"{name}, {predictor.precision}", f"{work:.2f} GFLOP"
        limit = limits.of(predictor, work)
        yield row(section, what, seconds["ours"], len(many), base, limit, note=note)


def dials(scale: Scale, device: torch.device, limits: Limits) -> Iterator[Row]:
    """The effect of width and size; ratios are relative to the first and largest network."""
    section = "dials: ema30, width and size (ratio: to the first)"
    networks = {
        f"width {width:g}, {size[0]}x{size[1]}": random_network("ema30", width, size)
        for width, size in scale.dials
    }
    if network := starter(scale):
        networks["starter weights"] = network
    work = {name: gflop(network) for name, network in networks.items()}
    predictors = {name: Predictor(network, device.type) for name, network in networks.items()}
    counts = {name: scale.frames * (1 if gigas > 30 else 4) for name, gigas in work.items()}
    calls = {}
    for name, predictor in predictors.items():
        frames = np.stack(list(scenes(counts[name], predictor.size)))
        calls[name] = lambda predictor=predictor, frames=frames: maps_of(predictor, frames)
    seconds = take_turns(calls, scale.rounds)
    first = next(iter(predictors))
    base = [value / counts[first] for value in seconds[first]]
    for name, predictor in predictors.items():
        what, note = f"{name}, {predictor.precision}", f"{work[name]:.2f} GFLOP"
        limit = limits.of(predictor, work[name])
        yield row(section, what, seconds[name], counts[name], base, limit, note=note)
