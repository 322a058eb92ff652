"""What a module of salema imports, by its source: also lazily, also through others."""

import ast
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "salema"


def sources(name: str) -> list[Path]:
    """The files of a module or package."""
    folder = PACKAGE / name
    return sorted(folder.glob("*.py")) if folder.is_dir() else [PACKAGE / f"{name}.py"]


def direct(name: str) -> set[str]:
    """Modules of salema that a module names in an import, wherever in its files."""
    found = set()
    for path in sources(name):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module == "salema":
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("salema."):
                found.add(node.module.split(".")[1])
            elif isinstance(node, ast.Import):
                found |= {a.name.split(".")[1] for a in node.names if a.name.startswith("salema.")}
    return {module for module in found if all(path.exists() for path in sources(module))} - {name}


def reached(name: str) -> set[str]:
    """The module itself and all that it imports, directly or through others."""
    todo, done = [name], set()
    while todo:
        module = todo.pop()
        if module not in done:
            done.add(module)
            todo += direct(module)
    return done


def dependency(name: str) -> str:
    """How dvc.yaml names a module."""
    if name == "weights":  # the folder also holds the starter weights
        return "salema/weights/__init__.py"
    return f"salema/{name}" if (PACKAGE / name).is_dir() else f"salema/{name}.py"
