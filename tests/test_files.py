"""Output that is whole or not there, whatever happens to the process that writes it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from salema import files
from salema.files import SalemaError, atomic, one_line

ROOT = Path(__file__).parent.parent


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def killed(folder, code):
    """Runs code that uses `folder` in a process which kills itself; returns what is left."""
    head = f"import os, signal\nfrom pathlib import Path\nfrom salema.files import atomic\n{code}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", head], cwd=folder, env=environment, check=False)
    assert done.returncode == -signal.SIGKILL
    files._sweep.cache_clear()
    return names(folder)


KILL = "os.kill(os.getpid(), signal.SIGKILL)"


def test_the_hidden_name_differs_in_every_process_machine_and_call(tmp_path, monkeypatch):
    seen = set()
    for machine in ("aaaaaaaa", "bbbbbbbb"):
        monkeypatch.setattr(files, "_machine", lambda machine=machine: machine)
        for _ in range(2):
            with atomic(tmp_path / "a.mp4") as part:
                part.write_text("x")
                assert part.suffix == ".mp4" and part.name[0] == "."
                seen.add(part.name)
    assert len(seen) == 4 and names(tmp_path) == ["a.mp4"]


def test_two_writers_of_one_name_do_not_meet(tmp_path):
    with atomic(tmp_path / "a") as first:
        first.write_text("first")
        with atomic(tmp_path / "a") as second:
            second.write_text("second")
        assert (tmp_path / "a").read_text() == "second" and first.read_text() == "first"
    assert (tmp_path / "a").read_text() == "first" and names(tmp_path) == ["a"]


@pytest.mark.parametrize("name", ["x" * 251 + ".npy", "é" * 120 + ".mp4", "x" * 255])
def test_a_name_as_long_as_the_file_system_allows_can_be_written(tmp_path, name):
    with atomic(tmp_path / name) as part:
        part.write_text("x")
    assert names(tmp_path) == [name]


def test_what_a_killed_process_left_is_swept_by_the_next(tmp_path):
    left = killed(tmp_path, f"with atomic('a') as part: part.mkdir(); (part / 'x').touch(); {KILL}")
    assert len(left) == 1 and left[0].startswith(".a.")
    mine = tmp_path / ".a.part"
    other = tmp_path / f".a.00000000-{2**22 + 1}-00000000.part"  # of another machine
    for path in (mine, other):
        path.touch()
    with atomic(tmp_path / "b") as part:
        part.touch()
    assert names(tmp_path) == sorted([mine.name, other.name, "b"])


def test_the_part_of_a_living_process_is_left_alone(tmp_path):
    with atomic(tmp_path / "a") as part:
        part.touch()
        files._sweep.cache_clear()
        with atomic(tmp_path / "b") as second:
            second.touch()
        assert part.exists()


def test_a_kill_between_two_renames_loses_no_old_output(tmp_path):
    (tmp_path / "maps").mkdir()
    (tmp_path / "maps" / "old.png").touch()
    code = f"""
true = os.replace
def replace(a, b):
    true(a, b)
    {KILL}
os.replace = replace
with atomic('maps', replace=True) as part:
    part.mkdir()
"""
    assert "maps" not in killed(tmp_path, code)
    with atomic(tmp_path / "b") as part:
        part.touch()
    assert names(tmp_path) == ["b", "maps"] and names(tmp_path / "maps") == ["old.png"]


def test_old_output_stays_where_the_new_cannot_take_its_place(tmp_path, monkeypatch):
    (tmp_path / "maps").mkdir()
    (tmp_path / "maps" / "old.png").touch()
    true = os.replace

    def fails(a, b):
        if Path(b) == tmp_path / "maps" and ".part" in str(a):
            raise PermissionError(13, "Permission denied")
        true(a, b)

    monkeypatch.setattr(os, "replace", fails)
    writing = atomic(tmp_path / "maps", replace=True)
    with pytest.raises(SalemaError, match="Permission denied"), writing as part:
        part.mkdir()
    assert names(tmp_path) == ["maps"] and names(tmp_path / "maps") == ["old.png"]


def test_everything_is_on_the_disk_before_it_gets_its_name(tmp_path, monkeypatch):
    events = []
    true_sync, true_replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda file: (events.append("sync"), true_sync(file)))
    monkeypatch.setattr(os, "replace", lambda *pair: (events.append("name"), true_replace(*pair)))
    with atomic(tmp_path / "maps") as part:
        part.mkdir()
        for name in "ab":
            (part / name).write_text("x")
    assert events == ["sync"] * 3 + ["name"]


def test_a_message_is_one_line_whatever_a_file_is_called():
    assert str(SalemaError("no such file: a\nb\x1b[31m (x)")) == r"no such file: a\nb\x1b[31m (x)"


@pytest.mark.parametrize("error", [ValueError, MemoryError, RecursionError, AttributeError])
def test_whatever_a_library_raises_becomes_one_line(error):
    with pytest.raises(SalemaError, match="broken table"), one_line("broken table"):
        raise error("deep inside")


@pytest.mark.parametrize("error", [KeyboardInterrupt, ImportError])
def test_an_interruption_and_a_missing_library_are_no_broken_file(error):
    with pytest.raises(error), one_line("broken table"):
        raise error


def test_a_line_about_the_cause_is_kept():
    with pytest.raises(SalemaError, match="the cause"), one_line("broken table"):
        raise SalemaError("the cause")
