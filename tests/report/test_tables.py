import json
import re

import numpy as np
import pandas as pd
import pytest
from finished import NAMES, RUNS, only, scatter, score

from salema import data
from salema.params import Placement
from salema.report import tables, words
from salema.report.study import Study


def cells(text):
    """Markdown -> the cells of each line of its tables."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


# ------------------------------------------------------------------------- cells


def test_intervals_have_three_decimals_and_no_negative_zero():
    assert words.interval(1.23456, 1, 1.5) == "1.235 [1.000, 1.500]"
    assert words.interval(0.5, -0.1, 1, sign=True) == "+0.500 [-0.100, 1.000]"
    assert words.interval(-0.0001, -0.0001, 0, sign=True) == "+0.000 [0.000, 0.000]"


def test_numbers_are_right_aligned_in_their_format_and_missing_values_are_dashes():
    table = pd.DataFrame({"name": ["a", None], "count": [1, 2], "ms": [0.25, np.nan]})
    assert words.grid(table, {"ms": ".1f"}).splitlines() == [
        "| name | count | ms |",
        "| --- | ---: | ---: |",
        "| a | 1 | 0.2 |",
        "| – | 2 | – |",
    ]


# ------------------------------------------------------------------------ tables


def test_memories_take_alpha_from_the_last_epoch(study):
    rows = {row[0]: row for row in cells(tables.memories(study, [20, 30]))}
    assert rows["run"][4:] == ["s at 20 fps", "s at 30 fps", "learned"]
    frames = f"{-1 / np.log(0.75):.1f}"
    assert rows["ema30-learned"][1:4] + rows["ema30-learned"][-1:] == ["30", "0.250", frames, "yes"]
    assert rows["ema30-plain"][4] == "0.47"


def test_costs_count_the_network_of_the_paper(study):
    full = study.params.model.model_copy(update={"width": 1.0, "size": [192, 256]})
    params = study.params.model_copy(update={"model": full, "runs": ["static", "clstm30"]})
    rows = {row[0]: row for row in cells(tables.legend(Study(params)))}
    assert rows["`static`"][2:] == ["31.79", "79.90", "–"]
    assert rows["`clstm30`"][2] == "50.66"
    assert rows["*human*"][2:] == ["–", "–", "–"]


def test_times_come_with_their_machine(study):
    assert "ms a frame: median" not in tables.legend(study)
    machine = {"cpu": "a processor", "capabilities": ["AVX2"], "threads": 3, "torch": "9.9"}
    machine |= {"rounds": 5, "precision": "bf16"}
    path = study.params.report_folder / "speed.json"
    path.write_text(json.dumps({"machine": machine, "ms": {"static": 1.25}}))
    legend = tables.legend(Study(study.params))
    assert legend.count("| 1.2 |") == 1
    assert "median of 5 rounds, rows in turn, in bf16 on a processor (AVX2), 3 threads" in legend


def test_the_scores_have_a_row_for_each_run_and_a_dash_where_a_set_has_none(study):
    rows = {row[0]: row for row in cells(tables.scores(study, "DHF1K"))[2:]}
    assert list(rows) == [f"`{run}`" for run in RUNS] + ["*chance*", "*centre-prior*", "*human*"]
    assert rows["`static`"][3] == "0.350 [-0.650, 1.350]"
    assert "–" not in rows["*human*"]
    rows = {row[0]: row for row in cells(tables.scores(study, "SALICON"))}
    assert rows["*human*"][1:] == ["–"] * 6


def test_a_row_that_was_trained_on_its_clips_is_marked(study):
    score(study, "ema30", 0.2, seen=1)
    text = tables.section(study, "DHF1K")
    assert "| `ema30` † |" in text
    assert "| `static` |" in text


def test_bold_is_the_best_mean_among_the_runs_and_low_is_best_for_kld(study):
    rows = {row[0]: "".join(row) for row in cells(tables.scores(study, "DHF1K"))}
    assert rows["`ema30-plain`"].count("**") == 2 * 5  # all but KLD
    assert rows["`static`"].count("**") == 2
    assert "**" not in rows["*human*"]


def test_differences_are_bold_where_their_interval_leaves_out_0(study):
    score(study, "ema30-plain", 0.0)
    scatter(study, "clstm30")
    rows = {tuple(row[:2]): row for row in cells(tables.differences(study, "DHF1K"))}
    assert rows["`ema30`", "`static-video`"][4] == "**+0.100 [0.100, 0.100]** ▲"
    assert rows["`ema30`", "`static-video`"][7] == "**+0.100 [0.100, 0.100]** ▼"
    assert rows["`ema30-plain`", "`static`"][2:] == ["the same"] * 6
    assert "*" not in rows["`clstm30`", "`static-video`"][4]
    assert not any("centre-prior" in control for _, control in rows)


def test_the_data_table_shows_what_each_split_is_for(study, clip):
    manifest, _ = data.scan("data", {"DHF1K": ["train", "val"]})
    (study.params.run_folder("manifest.json")).write_text(json.dumps(manifest))
    head, _, *rows = cells(tables.data_sets(study))
    rows = {row[1]: dict(zip(head, row, strict=True)) for row in rows}
    assert rows["val"]["used for"] == "watch fine-tune, score"
    assert rows["val"]["clips"] == "1"
    assert (rows["val"]["frames"], rows["val"]["in the complete set"]) == ("6", "100")
    assert (rows["train"]["used for"], rows["train"]["clips"]) == ("fine-tune", "0")


def test_protocols_are_sorted_by_set(study):
    text = "protocol,dataset,clips,nss\nexact,SALICON,6,1.5\nexact,DHF1K,8,0.25\n"
    (study.params.report_folder / "protocols.csv").write_text(text)
    assert cells(tables.protocols(study))[2:] == [
        ["exact", "DHF1K", "8", "0.2500"],
        ["exact", "SALICON", "6", "1.5000"],
    ]


# ------------------------------------------------------------------------- words


def test_only_the_sample_is_called_synthetic(study):
    text = tables.markdown(study)
    assert text.index("no evidence about people") < text.index("## In words")
    assert "Synthetic" not in tables.markdown(Study.open("other"))


def test_the_report_separates_the_published_table_from_the_leaked_one(study):
    clean, leaked = tables.markdown(study).split("## Not comparable")
    assert "| `ema30-dropout` | EMA30 + dropout | 0.886 | 0.690 | 2.495 | 0.450 | 0.360 |" in clean
    assert "February 2019" in clean
    assert "3.173" not in clean
    assert "| SalCLSTM30 | 0.915 | 0.745 | 3.173 | 0.556 | 0.440 |" in leaked
    assert "trained on" in leaked


def test_published_rows_are_next_to_ours_where_the_profile_scored_them_alike(study):
    assert "± " not in tables.published(study)
    score(study, "ema30", 0.2, also=[("salema2019", 2.0)])
    text = tables.published(Study(study.params))
    beside, leaked = text.split("## The published rows and ours")[1].split("## Not comparable")
    rows = cells(beside)
    assert rows[0] == ["our row", "authors' row", "AUC-J", "s-AUC", "NSS", "CC", "SIM"]
    assert [row[0] for row in rows[2:]] == ["`ema30`"]
    # NSS of 0.2 to 0.9 and 2: mean 2.55, standard error 0.24495 / sqrt(8).
    error = np.std(np.arange(8) / 10, ddof=1) / 8**0.5
    assert rows[2][4] == f"2.402 / 2.550 ± {error:.3f} (+0.148)"
    assert "8 clips, protocol `salema2019`" in beside
    assert "rectified" in beside and "SalGAN's converted weights" in beside
    assert "3.173" in leaked


def test_answers_state_what_the_numbers_show(study):
    stills, clips = words.answers(study).split("### DHF1K")
    assert "SALICON, val: 6 images" in stills
    assert "memory" not in stills  # a still image gives it nothing to remember
    assert (
        "Compared with `static-video`: `ema30` +0.100 [0.100, 0.100] NSS, p = 0.0078, better"
        in clips
    )
    assert "`ema30-plain` +0.500 [0.500, 0.500] NSS, p = 0.0078, better" in clips
    question = "**Is the complex memory better than the simple one?** Compared with `ema30`: "
    assert (
        f"{question}`clstm30` +0.200 [0.200, 0.200] NSS, p = 0.0078, better (also better in"
        in clips
    )
    assert "worse in KLD" in clips
    assert "Compared with `centre-prior`: of 6 runs, 6 worse. Best: `ema30-plain`" in clips
    assert "Worst: `static` -0.700" in clips


def test_a_convolution_and_a_memory_that_is_put_into_the_control_have_their_own_questions(study):
    conv = Placement(recurrence="conv", after=[61], static="frozen")
    gan = Placement(recurrence="convlstm", after=[61], static="frozen")
    put = study.params.placements["ema30-plain"].model_copy(update={"start": "static-video"})
    rows = {"videosalgan": gan, "videosalgan-conv": conv, "ema30-on-video": put}
    change = {"placements": study.params.placements | rows, "runs": [*study.params.runs, *rows]}
    made = Study(study.params.model_copy(update=change))
    for run, lift in zip(rows, (0.9, 0.7, 0.2), strict=True):
        score(made, run, lift)
    stills, clips = words.answers(made).split("### DHF1K")
    for text, shown in ((stills, False), (clips, True)):
        for question, answer in (
            ("beyond its convolution?** Compared with `videosalgan-conv`", "videosalgan` +0.200"),
            ("without its memory?** Compared with `static-video`", "videosalgan-conv` +0.600"),
            ("`static-video` untrained?** Compared with `static-video`", "ema30-on-video` +0.100"),
        ):
            assert (f"{question}: `{answer}" in text) == shown
    (same,) = [line for line in clips.splitlines() if "trained on the same clips" in line]
    assert "-conv" not in same and "on-video" not in same


def test_the_best_and_the_worst_run_follow_the_metric(study):
    (line,) = [line for line in words.answers(study, "kld").splitlines() if "of 6 runs" in line][1:]
    assert "Best: `static` -0.700 [-0.700, -0.700] KLD, p = 0.0078, better" in line


def test_answers_do_not_claim_what_an_interval_does_not(study):
    for run in ("ema30", "ema30-learned", "clstm30"):
        scatter(study, run)
    (line,) = [line for line in words.answers(study).splitlines() if "trained on the same" in line]
    assert line.count(", undecided") == 3
    assert not re.search("NSS, p = [0-9.]+, (better|worse)", line)


def test_an_interval_alone_decides_nothing_where_the_sign_flip_test_disagrees(study):
    path = study.params.report_folder / "metrics" / "clstm30.csv"
    table = pd.read_csv(path, dtype={"clip": str})
    gains = 6 * [0] + [0.8, 0.7, 0.6, 0.5, 0, 0, 0, -0.01]  # 6 images, then 8 clips
    table["nss"] = pd.read_csv(path.with_name("ema30.csv")).nss + gains
    table.to_csv(path, index=False)
    row = only(study.differences, dataset="DHF1K", run="clstm30", control="ema30", metric="nss")
    assert row.p == 2 * 2 * 2**3 / 2**8  # all four signs alike; the sign of -0.01 and of 0 is free
    assert row.low > 0 and (row.verdict, row.finding) == ("better", "open")
    bounds = words.interval(row.difference, row.low, row.high, sign=True)
    assert f"`clstm30` {bounds} NSS, p = 0.12, undecided" in words.answers(study)
    rows = {tuple(row[:2]): row for row in cells(tables.differences(study, "DHF1K"))}
    assert rows["`clstm30`", "`ema30`"][4] == f"**{bounds}**"


def test_sets_of_few_clips_are_not_judged(study):
    for run in study.rows:
        score(study, run, names=NAMES[:3])
    assert "3 clips are too few to judge" in words.answers(study)


def test_a_row_is_described_by_what_is_special_about_it(study):
    described = {run: words.describe(study.params, run) for run in study.rows}
    assert described["static"] == "static, BCE"
    assert described["static-video"] == "no memory, trained on the same clips"
    assert described["ema30-learned"] == "EMA after 30, alpha from 0.56, learned"
    assert described["ema30-plain"] == "EMA after 30, alpha 0.1, nothing trained"
    assert described["clstm30"] == "ConvLSTM after 29"


def test_a_convolution_and_a_row_of_other_weights_are_described_as_such(study):
    rows = {
        "videosalgan-conv": Placement(recurrence="conv", after=[61], static="frozen"),
        "ema30-on-video": Placement(
            recurrence="ema", after=[30], alpha=0.1, static="plain", start="static-video"
        ),
    }
    params = study.params.model_copy(update={"placements": rows})
    described = {run: words.describe(params, run) for run in rows}
    whole = "convolution without memory after 61, static part frozen"
    assert described["videosalgan-conv"] == whole
    assert described["ema30-on-video"].endswith("alpha 0.1, in `static-video`, nothing trained")


# ------------------------------------------------------------------------- files


def test_the_files_hold_every_row_and_are_the_same_bytes_again(study):
    first = {path: path.read_bytes() for path in tables.write(study)}
    assert {path.name for path in first} == {"ablation.md", "ablation.csv", "bars.csv"}
    again = Study(study.params)
    assert {path: path.read_bytes() for path in tables.write(again)} == first
    table = pd.read_csv(study.folder / "ablation.csv")
    row = only(table, dataset="DHF1K", run="ema30-plain", metric="sim")
    assert row.control == "static"
    assert row.difference == pytest.approx(0.5)
    assert only(table, dataset="DHF1K", run="static", metric="sim").isna().control
    assert list(table.columns[-3:]) == ["difference_low", "difference_high", "verdict"]
    bars = pd.read_csv(study.folder / "bars.csv")
    assert list(bars.run) == [*RUNS, "chance", "centre-prior", "human"]
