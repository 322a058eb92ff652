"""Read order is import order, and importing is quick and quiet."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import salema

ROOT = Path(salema.__file__).parent
ORDER = re.findall(r"^ {4}(\w+) {2,}", salema.__doc__, flags=re.MULTILINE)
FILES = sorted(ROOT.rglob("*.py"))
TORCH_FREE = ["files", "pipeline", "params", "video", "writers", "datasets", "index", "sample",
              "metrics", "protocols", "evaluate"]  # fmt: skip


def module_of(path):
    """The part of the package that a file belongs to: `datasets` for datasets/clip.py."""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported(path):
    """What a file imports from the package: ("files",), ("datasets", "clip")."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [named(node.module or "", alias.name) for alias in node.names]
        else:
            continue
        yield from (tuple(name.split(".")[1:]) for name in names if name.startswith("salema."))


def named(module, name):
    """`from salema.report import style` names a file, `... import answers` what is in it."""
    inner = ROOT.joinpath(*module.split(".")[1:], name)
    is_file = inner.is_dir() or inner.with_suffix(".py").exists()
    return f"{module}.{name}" if is_file else module


def stated(package):
    """The files of a package in the order of its docstring."""
    tree = ast.parse((ROOT / package / "__init__.py").read_text("utf-8"))
    text = ast.get_docstring(tree, clean=False) or ""
    return re.findall(r"^ {4}(\w+) {2,}", text, flags=re.MULTILINE)


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)


# ---------------------------------------------------------------- the order


def test_the_reading_order_lists_every_module_and_nothing_else():
    there = {module_of(path) for path in FILES} - {"__init__", "__main__"}
    assert len(ORDER) == len(set(ORDER))
    assert set(ORDER) == there


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_modules_import_only_from_above(path):
    name = module_of(path)
    if name in ("__init__", "__main__"):  # first on use, last of all
        return
    above = ORDER[: ORDER.index(name)]
    for other, *_ in imported(path):
        assert other in above or (other == name and path.parent != ROOT), f"{name} imports {other}"


@pytest.mark.parametrize("package", [path.parent.name for path in ROOT.glob("*/__init__.py")])
def test_inside_a_package_too_files_import_only_from_above(package):
    order = stated(package)
    files = {path.stem for path in (ROOT / package).glob("*.py")} - {"__init__"}
    assert set(order) == files
    for name in order:
        for other, *inner in imported(ROOT / package / f"{name}.py"):
            if other == package:
                assert inner and inner[0] in order[: order.index(name)], f"{name}: {inner}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_import_is_relative(path):
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        assert not (isinstance(node, ast.ImportFrom) and node.level), f"line {node.lineno}"


# ---------------------------------------------------------------- quick and quiet


def test_importing_the_package_prints_nothing_and_reads_nothing_heavy():
    heavy = "('torch', 'cv2', 'numpy', 'av', 'scipy', 'pandas', 'pydantic')"
    done = run(f"import salema, sys; print(sorted(set({heavy}) & set(sys.modules)))")
    assert done.stdout == "[]\n"
    assert done.stderr == ""


def test_modules_about_data_and_scores_import_no_torch():
    there = [name for name in TORCH_FREE if name in ORDER]
    code = "import sys, importlib\n"
    code += f"for name in {there}:\n"
    code += "    importlib.import_module(f'salema.{name}')\n"
    code += "    assert 'torch' not in sys.modules, name\n"
    code += "print('quiet')"
    done = run(code)
    assert done.stdout == "quiet\n" and done.stderr == ""


def test_nothing_slow_is_imported_that_few_paths_need():
    code = "import sys, salema.params, salema.video, salema.writers, salema.datasets\n"
    code += "import salema.metrics\n"
    code += "slow = {'scipy', 'h5py', 'pandas', 'matplotlib', 'torchvision'}\n"
    code += "print(sorted(slow & set(sys.modules)))"
    assert run(code).stdout == "[]\n"


def test_metrics_comes_on_first_use():
    code = "import salema, sys; a = 'salema.metrics' in sys.modules; salema.metrics.nss\n"
    code += "print(a, 'salema.metrics' in sys.modules, 'torch' in sys.modules)"
    assert run(code).stdout == "False True False\n"


def test_a_name_that_the_package_has_not_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        _ = salema.lod
    assert set(salema.__all__) == {"build", "load", "metrics"}
