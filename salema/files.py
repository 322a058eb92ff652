"""The error that users see, and atomic writing of files and folders."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

SCRATCH = Path(".salema")  # decoded frames and checkpoints; may be deleted at any moment


class SalemaError(ValueError):
    """Bad input, reported in one line. Any public function may raise it.

    `message` is "<what> <which file or key> (<how to fix it>)", without a prefix. `status` is that
    of the command line: 2 for bad usage or data, 1 for work that ended early and kept its results.
    """

    def __init__(self, message: str, status: int = 2) -> None:
        super().__init__(message)
        self.status = status


def absent(path: Path) -> Path:
    """A path for new output; an error if something exists there."""
    if path.exists():
        raise SalemaError(f"{path} exists (choose another name, or remove it)")
    return path


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(FileNotFoundError, NotADirectoryError):
            path.unlink()


@contextmanager
def atomic(path: str | Path, replace: bool = False) -> Iterator[Path]:
    """A temporary path next to `path`, renamed to it on success and removed on error.

    It may become a file or a folder; a folder needs `replace` to replace one. It keeps the suffix
    (`.map.mp4.part.mp4`), by which some encoders choose the container.
    """
    path = Path(path)
    part = path.with_name(f".{path.name}.{os.getpid()}.part{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove(part)
        yield part
        if replace and path.is_dir():
            old = path.with_name(f".{path.name}.{os.getpid()}.old")
            os.replace(path, old)
            os.replace(part, path)
            _remove(old)
        else:
            os.replace(part, path)
    except OSError as error:
        _remove(part)
        if isinstance(error, FileExistsError | NotADirectoryError):
            what = f"cannot make the folder {path.parent} (a file is in the way; choose another)"
        else:
            reason = error.strerror or error
            what = f"cannot write {path}: {reason} (free some space or choose another)"
        raise SalemaError(what) from error
    except BaseException:
        _remove(part)
        raise
