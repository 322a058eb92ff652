"""SalEMA: video saliency from a static network plus a memory over time.

Read in this order; each package imports only from those above it.

    files       the error that users see, atomic (crash-safe) writing
    params      params.yaml -> frozen models
    media       frames in, maps out: videos, pictures, cameras, overlays
    data        the official layouts, DHF1K's and others -> clips
    model       the network: layers, EMA, ConvLSTM, weights files of ours
    train       one training loop for images and clips, losses, learning rates
    predict     a trained model at work, ours or an authors' checkpoint: frames -> maps
    score       metrics, protocols, negatives, baselines, intervals
    report      the ablation table, figures, executed notebooks
    tools       the two arms of the study, ONNX export, an HTML view, a check of this machine

Source: Linardos et al., "Simple vs complex temporal recurrences for video saliency
prediction", BMVC 2019 (arXiv 1907.01869).
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from salema.predict.arrays import frames, overlay
    from salema.predict.load import build, load
    from salema.score import metrics

__version__ = "0.1.0"
__all__ = ["build", "frames", "load", "metrics", "overlay"]


def __getattr__(name: str) -> Any:
    """Import on first use, so that `import salema` reads nothing and costs nothing."""
    if name in ("build", "load"):
        return getattr(import_module("salema.predict.load"), name)
    if name in ("frames", "overlay"):
        return getattr(import_module("salema.predict.arrays"), name)
    if name == "metrics":
        return import_module("salema.score.metrics")
    raise AttributeError(f"module 'salema' has no attribute {name!r}")
