"""The profile `paper` from end to end, on a miniature of its four data sets."""

import csv
import json
from pathlib import Path

import yaml
from safetensors.torch import load_file

from salema import params
from salema.data import manifest
from salema.model import weights
from salema.predict import sources as predict
from salema.report import tables
from salema.report.study import Study
from salema.score import evaluate
from salema.train import loop

ROOT = Path(__file__).parent.parent
SAMPLE = ROOT / "data/sample"
FEW = {  # folder -> how many of its entries, or which
    "SALICON/*/*": 4,
    "DHF1K/video": ("001.AVI", "002.AVI", "601.AVI", "602.AVI"),
    "DHF1K/annotation": ("0001", "0002", "0601", "0602"),
    "Hollywood-2/*": 1,
    "UCF-sports/*": 1,
}


def miniature(root):
    """Some files of each set, by links, in the official layouts and under the official numbers."""
    for pattern, few in FEW.items():
        for folder in SAMPLE.glob(pattern):
            names = sorted(path.name for path in folder.iterdir())
            for name in few if isinstance(few, tuple) else names[:few]:
                link = root / folder.relative_to(SAMPLE) / name
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(folder / name)
    return root


def shrunk(root):
    """The real parameters with `paper`, changed only where it would take too long."""
    raw = yaml.safe_load((ROOT / "params.yaml").read_text())
    raw["profile"] = "paper"
    paper = raw["profiles"]["paper"]
    paper["data"]["root"] = str(root)
    paper["model"] = {"encoder": "random", "width": 0.01, "size": [32, 48]}  # 8 channels each
    for settings in paper["tune"].values():
        settings |= {"epochs": 2, "batch": 2}
    paper["finetune"] |= {"epochs": 2, "frames_per_clip": 4}
    raw["finetune"]["bptt_frames"] = 2
    for row in ("videosalgan", "videosalgan-conv"):
        paper["placements"][row] |= {"epochs": 1}
    paper["continued"] = {row: {"epochs": 1} for row in ("ema30-hollywood2", "ema30-ucf")}
    raw["evaluate"] |= {"every": 20, "resamples": 100}
    return raw


def losses(run):
    with Path(f"runs/paper/{run}/losses.csv").open() as file:
        return list(csv.DictReader(file))


def test_the_paper_runs_from_its_four_sets_to_the_table(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(evaluate.os, "cpu_count", lambda: 1)  # new processes take longer to start
    given = params.from_dict(shrunk(miniature(tmp_path / "data")))
    manifest.write(given.root, given)
    for run in ("port", "static", "static-metrics"):  # as the stages of dvc.yaml
        loop.tune(given, run)
    for run in given.placements:
        loop.finetune(given, run)
    for run in given.runs:
        predict.predict_run(given, run)
    scored = [json.loads(evaluate.evaluate_run(given, run).read_text()) for run in given.runs]
    for run in given.baselines:
        evaluate.evaluate_run(given, run)
    assert all(set(scores) == set(given.data.evaluate) for scores in scored)

    untrained = {run for run in given.runs if not losses(run)}
    assert untrained == {"ema30-plain", "ema54-plain", "ema61-plain", "ema30-on-video"}
    chain()
    tables.write(Study(given))
    table = Path("reports/paper/ablation.md").read_text()
    assert all(f"`{run}`" in table for run in given.runs)
    beside = table.partition("## The published rows and ours")[2]
    assert "protocol `salema2019`" in beside and " | 0.887 / 0." in beside
    first = (row["DHF1K"] for row in scored)
    assert all(row["protocol"] == "exact" and "nss" in row["salema2019"] for row in first)


def chain():
    """port -> static -> ema30-released -> Hollywood-2 -> UCF-sports, each from the one before."""
    sets = {"port": {"SALICON"}, "static": {"SALICON"}, "ema30-released": {"SALICON", "DHF1K"}}
    sets["ema30-hollywood2"] = {*sets["ema30-released"], "Hollywood-2"}
    sets["ema30-ucf"] = {*sets["ema30-hollywood2"], "UCF-sports"}
    files = {run: Path(f"runs/paper/{run}/weights.safetensors") for run in sets}
    for run, seen in sets.items():
        assert set(weights.read(files[run])[1].seen) == seen
    start, end = load_file(files["port"]), load_file(files["static"])
    assert (start["layers.0.weight"] == end["layers.0.weight"]).all()  # the decoder alone learns
    assert (start["layers.58.weight"] != end["layers.58.weight"]).any()
    card = weights.read(files["static"])[1]
    rows = losses("static")
    best = min(rows, key=lambda row: float(row["val_loss"]))
    assert card.metrics["epoch"] == int(best["epoch"])
