import os
import shutil
import socket
import subprocess
import sys

import pytest
import trees
from test_many import clips
from test_predictor import predictor
from test_sources import tree

from salema import data
from salema.files import SalemaError
from salema.model import weights
from salema.model.device import pick_device
from salema.predict.ranks import KNOWN, Ranks, ranks
from salema.predict.sources import predict_dataset


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    for key in (*KNOWN[0], *KNOWN[1], "LOCAL_RANK", "SLURM_LOCALID"):
        monkeypatch.delenv(key, raising=False)


def test_torchrun_comes_before_slurm_and_a_process_alone_takes_all(monkeypatch):
    assert ranks() == Ranks(0, 1) and ranks().take("abc") == "abc"
    monkeypatch.setenv("SLURM_PROCID", "3")
    assert ranks() == Ranks(0, 1)  # without the number of processes
    monkeypatch.setenv("SLURM_NTASKS", "4")
    assert ranks() == Ranks(3, 4)
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert ranks() == Ranks(0, 2) and ranks("2/3") == Ranks(0, 2, 1, 3)


@pytest.mark.parametrize("size", [0, 1, 5, 24, 25])
def test_shards_and_ranks_take_everything_once_in_order(size):
    items, taken = list(range(size)), []
    for shard in range(3):
        own = [Ranks(rank, 4, shard, 3).take(items) for rank in range(4)]
        part = [item for items in own for item in items]
        assert all(items == sorted(items) for items in own)
        assert sorted(part) == Ranks(0, 4, shard, 3).part(items)
        taken += part
    assert sorted(taken) == items


@pytest.mark.parametrize("text", ["0/4", "5/4", "1", "a/b", "-1/2", "1/0"])
def test_a_bad_shard_is_refused(text):
    with pytest.raises(SalemaError, match="write 1/4, 2/4, 3/4 or 4/4"):
        ranks(text)


def test_a_bad_rank_is_refused(monkeypatch):
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SalemaError, match="bad rank RANK=2 WORLD_SIZE=2"):
        ranks()


def test_each_process_of_a_machine_has_a_gpu_of_its_own(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    assert str(pick_device("auto")) == "cuda:0"
    monkeypatch.setenv("SLURM_LOCALID", "1")
    assert str(pick_device("auto")) == "cuda:1"
    monkeypatch.setenv("LOCAL_RANK", "6")
    assert str(pick_device("auto")) == "cuda:2"


# ---------------------------------------------------------------- the command line


@pytest.fixture
def start(tmp_path):
    """Starts a command, perhaps as one of several ranks, with tiny weights."""
    weights.save(predictor().network, tmp_path / "tiny.safetensors", weights.Card())
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])

    def command(*words, **more):
        if words[0] == "predict":
            words = (*words, "--weights", "tiny.safetensors", "--precision", "fp32")
        environment = os.environ | {"OMP_NUM_THREADS": "1", "MASTER_PORT": port}
        environment |= {"MASTER_ADDR": "127.0.0.1", "PYTHONPATH": os.pathsep.join(sys.path), **more}
        text = [sys.executable, *(("-c",) if "\n" in words[0] else ("-m", "salema")), *words]
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        return subprocess.Popen(text, cwd=tmp_path, env=environment, text=True, **pipes)

    return command


def ended(process, given=None):
    out, err = process.communicate(given, timeout=100)
    return process.returncode, out, err


def same(folder, other):
    assert tree(folder) == tree(other)
    for name in tree(folder):
        assert (folder / name).read_bytes() == (other / name).read_bytes(), name


