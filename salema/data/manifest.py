"""What of the data sets is here: a manifest, the problems, a table to read."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from salema.data.catalogue import find
from salema.data.clip import Clip, probe
from salema.data.listing import Problem, Search
from salema.data.sets import DATASETS, EXPECTED, SOURCES, SPLITS, UNANNOTATED, splits_of
from salema.files import SalemaError


def scan(
    root: str | Path, wanted: Mapping[str, Sequence[str]], deep: bool = False
) -> tuple[dict, list[Problem]]:
    """Lists data sets without opening pictures: names, numbers of frames, bytes.

    Args:
        root: The folder that holds the data sets.
        wanted: Set -> its splits. A missing set is a problem here, no error.
        deep: Also count the frames of each video that has ground truth (reads it all).

    Returns:
        The manifest, fit for JSON, in a fixed order and without absolute paths:
        `{"sets": {set: {"files": {path: bytes}, "splits": {split: {"expected",
        "dropped_fixations", "clips": {name: {"frames", "annotated", "bytes"}}}}}}}`,
        and the problems.

    Raises:
        SalemaError: There is no such data set or split.
    """
    sets: dict[str, dict] = {}
    problems: dict[tuple[str, str], Problem] = {}
    for dataset in sorted(wanted, key=lambda name: (*DATASETS, name).index(name)):
        here = sets[dataset] = {"files": {}, "splits": {}}
        for split in sorted(wanted[dataset], key=lambda name: (*SPLITS, name).index(name)):
            search, clips = _search(Path(root), dataset, split), {}
            for clip in search.clips:
                clips[clip.name] = _measure(search, clip, deep)
            for table in search.tables:
                if table.is_file():
                    name = table.relative_to(search.root).as_posix()
                    here["files"][name] = table.stat().st_size
            here["splits"][split] = {
                "expected": EXPECTED.get(dataset, {}).get(split),
                "dropped_fixations": _dropped(search),
                "clips": clips,
            }
            for problem in search.problems:  # one of the whole set comes with each split
                problems.setdefault((problem.file, problem.reason), problem)
    return {"sets": sets}, list(problems.values())


def _search(root: Path, dataset: str, split: str) -> Search:
    """`find`, with a missing set or a broken table as the only problem."""
    empty = Search(root, dataset, splits_of(dataset, split))
    if not empty.folder.is_dir():
        empty.report(split, empty.folder, f"missing ({SOURCES[dataset]})")
        return empty
    try:
        return find(root, dataset, split)
    except SalemaError as error:
        empty.report(split, empty.folder, str(error).replace(f"{root}{os.sep}", ""))
        return empty


def _dropped(search: Search) -> int:
    count = 0
    for clip in search.clips:
        try:
            count += clip.dropped
        except SalemaError as error:
            first = next(clip.files())
            search.report(clip.split, first, str(error).split(":")[0])
    return count


def _measure(search: Search, clip: Clip, deep: bool) -> dict[str, int]:
    """One clip's line of the manifest; reports empty files and, if `deep`, a wrong length."""
    total = 0
    for path in clip.files():
        size = os.stat(path).st_size
        total += size
        if size == 0:
            search.report(clip.split, path, "empty file")
    if deep and isinstance(clip.images, Path) and clip.points is None:
        try:
            count = probe(clip.images)[0]
            if count != clip.n_frames:
                search.report(
                    clip.split, clip.images, f"{count} frames, ground truth has {clip.n_frames}"
                )
        except SalemaError as error:
            search.report(clip.split, clip.images, str(error).split(":")[0])
    return {"frames": clip.n_frames, "annotated": clip.annotated, "bytes": total}


def stumbles(manifest: dict) -> list[str]:
    """Why the study cannot run on these data, a line each; [] if it can.

    A split without a clip stops it, and so does one without any ground truth that
    should have some. Incomplete sets do not: the results count what they used.
    """
    reasons = []
    for dataset, entry in manifest["sets"].items():
        for split, part in entry["splits"].items():
            if not part["clips"]:
                reasons.append(f"{dataset} {split}: no clip can be used")
            elif (dataset, split) not in UNANNOTATED and not _total(part, "annotated"):
                reasons.append(f"{dataset} {split}: no ground truth")
    return reasons


def _total(part: dict, column: str) -> int:
    return sum(clip[column] for clip in part["clips"].values())


def table(manifest: dict, problems: Sequence[Problem], most: int = 20) -> str:
    """The table that `salema index --check` prints, and up to `most` problems below it."""
    rows = [("set", "split", "clips", "expected", "frames", "annotated", "dropped", "problems")]
    for dataset, entry in manifest["sets"].items():
        for split, part in entry["splits"].items():
            mine = [p for p in problems if (p.dataset, p.split) == (dataset, split)]
            expected = "-" if part["expected"] is None else part["expected"]
            totals = (_total(part, "frames"), _total(part, "annotated"))
            dropped = part["dropped_fixations"]
            cells = (len(part["clips"]), expected, *totals, dropped, len(mine))
            rows.append((dataset, split, *map(str, cells)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(width) if index < 2 else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    lines += [str(problem) for problem in problems[:most]]
    if len(problems) > most:
        lines.append(f"... and {len(problems) - most} problems more")
    return "\n".join(lines)
