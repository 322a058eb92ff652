import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import trees
import yaml

from salema import data as datasets
from salema import report
from salema.files import SalemaError
from salema.media import write
from salema.media.read import Frame
from salema.params import from_dict
from salema.report import clips as clips_module
from salema.report import scores, style

ROOT = Path(__file__).parents[2]
RUNS = ["static", "static-video", "ema30", "ema30-learned", "clstm30", "ema30-plain"]
NAMES = [f"{601 + k:04d}" for k in range(8)]
STILLS = [f"COCO_val2014_{k:012d}" for k in range(1, 7)]


@pytest.fixture
def study(tmp_path, monkeypatch):
    """A finished study in an empty folder: params, scores, losses; all made up."""
    monkeypatch.chdir(tmp_path)
    raw = yaml.safe_load((ROOT / "params.yaml").read_text())
    raw["runs"], raw["baselines"] = RUNS, ["chance", "centre-prior", "human"]
    raw["tune"] = {"static": raw["tune"]["static"]}
    raw["placements"] = {run: raw["placements"][run] for run in RUNS[1:]}
    sample = raw["profiles"]["sample"]
    sample["data"] |= {"root": "data", "evaluate": {"SALICON": "val", "DHF1K": "val"}}
    sample["tune"] = {"static": sample["tune"]["static"]}
    raw["profiles"] = {"sample": sample, "other": sample}
    raw["evaluate"]["resamples"] = 200
    Path("params.yaml").write_text(yaml.safe_dump(raw, sort_keys=False))
    for profile in ("sample", "other"):
        params = from_dict({**raw, "profile": profile})
        for place, run in enumerate([*RUNS, *params.baselines]):
            score(params, run, 0.1 * place)
        for run in RUNS:
            losses(params, run)
    return report.study()


def score(params, run, lift=0.0, names=NAMES, **change):
    """Scores of a run: the clips' own levels, the same for all runs, plus a constant."""
    sets = {"DHF1K": names} if run == "human" else {"SALICON": STILLS, "DHF1K": names}
    rows, means = [], {}
    for dataset, clips in sets.items():
        for place, clip in enumerate(clips):
            level = {metric: round(place / 10 + lift, 6) for metric in report.scores.METRICS}
            frames = 1 if dataset == "SALICON" else 20
            row = {"dataset": dataset, "clip": clip, "frames": frames, "skipped": 0, "seen": 0}
            rows.append({**row, **level, **change})
        here = pd.DataFrame(rows).query("dataset == @dataset")
        entry = {key: int(here[key].sum()) for key in ("frames", "skipped", "seen")}
        means[dataset] = {"clips": len(clips), "protocol": "exact", **entry}
        for metric in report.scores.METRICS:
            mean = float(here[metric].mean())
            means[dataset] |= {metric: mean, f"{metric}_low": mean - 1, f"{metric}_high": mean + 1}
    folder = params.report_folder / "metrics"
    folder.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_csv(folder / f"{run}.csv", index=False)
    (folder / f"{run}.json").write_text(json.dumps(means))


def losses(params, run):
    table = {"epoch": [1, 2], "train_loss": [0.5, 0.4], "val_loss": [0.6, 0.5]}
    if run == "ema30":
        table["alpha_30"] = [0.1, 0.1]
    if run == "ema30-learned":
        table["alpha_30"] = [0.5, 0.25]
    frame = pd.DataFrame(table)
    params.run_folder(run).mkdir(parents=True, exist_ok=True)
    frame = frame.iloc[:0] if run == "ema30-plain" else frame
    frame.to_csv(params.run_folder(run) / "losses.csv", index=False)


def only(table, **wanted):
    """The one row of a table in which these columns have these values."""
    rows = table[np.logical_and.reduce([table[key] == value for key, value in wanted.items()])]
    assert len(rows) == 1
    return rows.iloc[0]


# ------------------------------------------------------------------------- numbers


def test_a_time_constant_is_the_time_until_a_weight_falls_to_one_in_e():
    assert report.time_constant(1 - np.exp(-1)) == pytest.approx(1)
    assert report.time_constant(1 - np.exp(-1), fps=25) == pytest.approx(0.04)
    assert report.time_constant(0.1, fps=30) == pytest.approx(0.31637, abs=1e-5)
    assert report.time_constant(1) == 0
    with pytest.raises(ValueError, match="alpha"):
        report.time_constant(0)


