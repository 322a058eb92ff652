"""What is known about each data set before any file is read: one row of facts per set.

Every split is fixed by number or by name, so that a clip never changes sides. The official
splits are kept. Where a set publishes none, ours are cut from its end (images) or by name
(HEVC33), with scenes that are in the set twice on one side.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from salema.files import SalemaError

SPLITS = ("train", "val", "test")

# Folders of Hollywood-2 and UCF-sports, which publish two parts. "val" reads the testing
# folder, whose clips keep the split "test": fit for reporting, not for choosing weights.
PARTS = {"train": "training", "val": "testing", "test": "testing"}


@dataclass(frozen=True)
class DataSet:
    """The facts of one data set; the keys of a mapping are splits."""

    source: str  # where the set can be found
    kind: Literal["image", "video"]  # what each clip is
    gaze: Literal["eyes", "mouse"] = "eyes"  # a mouse uncovers a blurred image
    observers: bool = False  # whether the fixations keep the observers apart
    maps: bool = False  # whether maps are published; otherwise the fixations are blurred
    splits: tuple[str, ...] = SPLITS  # the splits that can be read
    parts: Mapping[str, str] = field(default_factory=dict)  # folders, of a set of two parts
    numbers: Mapping[str, range] = field(default_factory=dict)  # of the clips
    numbered: bool = False  # whether a range of numbers can choose clips
    names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # any other is "train"
    counts: Mapping[str, int] = field(default_factory=dict)  # clips of the complete set
    unannotated: tuple[str, ...] = ()  # splits published without ground truth

    def expected(self, split: str) -> int | None:
        """How many clips a split of the complete set has; None where no number is fixed."""
        return len(self.numbers[split]) if split in self.numbers else self.counts.get(split)

    def split_of(self, name: str) -> str:
        """The split of a clip that is split by its name."""
        return next((split for split, names in self.names.items() if name in names), "train")


_DHF1K = "from the repository wenguanwang/DHF1K on GitHub"
SETS = {
    "SALICON": DataSet(
        "from salicon.net",
        "image",
        gaze="mouse",
        observers=True,
        maps=True,
        counts={"train": 10_000, "val": 5_000, "test": 5_000},
        unannotated=("test",),
    ),
    "DHF1K": DataSet(
        _DHF1K,
        "video",
        maps=True,
        numbers={"train": range(1, 601), "val": range(601, 701), "test": range(701, 1001)},
        numbered=True,
        unannotated=("test",),
    ),
    "Hollywood-2": DataSet(
        _DHF1K,
        "video",
        maps=True,
        parts=PARTS,
        counts={"train": 2_699, "val": 3_558, "test": 3_558},
    ),
    "UCF-sports": DataSet(
        _DHF1K, "video", maps=True, parts=PARTS, counts={"train": 103, "val": 47, "test": 47}
    ),
    "OSIE": DataSet(
        "clone NUS-VIP/predicting-human-gaze-beyond-pixels from GitHub under this name",
        "image",
        observers=True,
        numbers={"train": range(1001, 1541), "val": range(1541, 1601), "test": range(1601, 1701)},
        numbered=True,
    ),
    "NUSScene": DataSet(
        "clone Yanakz/Scene from GitHub under this name",
        "image",
        observers=True,
        numbers={"train": range(1, 361), "val": range(361, 401), "test": range(401, 501)},
        numbered=True,
    ),
    "HEVC33": DataSet(
        "clone remega/video_database from GitHub under this name",
        "video",
        observers=True,
        # RaceHorsesC/D and BasketballDrill/DrillText are one scene each: both are in train.
        names={
            "val": ("BQSquare", "Cactus", "Female", "Johnny"),
            "test": (
                *("BQMall", "BasketballPass", "ChinaSpeed", "FourPeople", "Kimono"),
                *("Male", "PeopleOnStreet", "Simo", "Tennis", "Vidyo3"),
            ),
        },
        counts={"train": 19, "val": 4, "test": 10},
    ),
    "other": DataSet(
        "your own: numbered folders of numbered frames",
        "video",
        splits=("test",),
        numbered=True,
        unannotated=("test",),
    ),
}
DATASETS = tuple(SETS)


def splits_of(dataset: str, split: str | None = None) -> tuple[str, ...]:
    """The splits to read: `split`, or, for None, every part of the set once."""
    if dataset not in SETS:
        raise SalemaError(f"no data set is called '{dataset}' (choose from {', '.join(DATASETS)})")
    known = SETS[dataset].splits
    if split is None:
        return ("train", "test") if SETS[dataset].parts else known
    if split not in known:
        raise SalemaError(f"{dataset} has no split '{split}' (choose from {', '.join(known)})")
    return (split,)
