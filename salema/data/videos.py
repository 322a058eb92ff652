"""Video sets with one picture a frame of ground truth: DHF1K, Hollywood-2, UCF-sports, other."""

from pathlib import Path
from sys import intern
from typing import NamedTuple

from salema.data.clip import Clip, Files, probe
from salema.data.listing import (
    PICTURES,
    VIDEOS,
    Search,
    files_in,
    folders_in,
    numbered,
    some,
)
from salema.data.sets import NUMBERS, PARTS, UNANNOTATED
from salema.files import SalemaError


def dhf1k(search: Search) -> None:
    """`video/001.AVI` or extracted frames, and `annotation/0001/{maps,fixation}`.

    Frames are taken from the official video; without it from `annotation/0001/images/`,
    `frames/1/` or `frames/0001/`.
    """
    folder = search.folder
    videos = numbered(files_in(folder / "video", VIDEOS))
    annotations = _by_number(folder / "annotation")
    extracted = _by_number(folder / "frames")
    for split in search.splits:
        for number in NUMBERS["DHF1K"][split]:
            if not search.wants(number):
                continue
            truth = annotations.get(number, folder / "annotation" / f"{number:04d}")
            images = truth / "images"
            if number in videos:
                images = folder / "video" / videos[number]
            elif not images.is_dir() and number in extracted:
                images = extracted[number]
            if images.exists() or truth.exists():
                add(search, f"{number:04d}", split, images, Truth.of(truth), fps=30.0)


def parted(search: Search) -> None:
    """Hollywood-2 and UCF-sports: `{training,testing}/<shot>/{images,maps,fixation}`.

    A shot keeps the frame numbers of its film: they need not start at 1.
    """
    for split in search.splits:
        for shot in folders_in(search.folder / PARTS[split]):
            part = "train" if split == "train" else "test"
            add(search, shot.name, part, shot / "images", Truth.of(shot))


def other(search: Search) -> None:
    """Numbered folders of numbered frames, without ground truth."""
    for folder in folders_in(search.root / "other"):
        number = int(folder.name) if folder.name.isdecimal() else None
        if search.videos is None or number in search.videos:
            add(search, folder.name, "test", folder, Truth(folder, {}, {}))


def _by_number(folder: Path) -> dict[int, Path]:
    return {int(path.name): path for path in folders_in(folder) if path.name.isdecimal()}


class Truth(NamedTuple):
    """The ground truth beside a clip: number of the frame -> name of the file."""

    folder: Path
    maps: dict[int, str]
    fixations: dict[int, str]

    @classmethod
    def of(cls, folder: Path) -> "Truth":
        """`maps/` and `fixation/`, whose fixations are PNG or, in `fixation/maps/`, MATLAB."""
        matlab = numbered(files_in(folder / "fixation" / "maps", (".mat",)))
        points = {number: f"maps/{name}" for number, name in matlab.items()}
        points |= numbered(files_in(folder / "fixation", PICTURES))
        return cls(folder, numbered(files_in(folder / "maps", PICTURES)), points)


def add(
    search: Search, name: str, split: str, images: Path, truth: Truth, fps: float | None = None
) -> None:
    """Joins frames and ground truth by their numbers into one clip, or reports why not.

    A frame without a map stays in the clip, for the memory's sake, and has none; a map
    without a frame is left out.

    Args:
        search: Takes the clip and the problems.
        name: Of the clip.
        split: Of the clip.
        images: A folder of pictures or a video file.
        truth: What lies beside it.
        fps: Frames per second, if the set tells.
    """
    maps, fixations = truth.maps, truth.fixations
    annotated = sorted(maps.keys() | fixations.keys())
    if not annotated and (search.dataset, split) not in UNANNOTATED:
        skipped = ", clip skipped" if search.ground_truth else ""
        search.report(split, truth.folder, f"no ground truth{skipped}")
        if search.ground_truth:
            return
    frames = _frames(search, split, images, annotated)
    if not frames:
        search.report(split, images, "no frames, clip skipped")
        return
    if annotated:
        _compare(search, split, images, truth, frames)
    names = [maps.get(n) or fixations.get(n) or frames[n] or f"{n:04d}.png" for n in frames]
    search.clips.append(
        Clip(
            name=name,
            dataset=search.dataset,
            split=split,
            frame_names=tuple(intern(Path(name).stem) for name in names),
            images=images if images.is_file() else Files(images, tuple(frames.values())),
            map_files=_aligned(truth.folder / "maps", maps, frames),
            fixation_files=_aligned(truth.folder / "fixation", fixations, frames),
            fps=fps,
        )
    )


def _frames(
    search: Search, split: str, images: Path, annotated: list[int]
) -> dict[int, str | None]:
    """Number -> picture, in order; frame k (from 0) of a video file is number k + 1.

    The ground truth tells how long a video is; without it the packets are counted.
    """
    if images.is_file():
        try:
            last = annotated[-1] if annotated else probe(images)[0]
        except SalemaError as error:
            search.report(split, images, str(error).split(":")[0])
            return {}
        return dict.fromkeys(range(1, last + 1))
    files = files_in(images, PICTURES)
    pictures = numbered(files)
    if odd := sorted(set(files.values()) - set(pictures.values())):
        search.report(split, images, f"{some(odd, 'file')} without a number of its own, left out")
    return pictures


def _aligned(folder: Path, files: dict[int, str], frames: dict[int, str | None]) -> Files | None:
    return Files(folder, tuple(files.get(number) for number in frames)) if files else None


def _compare(
    search: Search, split: str, images: Path, truth: Truth, frames: dict[int, str | None]
) -> None:
    """Reports maps and fixations without a frame, and frames without a map or fixations."""
    parts = [("maps", "map", truth.maps), ("fixation", "fixation map", truth.fixations)]
    for kind, what, files in parts:
        if extra := [Path(files[n]).stem for n in sorted(files.keys() - frames.keys())]:
            reason = f"{some(extra, what)} without a frame, left out"
            search.report(split, truth.folder / kind, reason)
        if lacking := sorted(frames.keys() - files.keys()):
            reason = f"{some(lacking, 'frame')} without a {what}, not scored"
            search.report(split, images, reason)