def test_intervals_have_three_decimals_and_no_negative_zero():
    assert scores.interval(1.23456, 1, 1.5) == "1.235 [1.000, 1.500]"
    assert scores.interval(0.5, -0.1, 1, sign=True) == "+0.500 [-0.100, 1.000]"
    assert scores.interval(-0.0001, -0.0001, 0, sign=True) == "+0.000 [0.000, 0.000]"


def test_the_table_has_a_row_a_run_and_a_dash_where_a_set_has_none(study):
    table = report.ablation(study)
    assert list(table.loc["DHF1K"].index) == [*RUNS, "chance", "centre-prior", "human"]
    assert table.loc[("DHF1K", "static"), "NSS"] == "0.350 [-0.650, 1.350]"
    assert table.loc[("SALICON", "human"), "NSS"] == "–"
    assert table.loc[("DHF1K", "human"), "NSS"] != "–"


def test_every_run_is_compared_with_what_differs_from_it_in_one_thing(study):
    controls = {run: scores.control(study, run) for run in study.runs}
    assert controls == {
        "static": None,
        "static-video": "static",
        "ema30": "static-video",
        "ema30-learned": "static-video",
        "clstm30": "static-video",
        "ema30-plain": "static",
    }


def test_a_constant_difference_is_its_own_interval_and_kld_counts_the_other_way(study):
    found = report.paired(study)
    row = only(found, dataset="DHF1K", run="ema30", control="static-video", metric="nss")
    assert [row.difference, row.low, row.high] == pytest.approx([0.1, 0.1, 0.1])
    assert (row.clips, row.verdict) == (8, "better")
    row = only(found, dataset="DHF1K", run="ema30", control="static-video", metric="kld")
    assert row.difference == pytest.approx(0.1)
    assert row.verdict == "worse"


def test_equal_scores_open_intervals_and_few_clips_are_told_apart(study):
    score(study, "ema30-plain", 0.0)
    score(study, "ema30", 0.3, names=NAMES[:5])
    path = study.report_folder / "metrics" / "clstm30.csv"
    table = pd.read_csv(path, dtype={"clip": str})
    table["nss"] = [0.1 * k + (-1) ** k for k in range(len(table))]
    table.to_csv(path, index=False)
    found = report.paired(study)
    wanted = {"dataset": "DHF1K", "metric": "nss"}
    assert only(found, run="ema30-plain", control="static", **wanted).verdict == "equal"
    assert only(found, run="clstm30", control="static-video", **wanted).verdict == "open"
    row = only(found, run="ema30", control="static-video", **wanted)
    assert (row.clips, row.verdict) == (5, "few")


def test_clips_are_paired_by_name_and_leading_zeros_stay(study):
    score(study, "ema30", 0.1, names=NAMES[2:])
    row = only(report.paired(study, [("ema30", "static")]), dataset="DHF1K", metric="cc")
    # The scores of 0603 are the first of ema30 and the third of static.
    assert row.clips == 6
    assert row.difference == pytest.approx(0.1 - 0.2)


def test_missing_and_broken_scores_are_one_line_that_names_the_file(study):
    folder = study.report_folder / "metrics"
    (folder / "ema30.csv").write_text("dataset,clip\n")
    with pytest.raises(SalemaError, match=r"not a table of scores: .*ema30\.csv"):
        report.per_clip(study)
    (folder / "ema30.csv").unlink()
    with pytest.raises(SalemaError, match=r"no scores of ema30: .*ema30\.csv"):
        report.paired(study)
    (folder / "chance.json").write_text("{")
    with pytest.raises(SalemaError, match=r"not JSON: .*chance\.json"):
        report.summary(study)
    (study.run_folder("static") / "losses.csv").unlink()
    with pytest.raises(SalemaError, match="no losses of static"):
        report.loss_curves(study)


def test_a_study_is_read_for_the_profile_that_is_asked_for(study):
    assert report.study("other").report_folder == Path("reports/other")
    assert report.study().profile == "sample"
    with pytest.raises(SalemaError, match="unknown profile"):
        report.study("smaple")


def test_memories_take_alpha_from_the_last_epoch(study):
    table = report.memories(study, [20, 30])
    learned = only(table, run="ema30-learned")
    assert learned["alpha"] == "0.250"
    assert learned["frames"] == f"{-1 / np.log(0.75):.1f}"
    assert only(table, run="ema30-plain")["s at 20 fps"] == "0.47"


