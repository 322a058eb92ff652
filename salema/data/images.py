"""Image sets, a clip of one frame each: SALICON, OSIE, Crowd and NUSScene."""

from collections.abc import Collection, Iterable
from pathlib import Path

import numpy as np

from salema.data.clip import Files
from salema.data.gaze import load_mat
from salema.data.listing import PICTURES, Search, files_in, numbered
from salema.files import one_line

STIMULI = Path("data", "stimuli")  # the pictures of OSIE, Crowd and NUSScene


def salicon(search: Search) -> None:
    """`{images,maps,fixations}/{train,val,test}/`, or each of the three flat.

    In a flat folder the file names give the split: `COCO_train2014_000000000009.jpg`.
    """
    for split in search.splits:
        _, images = _part(search.folder / "images", split, PICTURES)
        maps_in, maps = _part(search.folder / "maps", split, PICTURES)
        points_in, points = _part(search.folder / "fixations", split, (".mat", *PICTURES))
        bare = split in search.facts.unannotated
        for kind, what, files in [(maps_in, "map", maps), (points_in, "fixation file", points)]:
            extra = [stem for stem in files if stem not in images]
            search.report_some(split, kind, extra, what, "without an image, left out")
            lacking = [stem for stem in images if stem not in files and not bare]
            skipped = "skipped" if what == "map" and search.ground_truth else "not scored"
            search.report_some(split, kind, lacking, "image", f"without a {what}, {skipped}")
        for stem, image in images.items():
            if bare or stem in maps or not search.ground_truth:
                truth = {"map_files": maps.get(stem), "fixation_files": points.get(stem)}
                apart = stem in points and points[stem].names[0].endswith(".mat")
                search.add(stem, split, [stem], image, has_observers=apart, **truth)


def _part(folder: Path, split: str, suffixes: Collection[str]) -> tuple[Path, dict[str, Files]]:
    """The folder that holds the files of a split, and stem -> file."""
    prefix = f"COCO_{split}"
    if (folder / split).is_dir():
        folder, prefix = folder / split, ""
    files = files_in(folder, suffixes).items()
    return folder, {s: Files(folder, (name,)) for s, name in files if s.startswith(prefix)}


def osie(search: Search) -> None:
    """OSIE and Crowd: `data/stimuli/1001.jpg` and `data/eye/fixations.mat`.

    The table is image -> observers -> x, y.
    """
    table = search.folder / "data" / "eye" / "fixations.mat"
    points = {}
    with one_line(f"no {search.dataset} fixations in {table} (copy it again)"):
        for entry in load_mat(table)["fixations"].ravel():
            image = entry["img"].flat[0].flat[0]
            subjects = entry["subjects"].flat[0].ravel()
            points[Path(str(image)).stem] = _join(
                (subject["fix_x"].flat[0], subject["fix_y"].flat[0]) for subject in subjects
            )
    _add(search, table, points)


def nusscene(search: Search) -> None:
    """`data/stimuli/001.jpg` and `data/tidy/fixations.mat`: image x observer -> y, x, s, s."""
    table = search.folder / "data" / "tidy" / "fixations.mat"
    images = numbered(files_in(search.folder / STIMULI, PICTURES))
    points = {}
    reason = f"does not belong to the {len(images)} images in {STIMULI.as_posix()}"
    with one_line(f"{table} {reason} (copy both again)"):
        cells = load_mat(table)["fixations"]
        complete = len(images) == len(cells)
        for index, (number, name) in enumerate(images.items()):
            # Rows are in the order of the names; where images are missing, row k is image k + 1.
            row = cells[index if complete else number - 1]
            points[Path(name).stem] = _join((c[:, 1], c[:, 0]) if c.size else ((), ()) for c in row)
    _add(search, table, points)


def _join(observers: Iterable[tuple]) -> np.ndarray:
    """(N, 5) points of one image from x and y of each observer."""
    parts = [np.empty((0, 5))]
    for observer, (x, y) in enumerate(observers):
        rest = np.broadcast_to((observer, 0.0, 1.0), (np.size(x), 3))
        parts.append(np.column_stack([np.ravel(x), np.ravel(y), rest]).astype(float))
    return np.concatenate(parts)


def _add(search: Search, table: Path, points: dict[str, np.ndarray]) -> None:
    search.tables.append(table)
    folder = search.folder / STIMULI
    images = numbered(files_in(folder, PICTURES))
    for split in search.splits:
        numbers = search.facts.numbers[split]
        here = {Path(images[n]).stem: n for n in images if n in numbers}
        lacking = [images[n] for stem, n in here.items() if not len(points.get(stem, ()))]
        skipped = ", skipped" if search.ground_truth else ""
        search.report_some(split, table, lacking, "image", f"without fixations{skipped}")
        extra = [s for s in points if s.isdecimal() and int(s) in numbers and s not in here]
        search.report_some(split, table, extra, "row", "without an image, left out")
        for stem, number in here.items():
            if search.wants(number) and not (search.ground_truth and images[number] in lacking):
                image, mine = Files(folder, (images[number],)), points.get(stem, np.empty((0, 5)))
                search.add(stem, split, [stem], image, points=mine, has_observers=True)
