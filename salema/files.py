"""The error that users see, and writing that never leaves half a file."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

SCRATCH = Path(".salema")  # decoded frames, half-finished trainings: may go at any moment


class SalemaError(ValueError):
    """Bad input, told in one line: what is wrong, which file or key, how to mend it.

    Args:
        message: The whole line, without a prefix, e.g.
            "no such file: clip.mp4 (check the path)".
        status: Exit status of the command line: 2 for bad usage or data, 1 for work
            that ended early but kept what it had.
    """

    def __init__(self, message: str, status: int = 2) -> None:
        super().__init__(message)
        self.status = status


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(FileNotFoundError, NotADirectoryError):
            path.unlink()


@contextmanager
def atomic(path: str | Path, replace: bool = False) -> Iterator[Path]:
    """A temporary path beside `path`, renamed to it on success and removed on error.

    The temporary name keeps the suffix (`.map.mp4.part.mp4`), so that encoders that
    choose a container by it still work. The caller may make it a file or a folder; a
    folder replaces one that exists only with `replace`, and at the very end.

    Raises:
        SalemaError: The parent cannot be made, or the device is full.
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
            raise SalemaError(
                f"cannot make the folder {path.parent} (a file is in the way; choose another)"
            ) from error
        raise SalemaError(
            f"cannot write {path}: {error.strerror or error} (free some space or choose another)"
        ) from error
    except BaseException:
        _remove(part)
        raise