def test_costs_count_the_network_of_the_paper(study):
    full = study.model.model_copy(update={"width": 1.0, "size": [192, 256]})
    table = report.costs(study.model_copy(update={"model": full, "runs": ["static", "clstm30"]}))
    assert table.loc["static", "M parameters"] == "31.79"
    assert table.loc["clstm30", "M parameters"] == "50.66"
    assert table.loc["static", "GFLOP a frame"] == "79.90"
    assert table.loc["static", "ms a frame"] == "–"


def test_times_stand_beside_their_machine(study):
    assert "ms a frame: median" not in report.legend(study)
    machine = {
        "cpu": "a processor", "capabilities": ["AVX2"], "threads": 3, "torch": "9.9",
        "rounds": 5, "precision": "bf16",
    }  # fmt: skip
    path = study.report_folder / "speed.json"
    path.write_text(json.dumps({"machine": machine, "ms": {"static": 1.25}}))
    try:
        legend = report.legend(study)
    finally:
        path.unlink()
    assert legend.count("| 1.2 |") == 1
    assert "median of 5 rounds, rows in turn, in bf16 on a processor (AVX2), 3 threads" in legend


# --------------------------------------------------------------------------- words


def test_only_the_sample_says_that_its_data_are_synthetic(study):
    text = report.markdown(study)
    assert text.index("no evidence about people") < text.index("## In words")
    assert "Synthetic" not in report.markdown(report.study("other"))


def test_the_report_tells_the_published_table_from_the_leaked_one(study):
    clean, leaked = report.markdown(study).split("## Not comparable")
    assert "| EMA30 + dropout | `ema30-dropout` | 0.886 | 0.690 | 2.495 | 0.450 | 0.360 |" in clean
    assert "February 2019" in clean
    assert "3.173" not in clean
    assert "| SalCLSTM30 | 0.915 | 0.745 | 3.173 | 0.556 | 0.440 |" in leaked
    assert "trained on" in leaked


def test_a_row_that_saw_its_clips_is_marked(study):
    score(study, "ema30", 0.2, seen=1)
    text = report.section(study, "DHF1K", report.paired(study))
    assert "| `ema30` † |" in text
    assert "| `static` |" in text


def test_bold_is_the_best_mean_among_the_runs_and_low_is_best_for_kld(study):
    text = report.section(study, "DHF1K", report.paired(study))
    scored = text.split("###")[0]
    rows = {line.split("|")[1].strip(): line for line in scored.splitlines() if "|" in line}
    assert rows["`ema30-plain`"].count("**") == 2 * 5  # all but KLD
    assert rows["`static`"].count("**") == 2
    assert "**" not in rows["*human*"]


def test_answers_say_what_the_numbers_say(study):
    words = report.answers(study, report.paired(study))
    stills, clips = words.split("### DHF1K")
    assert "SALICON, val: 6 images" in stills
    assert "memory" not in stills  # a still image gives it nothing to remember
    assert "Yes, every one." in clips
    assert "`clstm30` less" not in clips
    assert "NSS less that of `ema30`: `clstm30` +0.200 [0.200, 0.200], better" in clips
    assert "worse in KLD" in clips
    assert "0 of 6 runs are better than the centre prior in NSS" in clips


def test_answers_do_not_claim_what_an_interval_does_not(study):
    for run in ("ema30", "ema30-learned", "clstm30"):
        path = study.report_folder / "metrics" / f"{run}.csv"
        table = pd.read_csv(path, dtype={"clip": str})
        table["nss"] = [0.1 * k + (-1) ** k for k in range(len(table))]
        table.to_csv(path, index=False)
    words = report.answers(study, report.paired(study))
    assert "Not shown. NSS less that of `static-video`, over 3 memories: better 0" in words
    assert "the interval holds 0" in words


def test_sets_of_few_clips_are_not_judged(study):
    for run in [*RUNS, "chance", "centre-prior", "human"]:
        score(study, run, names=NAMES[:3])
    words = report.answers(study, report.paired(study))
    assert "3 clips: too few to judge" in words


