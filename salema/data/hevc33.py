"""HEVC33: `videos/*.avi` and one table of everybody's fixations, `video_database.mat`."""

from pathlib import Path

import numpy as np

from salema.data.clip import Clip, by_number, probe
from salema.data.listing import VIDEOS, Search, files_in
from salema.data.sets import split_by_name
from salema.files import SalemaError


def hevc33(search: Search) -> None:
    """One clip a name of the table; a file may write the name with spaces.

    A fixation covers frames floor(start * fps) .. ceil(end * fps) - 1, counted from 0
    in its own clip, with the rate that the video file tells.
    """
    folder = search.folder
    table = folder / "video_database.mat"
    search.tables.append(table)
    names, rows = read_table(table)
    if broken := int((~np.isfinite(rows).all(axis=1)).sum()):
        search.report(search.splits[0], table, f"{broken} of {len(rows)} rows incomplete, left out")
    rows = rows[np.isfinite(rows).all(axis=1)]
    videos = {
        stem.replace(" ", ""): name for stem, name in files_in(folder / "videos", VIDEOS).items()
    }
    for index, name in sorted(enumerate(names, 1), key=lambda item: by_number(item[1])):
        split = split_by_name(name)
        if split not in search.splits:
            continue
        path = folder / "videos" / videos.get(name, f"{name}.avi")
        mine = rows[rows[:, 1] == index]
        if name not in videos:
            search.report(split, path, "no such video, its fixations left out")
        elif not len(mine) and search.ground_truth:
            search.report(split, path, "no fixations, clip skipped")
        else:
            _add(search, name, split, path, mine)
    for name in sorted(videos.keys() - set(names), key=by_number):
        if (split := split_by_name(name)) in search.splits:
            search.report(split, folder / "videos" / videos[name], "not in the table, skipped")


def _add(search: Search, name: str, split: str, path: Path, rows: np.ndarray) -> None:
    try:
        count, fps, size = probe(path)
        if fps is None:
            raise SalemaError("no frame rate: the fixations cannot be placed")
    except SalemaError as error:
        search.report(split, path, f"{str(error).split(':')[0]}, clip skipped")
        return
    # Milliseconds times fps first: 0.28 * 25 is above 7, and would cover a frame too many.
    begin = np.floor(rows[:, 2] * fps / 1000)
    end = np.ceil((rows[:, 2] + rows[:, 3]) * fps / 1000)
    search.clips.append(
        Clip(
            name=name,
            dataset="HEVC33",
            split=split,
            frame_names=tuple(f"{index:05d}" for index in range(count)),
            images=path,
            points=np.column_stack([rows[:, 4], rows[:, 5], rows[:, 0] - 1, begin, end]),
            fps=fps,
            has_observers=True,
            probed=size,
        )
    )


def read_table(path: Path) -> tuple[list[str], np.ndarray]:
    """Names of the videos, and rows (N, 6): subject, video (both from 1), ms, ms, x, y.

    Raises:
        SalemaError: The file is missing or another one, or h5py is not installed.
    """
    try:
        import h5py
    except ImportError as error:
        raise SalemaError(f"{path.name} needs h5py (pip install 'salema[data]')") from error
    try:
        with h5py.File(path) as file:
            top = file["video_database"]
            rows = top["fixdata"][()].T  # MATLAB writes columns first
            names = [
                "".join(map(chr, file[reference][()].ravel())).replace(" ", "")
                for reference in top["video_names_list"][()].ravel()
            ]
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise SalemaError(f"no HEVC33 fixations in {path} (copy it again)") from error
    if rows.ndim != 2 or rows.shape[1] != 6:
        raise SalemaError(f"no HEVC33 fixations in {path} (expected rows of 6, copy it again)")
    return names, rows.astype(float)
