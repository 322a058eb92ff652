"""The plan beyond this machine: closed forms of its schedule and of its simulation."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks import plan  # noqa: E402

CHAIN = {"port": (None, 4.0, 1), "static": ("port", 2.0, 1), "a": ("static", 3.0, 1)}


def simulated(hours, speeds=(1.0, 1.0), static=False, lost=0.0):
    random = np.random.default_rng(0)
    return plan.simulated(np.array(hours), np.array(speeds), static, lost, random)


def test_a_chain_takes_as_long_on_any_number_of_gpus():
    assert plan.schedule(CHAIN, 1) == (9.0, "all GPUs are busy")
    assert plan.schedule(CHAIN, 64) == (9.0, "the chain port, static, a")


def test_runs_side_by_side_share_the_gpus_and_a_batch_the_gpus_of_a_run():
    four = {name: (None, 2.0, 1) for name in "abcd"}
    assert [plan.schedule(four, gpus)[0] for gpus in (1, 2, 4, 64)] == [8.0, 4.0, 2.0, 2.0]
    wide = {"a": (None, 18.0, 4)}
    assert [plan.schedule(wide, gpus)[0] for gpus in (1, 2, 64)] == [18.0, 10.0, 5.0]


def test_static_slices_wait_for_the_longest_and_dynamic_ones_do_not():
    hours = [5.0, 1.0, 3.0, 1.0, 1.0, 1.0]
    assert simulated(hours, static=True) == 9.0  # 5 + 3 + 1
    assert simulated(hours) == 6.0
    assert simulated(hours, speeds=(1.0, 0.5), static=True) == 9.0
    assert simulated(hours, speeds=(0.5, 1.0), static=True) == 18.0


def test_a_lost_worker_does_its_video_again_and_is_back_after_ten_minutes():
    assert simulated([1.0, 1.0], speeds=(1.0,), lost=1.5) == pytest.approx(1.5 + 1 / 6 + 1.0)
    assert simulated([0.5] * 4, lost=0.75) < simulated([0.5] * 4, lost=0.75, static=True) + 1


def test_lengths_have_the_mean_that_is_asked_for():
    lengths = plan.lengths(200_000, 18.0, 1.0, np.random.default_rng(0))
    assert lengths.mean() == pytest.approx(18.0, rel=0.02) and lengths.max() > 500


def test_the_table_is_printed_as_markdown():
    command = [sys.executable, "-m", "benchmarks.plan", "--videos", "2000"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    rows = [line for line in done.stdout.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + 6 + 2 + 3 and {row.count("|") for row in rows} == {5, 7}
