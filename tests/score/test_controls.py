"""Controls of an average over time, on sums that are written out here."""

import numpy as np
import pytest
import torch

from salema.__main__ import main
from salema.data import load
from salema.files import SalemaError
from salema.media import read
from salema.model.recurrence import EMA
from salema.score import controls
from salema.score.controls import NAMES, alpha_of, control


@pytest.fixture
def noise():
    return np.random.default_rng(0).random((400, 12, 16), np.float32)


def test_a_time_constant_gives_the_weight_of_each_frame_rate():
    assert alpha_of(0.4, 24) == pytest.approx(1 - np.exp(-1 / 9.6))
    # The same decay per second at two frame rates.
    assert (1 - alpha_of(0.4, 24)) ** 24 == pytest.approx((1 - alpha_of(0.4, 60)) ** 60)


@pytest.mark.parametrize("tau", [0, -1, float("nan"), float("inf")])
def test_a_time_constant_that_is_none_is_refused(tau):
    with pytest.raises(SalemaError, match="--tau"):
        alpha_of(tau, 24)


def test_the_average_is_that_of_the_network(noise):
    theirs, _ = EMA(0.3)(torch.from_numpy(noise)[None, :, None], None)
    assert np.abs(control("ema", noise, 0.3) - theirs[0, :, 0].numpy()).max() < 1e-6


def test_the_blur_changes_the_maps_as_much_as_the_average(noise):
    changed = [np.square(control(name, noise, 0.3) - noise).mean() for name in ("ema", "blur")]
    assert changed[1] == pytest.approx(changed[0], rel=0.02)
    still = np.repeat(noise[:1], 5, 0)  # the average changes nothing, nor does the blur
    assert np.array_equal(control("blur", still, 0.3), still)


def test_the_delay_is_the_mean_age_of_the_average():
    maps = np.arange(20, dtype=np.float32)[:, None, None] * np.ones((1, 4, 4), np.float32)
    late = control(
        "delay", maps, 0.25
    )  # ages 0, 1, ... with weights .25 * .75 ** age: 3 in the mean
    assert late[:, 0, 0].tolist() == [0, 0, 0, *range(17)]
    assert control("ema", maps, 0.25)[-1, 0, 0] == pytest.approx(19 - 3, abs=0.1)


def test_shuffling_keeps_the_weights_and_forgets_the_order(noise):
    same = np.repeat(noise[:1], 30, 0)
    assert np.allclose(control("shuffled", same, 0.3), same, atol=1e-6)
    assert control("shuffled", noise, 0.3).std() == pytest.approx(
        control("ema", noise, 0.3).std(), rel=0.05
    )
    ramp = np.arange(300, dtype=np.float32)[:, None, None] * np.ones((1, 4, 4), np.float32)
    lag = (ramp - control("shuffled", ramp, 0.3))[50:].mean()
    assert lag == pytest.approx(
        4.5, rel=0.2
    )  # half the window of 1 + 9 frames, not (1 - a) / a = 2.3
    again = control("shuffled", noise, 0.3)
    assert np.array_equal(again, control("shuffled", noise, 0.3))
    assert not np.array_equal(again, control("shuffled", noise, 0.3, seed=1))


def test_the_frames_around_reduce_noise_like_the_average_and_are_not_late(noise):
    alpha = 0.2  # noise is reduced to 1/9: nine frames
    assert control("acausal", noise, alpha)[50:-50].std() == pytest.approx(
        control("ema", noise, alpha)[50:-50].std(), rel=0.05
    )
    ramp = np.arange(60, dtype=np.float32)[:, None, None] * np.ones((1, 4, 4), np.float32)
    assert np.allclose(control("acausal", ramp, alpha)[4:-4], ramp[4:-4])
    assert control("acausal", ramp, alpha)[0, 0, 0] == pytest.approx(2)  # frames 0 to 4


def test_the_mean_map_is_the_same_in_each_frame(noise):
    mean = control("mean", noise, 0.3)
    assert mean.shape == noise.shape
    assert np.allclose(mean[7], noise.mean(0), atol=1e-6)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "mean"])
def test_a_weight_of_1_changes_nothing(noise, name):
    assert np.allclose(control(name, noise[:9], 1.0), noise[:9], atol=1e-6)


def test_the_command_writes_maps_that_evaluate_reads(tmp_path, capsys, noise):
    clip = load("data/sample", "DHF1K", "val")[0]
    (tmp_path / "maps").mkdir()
    np.save(tmp_path / "maps" / f"{clip.name}.npy", noise[: clip.n_frames])
    where = ["--dataset", "DHF1K", "--root", "data/sample", "--videos", clip.name.lstrip("0")]
    maps, out = str(tmp_path / "maps"), str(tmp_path / "out")
    assert main(["controls", maps, *where, "--out", out, "--tau", "0.2"]) == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(NAMES)
    written = np.stack(list(read.maps(tmp_path / "out" / "ema" / f"{clip.name}.mkv")))
    scaled = noise[: clip.n_frames] / noise[: clip.n_frames].max()
    expected = control("ema", scaled, alpha_of(0.2, clip.fps))
    assert np.abs(written / written.max() - expected / expected.max()).max() < 2e-5
    assert main(["evaluate", f"{out}/blur", *where, "--every", "20"]) == 0
    assert main(["controls", maps, *where, "--out", out]) == 2
    assert "exists" in capsys.readouterr().err


def test_a_clip_without_a_frame_rate_is_named(tmp_path):
    with pytest.raises(SalemaError, match="no frame rate is known for SALICON"):
        controls.write_controls(
            load("data/sample", "SALICON", "val")[:1], tmp_path, tmp_path / "x", 1
        )
    assert not (tmp_path / "x").exists()
