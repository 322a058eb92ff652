"""Video sets: DHF1K, Hollywood-2, UCF-sports, other (a file per frame) and HEVC33 (a table)."""

import re
from pathlib import Path

import numpy as np

from salema.data.clip import Files
from salema.data.gaze import Size
from salema.data.listing import PICTURES, VIDEOS, Search, files_in, folders_in, numbered
from salema.files import SalemaError, one_line
from salema.media.image import MOST_BYTES, natural


def dhf1k(search: Search) -> None:
    """`annotation/0001/{maps,fixation}` and the frames.

    They are in `video/001.AVI`, or else in `annotation/0001/images/`, `frames/{1,0001}/`.
    """
    folder = search.folder
    videos = numbered(files_in(folder / "video", VIDEOS))
    annotations = _by_number(folder / "annotation")
    extracted = _by_number(folder / "frames")
    for split in search.splits:
        for number in filter(search.wants, search.facts.numbers[split]):
            truth = annotations.get(number, folder / "annotation" / f"{number:04d}")
            images = truth / "images"
            images = images if images.is_dir() else extracted.get(number, images)
            if number in videos:
                images = folder / "video" / videos[number]
            if images.exists() or truth.exists():
                _add(search, f"{number:04d}", split, images, truth)


def _by_number(folder: Path) -> dict[int, Path]:
    return {int(path.name): path for path in folders_in(folder) if path.name.isdecimal()}


def parted(search: Search) -> None:
    """`{training,testing}/<shot>/{images,maps,fixation}`, frames numbered as in the film."""
    for split in search.splits:
        for shot in folders_in(search.folder / search.facts.parts[split]):
            part = "train" if split == "train" else "test"
            _add(search, shot.name, part, shot / "images", shot)


def other(search: Search) -> None:
    """Numbered folders of numbered frames, without ground truth."""
    for folder in folders_in(search.folder):
        if search.wants(int(folder.name) if folder.name.isdecimal() else None):
            _add(search, folder.name, "test", folder, None)


def _add(search: Search, name: str, split: str, images: Path, truth: Path | None) -> None:
    """Join frames and ground truth by number. A frame without a map stays: the memory needs it."""
    maps, fixations = _truth(truth) if truth else ({}, {})
    annotated = sorted(maps.keys() | fixations.keys())
    if not annotated and split not in search.facts.unannotated:
        skipped = ", clip skipped" if search.ground_truth else ""
        search.report(split, truth, f"no ground truth{skipped}")
        if search.ground_truth:
            return
    frames = _frames(search, split, images, annotated)
    if not frames:
        search.report(split, images, "no frames, clip skipped")
        return
    more: dict[str, Files] = {}
    for kind, what, files in [("maps", "map", maps), ("fixation", "fixation map", fixations)]:
        if files:
            field = "map_files" if what == "map" else "fixation_files"
            more[field] = Files(truth / kind, tuple(map(files.get, frames)))
        if annotated:
            extra = [Path(files[n]).stem for n in sorted(files.keys() - frames.keys())]
            search.report_some(split, truth / kind, extra, what, "without a frame, left out")
            lacking = sorted(frames.keys() - files.keys())
            search.report_some(split, images, lacking, "frame", f"without a {what}, not scored")
    stems = [Path(maps.get(n) or fixations.get(n) or frames[n] or f"{n:04d}").stem for n in frames]
    source = images if images.is_file() else Files(images, tuple(frames.values()))
    search.add(name, split, stems, source, fps=search.facts.fps, **more)


def _truth(folder: Path) -> tuple[dict[int, str], dict[int, str]]:
    """Number -> file in `maps/`, and in `fixation/`: PNG or, in `fixation/maps/`, MATLAB."""
    matlab = numbered(files_in(folder / "fixation" / "maps", (".mat",)))
    fixations = {number: f"maps/{name}" for number, name in matlab.items()}
    fixations |= numbered(files_in(folder / "fixation", PICTURES))
    return numbered(files_in(folder / "maps", PICTURES)), fixations


def _frames(search: Search, split: str, images: Path, annotated: list[int]) -> dict:
    """Number -> picture, in order; frame k (from 0) of a video file is number k + 1, None."""
    if images.is_file():
        last = 0  # the ground truth gives the length of a video
        with search.reporting(split, images):
            last = annotated[-1] if annotated else probe(images)[0]
        return dict.fromkeys(range(1, last + 1))
    files = files_in(images, PICTURES)
    pictures = numbered(files)
    odd = sorted(set(files.values()) - set(pictures.values()))
    search.report_some(split, images, odd, "file", "without a number of its own, left out")
    return pictures


