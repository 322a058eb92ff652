"""The name of a data set -> its clips."""

from pathlib import Path

from salema.data.clip import Clip
from salema.data.images import nusscene, osie, salicon
from salema.data.listing import Search
from salema.data.sets import splits_of
from salema.data.videos import dhf1k, hevc33, other, parted
from salema.files import SalemaError

LOADERS = {"SALICON": salicon, "OSIE": osie, "NUSScene": nusscene, "DHF1K": dhf1k}
LOADERS |= {"Hollywood-2": parted, "UCF-sports": parted, "HEVC33": hevc33, "other": other}


def load(
    root: str | Path,
    dataset: str,
    split: str | None = None,
    videos: range | None = None,
    ground_truth: bool = True,
) -> list[Clip]:
    """The clips of a data set in `<root>/<dataset>/`, in the order of their names.

    It is an error if there are none, or if a table of fixations is broken. Single broken items
    are left out; `find` reports which.

    Args:
        root: The folder that holds the data sets.
        dataset: One of `DATASETS`.
        split: "train", "val" or "test"; None for all.
        videos: The numbers of the clips, where the set numbers them; None for all.
        ground_truth: Whether clips without any are left out. The test parts of SALICON
            and DHF1K have none and are always included; prediction needs none.
    """
    search = find(root, dataset, split, videos, ground_truth)
    if not search.clips:
        asked = f"{dataset} {split}" if split else dataset
        if videos is not None:
            asked += f" numbered {videos.start}-{videos.stop - 1}"
        reason = next(map(str, search.problems), "see `salema index --check`")
        raise SalemaError(f"no clip of {asked} in {root} ({reason})")
    return search.clips


def find(
    root: str | Path,
    dataset: str,
    split: str | None = None,
    videos: range | None = None,
    ground_truth: bool = True,
) -> Search:
    """`load` with the problems next to the clips; finding no clip is no error."""
    search = Search(Path(root), dataset, splits_of(dataset, split), videos, ground_truth)
    if videos is not None and not search.facts.numbered:
        raise SalemaError(f"clips of {dataset} have no numbers (leave out the range)")
    if not search.folder.is_dir():
        raise SalemaError(f"no data set {dataset} in the folder {root} ({search.facts.source})")
    LOADERS[dataset](search)
    return search
