"""What is in the data, as tables."""

import json
from itertools import islice

import numpy as np
import pandas as pd

from salema import data as datasets
from salema.files import SalemaError
from salema.params import Params


def data_table(params: Params) -> pd.DataFrame:
    """A row a data set and split of the manifest, and which stage uses it.

    Raises:
        SalemaError: There is no manifest.
    """
    path = params.run_folder("manifest.json")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise SalemaError(f"no manifest: {path} (run `salema index`)") from error
    rows = []
    for dataset, entry in manifest["sets"].items():
        for split, part in entry["splits"].items():
            clips = part["clips"].values()
            frames = sorted(clip["frames"] for clip in clips)
            rows.append(
                {
                    "data set": dataset,
                    "split": split,
                    "used for": _uses(params, dataset, split),
                    "clips": len(clips),
                    "in the complete set": part["expected"] or "–",
                    "frames": sum(frames),
                    "frames a clip": f"{frames[0]}–{frames[-1]}" if frames else "–",
                    "with ground truth": sum(clip["annotated"] for clip in clips),
                    "MB": f"{sum(clip['bytes'] for clip in clips) / 1e6:.1f}",
                }
            )
    return pd.DataFrame(rows)


def _uses(params: Params, dataset: str, split: str) -> str:
    uses = []
    for stage, sets in (("tune", params.data.tune), ("fine-tune", params.data.finetune)):
        if dataset in sets and split in ("train", "val"):
            uses.append(stage if split == "train" else f"watch {stage}")
    if params.data.evaluate.get(dataset) == split:
        uses.append("score")
    return ", ".join(uses) or "–"


def observers_table(params: Params, clips: int = 20) -> pd.DataFrame:
    """Who looked, set by set, from up to `clips` clips of the evaluated split.

    Returns:
        Columns data set, observers ("merged" where the set does not tell them apart),
        fixations a frame (mean over annotated frames), size and frames a second.
    """
    rows = []
    for dataset, split in params.data.evaluate.items():
        found = datasets.load(params.root, dataset, split)
        chosen = found[:: max(1, len(found) // clips)][:clips]
        counts, people = [], set()
        for clip in chosen:
            step = max(1, clip.n_frames // 10)
            for points in islice(clip.fixations(), 0, None, step):
                counts += [len(points)] if len(points) else []
                people |= set(points[:, 2])
        rates = sorted({clip.fps for clip in chosen if clip.fps})
        sizes = {clip.size for clip in chosen}
        height, width = max(sizes, key=lambda size: size[0] * size[1])
        rows.append(
            {
                "data set": dataset,
                "observers": len(people) if chosen[0].has_observers else "merged",
                "fixations a frame": f"{np.mean(counts):.1f}" if counts else "–",
                "largest frame": f"{width}x{height}",
                "frame sizes": len(sizes),
                "frames a second": _range(rates),
            }
        )
    return pd.DataFrame(rows)


def _range(rates: list[float]) -> str:
    if not rates:
        return "–"
    ends = dict.fromkeys([f"{rates[0]:g}", f"{rates[-1]:g}"])
    return "–".join(ends)


def mean_maps(params: Params) -> dict[str, np.ndarray]:
    """Set -> the mean map of its training clips, float (h, w): what `centre-prior` predicts."""
    from salema.score.baselines import centre_prior

    return {dataset: centre_prior(params.root, dataset) for dataset in params.data.evaluate}
