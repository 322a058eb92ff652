"""The amount of each measurement, and networks with random weights at real sizes."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import product

import cv2
import numpy as np
import torch

from salema.model import weights
from salema.model.layers import LOGITS
from salema.model.network import SaliencyModel
from salema.model.placements import named
from salema.params import Model
from salema.predict.predictor import Predictor

PLACEMENTS = "static ema7 ema30 ema30-dropout ema30-residual ema30-learned ema54 ema61 ema7-54"
WIDTHS, SIZES = (1.0, 0.5, 0.25, 0.125), ((192, 256), (96, 128))


@dataclass(frozen=True)
class Scale:
    """Numbers of rounds and frames; sizes in pixels (rows, columns)."""

    rounds: int = 5
    size: tuple[int, int] = SIZES[0]
    width: float = 1.0  # of the network measured alone
    frames: int = 4  # of a call of the network alone
    matrix: int = 2048  # side of the matrices that measure the limit of the machine
    narrow: float = 0.25  # width of the placements, and of the files without starter weights
    placements: tuple[str, ...] = (*PLACEMENTS.split(), "clstm30", "clstm56", "videosalgan")
    dials: tuple[tuple[float, tuple[int, int]], ...] = tuple(product(WIDTHS, SIZES))
    source: tuple[int, int] = (360, 640)  # of the videos
    file_rounds: int = 3
    full_width_file: int = 48  # frames of the video at full width; 0: not measured
    narrow_file: int = 192
    lengths: tuple[int, ...] = (100, 500, 1000, 10_000)
    train_width: tuple[float, ...] = (0.25, 1.0)
    train_frames: dict[float, int] = field(default_factory=lambda: {0.25: 10, 1.0: 2})
    fixations: int = 50
    clips: int | None = None  # of each set of the sample; None: all


FULL = Scale()
QUICK = Scale(rounds=3, file_rounds=2, full_width_file=16, narrow_file=96, lengths=(500, 10_000))
QUICK = replace(QUICK, placements=("static", "ema30", "clstm30"), dials=FULL.dials[4:])
QUICK = replace(QUICK, train_width=(0.25,))
TINY = Scale(rounds=2, size=(32, 48), width=0.125, frames=2, matrix=32, narrow=0.125, clips=2)
TINY = replace(TINY, placements=("ema30", *PLACEMENTS.split()[3:5], "clstm30", "videosalgan"))
TINY = replace(TINY, dials=((0.125, (32, 48)),), source=(36, 64), file_rounds=2, full_width_file=3)
TINY = replace(TINY, narrow_file=3, lengths=(3,), train_width=(0.125,), train_frames={0.125: 2})
TINY = replace(TINY, fixations=5)


def random_network(placement: str, width: float, size: tuple[int, int]) -> SaliencyModel:
    """A network whose maps use the whole range at any width."""
    torch.manual_seed(0)
    network = SaliencyModel(Model(width=width, size=list(size), std=64.0), named(placement))
    with torch.no_grad():
        network.layers[LOGITS].weight.mul_(0.4)
    return network.eval()


def starter(scale: Scale) -> SaliencyModel | None:
    """The network with the starter weights, where they exist and sizes are real."""
    if weights.STARTER.exists() and scale.size == SIZES[0]:
        return weights.read(weights.STARTER)[0]
    return None


def maps_of(predictor: Predictor, clip: np.ndarray) -> np.ndarray:
    """Maps of a whole clip at the model's size, as one chunk with an empty memory before it."""
    predictor.reset()
    return predictor.step(clip)


def scenes(count: int, size: tuple[int, int]) -> Iterator[np.ndarray]:
    """Frames uint8 (H, W, 3) RGB that pan over a textured picture."""
    rng = np.random.default_rng(0)
    height, width = size
    layers = []
    for side in (16, 160):
        noise = rng.integers(0, 256, (side * 3 // 4, side, 3), dtype=np.uint8)
        layers.append(cv2.resize(noise, (2 * width, 2 * height), interpolation=cv2.INTER_CUBIC))
    picture = cv2.addWeighted(layers[0], 0.7, layers[1], 0.3, 0)
    for index in range(count):
        y, x = index % height, 2 * index % width
        yield picture[y : y + height, x : x + width]
