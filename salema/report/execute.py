"""A notebook -> `.ipynb` and a self-contained `.html`, the same bytes when nothing changed."""

import html
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from salema.files import SalemaError, atomic
from salema.params import Params, choose
from salema.report.style import folder

if TYPE_CHECKING:
    from nbformat import NotebookNode

NOTEBOOKS = Path("notebooks")
ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")  # where an object happens to lie in memory
PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
{style}
</style>
</head>
<body>
{body}
</body>
</html>
"""
STYLE = """
body { max-width: 72rem; margin: 2rem auto; padding: 0 1.2rem; color: #222;
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", "Helvetica Neue", Arial, sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.25; margin-bottom: .4rem; }
h2 { font-size: 1.25rem; margin-top: 2.2rem; border-bottom: 1px solid #ddd; }
h3 { font-size: 1.05rem; margin-top: 1.6rem; }
p, li { max-width: 46rem; }
blockquote { margin: 1rem 0; padding: .1rem 1rem; border-left: .3rem solid #D55E00;
  background: #fdf3ec; }
.input_area { background: #f7f7f7; border-left: .2rem solid #ddd; margin: .8rem 0 .4rem; }
.input_area pre { margin: 0; padding: .4rem .8rem; overflow-x: auto; line-height: 1.4; }
pre, code { font: .82rem/1.4 ui-monospace, "SF Mono", Menlo, Consolas, monospace; }
.prompt, .anchor-link { display: none; }
p code, li code, td code { white-space: nowrap; }
.output_subarea { overflow-x: auto; }
table { border-collapse: collapse; font-size: .77rem; margin: .8rem 0;
  font-variant-numeric: tabular-nums; border: 0; }
th, td { padding: .2rem .5rem; border: 0; border-bottom: 1px solid #e5e5e5; text-align: left;
  white-space: nowrap; }
thead th { border-bottom: 1.5px solid #888; }
img, svg { max-width: 100%; height: auto; }
"""


def execute(
    notebook: str | Path, params: Params, local: bool = False, source: Path = NOTEBOOKS
) -> Path:
    """Run a notebook from the current folder; write it and its page into the report.

    The notebook gets `profile` and `local` as parameters. Times, ids and addresses are
    taken out, so that a second run writes the same bytes; what it says on stderr goes to
    ours. Either both files are written or none.

    Args:
        notebook: Its name, "04_ablation", or a path to it.
        params: The study; `execute` reads nothing else of it than the profile.
        local: Into `reports/local/<profile>`, with the frames that git must not see.
        source: The folder that holds the notebooks.

    Returns:
        The page, `reports/<profile>/<name>.html`.

    Raises:
        SalemaError: There is no such notebook, a cell failed (the line names it and the
            error), or what notebooks need is not installed.
    """
    path = _find(notebook, source)
    executed = _clean(_run(path, {"profile": params.profile, "local": local}))
    contents = {".ipynb": _ipynb(executed), ".html": _page(executed, path.stem)}
    target = folder(params, local) / f"{path.stem}.html"
    for suffix, content in contents.items():
        with atomic(target.with_suffix(suffix)) as part:
            part.write_text(content, encoding="utf-8")
    return target


def _find(notebook: str | Path, source: Path) -> Path:
    path = Path(notebook)
    if path.suffix != ".ipynb":
        names = sorted(found.stem for found in source.glob("*.ipynb"))
        path = source / f"{choose(str(notebook), names, 'notebook')}.ipynb"
    if not path.is_file():
        raise SalemaError(f"no such file: {path} (run inside a clone)")
    return path


def _run(path: Path, parameters: dict) -> "NotebookNode":
    try:
        import ipykernel  # noqa: F401  (papermill starts it by name and does not ask for it)
        import nbformat
        import papermill
        from nbclient.exceptions import DeadKernelError
    except ImportError as error:
        raise SalemaError(f"reports need {error.name} (pip install 'salema[study]')") from error
    try:
        return papermill.execute_notebook(
            str(path), None, parameters, kernel_name="python3", progress_bar=False,
            stderr_file=sys.stderr, extra_arguments=["--IPKernelApp.log_level=50"],
        )  # fmt: skip
    except papermill.PapermillExecutionError as error:
        reason = error.evalue.strip().splitlines() or [""]
        what = reason[0] if error.ename == "SalemaError" else f"{error.ename}: {reason[0]}"
        raise SalemaError(f"{path}, cell {error.exec_count}: {what}") from error
    except DeadKernelError as error:
        raise SalemaError(f"{path}: its kernel died (not enough memory?)") from error
    except (nbformat.reader.NotJSONError, nbformat.ValidationError) as error:
        raise SalemaError(f"not a notebook: {path} (restore it with git)") from error


def _clean(notebook: "NotebookNode") -> "NotebookNode":
    """Takes out what differs from run to run and from machine to machine."""
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook.metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number:02d}"
        tags = cell.metadata.get("tags", [])
        cell.metadata = {"tags": tags} if tags else {}
        if cell.cell_type != "code":
            continue
        cell.outputs = [o for o in cell.outputs if o.get("name") != "stderr"]
        for output in cell.outputs:
            if "text" in output:
                output.text = ADDRESS.sub("", output.text)
            for kind, data in output.get("data", {}).items():
                if kind.startswith("text/"):
                    output.data[kind] = ADDRESS.sub("", data)
    return notebook


def _ipynb(notebook: "NotebookNode") -> str:
    import nbformat

    return nbformat.writes(notebook, indent=1, sort_keys=True) + "\n"


def _page(notebook: "NotebookNode", title: str) -> str:
    """One HTML file without scripts and without anything to fetch."""
    from nbconvert import HTMLExporter
    from pygments.formatters import HtmlFormatter

    body, _ = HTMLExporter(template_name="basic").from_notebook_node(notebook)
    body = body.replace('alt="No description has been provided for this image"', 'alt=""')
    colors = HtmlFormatter(style="friendly").get_style_defs(".highlight")
    return PAGE.format(title=html.escape(title), style=f"{STYLE.strip()}\n{colors}", body=body)
