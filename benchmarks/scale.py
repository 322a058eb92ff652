"""The amount of each measurement, and the networks: random weights, real sizes."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import cv2
import numpy as np
import torch

from salema.model.layers import LOGITS
from salema.model.network import SaliencyModel
from salema.params import Model, named
from salema.predict.predictor import Predictor

PLACEMENTS = (
    "static ema7 ema30 ema30-dropout ema30-residual ema30-learned ema54 ema61 ema7-54 clstm30 "
    "clstm56 videosalgan"
)


@dataclass(frozen=True)
class Scale:
    """Numbers of rounds and frames; sizes in pixels (rows, columns)."""

    rounds: int = 5
    size: tuple[int, int] = (192, 256)
    width: float = 1.0  # of the network measured alone
    frames: int = 4  # of a call of the network alone
    matrix: int = 2048  # side of the matrices that measure the limit
    narrow: float = 0.25  # width of the placements, and without starter weights of the files
    placements: tuple[str, ...] = tuple(PLACEMENTS.split())
    dials: tuple[tuple[float, tuple[int, int]], ...] = (
        (1.0, (192, 256)), (1.0, (96, 128)), (0.5, (192, 256)), (0.5, (96, 128)),
        (0.25, (192, 256)), (0.25, (96, 128)), (0.125, (192, 256)), (0.125, (96, 128)))  # fmt: skip
    source: tuple[int, int] = (360, 640)  # of the videos
    file_rounds: int = 3
    full_width_file: int = 48  # frames of the video for full width; 0: not measured
    narrow_file: int = 192
    lengths: tuple[int, ...] = (100, 500, 1000, 10_000)
    train_width: tuple[float, ...] = (0.25, 1.0)
    train_frames: dict[float, int] = field(default_factory=lambda: {0.25: 10, 1.0: 2})
    fixations: int = 50
    clips: int | None = None  # of each set of the sample; None: all


FULL = Scale()
QUICK = Scale(
    rounds=3, placements=("static", "ema30", "clstm30"), dials=FULL.dials[4:], file_rounds=2,
    full_width_file=16, narrow_file=96, lengths=(500, 10_000), train_width=(0.25,),
)  # fmt: skip
TINY = Scale(
    rounds=2, size=(32, 48), width=0.125, frames=2, matrix=32, narrow=0.125,
    placements=("ema30", "ema30-dropout", "ema30-residual", "clstm30", "videosalgan"),
    dials=((0.125, (32, 48)),), source=(36, 64), file_rounds=2, full_width_file=3,
    narrow_file=3, lengths=(3,), train_width=(0.125,), train_frames={0.125: 2}, fixations=5,
    clips=2,
)  # fmt: skip


def random_network(placement: str, width: float, size: tuple[int, int]) -> SaliencyModel:
    """Weights whose maps use the whole range, whatever the width."""
    torch.manual_seed(0)
    network = SaliencyModel(Model(width=width, size=list(size), std=64.0), named(placement))
    with torch.no_grad():
        network.layers[LOGITS].weight.mul_(0.4)
    return network.eval()


def maps_of(predictor: Predictor, clip: np.ndarray) -> np.ndarray:
    """Maps of a whole clip at the model's size, as one chunk with an empty memory before it."""
    predictor.reset()
    return predictor.step(clip)


def scenes(count: int, size: tuple[int, int]) -> Iterator[np.ndarray]:
    """Frames uint8 (H, W, 3) RGB that pan over a textured picture."""
    rng = np.random.default_rng(0)
    height, width = size
    layers = [
        cv2.resize(
            rng.integers(0, 256, (side * 3 // 4, side, 3), dtype=np.uint8),
            (2 * width, 2 * height),
            interpolation=cv2.INTER_CUBIC,
        )
        for side in (16, 160)
    ]
    picture = cv2.addWeighted(layers[0], 0.7, layers[1], 0.3, 0)
    for index in range(count):
        y, x = index % height, 2 * index % width
        yield picture[y : y + height, x : x + width]
