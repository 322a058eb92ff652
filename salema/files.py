"""The error that users see, and atomic writing of files and folders."""

import hashlib
import os
import re
import shutil
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path

SCRATCH = Path(".salema")  # decoded frames and checkpoints; may be deleted at any moment
LONGEST_NAME = 255  # bytes of a file's name on every common file system
# Of hidden files: final name, machine, process, kind. "old" is what is being replaced.
HIDDEN = re.compile(r"\.(.*)\.([0-9a-f]{8})-(\d+)-[0-9a-f]{8}\.(part|old)(\.\w+)?", re.DOTALL)
# OpenCV reads this once, when it is loaded: a small file may promise a picture that fills memory.
MOST_PIXELS = 2**26
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(MOST_PIXELS))


class SalemaError(ValueError):
    """Bad input, reported in one line. Any public function may raise it.

    `message` is "<what> <which file or key> (<how to fix it>)", without a prefix; line breaks and
    other control characters in it, of a file's name, are escaped. `status` is that of the command
    line: 2 for bad usage or data, 1 for work that ended early and kept its results.
    """

    def __init__(self, message: str, status: int = 2) -> None:
        super().__init__(re.sub(r"[\0-\x1f\x7f-\x9f]", lambda c: repr(c[0])[1:-1], message))
        self.status = status


@contextmanager
def one_line(message: str) -> Iterator[None]:
    """Turns whatever a library raises inside into a SalemaError with this message.

    A SalemaError and what is no `Exception` (Ctrl-C) pass as they are; a library that is not
    installed is named.
    """
    try:
        yield
    except (SalemaError, ImportError):
        raise
    except Exception as error:  # parsers of foreign files raise whatever they fail with
        raise SalemaError(message) from error


def absent(path: Path) -> Path:
    """A path for new output; an error if something exists there."""
    if path.exists():
        raise SalemaError(f"{path} exists (choose another name, or remove it)")
    return path


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(FileNotFoundError, NotADirectoryError):
            path.unlink()


@lru_cache(1)
def _machine() -> str:
    """Eight digits that differ between machines, between their boots and between containers."""
    marks = [socket.gethostname()]
    with suppress(OSError):
        marks.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii"))
        marks.append(os.readlink("/proc/self/ns/pid"))
    return hashlib.sha256("".join(marks).encode()).hexdigest()[:8]


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        pass
    return True


@lru_cache(256)
def _sweep(folder: Path) -> None:
    """Clear up, once in each folder, what processes of this machine left that were killed.

    Half-written output is removed; old output whose replacement is missing gets its name back.
    """
    with suppress(OSError):
        for entry in os.scandir(folder):
            name = HIDDEN.fullmatch(entry.name)
            if name and name[2] == _machine() and not _alive(int(name[3])):
                if name[4] == "old" and not (final := folder / name[1]).exists():
                    os.replace(entry.path, final)
                else:
                    _remove(Path(entry.path))


def _hidden(path: Path, kind: str) -> Path:
    """A name next to `path` that no other process of any machine or container uses."""
    suffix = path.suffix if re.fullmatch(r"\.\w{1,20}", path.suffix, re.ASCII) else ""
    end = f".{_machine()}-{os.getpid()}-{os.urandom(4).hex()}.{kind}{suffix}"
    begin = os.fsencode(f".{path.name}")[: LONGEST_NAME - len(end)]
    return path.with_name(begin.decode(errors="ignore") + end)


@contextmanager
def scratch(path: Path) -> Iterator[Path]:
    """A hidden path next to `path` with its suffix, for a file or a folder; removed at the end."""
    _sweep(path.parent)
    part = _hidden(path, "part")
    try:
        yield part
    finally:
        _remove(part)


def _sync(path: Path) -> None:
    """Bring a file, or a folder with all that is in it, to the disk."""
    if path.is_dir():
        with ThreadPoolExecutor(16) as pool:  # many at once share one write of the journal
            list(pool.map(_sync, path.iterdir()))
    if os.name == "posix" or path.is_file():  # elsewhere, a folder cannot be opened
        file = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
        try:
            os.fsync(file)
        finally:
            os.close(file)


@contextmanager
def atomic(path: str | Path, replace: bool = False) -> Iterator[Path]:
    """A temporary path next to `path`, renamed to it on success and removed on error.

    It may become a file or a folder; a folder needs `replace` to replace one. It keeps the suffix
    (`.map.mp4.<process>.part.mp4`), by which some encoders choose the container. Its content is
    on the disk before it gets its name, so that a loss of power leaves nothing half-written.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with scratch(path) as part:
            yield part
            _sync(part)
            if replace and path.is_dir():
                old = _hidden(path, "old")
                os.replace(path, old)
                try:
                    os.replace(part, path)
                except BaseException:
                    os.replace(old, path)
                    raise
                _remove(old)
            else:
                os.replace(part, path)
    except OSError as error:
        if isinstance(error, FileExistsError | NotADirectoryError):
            what = f"cannot make the folder {path.parent} (a file is in the way; choose another)"
        else:
            reason = error.strerror or error
            what = f"cannot write {path}: {reason} (free some space or choose another)"
        raise SalemaError(what) from error
