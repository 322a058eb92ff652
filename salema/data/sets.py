"""What is known about each data set before any file is read: one row of facts per set.

Every split is fixed by number or by name, so that a clip never changes sides. The official
splits are kept. Where a set publishes none, ours are cut from its end (images) or by name
(HEVC33), with scenes that are in the set twice on one side.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
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
    counts: tuple[int, ...] = ()  # clips of the complete set in each of `SPLITS`
    first: int | None = None  # number of the first clip, if a range of numbers can choose clips
    fps: float | None = None  # of all clips, where no file reports it
    splits: tuple[str, ...] = SPLITS  # the splits that can be read
    parts: Mapping[str, str] = field(default_factory=dict)  # folders, of a set of two parts
    names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # any other is "train"
    unannotated: tuple[str, ...] = ()  # splits published without ground truth
    digits: Mapping[str, str] = field(default_factory=dict)  # last ones of the numbers of a split
    groups: tuple[tuple[str, ...], ...] = ()  # clips that share a scene or people, by eye

    @property
    def numbers(self) -> dict[str, Collection[int]]:
        """The numbers of the clips in each split of a set that is split by number."""
        if self.digits:
            numbers = range(self.first, 1000)
            return {s: {n for n in numbers if str(n)[-1] in d} for s, d in self.digits.items()}
        bounds = pairwise(accumulate(self.counts, initial=self.first))
        return {split: range(*bound) for split, bound in zip(SPLITS, bounds, strict=True)}

    def expected(self, split: str) -> int | None:
        """How many clips a split of the complete set has; None where no number is fixed."""
        return self.counts[SPLITS.index(split)] if self.counts else None

    def split_of(self, name: str) -> str:
        """The split of a clip that is split by its name."""
        return next((split for split, names in self.names.items() if name in names), "train")

    def group_of(self, name: str) -> str:
        """The clips that share a scene or people with this one, as one name; most are alone."""
        return next(("+".join(group) for group in self.groups if name in group), name)


_DHF1K = "from the repository wenguanwang/DHF1K on GitHub"
_CHALLENGE = "from ANDRYHA/{} on Hugging Face, unpacked"
_CLONE = "clone {} from GitHub under this name"
# RaceHorsesC/D and BasketballDrill/DrillText are one scene each: both are in train.
_HEVC33 = {
    "val": ("BQSquare", "Cactus", "Female", "Johnny"),
    "test": (
        *("BQMall", "BasketballPass", "ChinaSpeed", "FourPeople", "Kimono"),
        *("Male", "PeopleOnStreet", "Simo", "Tennis", "Vidyo3"),
    ),
}
_HEVC33_GROUPS = (
    ("BasketballDrive", "BasketballDrill", "BasketballDrillText", "BasketballPass"),
    ("RaceHorsesC", "RaceHorsesD", "Keiba"),
    ("Vidyo1", "Vidyo3", "Vidyo4"),
    ("FourPeople", "Johnny", "KristenAndSara"),
    ("Couple", "Lee", "Simo"),
    ("Female", "Male"),
    ("BlowingBubbles", "PartyScene"),
    ("SlideEditing", "SlideShow"),
)
SETS = {
    "SALICON": DataSet("from salicon.net", "image", (10_000, 5_000, 5_000), unannotated=("test",)),
    "DHF1K": DataSet(_DHF1K, "video", (600, 100, 300), first=1, fps=30.0, unannotated=("test",)),
    "Hollywood-2": DataSet(_DHF1K, "video", (2_699, 3_558, 3_558), parts=PARTS),
    "UCF-sports": DataSet(_DHF1K, "video", (103, 47, 47), parts=PARTS),
    "OSIE": DataSet(
        _CLONE.format("NUS-VIP/predicting-human-gaze-beyond-pixels"), "image", (540, 60, 100), 1001
    ),
    "NUSScene": DataSet(_CLONE.format("Yanakz/Scene"), "image", (360, 40, 100), first=1),
    # 7, 8, 9 and 0 are a reserve that nothing here reads.
    "Crowd": DataSet(
        _CLONE.format("NUS-VIP/saliency-in-crowd"),
        "image",
        (200, 50, 50),
        first=1,
        digits={"train": "1234", "val": "5", "test": "6"},
    ),
    "HEVC33": DataSet(
        _CLONE.format("remega/video_database"),
        "video",
        (19, 4, 10),
        names=_HEVC33,
        groups=_HEVC33_GROUPS,
    ),
    "NTIRE26": DataSet(_CHALLENGE.format("VideoSaliencyChallenge"), "video"),
    "AViMoS": DataSet(_CHALLENGE.format("AudioVisualMouseSaliency"), "video"),
    "other": DataSet(
        "your own: numbered folders of numbered frames",
        "video",
        first=1,
        splits=("test",),
        unannotated=("test",),
    ),
}
DATASETS = tuple(SETS)


def annotated(dataset: str) -> tuple[str, ...]:
    """The splits with ground truth, which hold every clip once."""
    return tuple(s for s in splits_of(dataset) if s not in SETS[dataset].unannotated)


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
