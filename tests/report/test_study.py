from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import trees
from finished import NAMES, losses, only, scatter, score

from salema.files import SalemaError
from salema.report import charts, tables, words
from salema.report.study import Study, enter_clone, time_constant


def test_a_time_constant_is_the_time_until_a_weight_falls_to_one_in_e():
    assert time_constant(1 - np.exp(-1)) == pytest.approx(1)
    assert time_constant(1 - np.exp(-1), fps=25) == pytest.approx(0.04)
    assert time_constant(0.1, fps=30) == pytest.approx(0.31637, abs=1e-5)
    assert time_constant(1) == 0
    with pytest.raises(ValueError, match="alpha"):
        time_constant(0)


def test_the_scores_have_a_row_for_each_set_run_and_metric(study):
    row = only(study.scores, dataset="DHF1K", run="static", metric="nss")
    assert [row["mean"], row.low, row.high] == pytest.approx([0.35, -0.65, 1.35])
    assert (row.split, row.kind, row.clips, row.protocol) == ("val", "run", 8, "exact")
    assert only(study.scores, dataset="DHF1K", run="human", metric="nss").kind == "baseline"
    assert "human" not in set(study.scores.run[study.scores.dataset == "SALICON"])


def test_every_run_is_compared_with_what_differs_from_it_in_one_thing(study):
    assert {run: study.control(run) for run in study.params.runs} == {
        "static": None,
        "static-video": "static",
        "ema30": "static-video",
        "ema30-learned": "static-video",
        "clstm30": "static-video",
        "ema30-plain": "static",
    }


def test_rows_that_nothing_was_trained_for_are_compared_with_the_row_of_their_weights(study):
    placements = dict(study.params.placements)
    placements["ema30-on-video"] = placements["ema30-plain"].model_copy(
        update={"start": "static-video"}
    )
    placements["clstm30-thaw"] = placements["clstm30"]
    runs = [*study.params.tune, *placements]
    made = Study(study.params.model_copy(update={"placements": placements, "runs": runs}))
    assert made.control("ema30-plain") == "static"
    assert made.control("ema30-on-video") == made.control("clstm30-thaw") == "static-video"
    for run in ("ema30-on-video", "clstm30-thaw"):
        score(made, run, 0.25)
    row = only(made.differences, dataset="DHF1K", run="ema30-on-video", metric="nss",
               control="static-video")  # fmt: skip
    assert row.difference == pytest.approx(0.15)


def continued(study, sets):
    """The params with a row that continues `ema30` on UCF-sports, in a profile with `sets`."""
    params = study.params
    row = params.placements["ema30"].model_copy(update={"start": "ema30", "data": "UCF-sports"})
    change = {"placements": params.placements | {"ema30-ucf": row}}
    change |= {"runs": [*params.runs, "ema30-ucf"]}
    change["data"] = params.data.model_copy(update={"continued": sets})
    return params.model_copy(update=change)


def test_a_row_that_continues_on_a_set_which_the_profile_lacks_is_left_out(study, monkeypatch):
    made = {"without": continued(study, []), "with": continued(study, ["UCF-sports"])}
    monkeypatch.setattr("salema.report.study.read", lambda profile: made[profile])
    assert Study.open("without").rows == study.rows
    has = Study.open("with")
    assert "ema30-ucf" in has.rows and has.control("ema30-ucf") == "static-video"
    score(has, "ema30-ucf", 0.7)
    losses(has, "ema30-ucf")
    found = has.differences.query("dataset == 'DHF1K' and run == 'ema30-ucf' and metric == 'nss'")
    gains = dict(zip(found.control, found.difference, strict=True))
    assert gains["ema30"] == pytest.approx(0.5) and gains["static-video"] == pytest.approx(0.6)
    assert "`ema30` continued on UCF-sports" in tables.legend(has)
    said = words.answers(has)
    assert "**Does `ema30` gain by other clips?** Compared with `ema30`: `ema30-ucf` +0.500" in said
    (same,) = [line for line in said.splitlines() if "trained on the same clips" in line]
    assert "ema30-ucf" not in same


def test_scores_by_a_second_protocol_are_kept_apart_and_old_tables_stay_readable(study):
    path = study.params.report_folder / "metrics" / "static.csv"
    score(study, "static", also=[("salema2019", 5.0)])
    assert len(study.clip_scores.query("run == 'static'")) == 14
    other = study.all_scores.query("protocol == 'salema2019'")
    assert set(other.run) == {"static"} and other.nss.min() == 5.0
    pd.read_csv(path, dtype={"clip": str}).query("protocol == 'exact'").drop(
        columns="protocol"
    ).to_csv(path, index=False)  # as tables of 2026-11 are
    old = Study(study.params)
    assert len(old.clip_scores.query("run == 'static'")) == 14
    assert not len(old.all_scores.query("protocol == 'salema2019'"))


