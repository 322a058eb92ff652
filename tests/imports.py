"""What a package of salema imports, by its source: also lazily, also through others."""

import ast
import re
from pathlib import Path

import salema

ROOT = Path(salema.__file__).parent
ORDER = re.findall(r"^ {4}(\w+) {2,}", salema.__doc__, flags=re.MULTILINE)


def package_of(path: Path) -> str:
    """The part of salema that a file belongs to: `data` for data/clip.py."""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def sources(name: str) -> list[Path]:
    """The files of a module or package."""
    folder = ROOT / name
    return sorted(folder.glob("*.py")) if folder.is_dir() else [ROOT / f"{name}.py"]


def imported(path: Path) -> set[tuple[str, ...]]:
    """What a file imports from salema: ("files",), ("data", "clip")."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module or ''}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            top, *inner = name.split(".")
            if top == "salema" and inner:
                found.add(tuple(inner) if _is_module(inner) else tuple(inner[:-1]))
    return found - {()}


def _is_module(parts: list[str]) -> bool:
    path = ROOT.joinpath(*parts)
    return path.is_dir() or path.with_suffix(".py").exists()


def direct(name: str) -> set[str]:
    """Parts of salema that a module or package names in an import, wherever in its files."""
    return {other for path in sources(name) for other, *_ in imported(path)} - {name}


def reached(name: str) -> set[str]:
    """The part itself and all that it imports, directly or through others."""
    todo, done = [name], set()
    while todo:
        part = todo.pop()
        if part not in done:
            done.add(part)
            todo += direct(part)
    return done


def dependency(name: str) -> str:
    """How dvc.yaml names a part."""
    return f"salema/{name}" if (ROOT / name).is_dir() else f"salema/{name}.py"
