"""The study's own parameters with the smallest budget, on a few clips of the sample."""

import copy
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
SAMPLE = ROOT / "data" / "sample"
STUDY = yaml.safe_load((ROOT / "params.yaml").read_text())
FEW = {"SALICON/images": 3, "SALICON/maps": 3, "SALICON/fixations": 3}  # files a split


def little(root):
    """A few images and clips of the sample, by links."""
    for part, count in FEW.items():
        for folder in (SAMPLE / part).iterdir():
            for path in sorted(folder.iterdir())[:count]:
                link = root / part / folder.name / path.name
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(path)
    for number in (1, 2, 601):
        for part in (f"video/{number:03d}.AVI", f"annotation/{number:04d}"):
            link = root / "DHF1K" / part
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(SAMPLE / "DHF1K" / part)
    for name in ("Hollywood-2", "UCF-sports"):
        (root / name).symlink_to(SAMPLE / name)
    return root


def raw(root):
    """The study's own parameters with the smallest budget."""
    study = copy.deepcopy(STUDY)
    one = {
        "epochs": 1,
        "batch": 3,
        "optimizer": "adamw",
        "learning_rate": 1e-3,
        "augment": "none",
        "precision": "fp32",
    }
    study["profile"] = "tiny"
    study["profiles"] = {
        "tiny": {
            "data": {
                "root": str(root),
                "tune": ["SALICON"],
                "finetune": ["DHF1K"],
                "continued": ["Hollywood-2", "UCF-sports"],
                "evaluate": {"DHF1K": "val"},
            },
            "model": {"size": [32, 48], "width": 0.125, "std": 64.0},
            "tune": {"static": one | {"train": "all"}, "static-metrics": one, "port": {**one}},
            "finetune": {
                "epochs": 1,
                "batch": 2,
                "frames_per_clip": 4,
                "bptt_frames": 2,
                "learning_rate": 1e-3,
                "precision": "fp32",
            },
            "placements": {
                "ema30-released": {"learning_rate": 1e-3},
                "videosalgan": {"learning_rate": 1e-3, "optimizer": "adam"},
            },
        }
    }
    return study
