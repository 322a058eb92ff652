"""What of the data sets is here: the clips, the problems, and whether the study can run on them."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from salema.data.challenge import challenge
from salema.data.clip import Clip
from salema.data.images import nusscene, osie, salicon
from salema.data.listing import Problem, Search
from salema.data.sets import DATASETS, SETS, SPLITS, annotated, splits_of
from salema.data.videos import dhf1k, hevc33, other, parted, probe
from salema.files import SalemaError, atomic
from salema.params import Params

LOADERS = {"SALICON": salicon, "OSIE": osie, "Crowd": osie, "NUSScene": nusscene, "DHF1K": dhf1k}
LOADERS |= {"NTIRE26": challenge, "AViMoS": challenge}
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


def folds(clips: Sequence[Clip], count: int) -> list[list[Clip]]:
    """The clips in `count` parts of nearly equal size, each group in one of them.

    Larger groups are dealt first, each to the part that is smallest then.
    """
    groups: dict[str, list[Clip]] = {}
    for clip in sorted(clips, key=lambda clip: clip.name):
        groups.setdefault(clip.group, []).append(clip)
    if len(groups) < count:
        raise SalemaError(f"{count} folds of {len(groups)} groups of clips (take fewer folds)")
    parts: list[list[Clip]] = [[] for _ in range(count)]
    for group in sorted(groups.values(), key=len, reverse=True):
        min(parts, key=len).extend(group)
    return parts


def wanted(params: Params) -> dict[str, list[str]]:
    """Set -> the splits that the profile reads."""
    study = params.crossvalidate
    trained = [*params.data.tune, *params.data.finetune, *params.data.continued, *study.images]
    needs = {name: ["train", "val"] for name in trained}
    if study.clips:
        needs[study.clips] = list(annotated(study.clips))
    for name, split in params.data.evaluate.items():
        needs[name] = list(dict.fromkeys([*needs.get(name, []), split]))
    return needs


def write(root: Path, params: Params) -> Path:
    """Write `runs/<profile>/manifest.json`: names, frames, bytes; no absolute path."""
    needs = wanted(params)
    missing = [f"{name} ({SETS[name].source})" for name in needs if not (root / name).is_dir()]
    if missing:
        fix = "put them there, or set data.root or SALEMA_DATA to where they are"
        raise SalemaError(f"profile {params.profile}: {root} lacks {', '.join(missing)} ({fix})")
    manifest, _ = scan(root, needs)
    for reason in obstacles(manifest):
        raise SalemaError(f"profile {params.profile} cannot run in {root}: {reason} (--check)")
    path = params.run_folder("manifest.json")
    with atomic(path) as part:
        part.write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    return path


def check(root: Path, params: Params) -> int:
    """Print the table of what is there; returns 1 if the study cannot run, else 0."""
    manifest, problems = scan(root, wanted(params), deep=True)
    reasons = obstacles(manifest)
    print(table(manifest, problems), *(f"the study cannot run: {r}" for r in reasons), sep="\n")
    return 1 if reasons else 0


def scan(
    root: str | Path, wanted: Mapping[str, Sequence[str]], deep: bool = False
) -> tuple[dict, list[Problem]]:
    """List data sets without opening pictures: the manifest and the problems.

    `wanted` maps a set to its splits; a missing set is a problem. A `deep` scan also counts the
    frames of each video that has ground truth, which reads it all. The manifest is fit for JSON,
    in a fixed order and without absolute paths: `{"sets": {set: {"files": {path: bytes},
    "splits": {split: {"expected", "dropped_fixations", "clips": {name: {"frames", "annotated",
    "bytes"}}}}}}}`.
    """
    sets: dict[str, dict] = {}
    problems: dict[tuple[str, str], Problem] = {}
    for dataset in sorted(wanted, key=lambda name: (*DATASETS, name).index(name)):
        here = sets[dataset] = {"files": {}, "splits": {}}
        for split in sorted(wanted[dataset], key=lambda name: (*SPLITS, name).index(name)):
            search = find(root, dataset, split)
            clips = {clip.name: _measure(search, clip, deep) for clip in search.clips}
            dropped = 0
            for clip in search.clips:
                with search.reporting(split, next(clip.files())):
                    dropped += clip.dropped
            for path in filter(Path.is_file, search.tables):
                here["files"][path.relative_to(search.root).as_posix()] = path.stat().st_size
            facts = {"expected": search.facts.expected(split), "dropped_fixations": dropped}
            here["splits"][split] = facts | {"clips": clips}
            for problem in search.problems:  # one of the whole set comes with each split
                problems.setdefault((problem.file, problem.reason), problem)
    return {"sets": sets}, list(problems.values())


def _measure(search: Search, clip: Clip, deep: bool) -> dict[str, int]:
    """One clip's line of the manifest; reports empty files and, if `deep`, a wrong length."""
    sizes = {path: path.stat().st_size for path in clip.files()}
    for path in (path for path, size in sizes.items() if size == 0):
        search.report(clip.split, path, "empty file")
    if deep and isinstance(clip.images, Path) and clip.points is None:
        with search.reporting(clip.split, clip.images):
            if (count := probe(clip.images)[0]) != clip.n_frames:
                reason = f"{count} frames, ground truth has {clip.n_frames}"
                search.report(clip.split, clip.images, reason)
    return {"frames": clip.n_frames, "annotated": clip.annotated, "bytes": sum(sizes.values())}


def obstacles(manifest: dict) -> list[str]:
    """Why the study cannot run: splits without a clip or ground truth; incomplete ones are fine."""
    reasons = []
    for dataset, entry in manifest["sets"].items():
        for split, part in entry["splits"].items():
            if not part["clips"]:
                reasons.append(f"{dataset} {split}: no clip can be used")
            elif split not in SETS[dataset].unannotated and not _totals(part)[1]:
                reasons.append(f"{dataset} {split}: no ground truth")
    return reasons


def _totals(part: dict) -> list[int]:
    clips = part["clips"].values()
    return [sum(clip[column] for clip in clips) for column in ("frames", "annotated")]


def table(manifest: dict, problems: Sequence[Problem], most: int = 20) -> str:
    """The table that `salema index --check` prints, and up to `most` problems below it."""
    rows = [("set", "split", "clips", "expected", "frames", "annotated", "dropped", "problems")]
    for dataset, entry in manifest["sets"].items():
        for split, part in entry["splits"].items():
            mine = sum((problem.dataset, problem.split) == (dataset, split) for problem in problems)
            expected = "-" if part["expected"] is None else part["expected"]
            cells = (len(part["clips"]), expected, *_totals(part), part["dropped_fixations"], mine)
            rows.append((dataset, split, *map(str, cells)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    layout = "  ".join(f"{{:{'<' if i < 2 else '>'}{width}}}" for i, width in enumerate(widths))
    lines = [layout.format(*row) for row in rows] + list(map(str, problems[:most]))
    if len(problems) > most:
        lines.append(f"... and {len(problems) - most} problems more")
    return "\n".join(lines)
