from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from finished import score
from matplotlib.colors import to_hex

from salema.files import SalemaError
from salema.report import charts, maps, style
from salema.report.study import Study


def cells(figure):
    """The axes that show something; an `ImageGrid` adds axes for colour bars."""
    return [axis for axis in figure.axes if axis.get_visible()]


def test_figures_are_the_same_bytes_again(study):
    for draw in (
        lambda: charts.dots(study, "DHF1K", paired=True),
        lambda: charts.clip_grid(study, "DHF1K"),
        lambda: charts.alpha(study),
    ):
        first, second = (style.render(draw(), "svg") for _ in range(2))
        assert first == second
        assert b"<dc:date>" not in first


def test_figures_are_kept_under_their_label(study):
    style.keep(charts.losses(study), study.figures("04_ablation"))
    local = replace(study, local=True)
    style.keep(charts.dots(local, "DHF1K"), local.figures("a"))
    assert Path("reports/sample/figures/04_ablation/losses.svg").is_file()
    assert Path("reports/local/sample/figures/a/scores-DHF1K.svg").is_file()


def test_better_is_blue_and_worse_is_red_and_right_is_better(study):
    axes = charts.dots(study, "DHF1K", paired=True).axes
    rows = [label.get_text() for label in axes[0].get_yticklabels()]
    assert rows[:2] == ["less static-video", "ema30"]
    colors = {axis.get_title(loc="left"): axis.collections[0].get_colors()[0] for axis in axes}
    assert to_hex(colors["NSS"]).upper() == style.BLUE
    assert to_hex(colors["KLD (axis turned)"]).upper() == style.RED
    left, right = axes[-1].get_xlim()
    assert left > right


def test_scores_have_a_line_at_the_centre_prior_and_runs_come_first(study):
    axis = charts.dots(study, "DHF1K").axes[2]
    prior = study.scores.query("dataset == 'DHF1K' and run == 'centre-prior' and metric == 'nss'")
    assert axis.lines[0].get_xdata()[0] == pytest.approx(prior["mean"].item())
    rows = [label.get_text() for label in axis.figure.axes[0].get_yticklabels()]
    assert rows.index("runs") < rows.index("ema30") < rows.index("reference rows")
    with pytest.raises(SalemaError, match="no scores to show on OSIE"):
        charts.dots(study, "OSIE")


def test_a_row_that_starts_from_another_has_its_own_start_and_no_control_of_its_losses(study):
    change = {"start": "ema30", "data": "UCF-sports"}
    rows = dict(study.params.placements)
    rows |= {run: rows[run].model_copy(update=change) for run in ("ema30-learned", "clstm30")}
    other = Study(study.params.model_copy(update={"placements": rows}))
    for made, epochs in ((study, [0, 1, 2]), (other, [1, 2])):
        (line,) = [
            line for line in charts.alpha(made).axes[0].lines if "learned" in line.get_label()
        ]
        assert list(line.get_xdata()) == epochs
        figure = charts.losses(made)
        panels = {axis.get_title(loc="left"): axis for axis in figure.axes}
        (legend,) = figure.legends  # complete, also where the last panel has no control
        assert "validation loss of static-video" in [text.get_text() for text in legend.texts]
        assert len(panels["ema30-learned"].lines) == len(epochs)


@pytest.mark.parametrize("metric", ["nss", "kld"])
def test_the_grid_of_clips_holds_each_difference_and_better_is_blue(study, metric):
    axis = charts.clip_grid(study, "DHF1K", metric).axes[0]
    rows = [label.get_text() for label in axis.get_yticklabels()]
    clips = [label.get_text() for label in axis.get_xticklabels()]
    scores = study.clip_scores.set_index(["run", "dataset", "clip"])[metric]
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
    assert "ema30 less static-video" in rows and len(rows) == len(study.params.runs) - 1
    with pytest.raises(SalemaError, match="no scores on OSIE"):
        charts.clip_grid(study, "OSIE")


