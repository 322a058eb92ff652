"""The metrics of a frame, compared with their literal definitions, on one core each."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np

from benchmarks.scale import Scale
from benchmarks.timing import Row, row, take_turns
from salema.score.metrics import score_frame

REFERENCE = Path(__file__).parent.parent / "tests" / "reference_metrics.py"
REPEATS = 10  # frames in a round


def per_frame(scale: Scale) -> Iterator[Row]:
    """AUC-Judd, s-AUC, NSS, CC, SIM and KLD of one frame."""
    literal = _reference()
    height, width = scale.source
    rng = np.random.default_rng(0)
    saliency, density = (
        cv2.GaussianBlur(rng.random((height, width), np.float32), (0, 0), height / 12)
        for _ in range(2)
    )
    fixations = np.zeros((height, width), bool)
    fixations.flat[rng.choice(height * width, scale.fixations, replace=False)] = True
    negatives = rng.choice(height * width, 10 * scale.fixations, replace=False)
    frame = (saliency, fixations, density, negatives)
    calls = {
        "literal": lambda: literal.score_frame(*frame),
        "ours": lambda: [score_frame(*frame) for _ in range(REPEATS)],
        "ours, five": lambda: [score_frame(*frame[:3]) for _ in range(REPEATS)],
    }
    ours, expected = score_frame(*frame), literal.score_frame(*frame)
    apart = max(abs(ours[name] - expected[name]) for name in expected)
    seconds = take_turns(calls, scale.rounds)
    section = f"metrics of a frame: {height}x{width}, {scale.fixations} fixations"
    base = seconds["literal"]
    yield row(section, "literal, all six", base, 1, base)
    note = f"at most {apart:.0e} apart"
    yield row(section, "ours, all six", seconds["ours"], REPEATS, base, note=note)
    yield row(section, "ours, without s-AUC", seconds["ours, five"], REPEATS)


def _reference() -> ModuleType:
    spec = importlib.util.spec_from_file_location("reference_metrics", REFERENCE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
