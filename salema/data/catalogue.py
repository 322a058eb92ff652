"""The name of a data set -> its clips."""

import os
from pathlib import Path
from typing import Any

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

    `split` is "train", "val" or "test", or None for all; `videos` holds the numbers of the clips,
    where the set numbers them. `ground_truth` leaves out clips without any, but for the test parts
    of SALICON and DHF1K, which have none; prediction needs none. It is an error if no clip is
    left. Single broken items are left out; `find` reports which.
    """
    search = find(root, dataset, split, videos=videos, ground_truth=ground_truth)
    if not search.folder.is_dir():
        raise SalemaError(f"no data set {dataset} in the folder {root} ({search.facts.source})")
    if not search.clips:
        asked = f"{dataset} {split}" if split else dataset
        if videos is not None:
            asked += f" numbered {videos.start}-{videos.stop - 1}"
        reason = next(map(str, search.problems), "see `salema index --check`")
        raise SalemaError(f"no clip of {asked} in {root} ({reason})")
    return search.clips


def find(root: str | Path, dataset: str, split: str | None = None, **asked: Any) -> Search:
    """`load` with the problems next to the clips: no clip, and not even a folder, is no error."""
    search = Search(Path(root), dataset, splits_of(dataset, split), **asked)
    if search.videos is not None and search.facts.first is None:
        raise SalemaError(f"clips of {dataset} have no numbers (leave out the range)")
    reason = f"missing ({search.facts.source})"
    if search.folder.is_dir():
        try:
            LOADERS[dataset](search)
            return search
        except SalemaError as error:  # a table of fixations is broken
            reason = str(error).replace(f"{root}{os.sep}", "")
    search.report(search.splits[0], search.folder, reason)
    return search
