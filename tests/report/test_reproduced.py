"""The last line of `make study`: were the committed scores reproduced?"""

import json
import subprocess

import pytest

from salema.files import SalemaError
from salema.report import reproduced as module
from salema.report.reproduced import reproduced

HEAD = "profile,dataset,run,metric,mean,low,high\n"
TABLE = HEAD + "sample,DHF1K,ema30,nss,2.0,1.5,2.5\nsample,DHF1K,ema61,nss,1.8,1.6,2.0\n"


def git(folder, *words):
    settings = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *settings, *words], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def folder(tmp_path):
    """A report whose table and machine are committed."""
    (tmp_path / "ablation.csv").write_text(TABLE)
    (tmp_path / "machine.json").write_text(json.dumps(module.machine()))
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "scores")
    return tmp_path


def test_the_same_table_is_reproduced(folder):
    assert reproduced(folder) == "reproduced: all 2 scores of 2 rows equal the committed ones"


def test_a_difference_inside_the_interval_is_told(folder):
    (folder / "ablation.csv").write_text(TABLE.replace("1.8,", "1.9,"))
    told = reproduced(folder)
    assert told.startswith("reproduced within the committed 95 % intervals: 1 scores of 1 rows")


def test_a_score_outside_its_interval_is_not_reproduced(folder):
    (folder / "ablation.csv").write_text(
        TABLE.replace("1.8,", "1.57,").replace("2.0,1.5", "2.1,1.5")
    )
    told = reproduced(folder)
    assert told.startswith("NOT reproduced: 1 scores leave their interval, ema61 on DHF1K")
    assert "1.570 instead of 1.800 [1.600, 2.000]" in told
    assert "2 scores of 2 rows" in told


def test_another_machine_is_named_with_both(folder, monkeypatch):
    (folder / "ablation.csv").write_text(TABLE.replace("1.8,", "1.57,"))
    here = module.machine()
    monkeypatch.setattr(module, "machine", lambda: here | {"device": "a new processor"})
    told = reproduced(folder)
    assert f"which come from {here['device']}" in told
    assert "this is a new processor" in told
    assert json.loads((folder / "machine.json").read_text())["device"] == "a new processor"


def test_other_rows_are_not_compared(folder):
    (folder / "ablation.csv").write_text(TABLE.replace("ema61", "clstm30"))
    assert "other rows or sets (clstm30, ema61)" in reproduced(folder)


def test_without_a_committed_table_there_is_nothing_to_compare(tmp_path):
    (tmp_path / "ablation.csv").write_text(TABLE)
    assert reproduced(tmp_path).startswith("nothing to compare with")


def test_a_broken_table_is_named(folder):
    (folder / "ablation.csv").write_text("a,b\n1,2\n")
    with pytest.raises(SalemaError, match=r"not a table of the study: .*ablation\.csv"):
        reproduced(folder)


def test_a_study_that_has_not_run_is_an_error(tmp_path):
    with pytest.raises(SalemaError, match="run `make study`"):
        reproduced(tmp_path / "reports")