def hevc33(search: Search) -> None:
    """`videos/*.avi`, perhaps with spaces in the name, and one table, `video_database.mat`."""
    folder = search.folder / "videos"
    table = search.folder / "video_database.mat"
    names, rows = read_table(table)
    search.tables.append(table)
    whole = np.isfinite(rows).all(axis=1)
    if broken := int((~whole).sum()):
        search.report(search.splits[0], table, f"{broken} of {len(rows)} rows incomplete, left out")
    rows = rows[whole]
    videos = {stem.replace(" ", ""): name for stem, name in files_in(folder, VIDEOS).items()}
    for index, name in sorted(enumerate(names, 1), key=lambda item: natural(item[1])):
        split = search.facts.split_of(name)
        if split not in search.splits:
            continue
        path = folder / videos.get(name, f"{name}.avi")
        mine = rows[rows[:, 1] == index]
        if name not in videos:
            search.report(split, path, "no such video, its fixations left out")
        elif not len(mine) and search.ground_truth:
            search.report(split, path, "no fixations, clip skipped")
        else:
            with search.reporting(split, path, ", clip skipped"):
                count, fps, size = probe(path)
                stems = [f"{frame:05d}" for frame in range(count)]
                more = {"points": _covering(mine, fps), "has_observers": True, "probed": size}
                search.add(name, split, stems, path, fps=fps, **more)
    for name in sorted(videos.keys() - set(names), key=natural):
        if (split := search.facts.split_of(name)) in search.splits:
            search.report(split, folder / videos[name], "not in the table, skipped")


def _covering(rows: np.ndarray, fps: float | None) -> np.ndarray:
    """The points of a clip: a fixation covers frames floor(start * fps) .. ceil(end * fps) - 1."""
    if fps is None:
        raise SalemaError("no frame rate: the fixations cannot be placed")
    # Milliseconds times fps first: 0.28 * 25 is above 7, and would cover a frame too many.
    begin = np.floor(rows[:, 2] * fps / 1000)
    end = np.ceil((rows[:, 2] + rows[:, 3]) * fps / 1000)
    return np.column_stack([rows[:, 4], rows[:, 5], rows[:, 0] - 1, begin, end])


def read_table(path: Path) -> tuple[list[str], np.ndarray]:
    """Names of the videos, and rows (N, 6): subject, video (both from 1), ms, ms, x, y."""
    try:
        import h5py
    except ImportError as error:
        raise SalemaError(f"{path.name} needs h5py (pip install 'salema[data]')") from error
    with one_line(f"no HEVC33 fixations in {path} (copy it again)"), h5py.File(path) as file:
        top = file["video_database"]
        rows = _numbers(top["fixdata"]).T.astype(float)  # MATLAB writes columns first
        names = [
            "".join(map(chr, _numbers(file[reference]).ravel())).replace(" ", "")
            for reference in _numbers(top["video_names_list"]).ravel()
        ]
    if rows.ndim != 2 or rows.shape[1] != 6:
        raise SalemaError(f"no HEVC33 fixations in {path} (expected rows of 6, copy it again)")
    if odd := [name for name in names if not re.fullmatch(r"[^/\\\0-\x1f]{1,200}", name)]:
        raise SalemaError(f"a video called {odd[0][:50]!r} in {path} (copy it again)")
    return names, rows


def _numbers(dataset) -> np.ndarray:
    """All of an HDF5 data set. A small file may promise one that would fill the memory."""
    if dataset.nbytes > MOST_BYTES:
        raise ValueError(f"{dataset.nbytes} bytes")
    return dataset[()]


def probe(path: Path) -> tuple[int, float | None, Size]:
    """Frames (packets, counted without decoding), frames per second and (H, W) of a video."""
    from salema.media.read import opened

    with one_line(f"not a video: {path} (copy it again)"), opened(path) as (container, stream):
        count = sum(packet.size > 0 for packet in container.demux(stream))
        rate = stream.average_rate or stream.guessed_rate
        size = (stream.codec_context.height, stream.codec_context.width)
    if not count or not all(size):
        raise SalemaError(f"not a video: {path} (no frames in it)")
    return count, float(rate) if rate else None, size