def test_a_constant_difference_is_its_own_interval_and_low_is_better_in_kld(study):
    wanted = {"dataset": "DHF1K", "run": "ema30", "control": "static-video"}
    row = only(study.differences, metric="nss", **wanted)
    assert [row.difference, row.low, row.high] == pytest.approx([0.1, 0.1, 0.1])
    assert (row.clips, row.verdict) == (8, "better")
    row = only(study.differences, metric="kld", **wanted)
    assert row.difference == pytest.approx(0.1)
    assert row.verdict == "worse"


def test_equal_scores_open_intervals_and_few_clips_are_distinguished(study):
    score(study, "ema30-plain", 0.0)
    score(study, "ema30", 0.3, names=NAMES[:5])
    scatter(study, "clstm30")
    found, wanted = study.differences, {"dataset": "DHF1K", "metric": "nss"}
    assert only(found, run="ema30-plain", control="static", **wanted).verdict == "equal"
    assert only(found, run="clstm30", control="static-video", **wanted).verdict == "open"
    row = only(found, run="ema30", control="static-video", **wanted)
    assert (row.clips, row.verdict) == (5, "few")


def test_clips_are_paired_by_name_and_leading_zeros_stay(study):
    score(study, "ema30", 0.1, names=NAMES[2:])
    row = only(study.compare([("ema30", "static")]), dataset="DHF1K", metric="cc")
    # The scores of 0603 are the first of ema30 and the third of static.
    assert row.clips == 6
    assert row.difference == pytest.approx(0.1 - 0.2)


def test_missing_and_broken_files_are_one_line_that_names_the_file(study):
    folder = study.params.report_folder / "metrics"
    (folder / "ema30.csv").write_text("dataset,clip\n")
    with pytest.raises(SalemaError, match=r"cannot read the scores of ema30: .*ema30\.csv"):
        _ = study.clip_scores
    (folder / "ema30.csv").unlink()
    with pytest.raises(SalemaError, match=r"no scores of ema30: .*ema30\.csv"):
        _ = study.differences
    (folder / "chance.json").write_text("{")
    with pytest.raises(SalemaError, match=r"cannot read the scores of chance: .*chance\.json"):
        _ = study.scores
    (study.params.run_folder("static") / "losses.csv").write_text("")
    with pytest.raises(SalemaError, match="cannot read the losses of static"):
        charts.losses(study)
    (study.params.run_folder("static") / "losses.csv").unlink()
    with pytest.raises(SalemaError, match="no losses of static"):
        charts.losses(study)
    with pytest.raises(SalemaError, match="no manifest"):
        tables.data_sets(study)
    with pytest.raises(SalemaError, match="no scores by protocol"):
        tables.protocols(study)


def test_a_study_without_any_training_or_score_is_refused(study):
    for run in study.params.runs:
        losses(study, "ema30-plain")
        Path(study.params.run_folder(run), "losses.csv").write_text("epoch,train_loss,val_loss\n")
    with pytest.raises(SalemaError, match="no run was trained"):
        charts.losses(study)
    for path in (study.params.report_folder / "metrics").glob("*.json"):
        path.write_text("{}")
    with pytest.raises(SalemaError, match="no scores of sample"):
        _ = study.scores


def test_a_study_is_read_for_the_profile_that_is_asked_for(study):
    assert Study.open("other").folder == Path("reports/other")
    assert Study.open("other", local=True).folder == Path("reports/local/other")
    assert Study.open().params.profile == "sample"
    with pytest.raises(SalemaError, match="unknown profile"):
        Study.open("smaple")


def test_clips_are_spread_over_the_set_and_a_set_that_is_not_scored_is_refused(study, clip):
    for number in range(602, 609):
        folder = Path(f"data/DHF1K/annotation/{number:04d}")
        trees.grey(folder / "maps" / "0001.png", [(1, 1)])
        trees.picture(folder / "images" / "0001.png")
    assert [found.name for found in study.clips(count=4)] == ["0601", "0603", "0605", "0607"]
    assert len(study.clips("DHF1K", 100)) == 8
    with pytest.raises(SalemaError, match="UCF-sports is not evaluated"):
        study.clips("UCF-sports")


def test_maps_of_a_run_are_read_from_videos_and_pictures(study, clip):
    levels = [float(map_.max()) for map_ in study.maps("static", clip)]
    assert levels == pytest.approx([0, 0.5, 0.25, 0.25, 1, 1], abs=1e-4)
    with pytest.raises(SalemaError, match="no maps of DHF1K 0601 in"):
        next(study.maps("ema30-plain", clip))


def test_a_study_opens_where_jupyterlab_starts_a_notebook(tmp_path, monkeypatch):
    deep = tmp_path / "notebooks" / "explore"
    deep.mkdir(parents=True)
    monkeypatch.chdir(deep)
    with pytest.raises(SalemaError, match=r"no params\.yaml in .*explore or above \(open"):
        enter_clone()
    (tmp_path / "params.yaml").write_bytes((Path(__file__).parents[2] / "params.yaml").read_bytes())
    assert Study.open("open", local=True).folder == Path("reports/local/open")
    assert Path.cwd() == tmp_path
    assert enter_clone() == tmp_path == Path.cwd()
