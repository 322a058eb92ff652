"""Read order is import order, and importing is quick and quiet."""

import ast
import re
import subprocess
import sys

import pytest
from imports import ORDER, ROOT, imported, package_of

import salema

FILES = sorted(ROOT.rglob("*.py"))
TORCH_FREE = ["files", "params", "media.read", "media.write", "data.cache", "data.manifest",
              "score.metrics", "score.protocols", "score.evaluate"]  # fmt: skip


def stated(package):
    """The files of a package in the order of its docstring."""
    tree = ast.parse((ROOT / package / "__init__.py").read_text("utf-8"))
    text = ast.get_docstring(tree, clean=False) or ""
    return re.findall(r"^ {4}(\w+) {2,}", text, flags=re.MULTILINE)


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)


# ---------------------------------------------------------------- the order


def test_the_package_has_twelve_names_and_the_reading_order_lists_them():
    there = {package_of(path) for path in FILES} - {"__init__", "__main__"}
    assert len(ORDER) == len(set(ORDER)) == 10
    assert set(ORDER) == there
    assert {path.name for path in ROOT.iterdir() if path.name != "__pycache__"} >= there & {"data"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_packages_import_only_from_above(path):
    name = package_of(path)
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
            if other == package and inner:
                assert inner[0] in order[: order.index(name)], f"{name}: {inner}"


@pytest.mark.parametrize("name", ["train", "model"])
def test_training_imports_nothing_that_only_inference_needs(name):
    for path in (ROOT / name).glob("*.py"):
        assert "predict" not in {other for other, *_ in imported(path)}, path


def test_only_the_command_line_imports_tools():
    users = {package_of(path) for path in FILES if "tools" in {o for o, *_ in imported(path)}}
    assert users <= {"tools", "__main__"}


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
    code = "import sys, importlib\n"
    code += f"for name in {TORCH_FREE}:\n"
    code += "    importlib.import_module(f'salema.{name}')\n"
    code += "    assert 'torch' not in sys.modules, name\n"
    code += "print('quiet')"
    done = run(code)
    assert done.stdout == "quiet\n" and done.stderr == ""


def test_nothing_slow_is_imported_that_few_paths_need():
    code = "import sys, salema.params, salema.media.read, salema.media.write, salema.data\n"
    code += "import salema.score.metrics\n"
    code += "slow = {'scipy', 'h5py', 'pandas', 'matplotlib', 'torchvision'}\n"
    code += "print(sorted(slow & set(sys.modules)))"
    assert run(code).stdout == "[]\n"


def test_metrics_comes_on_first_use():
    code = "import salema, sys; a = 'salema.score.metrics' in sys.modules\n"
    code += "salema.metrics.nss\n"
    code += "print(a, 'salema.score.metrics' in sys.modules, 'torch' in sys.modules)"
    assert run(code).stdout == "False True False\n"


def test_a_name_that_the_package_has_not_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        _ = salema.lod
    assert set(salema.__all__) == {"build", "frames", "load", "metrics", "overlay"}
    assert all(callable(getattr(salema, name)) for name in ("build", "frames", "load", "overlay"))