def test_the_files_hold_every_row_and_are_the_same_bytes_again(study):
    first = {path: path.read_bytes() for path in report.write(study)}
    assert {path.name for path in first} == {"ablation.md", "ablation.csv", "bars.csv"}
    assert {path: path.read_bytes() for path in report.write(study)} == first
    table = pd.read_csv(study.report_folder / "ablation.csv")
    row = only(table, dataset="DHF1K", run="ema30-plain", metric="sim")
    assert row.control == "static"
    assert row.difference == pytest.approx(0.5)
    assert only(table, dataset="DHF1K", run="static", metric="sim").isna().control
    bars = pd.read_csv(study.report_folder / "bars.csv")
    assert list(bars.run) == [*RUNS, "chance", "centre-prior", "human"]


# ------------------------------------------------------------------------- figures


def test_figures_are_the_same_bytes_again(study):
    found = report.paired(study)
    for draw in (lambda: report.paired_dots(study, found, "DHF1K"),
                 lambda: report.clip_grid(study, "DHF1K"),
                 lambda: report.alpha_curves(study)):  # fmt: skip
        first, second = (style.render(draw(), "svg") for _ in range(2))
        assert first == second
        assert b"<dc:date>" not in first


def test_figures_are_kept_under_their_label(study):
    report.keep(report.loss_curves(study), study, "04_ablation")
    report.keep(report.score_dots(study, report.summary(study), "DHF1K"), study, "a", local=True)
    assert (study.report_folder / "figures" / "04_ablation" / "losses.svg").is_file()
    assert Path("reports/local/sample/figures/a/scores-DHF1K.svg").is_file()


def test_better_is_blue_and_worse_is_red_and_the_rest_is_grey(study):
    figure = report.paired_dots(study, report.paired(study, [("ema30", "static-video")]), "DHF1K")
    colors = {axis.get_title(loc="left"): axis.lines[0].get_color() for axis in figure.axes}
    assert colors["NSS"] == style.BLUE
    assert colors["KLD (axis turned)"] == style.RED
    left, right = figure.axes[-1].get_xlim()
    assert left > right


@pytest.mark.parametrize("metric", ["nss", "kld"])
def test_the_grid_of_clips_holds_each_difference_and_better_is_blue(study, metric):
    axis = report.clip_grid(study, "DHF1K", metric).axes[0]
    rows = [label.get_text() for label in axis.get_yticklabels()]
    clips = [label.get_text() for label in axis.get_xticklabels()]
    scores = report.per_clip(study).set_index(["run", "dataset", "clip"])[metric]
    shown = iter(axis.texts)
    fills = iter(axis.collections[0].get_facecolors())
    better = -1 if metric == "kld" else 1
    for row in rows:
        run, against = row.split(" less ")
        for clip in clips:
            apart = scores[run, "DHF1K", clip] - scores[against, "DHF1K", clip]
            assert float(next(shown).get_text()) == pytest.approx(apart, abs=0.006)
            red, _, blue, _ = next(fills)
            if abs(apart) > 0.02:
                assert (blue > red) == (better * apart > 0)
    assert "ema30 less static-video" in rows and len(rows) == len(study.runs) - 1
    with pytest.raises(SalemaError, match="no scores on OSIE"):
        report.clip_grid(study, "OSIE")


def test_the_answer_to_a_flash_is_the_average_written_out_by_hand():
    figure = report.response([0.5], frames=6, shown=2)
    line = figure.axes[1].lines[0].get_ydata()
    assert line[-6:] == pytest.approx([0.5, 0.75, 0.375, 0.1875, 0.09375, 0.046875])


# ---------------------------------------------------------------------------- maps


@pytest.fixture
def clip(study):
    """One DHF1K clip of six frames with a moving spot, and a run's maps of it."""
    for number in range(1, 7):
        folder = Path("data/DHF1K/annotation/0601")
        spot = np.zeros(trees.SIZE, np.uint8)
        spot[4:8, 3 * number : 3 * number + 4] = 255 if number > 2 else 0
        trees.array(folder / "maps" / f"{number:04d}.png", spot)
        trees.grey(folder / "fixation" / f"{number:04d}.png", [(3 * number, 5)])
        trees.picture(folder / "images" / f"{number:04d}.png", 20 * number)
    (found,) = datasets.load("data", "DHF1K", "val")
    for run in ("static", "ema30"):
        path = study.run_folder(run) / "maps" / "DHF1K" / "0601.mkv"
        path.parent.mkdir(parents=True)
        with write.gray(path, (16, 16), 30) as put:
            for level in (0.0, 0.5, 0.25, 0.25, 1.0, 1.0):
                saliency = np.full((16, 16), level, np.float32)
                put(saliency, Frame(saliency, ""))
    return found


