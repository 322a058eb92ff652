"""The bench runs at tiny sizes; how long anything takes is not asked here."""

import contextlib
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))  # the bench is no part of the installed package

from benchmarks import rows, scale, straightforward, timing, video  # noqa: E402
from salema import params  # noqa: E402
from salema.model import placements, weights  # noqa: E402
from salema.model.network import SaliencyModel  # noqa: E402
from salema.predict.predictor import Predictor  # noqa: E402

TINY = """
import sys
from pathlib import Path
from benchmarks.__main__ import run
from benchmarks.scale import TINY
from salema.model.device import pick_device
run(TINY, pick_device("cpu"), Path(sys.argv[1]))
"""


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    out = tmp_path_factory.mktemp("bench") / "machine.json"
    command = [sys.executable, "-c", TINY, str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in out.parent.iterdir()] == ["machine.json"]
    return json.loads(out.read_text()), done.stdout


def test_every_section_is_measured_and_printed(bench):
    told, printed = bench
    sections = {row["section"].split(":")[0] for row in told["rows"]}
    assert sections == {
        "network alone", "placements", "dials", "a file of 64x36", "length of a video",
        "training on clips", "metrics of a frame", "starter weights on data/sample",
    }  # fmt: skip
    assert all(row["section"] in printed and row["what"] in printed for row in told["rows"])
    for row in told["rows"]:
        assert row["low"] <= row["median"] <= row["high"], row["what"]
        assert row["median"] > 0 or row["unit"] in ("%", "of 1", "apart"), row["what"]


def test_the_file_names_the_machine_and_nobodys_folders(bench):
    told, _ = bench
    assert told["machine"]["torch"] == torch.__version__
    assert told["machine"]["threads"] >= 1 and told["machine"]["cpu"]
    assert not re.search(r'"[^"]*/(home|tmp|work|root|Users)/', json.dumps(told))


def test_ours_and_the_straightforward_path_make_the_same_maps(bench):
    rows = {row["what"]: row["median"] for row in bench[0]["rows"]}
    assert rows["fp32 from straightforward, at most"] < 1e-4


ROWS = ("static", "ema7", "ema7-54", "ema30-residual", "clstm30", "clstm30-residual", "videosalgan")


@pytest.mark.parametrize("name", [*ROWS, "videosalgan-conv"])
def test_the_straightforward_path_is_that_of_each_placement(name):
    predictor = Predictor(scale.random_network(name, 0.125, (32, 48)), "cpu", "fp32")
    frames = np.stack(list(scale.scenes(4, (32, 48))))
    simple = straightforward.Straightforward(predictor)
    expected = np.stack([simple(frame) for frame in frames])
    np.testing.assert_allclose(predictor.predict(frames), expected, atol=1e-4)
    assert expected.std() > 0.001


def test_calls_take_turns_and_the_first_round_does_not_count():
    order = []
    calls = {name: lambda name=name: order.append(name) for name in "ab"}
    seconds = timing.take_turns(calls, 3)
    assert "".join(order) == "abababab"
    assert [len(some) for some in seconds.values()] == [3, 3]


def test_a_ratio_is_the_median_of_ratios_within_rounds():
    row = timing.row("s", "w", [1.0, 2.0, 8.0], per=2, base=[1.0, 3.0, 4.0], limit=0.25)
    assert (row.median, row.low, row.high) == (1000, 500, 4000)
    assert row.ratio == 2  # of 2, 3 and 1
    assert row.of_limit == 0.25


def test_the_work_of_a_frame_is_that_of_the_layers():
    from benchmarks.network import gflop

    assert gflop(scale.random_network("static", 0.125, (192, 256))) == pytest.approx(1.27, abs=0.01)


def test_peak_memory_is_that_of_this_process():
    before = video.peak_bytes()
    held = np.ones(64 * 2**20, np.uint8)
    assert video.peak_bytes() >= max(before, held.nbytes)


def test_rows_of_a_study_are_timed_where_its_weights_are(tmp_path):
    study = params.read(ROOT / "params.yaml")
    model = study.model.model_copy(update={"size": [32, 48]})
    study = study.model_copy(update={"model": model, "runs": ["static", "ema30"]})
    for run in study.runs:
        path = tmp_path / "runs" / study.profile / run / "weights.safetensors"
        weights.save(SaliencyModel(model, placements.named(run)), path, weights.Card())
    with contextlib.chdir(tmp_path):
        told = rows.measure(study, rounds=2, count=3)
    assert list(told["ms"]) == ["static", "ema30"] and min(told["ms"].values()) > 0
    assert told["machine"]["rounds"] == 2 and told["machine"]["precision"] in ("fp32", "bf16")


def test_without_a_study_the_line_names_what_is_missing(tmp_path, capsys):
    with contextlib.chdir(tmp_path):
        assert rows.main() == 2
    assert "benchmarks: error: no such file: params.yaml" in capsys.readouterr().err
