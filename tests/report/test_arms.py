"""The two arms: contrasts over groups, the length that other groups choose, tables and figures."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from salema import params
from salema.files import SalemaError
from salema.report import arm_charts, arms, style
from salema.report.study import METRICS, Study

CLIPS = {f"clip{k}": f"group{k // 2}" for k in range(16)}  # two clips a group
GAINS = {"ema30": 0.2, "clstm30-zero": 0.21}  # of NSS over static-video
SHORT = {"group0"}  # groups that a short average is best for


def made_up(folder, random):
    """`arms.csv` and `arms.npz` with known differences between rows, two frames a clip."""
    rows, nss = [], []

    def add(arm, row, seed, tested, lift):
        for place, (clip, group) in enumerate(CLIPS.items()):
            level = place / 10 + lift(group) + random.normal(0, 0.01)
            about = {"arm": arm, "row": row, "seed": seed, "fold": 1, "rate": "", "tested": tested}
            about |= {"clip": clip, "group": group, "frames": 2}
            rows.append(about | dict.fromkeys(METRICS, level))
            nss.extend([level - 0.5, level + 0.5])

    add("A", "centre-prior", "", "as it is", lambda _: -1)
    for seed in (1, 2):
        add("A", "static", seed, "as trained", lambda _: 0)
        add("A", "static", seed, "ema61 tau 0.1", lambda g: 0.5 if g in SHORT else 0.1)
        add("A", "static", seed, "ema61 tau 0.4", lambda g: 0.0 if g in SHORT else 0.3)
        if seed == 1:  # controls are made with one seed, at some lengths
            add("A", "static", seed, "blur tau 0.4", lambda _: -0.1)
        add("B", "static-video", seed, "as trained", lambda _: 0)
        for row, gain in GAINS.items():
            add("B", row, seed, "as trained", lambda _, gain=gain: gain)
            add("B", row, seed, "frames alone", lambda _: 0.05)
    pd.DataFrame(rows).to_csv(folder / "arms.csv", index=False)
    where = {name: np.arange(32.0) for name in arm_charts.WHERE}
    np.savez(folder / "arms.npz", nss=np.float16(nss), cc=np.float16(nss), **where)


@pytest.fixture
def both(tmp_path, monkeypatch):
    raw = yaml.safe_load(Path("params.yaml").read_text())
    raw["profiles"]["sample"]["crossvalidate"] |= {
        "taus": [0.1, 0.4], "rows": ["static-video", *GAINS],
        "primary": ["average - static", "ema30 - static-video", "ema30 = clstm30-zero"],
    }  # fmt: skip
    monkeypatch.chdir(tmp_path)
    study = Study(params.from_dict(raw))
    study.params.report_folder.mkdir(parents=True)
    made_up(study.params.report_folder, np.random.default_rng(0))
    return arms.Arms(study)


def test_the_length_of_a_clip_is_the_best_of_the_other_groups(both):
    assert set(both.lengths) == {0.4}  # also of the group that a short one is best for
    gain = both.average() - both.scores("A", "static")
    assert gain.loc["clip0"].mean() == pytest.approx(0.0, abs=0.05)
    assert gain.loc["clip9"].mean() == pytest.approx(0.3, abs=0.05)


def test_a_contrast_is_over_groups_and_seeds(both):
    found = both.contrast(both.named("ema30"), both.named("static-video"))
    assert len(found.groups) == 8 and found.clips == found.ahead == 16
    assert found.interval.low < 0.2 < found.interval.high
    assert found.p == pytest.approx(2 / 2**8)
    prior = both.contrast(both.named("static"), both.named("centre-prior"))
    assert prior.interval.mean == pytest.approx(1, abs=0.02)


def test_the_primary_contrasts_are_corrected_and_say_what_they_show(both):
    first, second, third = arms.contrasts(both)
    assert third.equal and third.shown and not second.equal
    assert [c.p for c in (first, second, third)] >= [c.raw for c in (first, second, third)]
    assert second.p == pytest.approx(2 * second.raw)
    text = arms.answers(both)
    assert "`ema30` scores higher than `static-video`" in text
    assert "`ema30` and `clstm30-zero` are equivalent within 0.1 NSS" in text
    assert "| ema30 - static-video | a difference |" in arms.primary(both)


def test_what_is_not_shown_is_not_claimed(both):
    table = pd.read_csv(both.study.params.report_folder / "arms.csv")
    flat = table.row.isin(GAINS)
    table.loc[flat, "nss"] += np.where(np.arange(flat.sum()) % 4 < 2, 1.0, -1.4)
    table.to_csv(both.study.params.report_folder / "arms.csv", index=False)
    text = arms.answers(arms.Arms(both.study))
    assert "It is not shown that `ema30` and `static-video` differ" in text


def test_the_tables_have_every_condition(both):
    path = arms.write(both)
    text = path.read_text()
    for row, tested in (("static", "ema61 tau 0.4"), ("ema30", "frames alone")):
        assert f"| {row} | {tested} | 2 |" in text
    assert "| centre-prior | as it is | 1 |" in text


def test_the_gain_by_quartiles_is_that_of_the_frames(both):
    key = ("B", "ema30", "as trained"), ("B", "static-video", "as trained")
    table = arm_charts.by_part(both, *key)
    assert set(table.what) == set(arm_charts.WHERE) and len(table) == 16
    assert table["mean"].to_numpy() == pytest.approx(0.2, abs=0.03)


def test_the_figures_can_be_drawn(both):
    figures = [arm_charts.lengths(both), arm_charts.two_by_two(both)]
    figures.append(arm_charts.when(both))
    for figure in figures:
        assert len(style.render(figure, "svg")) > 5000


def test_a_condition_that_was_not_run_is_one_line(both):
    with pytest.raises(SalemaError, match="arm B has no ema61, as trained"):
        both.named("ema61")