def test_maps_of_a_run_are_read_from_video_and_picture(study, clip):
    levels = [float(map_.max()) for map_ in clips_module.maps_of(study, "static", clip)]
    assert levels == pytest.approx([0, 0.5, 0.25, 0.25, 1, 1], abs=1e-4)
    path = study.run_folder("clstm30") / "maps" / "DHF1K" / "0601.png"
    trees.array(path, np.full((4, 4), 65535, np.uint16))
    assert clips_module.map_at(study, "clstm30", clip, 0).max() == 1
    with pytest.raises(SalemaError, match="no map of frame 3"):
        clips_module.map_at(study, "clstm30", clip, 3)
    with pytest.raises(SalemaError, match="no maps of 0601 by ema30-plain"):
        clips_module.map_at(study, "ema30-plain", clip, 0)


def test_flicker_is_the_mean_absolute_difference_of_consecutive_maps(study, clip):
    table = report.flicker(study, [clip], ["static"])
    by_hand = np.mean([0.5, 0.25, 0, 0.75, 0])
    assert float(table.loc["static", "0601"]) == pytest.approx(by_hand, abs=1e-4)
    profile, change = clips_module.trace(iter([np.eye(2), np.eye(2)[::-1]]))
    assert profile.tolist() == [[0.5, 0.5], [0.5, 0.5]]
    assert change.tolist() == [1.0]


def test_frames_without_a_human_map_are_not_shown(clip):
    assert report.memory_frames(clip, 6) == [2, 3, 4, 5]
    assert clips_module.telling_frame(clip) == 3


def test_pictures_are_shown_of_the_sample_or_where_git_does_not_see_them(study, clip):
    real = report.study("other")
    for params in (study, real):
        score(params, "static", names=["0601"])
    (real.run_folder("static") / "maps").symlink_to((study.run_folder("static") / "maps").resolve())
    for params, local, shown in [(study, False, 1), (real, False, 0), (real, True, 1)]:
        axes = report.compare_maps(params, [clip], ["static"], local).axes
        assert [axis.get_title() for axis in axes] == ["frame", "observers", "static"][1 - shown :]
        assert sum(image.get_array().ndim == 3 for axis in axes for image in axis.images) == shown


def test_films_and_slices_have_a_row_for_the_observers_and_every_run(study, clip):
    runs = ["static", "ema30"]
    film = report.filmstrip(study, clip, runs, 3)
    names = [axis.get_ylabel() for axis in film.axes if axis.get_ylabel()]
    assert names == ["frame", "observers", *runs]
    strips = report.slices(study, clip, runs)
    assert [axis.get_ylabel() for axis in strips.axes][:3] == ["observers", *runs]
    assert strips.axes[1].images[0].get_array().shape == (16, 6)


def test_clips_are_spread_over_the_set_and_a_set_that_is_not_scored_is_refused(study, clip):
    for number in range(602, 609):
        folder = Path(f"data/DHF1K/annotation/{number:04d}")
        trees.grey(folder / "maps" / "0001.png", [(1, 1)])
        trees.picture(folder / "images" / "0001.png")
    names = [found.name for found in report.choose_clips(study, count=4)]
    assert names == ["0601", "0603", "0605", "0607"]
    assert len(report.choose_clips(study, "DHF1K", 100)) == 8
    with pytest.raises(SalemaError, match="UCF-sports is not evaluated"):
        report.choose_clips(study, "UCF-sports")


def test_the_data_table_says_what_each_split_is_for(study, clip):
    with pytest.raises(SalemaError, match="no manifest"):
        report.data_table(study)
    manifest, _ = datasets.scan("data", {"DHF1K": ["train", "val"]})
    (study.run_folder("manifest.json")).write_text(json.dumps(manifest))
    table = report.data_table(study)
    row = only(table, split="val")
    assert row["used for"] == "watch fine-tune, score"
    assert (row["clips"], row["frames"], row["in the complete set"]) == (1, 6, 100)
    assert only(table, split="train")["clips"] == 0
