"""Which clips train, validate and test, how many there are, and how far a fixation spreads.

Every split is fixed by number or by name, so that a clip never changes sides. The
official splits are kept; where a set publishes none, ours are cut from its end (images)
or by name (HEVC33), with scenes that stand in the set twice on one side.
"""

from salema.files import SalemaError

SPLITS = ("train", "val", "test")

# Set -> where it comes from.
SOURCES = {
    "SALICON": "from salicon.net",
    "DHF1K": "from the repository wenguanwang/DHF1K on GitHub",
    "Hollywood-2": "from the repository wenguanwang/DHF1K on GitHub",
    "UCF-sports": "from the repository wenguanwang/DHF1K on GitHub",
    "OSIE": "clone NUS-VIP/predicting-human-gaze-beyond-pixels from GitHub under this name",
    "NUSScene": "clone Yanakz/Scene from GitHub under this name",
    "HEVC33": "clone remega/video_database from GitHub under this name",
    "other": "your own: numbered folders of numbered frames",
}
DATASETS = tuple(SOURCES)

# Sets whose clips carry a number.
NUMBERS = {
    "DHF1K": {"train": range(1, 601), "val": range(601, 701), "test": range(701, 1001)},
    "OSIE": {
        "train": range(1001, 1541),
        "val": range(1541, 1601),
        "test": range(1601, 1701),
    },
    "NUSScene": {"train": range(1, 361), "val": range(361, 401), "test": range(401, 501)},
}

# RaceHorsesC/D and BasketballDrill/DrillText are one scene each: both stay in train.
HEVC33 = {
    "val": ("BQSquare", "Cactus", "Female", "Johnny"),
    "test": (
        "BQMall",
        "BasketballPass",
        "ChinaSpeed",
        "FourPeople",
        "Kimono",
        "Male",
        "PeopleOnStreet",
        "Simo",
        "Tennis",
        "Vidyo3",
    ),
}

# Hollywood-2 and UCF-sports publish two parts. Asking for "val" gives the testing folder,
# whose clips go on saying "test": fit for reporting, not for choosing weights.
PARTS = {"train": "training", "val": "testing", "test": "testing"}

# Set -> split -> clips of the complete set.
EXPECTED = {
    "SALICON": {"train": 10_000, "val": 5_000, "test": 5_000},
    "Hollywood-2": {"train": 2_699, "val": 3_558, "test": 3_558},
    "UCF-sports": {"train": 103, "val": 47, "test": 47},
    "HEVC33": {"train": 19, "val": 4, "test": 10},
} | {
    name: {split: len(numbers) for split, numbers in parts.items()}
    for name, parts in NUMBERS.items()
}

# Published without annotation: a clip without ground truth is no fault here.
UNANNOTATED = {("SALICON", "test"), ("DHF1K", "test"), ("other", "test")}


def sigma(size: tuple[int, int]) -> float:
    """Standard deviation in pixels of the blur that makes a map of fixations.

    A 33rd of the longer side of (H, W). Only for OSIE, NUSScene and HEVC33: the other
    sets publish maps (DHF1K's are 12.74 px at 640x360, UCF-sports' and Hollywood-2's 20).
    """
    return max(size) / 33


def splits_of(dataset: str, split: str | None = None) -> tuple[str, ...]:
    """The splits to read: `split`, or, for None, every part of the set once.

    Raises:
        SalemaError: There is no such data set or split.
    """
    if dataset not in DATASETS:
        raise SalemaError(f"no data set is called '{dataset}' (choose from {', '.join(DATASETS)})")
    known = ("test",) if dataset == "other" else SPLITS
    if split is None:
        return ("train", "test") if dataset in ("Hollywood-2", "UCF-sports") else known
    if split not in known:
        raise SalemaError(f"{dataset} has no split '{split}' (choose from {', '.join(known)})")
    return (split,)


def split_by_name(name: str) -> str:
    """Split of an HEVC33 clip; whatever is neither val nor test is train."""
    return next((split for split, names in HEVC33.items() if name in names), "train")
