"""A finished study in an empty folder, all of it made up; and a clip with maps of two runs."""

from pathlib import Path

import finished
import numpy as np
import pytest
import trees
import yaml

from salema import data
from salema.media import write
from salema.media.read import Frame
from salema.params import from_dict
from salema.report.study import Study

ROOT = Path(__file__).parents[2]


@pytest.fixture
def study(tmp_path, monkeypatch):
    """The profile `sample` of two: params, scores, losses."""
    monkeypatch.chdir(tmp_path)
    runs = finished.RUNS
    raw = yaml.safe_load((ROOT / "params.yaml").read_text())
    raw["runs"], raw["baselines"] = runs, ["chance", "centre-prior", "human"]
    raw["tune"] = {"static": raw["tune"]["static"]}
    raw["placements"] = {run: raw["placements"][run] for run in runs[1:]}
    sample = raw["profiles"]["sample"] | {"placements": {}}
    for block in (raw, sample):
        block.pop("continued", None)
    sample["data"] |= {"root": "data", "evaluate": {"SALICON": "val", "DHF1K": "val"}}
    sample["tune"] = {"static": sample["tune"]["static"]}
    raw["profiles"] = {"sample": sample, "other": sample}
    raw["evaluate"]["resamples"] = 200
    Path("params.yaml").write_text(yaml.safe_dump(raw, sort_keys=False))
    for profile in ("sample", "other"):
        made = Study(from_dict({**raw, "profile": profile}))
        for place, run in enumerate([*runs, *made.params.baselines]):
            finished.score(made, run, 0.1 * place)
        for run in runs:
            finished.losses(made, run)
    return Study.open()


@pytest.fixture
def clip(study):
    """One DHF1K clip of six frames with a moving spot, and the maps of two runs."""
    for number in range(1, 7):
        folder = Path("data/DHF1K/annotation/0601")
        spot = np.zeros(trees.SIZE, np.uint8)
        spot[4:8, 3 * number : 3 * number + 4] = 255 if number > 2 else 0
        trees.array(folder / "maps" / f"{number:04d}.png", spot)
        trees.grey(folder / "fixation" / f"{number:04d}.png", [(3 * number, 5)])
        trees.picture(folder / "images" / f"{number:04d}.png", 20 * number)
    (found,) = data.load("data", "DHF1K", "val")
    for run in ("static", "ema30"):
        path = study.params.run_folder(run) / "maps" / "DHF1K" / "0601.mkv"
        path.parent.mkdir(parents=True)
        with write.gray(path, (16, 16), 30) as put:
            for level in (0.0, 0.5, 0.25, 0.25, 1.0, 1.0):
                put(
                    np.full((16, 16), level, np.float32), Frame(np.zeros((16, 16, 3), np.uint8), "")
                )
    return found