def test_the_scale_of_seconds_belongs_to_alpha(study):
    figure = charts.alpha(study, fps=25)
    axis = figure.axes[0]
    (right,) = axis.child_axes
    figure.draw_without_rendering()
    low, high = axis.get_ylim()
    ends = [-1 / (25 * np.log1p(-alpha)) for alpha in (low, high)]
    assert sorted(right.get_ylim()) == pytest.approx(sorted(ends))
    assert axis.lines[0].get_ydata() == pytest.approx([0.56, 0.5, 0.25])


def test_the_response_to_a_flash_is_the_average_written_out_by_hand():
    figure = charts.response([0.5], frames=6, shown=2)
    line = figure.axes[1].lines[0].get_ydata()
    assert line[-6:] == pytest.approx([0.5, 0.75, 0.375, 0.1875, 0.09375, 0.046875])


# ---------------------------------------------------------------------------- maps


def test_a_picture_of_a_map_is_one_of_its_kind_and_missing_maps_are_named(study, clip):
    path = study.params.run_folder("clstm30") / "maps" / "DHF1K" / "0601.npy"
    path.parent.mkdir(parents=True)
    np.save(path, np.ones((2, 4, 4), np.float32))
    shown = maps.pictures(study, clip, ["clstm30"], [1])
    assert shown["frame"][0].ndim == 3 and shown["clstm30"][0].max() == 1
    with pytest.raises(SalemaError, match="clstm30 has 2 maps of 0601"):
        maps.pictures(study, clip, ["clstm30"], [3])


def test_flicker_is_the_mean_absolute_difference_of_consecutive_maps(study, clip):
    *_, row = maps.flicker(study, [clip], ["static"]).splitlines()
    by_hand = np.mean([0.5, 0.25, 0, 0.75, 0])
    assert float(row.split("|")[2]) == pytest.approx(by_hand, abs=1e-4)
    profile, change = maps.trace(iter([np.eye(2), np.eye(2)[::-1]]))
    assert profile.tolist() == [[0.5, 0.5], [0.5, 0.5]]
    assert change.tolist() == [1.0]


def test_frames_without_a_human_map_are_not_shown(clip):
    assert maps.memory_frames(clip, 6) == [2, 3, 4, 5]
    assert maps.late_frame(clip) == 3


def test_pictures_are_shown_of_the_sample_or_where_git_does_not_see_them(study, clip):
    real = Study.open("other")
    for made in (study, real):
        score(made, "static", names=["0601"])
    folder = real.params.run_folder("static") / "maps"
    folder.symlink_to((study.params.run_folder("static") / "maps").resolve())
    for made, shown in [(study, 1), (real, 0), (replace(real, local=True), 1)]:
        axes = cells(maps.compare(made, [clip], ["static"]))
        assert [axis.get_title() for axis in axes] == ["frame", "observers", "static"][1 - shown :]
        for figure in (maps.compare(made, [clip], ["static"]), maps.filmstrip(made, clip, [], 1)):
            images = [image for axis in figure.axes for image in axis.images]
            assert sum(image.get_array().ndim == 3 for image in images) == shown


def test_films_and_slices_have_a_row_for_the_observers_and_every_run(study, clip):
    runs = ["static", "ema30"]
    film = maps.filmstrip(study, clip, runs, 3)
    names = [axis.get_ylabel() for axis in film.axes if axis.get_ylabel()]
    assert names == ["frame", "observers", *runs]
    strips = maps.slices(study, clip, runs)
    assert [axis.get_ylabel() for axis in strips.axes][:3] == ["observers", *runs]
    assert strips.axes[1].images[0].get_array().shape == (16, 6)


def test_examples_show_frames_only_where_they_may_be_shown(study, clip):
    scored = study.params.data.model_copy(update={"evaluate": {"DHF1K": "val"}})
    params = study.params.model_copy(update={"data": scored})
    assert len(cells(maps.examples(Study(params)))) == 2
    real = Study(params.model_copy(update={"profile": "other"}))
    assert len(cells(maps.examples(real))) == 1
