"""dvc.yaml against the code, and the whole study in miniature."""

import csv
import json
import shutil
from pathlib import Path

import pytest
import yaml
from imports import dependency, reached

from salema import data, params
from salema.data import manifest
from salema.files import SalemaError
from salema.predict import sources as predict
from salema.score import evaluate, tables
from salema.score.maps import Maps
from salema.train import job, loop

ROOT = Path(__file__).parent.parent
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
PACKAGES = {
    "index": "data",
    "port": "train",
    "tune": "train",
    "finetune": "train",
    "continue": "train",
    "predict": "predict",
    "evaluate": "score",
    "baseline": "score",
    "report": "report",
    "protocols": "score",
    "crossvalidate": "tools",
    "ablation": "report",
    "arms": "report",
}


@pytest.mark.parametrize("stage", PACKAGES)
def test_a_stage_depends_on_every_package_that_it_imports(stage):
    body = STAGES[stage].get("do", STAGES[stage])
    listed = {path for path in body["deps"] if path.startswith("salema/")}
    assert listed == {dependency(name) for name in reached(PACKAGES[stage])}


def test_a_checkpoint_depends_on_the_code_that_the_training_stages_depend_on():
    listed = {path for path in STAGES["finetune"]["do"]["deps"] if path.startswith("salema/")}
    assert listed == {f"salema/{name}" for name in job.CODE}


def test_every_stage_is_checked():
    assert set(STAGES) == set(PACKAGES)


TRAINING = ("port", "tune", "finetune", "continue")


def test_every_run_is_trained_by_one_stage():
    raw = yaml.safe_load((ROOT / "params.yaml").read_text())
    made = [*STAGES["tune"]["foreach"], STAGES["port"]["cmd"].split()[-1]]
    assert sorted(made) == sorted(raw["tune"])
    assert STAGES["finetune"]["foreach"] == "${placements}"
    assert STAGES["continue"]["foreach"] == "${continued}"


@pytest.mark.parametrize("stage", TRAINING)
def test_a_training_stage_tracks_all_that_its_runs_read_of_params(stage):
    body = STAGES[stage].get("do", STAGES[stage])
    blocks = {"port": ["tune.port"], "tune": ["tune.${item}"]}
    blocks |= {"finetune": ["finetune", "placements.${key}"]}
    blocks |= {"continue": ["finetune", "continued.${key}"]}
    profile = {"port": ["tune.port"], "tune": ["tune.${item}"]}
    profile |= {"finetune": ["finetune", "placements"], "continue": ["finetune", "continued"]}
    tracked = {"seed", "model", *blocks[stage]}
    tracked |= {f"profiles.${{profile}}.{key}" for key in ["data", "model", *profile[stage]]}
    assert set(body["params"]) == tracked


@pytest.mark.parametrize("profile", ["sample", "open", "paper"])
def test_a_stage_depends_on_the_weights_that_its_runs_start_from(profile):
    raw = yaml.safe_load((ROOT / "params.yaml").read_text())
    given = params.from_dict(raw, profile=profile)
    file = "runs/${profile}/%s/weights.safetensors"
    inits = {settings.init for settings in given.tune.values()} - {None}
    assert {file % init for init in inits} <= set(STAGES["tune"]["do"]["deps"])
    assert given.tune["port"].init is None
    assert file % "static" in STAGES["finetune"]["do"]["deps"]
    assert file % "${item.start}" in STAGES["continue"]["do"]["deps"]
    for run, row in given.continued.items():  # what DVC sees, without the profile
        assert row.start == raw["continued"][run]["start"]


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """The study's own parameters with the smallest budget, in an empty folder."""
    raw = yaml.safe_load((ROOT / "params.yaml").read_text())
    one = {"epochs": 1, "batch": 20, "optimizer": "adamw", "learning_rate": 1e-3}
    raw["profile"] = "tiny"
    raw["profiles"] = {
        "tiny": {
            "data": {
                "root": str(ROOT / "data/sample"),
                "tune": ["SALICON"],
                "finetune": ["DHF1K"],
                "continued": ["UCF-sports"],
                "evaluate": {"DHF1K": "val"},
            },
            "model": {"size": [32, 48], "width": 0.125, "std": 64.0, "branches": True},
            "tune": {"static": one, "static-metrics": one, "port": one},
            "finetune": {
                "epochs": 2,
                "batch": 2,
                "frames_per_clip": 6,
                "bptt_frames": 3,
                "learning_rate": 1e-3,
            },
            "evaluate": {"every": 9, "resamples": 200},
        }
    }
    monkeypatch.chdir(tmp_path)
    return params.from_dict(raw)


