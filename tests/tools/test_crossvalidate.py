"""The two arms on the sample: folds, what is tested, what is kept, and no leak."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from salema import params
from salema.files import SalemaError
from salema.model import weights
from salema.tools import crossvalidate, trials
from salema.train import loop

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def arms(tmp_path_factory):
    """Both arms with the smallest budget: the parameters, the folder and the rows."""
    raw = yaml.safe_load((ROOT / "params.yaml").read_text())
    sample = raw["profiles"]["sample"]
    sample["data"]["root"] = str(ROOT / "data/sample")
    sample["evaluate"] = {"every": 9}
    sample["crossvalidate"] |= {
        "model": {"size": [32, 48], "width": 0.125, "std": 64.0, "branches": True},
        "static": {"loss": "metrics", "epochs": 1, "batch": 20, "learning_rate": 1e-3},
        "finetune": {"epochs": 1, "batch": 2, "frames_per_clip": 6, "bptt_frames": 3,
                     "learning_rate": 1e-3},
        "rates": [1e-4, 1e-3], "taus": [0.1, 0.2], "after": [30, 61],
    }  # fmt: skip
    given = params.from_dict(raw)
    folder = tmp_path_factory.mktemp("arms")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        path = crossvalidate.crossvalidate(given)
        with path.open() as file:
            rows = list(csv.DictReader(file))
    return given, folder, rows


def of(rows, **wanted):
    return [row for row in rows if all(row[key] == value for key, value in wanted.items())]


def test_every_clip_is_tested_once_by_weights_that_did_not_see_it(arms):
    _, folder, rows = arms
    clips = {row["clip"] for row in of(rows, arm="A")}
    for row in ("static-video", "ema30"):
        tested = of(rows, arm="B", row=row, tested="as trained")
        assert sorted(r["clip"] for r in tested) == sorted(clips)
        for entry in tested:
            run = folder / f"runs/sample/arms/{row}-fold{entry['fold']}-seed1"
            seen = weights.read(run / "weights.safetensors")[1].seen
            assert len(seen["DHF1K"]) > 4 and entry["clip"] not in seen["DHF1K"]


def test_the_rate_is_chosen_on_a_fold_that_is_not_the_test_fold(arms):
    _, folder, rows = arms
    for fold in "123":
        (rate,) = {r["rate"] for r in of(rows, arm="B", row="ema30", fold=fold)}
        losses = {}
        for tried in (1e-4, 1e-3):
            run = folder / f"runs/sample/arms/ema30-fold{fold}-rate{tried:g}"
            card = weights.read(run / "weights.safetensors")[1]
            losses[tried] = card.metrics["val_loss"]
            tests = {r["clip"] for r in of(rows, arm="B", row="ema30", fold=fold)}
            assert not tests & set(card.seen["DHF1K"])
        assert float(rate) == min(losses, key=losses.get)


def test_conditions_differ_where_they_must(arms):
    _, _, rows = arms
    nss = {(r["arm"], r["row"], r["tested"], r["clip"]): r["nss"] for r in rows if r["seed"] == "1"}
    clip = rows[-1]["clip"]
    tests = {t for a, r, t, c in nss if (a, r) == ("A", "static")}
    assert {"ema30 tau 0.2", "ema61 tau 0.2", "blur tau 0.2", "mean"} < tests
    values = [nss["A", "static", test, clip] for test in tests]
    assert len(set(values)) == len(values)
    assert nss["B", "ema30", "as trained", clip] != nss["B", "ema30", "frames alone", clip]
    assert (
        nss["B", "static-video", "with ema30", clip] != nss["B", "static-video", "as trained", clip]
    )


def test_frames_are_kept_in_the_order_of_the_rows(arms):
    _, folder, rows = arms
    with np.load(folder / "reports/sample/arms.npz") as file:
        curves = dict(file)
    assert len(curves["nss"]) == sum(int(row["frames"]) for row in rows)
    first = curves["nss"][: int(rows[0]["frames"])].astype(float)
    assert np.nanmean(first) == pytest.approx(float(rows[0]["nss"]), abs=2e-3)
    static = of(rows, arm="A", row="static", tested="as trained")
    assert len(curves["motion"]) == sum(int(row["frames"]) for row in static)


def test_a_second_run_trains_and_scores_nothing(arms, monkeypatch):
    given, folder, rows = arms
    monkeypatch.chdir(folder)
    monkeypatch.setattr(loop.Learner, "one_epoch", lambda _: pytest.fail("it trains"))
    monkeypatch.setattr(trials.Scoring, "_score", lambda *_: pytest.fail("it scores"))
    with crossvalidate.crossvalidate(given).open() as file:
        assert list(csv.DictReader(file)) == rows


def test_scores_of_a_clip_that_was_trained_on_are_refused(arms):
    given, folder, _ = arms
    path = next((folder / "runs/sample/arms").glob("ema30-fold1-seed1/weights.safetensors"))
    clips = crossvalidate._clips(given)
    with trials.Scoring(given, clips) as scoring, pytest.raises(SalemaError, match="trained on"):
        next(scoring.of(path, [trials.Test("as trained")], clips))
    assert not list(path.parent.glob("*.json.*"))
    assert json.loads(next(path.parent.glob("scores-*.json")).read_text())


def test_an_unknown_row_names_the_nearest(arms):
    given, _, _ = arms
    with pytest.raises(SalemaError, match=r"unknown row of crossvalidate 'ema31' \(did you mean"):
        crossvalidate._placement(given, "ema31")
    assert crossvalidate._placement(given, "clstm30-zero").zero
