"""What a folder holds: pictures by number or by name, and what is wrong with them."""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from sys import intern
from typing import Any, NamedTuple

from salema.data.clip import Clip, Images
from salema.data.sets import SETS, DataSet
from salema.files import SalemaError
from salema.media.image import natural

PICTURES = (".png", ".jpg", ".jpeg", ".bmp")
VIDEOS = (".avi", ".mp4", ".mkv", ".mov")


class Problem(NamedTuple):
    """Something wrong with the data."""

    dataset: str
    split: str
    file: str  # relative to the root that holds the data sets
    reason: str

    def __str__(self) -> str:
        return f"{self.file}: {self.reason}"


@dataclass
class Search:
    """What a loader is asked for, and what it gathers."""

    root: Path  # the folder that holds the data sets
    dataset: str
    splits: tuple[str, ...]
    videos: range | None = None  # the numbers asked for; None for all
    ground_truth: bool = True  # whether a clip without any is left out, where the set has it
    clips: list[Clip] = field(default_factory=list)  # the clips that can be used
    problems: list[Problem] = field(default_factory=list)  # one for everything else
    tables: list[Path] = field(default_factory=list)  # files that belong to all clips together

    def __post_init__(self) -> None:
        self.folder: Path = self.root / self.dataset
        self.facts: DataSet = SETS[self.dataset]

    def wants(self, number: int | None) -> bool:
        """Whether a clip of this number (None: without one) was asked for."""
        return self.videos is None or number in self.videos

    def add(self, name: str, split: str, frames: list[str], images: Images, **more: Any) -> None:
        """Add a clip; `frames` are the names of its frames, `more` the other fields of `Clip`."""
        self.clips.append(
            Clip(name, self.dataset, split, tuple(map(intern, frames)), images, **more)
        )

    def report(self, split: str, path: Path, reason: str) -> None:
        """Add a problem of `path`, which lies under the root."""
        file = path.relative_to(self.root).as_posix()
        self.problems.append(Problem(self.dataset, split, file, reason))

    @contextmanager
    def reporting(self, split: str, path: Path, outcome: str = "") -> Iterator[None]:
        """Turns an error inside the block into a problem of `path`."""
        try:
            yield
        except SalemaError as error:
            self.report(split, path, str(error).split(":")[0] + outcome)

    def report_some(
        self, split: str, path: Path, names: Sequence[str | int], what: str, fault: str
    ) -> None:
        """Add one problem for all `names`, if there are any: "2 maps (0599, 0600) <fault>"."""
        if names:
            shown = ", ".join(map(str, names[:3])) + (", ..." if len(names) > 3 else "")
            plural = "" if len(names) == 1 else "s"
            self.report(split, path, f"{len(names)} {what}{plural} ({shown}) {fault}")


def files_in(folder: Path, suffixes: Iterable[str]) -> dict[str, str]:
    """Stem -> name of the files right in `folder`, in natural order; {} without the folder.

    Hidden files (`.DS_Store`, `._0001.png`) and folders (`fixation/maps/`) are left out.
    """
    if not folder.is_dir():
        return {}
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if entry.name[0] != "." and entry.is_file()]
    parts = ((*os.path.splitext(name), name) for name in sorted(names, key=natural))
    return {intern(stem): intern(name) for stem, end, name in parts if end.lower() in suffixes}


def numbered(files: dict[str, str]) -> dict[int, str]:
    """Last number in the stem -> name, in the order of the numbers; the first of equals."""
    found: dict[int, str] = {}
    for stem, name in files.items():
        if digits := re.findall(r"\d+", stem):
            found.setdefault(int(digits[-1]), name)
    return dict(sorted(found.items()))


def folders_in(folder: Path) -> list[Path]:
    """The folders right in `folder`, in natural order; [] without the folder."""
    paths = folder.iterdir() if folder.is_dir() else ()
    return sorted((p for p in paths if p.name[0] != "." and p.is_dir()), key=natural)
