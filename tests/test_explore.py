"""The notebooks to try things in: each runs where JupyterLab opens it, with small numbers."""

import ast
import os
import re
import shutil
from pathlib import Path

import nbformat
import papermill
import pytest

import salema

ROOT = Path(__file__).parents[1]
PATHS = sorted((ROOT / "notebooks/explore").glob("*.ipynb"))
NOTEBOOKS = {path.stem: nbformat.read(path, 4) for path in PATHS}
SMALL = {
    "inside": {"last": 20, "moments": 2, "channels": 1, "seeds": 2},
    "memory": {"stop": 6, "moments": 2, "clips": 1, "gaze_frames": 3, "taus": [0.1, 0.4]},
    "scoring": {"n_fixations": [5, 20], "draws": 2, "powers": [1, 2]},
    "train": {"image_epochs": 1, "clip_epochs": 1, "images": 20, "clips": 2, "scored": 1},
    "your_clip": {"stop": 4, "moments": 2},
}
PICTURES = {"inside": 3, "memory": 3, "scoring": 4, "train": 1, "your_clip": 2}  # at least

notebooks = pytest.mark.parametrize("name", NOTEBOOKS)


def code(name):
    return [cell for cell in NOTEBOOKS[name].cells if cell.cell_type == "code"]


def tagged(cell):
    return "parameters" in cell.metadata.get("tags", [])


def numbers(name):
    """The names of the parameters cell, one assignment a line."""
    (cell,) = [cell for cell in code(name) if tagged(cell)]
    return {node.targets[0].id: node.value for node in ast.parse(cell.source).body}


def test_every_notebook_has_its_small_numbers():
    assert set(NOTEBOOKS) == set(SMALL) == set(PICTURES)
    for name, small in SMALL.items():
        assert set(small) <= set(numbers(name))


@notebooks
def test_a_notebook_opens_with_a_question_and_code_to_copy(name):
    first = NOTEBOOKS[name].cells[0].source
    assert re.match(r"# [^\n]+\?\n", first)
    for block in re.findall(r"```python\n(.*?)```", first, flags=re.DOTALL):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.Attribute) and getattr(node.value, "id", "") == "salema":
                assert node.attr in salema.__all__
    assert "```" in first


@notebooks
def test_every_number_is_used_below_its_cell_and_there_are_no_outputs(name):
    assert all(not cell.outputs and cell.execution_count is None for cell in code(name))
    trees = [ast.parse(cell.source) for cell in code(name) if not tagged(cell)]
    used = {node.id for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assert set(numbers(name)) <= used


@notebooks
def test_whoever_shows_the_clip_names_its_makers(name):
    text = "\n".join(cell.source for cell in NOTEBOOKS[name].cells)
    assert ("DEMO" in text) == ("© Blender Foundation, www.bigbuckbunny.org, CC BY 3.0" in text)


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A folder like a clone, whose scratch files may go."""
    shutil.copy(ROOT / "params.yaml", tmp_path)
    (tmp_path / "data").symlink_to(ROOT / "data")
    shutil.copytree(ROOT / "notebooks/explore", tmp_path / "notebooks/explore")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    return tmp_path


@notebooks
def test_a_notebook_runs_in_its_own_folder_and_leaves_nothing_there(clone, name, capfd):
    folder = clone / "notebooks/explore"
    before = {path: path.read_bytes() for path in folder.iterdir()}
    options = {"kernel_name": "python3", "cwd": folder, "progress_bar": False}
    path = str(folder / f"{name}.ipynb")
    done = papermill.execute_notebook(path, None, SMALL[name], **options)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    made = {path.name for path in clone.iterdir()} - {"params.yaml", "data", "notebooks"}
    assert made <= {".salema"}  # the scratch folder
    outputs = [output for cell in done.cells for output in cell.get("outputs", [])]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= PICTURES[name]
    assert not [output.text for output in outputs if output.get("name") == "stderr"]
