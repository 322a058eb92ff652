"""A notebook -> `.ipynb` and a self-contained `.html`, the same bytes when nothing changed."""

import re
import sys
from pathlib import Path

from salema.files import SalemaError, atomic
from salema.params import Params, choose

try:
    import ipykernel  # noqa: F401  (papermill starts it by name and does not require it)
    import nbformat
    import papermill
    from nbclient.exceptions import DeadKernelError
    from nbconvert import HTMLExporter
    from traitlets.config import Config

    from salema.report.study import Study
    from salema.report.style import ASSETS
except ImportError as error:
    raise SalemaError(f"reports need {error.name} (pip install 'salema[study]')") from error

NOTEBOOKS = Path("notebooks")
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")  # where an object happens to lie in memory


def execute(notebook: str | Path, params: Params, local: bool = False) -> Path:
    """Run a notebook in the current folder; write it and its page into the report.

    Times, ids and addresses are removed, so that a second run writes the same bytes. If a cell
    fails, nothing is written and the error names the cell. `notebook` is a name in `notebooks/` or
    a path, the profile and `local` (see `Study`) are its parameters. Returns the page.
    """
    path = Path(notebook)
    if path.suffix != ".ipynb":
        names = sorted(found.stem for found in NOTEBOOKS.glob("*.ipynb"))
        path = NOTEBOOKS / f"{choose(str(notebook), names, 'notebook')}.ipynb"
    if not path.is_file():
        raise SalemaError(f"no such file: {path} (run inside a clone)")
    executed = _clean(_run(path, {"profile": params.profile, "local": local}))
    text = ADDRESS.sub("", nbformat.writes(executed, indent=1, sort_keys=True)) + "\n"
    page = Study(params, local).folder / f"{path.stem}.html"
    contents = {page.with_suffix(".ipynb"): text, page: _html(nbformat.reads(text, 4), path.stem)}
    for target, content in contents.items():
        with atomic(target) as part:
            part.write_text(content, encoding="utf-8")
    return page


def _run(path: Path, parameters: dict[str, str | bool]) -> nbformat.NotebookNode:
    options = {"kernel_name": "python3", "progress_bar": False, "stderr_file": sys.stderr}
    options["extra_arguments"] = ["--IPKernelApp.log_level=50"]
    try:
        return papermill.execute_notebook(str(path), None, parameters, **options)
    except papermill.PapermillExecutionError as error:
        reason = (error.evalue.strip().splitlines() or [""])[0]
        reason = reason if error.ename == "SalemaError" else f"{error.ename}: {reason}"
        raise SalemaError(f"{path}, cell {error.exec_count}: {reason}") from error
    except DeadKernelError as error:
        raise SalemaError(f"{path}: its kernel died (not enough memory?)") from error
    except (nbformat.reader.NotJSONError, nbformat.ValidationError) as error:
        raise SalemaError(f"not a notebook: {path} (restore it with git)") from error


def _clean(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Remove what differs from run to run and from machine to machine."""
    notebook.metadata = {"kernelspec": KERNEL, "language_info": {"name": "python"}}
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number:02d}"
        cell.metadata = {"tags": tags} if (tags := cell.metadata.get("tags")) else {}
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    return notebook


def _html(notebook: nbformat.NotebookNode, title: str) -> str:
    """One HTML file without scripts and without anything to fetch."""
    hidden = {"exclude_input_prompt": True, "exclude_output_prompt": True}
    hidden |= {"exclude_anchor_links": True, "template_file": str(ASSETS / "page.html.j2")}
    exporter = HTMLExporter(Config(CSSHTMLHeaderPreprocessor={"style": "friendly"}), **hidden)
    return exporter.from_notebook_node(notebook, {"metadata": {"name": title}})[0]
