"""How bf16 changes scores: the starter weights on data/sample in bf16 less those in fp32."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.scale import Scale
from benchmarks.timing import Row
from salema import data
from salema.predict.load import load
from salema.predict.predictor import Predictor
from salema.score import protocols
from salema.score.statistics import t_interval

SAMPLE = Path(__file__).parent.parent / "data" / "sample"
PARTS = {"SALICON": "val", "DHF1K": "val", "Hollywood-2": "test", "UCF-sports": "test"}


def differences(scale: Scale) -> Iterator[Row]:
    """The paired difference of each metric over the clips of the sample that the study scores."""
    sets = [data.load(SAMPLE, name, part)[: scale.clips] for name, part in PARTS.items()]
    models = [load(device="cpu", precision=precision) for precision in ("fp32", "bf16")]
    full, half = (np.concatenate([_score(model, clips) for clips in sets]) for model in models)
    section = f"starter weights on data/sample: bf16 less fp32, {len(full)} clips, protocol exact"
    for index, metric in enumerate(protocols.METRICS):
        apart = t_interval(half[:, index] - full[:, index])
        note = f"95 % interval; fp32 {full[:, index].mean():.3f}"
        yield Row(section, metric, "apart", *apart, note=note)


def _score(predictor: Predictor, clips: list[data.Clip]) -> np.ndarray:
    """(clips, metrics): means over the frames of each clip."""
    pool = protocols.Pool({clip.name: (clip.size, list(clip.fixations())) for clip in clips})
    rows = []
    for clip in clips:
        protocol = protocols.get("exact", clip.dataset)
        negatives = protocol.negatives(pool, clip.name)
        frames = zip(
            predictor.stream(clip.frames(), fps=clip.fps),
            clip.fixations(),
            clip.maps(),
            strict=True,
        )
        scores = [
            protocol.score(saliency, fixations, density, clip.size, negatives, index)
            for index, (saliency, fixations, density) in enumerate(frames)
        ]
        rows.append([np.mean([s[key] for s in scores if s]) for key in protocols.METRICS])
    return np.array(rows)
