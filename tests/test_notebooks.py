import ast
import os
import re
from pathlib import Path

import nbformat
import pytest
import yaml

from salema.files import SalemaError
from salema.params import from_dict
from salema.report import charts, maps, style, tables, words
from salema.report.execute import KERNEL, execute
from salema.report.study import Study

ROOT = Path(__file__).parents[1]
PATHS = sorted((ROOT / "notebooks").glob("*.ipynb"))
NOTEBOOKS = {path.stem: nbformat.read(path, 4) for path in PATHS}

MODULES = {"charts": charts, "maps": maps, "style": style, "tables": tables, "words": words}

notebooks = pytest.mark.parametrize("notebook", NOTEBOOKS.values(), ids=NOTEBOOKS)


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def tagged(cell):
    return "parameters" in cell.metadata.get("tags", [])


def test_the_notebooks_are_numbered_from_one():
    assert [name[:2] for name in NOTEBOOKS] == [f"{k:02d}" for k in range(1, len(NOTEBOOKS) + 1)]
    assert len(NOTEBOOKS) >= 4


@notebooks
def test_a_notebook_asks_one_question(notebook):
    first, *rest = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    assert notebook.cells[0].cell_type == "markdown"
    assert re.match(r"# [^\n]+\?\n", first)
    assert not any(source.startswith("# ") for source in rest)


def test_a_notebook_knows_its_own_name():
    for name, notebook in NOTEBOOKS.items():
        (parameters,) = [cell.source for cell in code(notebook) if tagged(cell)]
        assert f'name = "{name}"' in parameters.splitlines()


@notebooks
def test_a_notebook_has_no_outputs_and_one_parameters_cell_with_the_profile(notebook):
    assert all(not cell.outputs and cell.execution_count is None for cell in code(notebook))
    (parameters,) = [cell for cell in code(notebook) if tagged(cell)]
    names = {node.targets[0].id: node.value for node in ast.parse(parameters.source).body}
    assert names["profile"].value is None
    assert names["local"].value is True  # opened by hand, it writes nothing that is committed
    assert notebook.metadata.kernelspec.name == "python3"


@notebooks
def test_cells_are_thin_and_literals_stand_among_the_parameters(notebook):
    for cell in code(notebook):
        assert len(cell.source.splitlines()) < 12
        if tagged(cell):
            continue
        for node in ast.walk(ast.parse(cell.source)):
            assert not isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Lambda), cell.source
            if isinstance(node, ast.Constant):
                assert isinstance(node.value, bool | None), cell.source


@notebooks
def test_notebooks_use_public_names_that_exist(notebook):
    """Every `module.name` of a module of the report; without the notebook's own variables."""
    used = [node for cell in code(notebook) for node in ast.walk(ast.parse(cell.source))]
    used = [node for node in used if isinstance(node, ast.Attribute)]
    used = [node for node in used if getattr(node.value, "id", "") in ("study", *MODULES)]
    assert used
    for node in used:
        owner = Study.__dict__ | Study.__annotations__
        owner = owner if node.value.id == "study" else vars(MODULES[node.value.id])
        assert node.attr in owner and not node.attr.startswith("_"), node.attr


@notebooks
def test_runs_that_a_notebook_shows_are_in_the_study(notebook):
    (parameters,) = [cell.source for cell in code(notebook) if tagged(cell)]
    names = {node.targets[0].id: node.value for node in ast.parse(parameters).body}
    runs = ast.literal_eval(names["runs"]) if "runs" in names else []
    assert set(runs) <= set(yaml.safe_load((ROOT / "params.yaml").read_text())["runs"])


# ------------------------------------------------------------------------- execution


@pytest.fixture
def study(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # The kernel starts here: it has to find the package without an installation, too.
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    raw = yaml.safe_load((ROOT / "params.yaml").read_text())
    Path("params.yaml").write_text(yaml.safe_dump(raw))
    return from_dict({**raw, "profile": "open"})


def write(name, *sources):
    cells = [nbformat.v4.new_markdown_cell("# Does it run?\n")]
    cells.append(nbformat.v4.new_code_cell("profile = None", metadata={"tags": ["parameters"]}))
    cells += [nbformat.v4.new_code_cell(source) for source in sources]
    notebook = nbformat.v4.new_notebook(cells=cells)
    notebook.metadata["kernelspec"] = KERNEL
    Path("notebooks").mkdir(exist_ok=True)
    nbformat.write(notebook, f"notebooks/{name}.ipynb")


def test_a_notebook_gives_the_same_bytes_again_and_needs_nothing_else(study):
    write(
        "05_tiny",
        "from salema.report import charts, style\nfrom salema.report.study import Study",
        "import sys\nprint(object(), file=sys.stderr)\nprint(object())",
        "study = Study.open(profile)",
        "style.keep(charts.response([0.1]), study.figures('05_tiny'))",
        "class Shown:\n    pass\nShown()",
    )
    page = execute("05_tiny", study)
    assert page == Path("reports/open/05_tiny.html")
    files = [page, page.with_suffix(".ipynb"), Path("reports/open/figures/05_tiny/response.svg")]
    first = [path.read_bytes() for path in files]
    assert execute("05_tiny", study) == page
    assert [path.read_bytes() for path in files] == first
    html, ipynb = (data.decode() for data in first[:2])
    assert "&lt;object object&gt;" in html
    assert "data:image/svg+xml;base64," in html
    assert not re.search(r"<script|src=\"(?!data:)|https?://", html)
    assert not re.search(r"0x[0-9a-f]{6}|20\d\d-\d\d-\d\d|papermill|execution\"", ipynb)
    assert '"profile = \\"open\\"' in ipynb
    assert str(Path.cwd()) not in html + ipynb


def test_an_error_in_a_notebook_is_one_line_and_leaves_nothing(study):
    failing = "raise SalemaError('no scores of ema30: here (run it)')"
    write("05_tiny", "from salema.files import SalemaError", failing)
    with pytest.raises(SalemaError, match=r"05_tiny\.ipynb, cell 4: no scores of ema30") as error:
        execute("05_tiny", study)
    assert "\n" not in str(error.value)
    assert not Path("reports").exists()


def test_a_misspelt_notebook_is_told_the_nearest_name(study):
    write("05_tiny", "1 / 0")
    with pytest.raises(SalemaError, match=r"unknown notebook '05_tyni' .did you mean 05_tiny"):
        execute("05_tyni", study)
    Path("notebooks/05_tiny.ipynb").write_text("{}")
    with pytest.raises(SalemaError, match=r"not a notebook: notebooks.05_tiny\.ipynb"):
        execute("05_tiny", study)
