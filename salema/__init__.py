"""SalEMA: video saliency from a static network plus a memory over time.

Read in this order; each module imports only from those above it.

    files       the error that users see, and writing that never leaves half a file
    pipeline    threads that work ahead, bounded
    params      params.yaml -> frozen models
    video       files, folders, images, cameras -> frames
    writers     maps -> PNG, gray video, arrays, overlays
    datasets    the official layouts -> clips; splits; the cache of decoded frames
    index       what the study finds under its root -> the manifest
    sample      small synthetic data sets in the official layouts
    recurrence  EMA and ConvLSTM over time
    layers      the 62 layers, the branches they train with
    lite        EfficientNet-Lite0 in place of the encoder: the starter weights'
    faster      their equals with fewer operations, for inference on a CPU
    model       the layers with a placement: frames -> maps, streaming
    authors     the original release's checkpoints -> our models
    weights     weights files: what they are and what they saw
    losses      BCE, BCE + adversarial, the metrics as a loss
    batches     clips -> windows of frames and targets, augmented
    train       one loop for images and clips
    roc         areas under the ROC curve, by ranks and by thresholds
    metrics     one pure function a metric
    pool        the fixations of all clips, from which s-AUC draws negatives
    protocols   which definition of a metric, by name
    baselines   rows to read a table by
    stored      where the maps of a clip come from: a folder, or a baseline
    stream      frames -> maps, in order and in constant memory
    predict     videos, folders, whole data sets -> files of maps
    evaluate    maps x annotations -> scores with intervals
    report      figures, the ablation table, executed notebooks
    export      one step of the network as ONNX
    view        one self-contained HTML page for a video
    doctor      what this machine has, and what to mend

Source: Linardos et al., "Simple vs complex temporal recurrences for video saliency
prediction", BMVC 2019 (arXiv 1907.01869).
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from salema import metrics
    from salema.weights import build, load

__version__ = "0.1.0"
__all__ = ["build", "load", "metrics"]


def __getattr__(name: str) -> object:
    """Import on first use, so that `import salema` reads nothing and costs nothing."""
    if name in ("build", "load"):
        return getattr(import_module("salema.weights"), name)
    if name == "metrics":
        return import_module("salema.metrics")
    raise AttributeError(f"module 'salema' has no attribute {name!r}")