def _losses(run):
    with Path(f"runs/tiny/{run}/losses.csv").open() as file:
        return list(csv.DictReader(file))


def _val(tiny):
    return data.load(tiny.root, "DHF1K", "val")


def test_the_study_runs_from_images_to_scores(tiny):
    manifest.write(tiny.root, tiny)
    loop.tune(tiny, "static")
    loop.finetune(tiny, "ema30-learned")
    predict.predict_run(tiny, "ema30-learned")
    scores = json.loads(evaluate.evaluate_run(tiny, "ema30-learned").read_text())
    assert scores["DHF1K"]["clips"] == len(_val(tiny))
    assert 0 < scores["DHF1K"]["auc_judd"] < 1
    row = scores["DHF1K"]
    assert row["nss_low"] <= row["nss"] <= row["nss_high"]
    assert row["frames"] == sum(-(-c.n_frames // 9) for c in _val(tiny)) - row["skipped"]
    learned = _losses("ema30-learned")
    assert len(learned) == 2 and float(learned[-1]["alpha_30"]) != 0.56
    assert sorted(p.name for p in Path().iterdir()) == [".salema", "reports", "runs"]


def test_weights_name_their_training_clips_and_those_are_refused(tiny):
    loop.tune(tiny, "static")
    loop.finetune(tiny, "static-video")
    seen = tables.seen_by(Path("runs/tiny/static-video/weights.safetensors"))
    train_clips = data.load(tiny.root, "DHF1K", "train")
    assert seen["DHF1K"] == [clip.name for clip in train_clips]
    assert len(seen["SALICON"]) == len(data.load(tiny.root, "SALICON", "train"))
    chance = Maps(baseline="chance")
    with pytest.raises(SalemaError, match="seen in training"):
        evaluate.score_clips(train_clips[:1], chance, seen=seen)
    marked = evaluate.score_clips(train_clips[:1], chance, every=20, seen=seen, allow_seen=True)
    assert marked[0].row()["seen"] == 1


def test_an_interrupted_training_ends_with_the_same_weights(tiny, monkeypatch):
    loop.tune(tiny, "static")
    loop.finetune(tiny, "ema30")
    whole = Path("runs/tiny/ema30/weights.safetensors").read_bytes()
    shutil.rmtree(".salema/training")

    epoch = loop.Learner.one_epoch

    def cut(learner):
        if learner.epoch == 1:
            raise KeyboardInterrupt
        epoch(learner)

    monkeypatch.setattr(loop.Learner, "one_epoch", cut)
    with pytest.raises(KeyboardInterrupt):
        loop.finetune(tiny, "ema30")
    monkeypatch.setattr(loop.Learner, "one_epoch", epoch)
    loop.finetune(tiny, "ema30")
    assert Path("runs/tiny/ema30/weights.safetensors").read_bytes() == whole


def test_a_changed_parameter_never_meets_old_weights(tiny):
    clips = data.load(tiny.root, "DHF1K", "train")
    known = loop.Job(tiny, "ema30", tiny.finetune, clips, [])
    other = tiny.finetune.model_copy(update={"learning_rate": 2e-3})
    longer = tiny.finetune.model_copy(update={"epochs": 9})
    assert loop.Job(tiny, "ema30", other, clips, []).key() != known.key()
    assert loop.Job(tiny, "ema30", tiny.finetune, clips[1:], []).key() != known.key()
    assert loop.Job(tiny, "ema30", longer, clips, []).key() == known.key()


def test_a_profile_without_its_data_stops_in_one_line(tiny, tmp_path):
    empty = tiny.model_copy(update={"data": tiny.data.model_copy(update={"root": str(tmp_path)})})
    with pytest.raises(SalemaError, match=r"lacks SALICON.*DHF1K") as error:
        manifest.write(empty.root, empty)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())
