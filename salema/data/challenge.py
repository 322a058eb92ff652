"""NTIRE26 and AViMoS: videos, their maps as gray videos, fixations as JSON. Both are streamed."""

import json
from pathlib import Path

from salema.data.listing import VIDEOS, Search, files_in
from salema.data.videos import probe
from salema.files import one_line
from salema.media.image import natural

TABLE = "TrainTestSplit.json"
LISTS = {"train": "train", "val": "train", "test": "public_test"}  # split -> list of the table
EACH = 10  # every tenth training video is for validation
TOPS = ("Train", "Test")


def challenge(search: Search) -> None:
    """`Videos/*.mp4`, `Saliency{Train,Test}/.../<name>.mp4`, `Fixations{Train,Test}/.../<name>/`.

    The lists of names are in `TrainTestSplit.json`; its private test part has no ground truth.
    """
    folder, table = search.folder, search.folder / TABLE
    lists = _lists(table)
    search.tables.append(table)
    videos = files_in(folder / "Videos", VIDEOS)
    maps = {p.stem: p for top in TOPS for p in (folder / f"Saliency{top}").rglob("*.mp4")}
    points = {
        path.parent.name: path
        for top in TOPS
        for path in (folder / f"Fixations{top}").rglob("fixations.json")
    }
    for split in search.splits:
        names = lists[LISTS[split]]
        if split != "test":
            held = set(names[EACH - 1 :: EACH])
            names = [name for name in names if (name in held) == (split == "val")]
        for name in names:
            path = folder / "Videos" / videos.get(name, f"{name}.mp4")
            if name not in videos:
                search.report(split, path, "no such video")
                continue
            if search.ground_truth and not {name} <= maps.keys() & points.keys():
                search.report(split, path, "without a map video or fixations, skipped")
                continue
            with search.reporting(split, path, ", clip skipped"):
                count, fps, size = probe(path)
                stems = [f"{frame:05d}" for frame in range(count)]
                truth = {"map_files": maps.get(name), "fixation_files": points.get(name)}
                search.add(name, split, stems, path, fps=fps, probed=size, **truth)


def _lists(table: Path) -> dict[str, list[str]]:
    """The names of the videos in each list of the table, in natural order, without suffixes."""
    with one_line(f"no lists of videos in {table} (copy it again)"):
        found = json.loads(table.read_text(encoding="utf-8"))
        lists = {key: [Path(str(name)).stem for name in found[key]] for key in LISTS.values()}
    return {key: sorted(names, key=natural) for key, names in lists.items()}
