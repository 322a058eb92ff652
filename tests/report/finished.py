"""What the stages of a study leave, made up."""

import json

import numpy as np
import pandas as pd

from salema.report.study import METRICS

RUNS = ["static", "static-video", "ema30", "ema30-learned", "clstm30", "ema30-plain"]
NAMES = [f"{601 + k:04d}" for k in range(8)]
STILLS = [f"COCO_val2014_{k:012d}" for k in range(1, 7)]


def score(study, run, lift=0.0, names=NAMES, also=(), **change):
    """Scores of a run: the clips' own levels, the same for all runs, plus a constant.

    `also` are (protocol, lift) of further rows of each clip.
    """
    sets = {"DHF1K": names} if run == "human" else {"SALICON": STILLS, "DHF1K": names}
    rows, means = [], {}
    for dataset, clips in sets.items():
        for place, clip in enumerate(clips):
            level = dict.fromkeys(METRICS, round(place / 10 + lift, 6))
            frames = 1 if dataset == "SALICON" else 20
            row = {"dataset": dataset, "protocol": "exact", "clip": clip, "frames": frames}
            row |= {"skipped": 0, "seen": 0}
            rows.append({**row, **level, **change})
        here = pd.DataFrame(rows).query("dataset == @dataset")
        entry = {key: int(here[key].sum()) for key in ("frames", "skipped", "seen")}
        means[dataset] = {"clips": len(clips), "protocol": "exact", **entry}
        for metric in METRICS:
            mean = float(here[metric].mean())
            means[dataset] |= {metric: mean, f"{metric}_low": mean - 1, f"{metric}_high": mean + 1}
    folder = study.params.report_folder / "metrics"
    folder.mkdir(parents=True, exist_ok=True)
    for protocol, extra in also:
        rows += [{**row, "protocol": protocol, "nss": row["nss"] + extra} for row in rows]
    pd.DataFrame(rows).to_csv(folder / f"{run}.csv", index=False)
    (folder / f"{run}.json").write_text(json.dumps(means))


def scatter(study, run):
    """Make the NSS of a run differ from clip to clip in both directions."""
    path = study.params.report_folder / "metrics" / f"{run}.csv"
    table = pd.read_csv(path, dtype={"clip": str})
    table["nss"] = [0.1 * k + (-1) ** k for k in range(len(table))]
    table.to_csv(path, index=False)


def losses(study, run):
    table = {"epoch": [1, 2], "train_loss": [0.5, 0.4], "val_loss": [0.6, 0.5]}
    if run == "ema30":
        table["alpha_30"] = [0.1, 0.1]
    if run == "ema30-learned":
        table["alpha_30"] = [0.5, 0.25]
    frame = pd.DataFrame(table)
    folder = study.params.run_folder(run)
    folder.mkdir(parents=True, exist_ok=True)
    frame = frame.iloc[:0] if run == "ema30-plain" else frame
    frame.to_csv(folder / "losses.csv", index=False)


def only(table, **wanted):
    """The one row of a table in which these columns have these values."""
    rows = table[np.logical_and.reduce([table[key] == value for key, value in wanted.items()])]
    assert len(rows) == 1
    return rows.iloc[0]
