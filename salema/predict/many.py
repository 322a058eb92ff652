"""Lists of sources, from a few to millions: one that is broken never ends the others.

What exists is skipped, so that any number of restarts, on any number of machines, ends with the
same folder.
"""

import errno
import os
import sys
from collections.abc import Iterable
from pathlib import Path

from tqdm import tqdm

from salema.files import SalemaError
from salema.media import read, write
from salema.media.image import IMAGES, natural
from salema.predict.predictor import Predictor
from salema.predict.sources import Output, predict_source, targets, unique

VIDEOS = {".3gp", ".avi", ".flv", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ogv"}
VIDEOS |= {".ts", ".webm", ".wmv"}
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}  # no later source would fare better

Planned = tuple[str, str]  # a source, and the name that its output gets


def listed(names: Iterable[str], file: str | None = None) -> tuple[list[str], bool]:
    """The sources of a command, and whether they are a list, by the rules of this file.

    `file`, or a name that ends with .txt, has one source a line; "-" is standard input. A folder
    that holds videos and no pictures counts as the list of its videos.
    """
    sources, several = [], file is not None
    for name in names:
        inside: list[Path] = []
        if Path(name).is_dir():
            inside = [path for path in Path(name).iterdir() if path.name[0] != "."]
        kinds = {path.suffix.lower() for path in inside}
        if name.endswith(".txt"):
            sources += _lines(name)
        elif kinds & VIDEOS and not kinds & set(IMAGES):
            videos = (path for path in inside if path.suffix.lower() in VIDEOS)
            sources += map(str, sorted(videos, key=natural))
        else:
            sources.append(name)
            continue
        several = True
    return sources + (_lines(file) if file else []), several


def _lines(file: str) -> list[str]:
    try:
        data = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise SalemaError(
            f"cannot read the list {file}: {error.strerror} (check --list)"
        ) from error
    return [os.fsdecode(line.rstrip(b"\r")) for line in data.split(b"\n") if line.strip()]


def plan(sources: list[str], output: Output) -> list[Planned]:
    """Each source with its name, which depends on the whole list and not on who predicts what."""
    if output.folder is None or (output.overlay and output.overlay.suffix):
        raise SalemaError("a list of sources needs folders (name a folder as --out and --overlay)")
    planned = list(zip(sources, unique(map(_name, sources)), strict=True))
    inputs = {os.path.abspath(source) for source in sources}
    for _, name in planned:
        if os.path.abspath(path := target(name, output)) in inputs:
            raise SalemaError(f"{path} is a source itself (choose another --out)")
    return planned


def _name(source: str) -> str:
    """The name of what `read.open` gives, without opening it."""
    path = Path(source)
    known = path.suffix.lower() in VIDEOS | set(IMAGES)
    return read.name(path, folder=not known and path.is_dir())


def target(name: str, output: Output) -> Path:
    """Where the maps of a source are to be."""
    return output.folder / f"{name}{write.SUFFIX[output.form]}"


def finished(name: str, output: Output) -> bool:
    """Whether all output of a source exists. Nothing exists under its final name before."""
    if output.overlay is None:
        return target(name, output).exists()
    seen = (output.overlay / f"{name}{suffix}" for suffix in (".mp4", ".png"))
    return target(name, output).exists() and any(path.exists() for path in seen)


def predict_one(predictor: Predictor, source: str, name: str, output: Output) -> tuple[int, str]:
    """Predict a source that may be broken: its number of maps, and what is wrong with it or "".

    Raises:
        SalemaError: Nothing can be written any more.
    """
    try:
        opened = read.open(source)
        done = predict_source(predictor, source, opened, targets(opened, name, output), output)
    except SalemaError as error:
        if getattr(error.__cause__, "errno", None) in FULL:
            raise
        return 0, str(error)
    return done, opened.stopped or ""


def predict_many(predictor: Predictor, planned: list[Planned], output: Output) -> int:
    """Maps and overlays of sources that `plan` named; returns the status.

    It is 1 if a source is broken: it gets a line, and the maps before the damage are kept.
    """
    made = there = broken = 0
    for source, name in tqdm(planned, unit="source", disable=None):
        if not output.overwrite and finished(name, output):
            there += 1
            continue
        done, problem = predict_one(predictor, source, name, output)
        made += done > 0
        if problem:
            broken += 1
            kept = f"; {done} maps kept" if done else ""
            print(f"{source}: {problem}{kept}", file=sys.stderr)
    print(f"{made} sources in {output.folder}; {there} there already, {broken} broken")
    return 1 if broken else 0
