"""The bench runs at tiny sizes; how long anything takes is not asked here."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TINY = """
import sys
from pathlib import Path
from benchmarks.__main__ import run
from benchmarks.scale import TINY
from salema.model import pick_device
run(TINY, pick_device("cpu"), Path(sys.argv[1]))
"""


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    out = tmp_path_factory.mktemp("bench") / "machine.json"
    command = [sys.executable, "-c", TINY, str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(out.read_text()), done.stdout