def test_two_ranks_write_what_one_process_writes_byte_for_byte(tmp_path, start):
    sources = clips(tmp_path / "in", 5, broken=[1])
    both = ({"RANK": "0", "WORLD_SIZE": "2"}, {"SLURM_PROCID": "1", "SLURM_NTASKS": "2"})
    words = ("predict", "in", "--format", "gray", "--out")
    started = [start(*words, "two", **more) for more in both]
    (status, out, _), (other, _, err) = map(ended, started)
    assert (status, other) == (0, 1) and "rank 0 of 2: 3 of 5 sources" in out
    assert err.count("\n") == 1 and err.startswith("in/v1.mkv: not a video")
    status, out, _ = ended(start("predict", "--list", "-", *words[2:], "one"), "\n".join(sources))
    assert status == 1 and "4 sources in one; 0 there already, 1 broken" in out
    same(tmp_path / "one", tmp_path / "two")
    for shard in ("2/2", "1/2"):
        ended(start(*words, "shards", "--shard", shard))
    same(tmp_path / "one", tmp_path / "shards")


def test_maps_of_two_models_are_never_mixed_in_a_folder(tmp_path, start):
    clips(tmp_path / "in", 2)
    assert ended(start("predict", "in", "--out", "maps"))[0] == 0
    weights.save(predictor(seed=2).network, tmp_path / "tiny.safetensors", weights.Card())
    status, _, err = ended(start("predict", "in", "--out", "maps"))
    assert status == 2 and "holds maps of other weights" in err and err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["predict", "--list", "-"], "--list - is for one process"),
        (["predict", "a.mp4", "--engine", "ray"], "--engine ray is for one process"),
        (["predict", "--run", "ema30"], "predict --run is for one process"),
        (["evaluate", "--run", "ema30"], "evaluate --run is for one process"),
        (["predict", "a.mp4", "--view", "a.html"], "--view is for one source"),
    ],
)
def test_what_is_for_one_process_says_so(words, message, monkeypatch, capsys):
    from salema.__main__ import main

    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(words) == 2 and message in capsys.readouterr().err


def data_set(tmp_path):
    for number in range(601, 606):
        trees.dhf1k(tmp_path / "data", number, 2 + number % 3)
    found = data.load(tmp_path / "data", "DHF1K")
    predict_dataset(predictor(), found, tmp_path / "maps", "npy", False)
    return "evaluate", "maps", "--dataset", "DHF1K", "--root", "data", "--protocol", "salema2019"


def test_two_ranks_score_as_one_and_rank_0_reports_one_table(tmp_path, start):
    words = (*data_set(tmp_path), "--paired", "other", "--csv")
    shutil.copytree(tmp_path / "maps", tmp_path / "other")
    both = [{"RANK": str(rank), "WORLD_SIZE": "2"} for rank in range(2)]
    started = [start(*words, "two.csv", **more) for more in both]
    one, (first, second) = ended(start(*words, "one.csv")), map(ended, started)
    assert one[0] == 0 and first == one and second == (0, "", "")
    assert (tmp_path / "one.csv").read_bytes() == (tmp_path / "two.csv").read_bytes()


def test_shards_by_hand_score_each_clip_as_the_whole_does(tmp_path, start):
    words = (*data_set(tmp_path), "--csv")
    assert ended(start(*words, "all.csv"))[0] == 0
    for shard in ("1/2", "2/2"):
        assert ended(start(*words, f"{shard[0]}.csv", "--shard", shard))[0] == 0
    rows = (tmp_path / "all.csv").read_text().splitlines()[1:]
    parts = [(tmp_path / f"{n}.csv").read_text().splitlines()[1:] for n in (1, 2)]
    assert sorted(parts[0] + parts[1]) == rows and len(parts[0]) == 3
    status, _, err = ended(start(*words, "6.csv", "--shard", "6/6"))
    assert status == 2 and "no clip in --shard 6/6 of 5" in err


def test_a_rank_that_dies_ends_the_other_with_one_line(tmp_path, start):
    words = data_set(tmp_path)
    code = "from salema.predict.ranks import Ranks; import time\n"
    code += "with Ranks(1, 2).connected(): print('there', flush=True); time.sleep(60)"
    first, second = start(*words, RANK="0", WORLD_SIZE="2"), start(code)
    assert second.stdout.readline() == "there\n"
    second.kill()
    second.communicate()
    status, out, err = ended(first)
    lines = [line for line in err.splitlines() if line.startswith("salema: error: ")]
    assert status == 2 and out == "" and len(lines) == 1 and "another rank died" in lines[0]
