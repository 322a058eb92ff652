"""Video sets with one picture a frame of ground truth: DHF1K, Hollywood-2, UCF-sports, other."""

from pathlib import Path

from salema.datasets.clip import Clip, Files, probe
from salema.datasets.listing import (
    PICTURES,
    VIDEOS,
    Search,
    files_in,
    folders_in,
    numbered,
    some,
)
from salema.datasets.splits import NUMBERS, PARTS, UNANNOTATED
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
                add(search, f"{number:04d}", split, images, truth, fps=30.0)


def parted(search: Search) -> None:
    """Hollywood-2 and UCF-sports: `{training,testing}/<shot>/{images,maps,fixation}`.

    A shot keeps the frame numbers of its film: they need not start at 1.
    """
    for split in search.splits:
        for shot in folders_in(search.folder / PARTS[split]):
            part = "train" if split == "train" else "test"
            add(search, shot.name, part, shot / "images", shot)


def other(search: Search) -> None:
    """Numbered folders of numbered frames, without ground truth."""
    for folder in folders_in(search.root / "other"):
        number = int(folder.name) if folder.name.isdecimal() else None
        if search.videos is None or number in search.videos:
            add(search, folder.name, "test", folder, None)


def _by_number(folder: Path) -> dict[int, Path]:
    return {int(path.name): path for path in folders_in(folder) if path.name.isdecimal()}


def add(
    search: Search,
    name: str,
    split: str,
    images: Path,
    truth: Path | None,
    fps: float | None = None,
) -> None:
    """Joins frames and ground truth by their numbers into one clip, or reports why not.

    A frame without a map stays in the clip, for the memory's sake, and has none; a map
    without a frame is left out. Frame k of a video file carries the number k + 1.

    Args:
        search: Takes the clip and the problems.
        name: Of the clip.
        split: Of the clip.
        images: A folder of pictures or a video file.
        truth: The folder that holds `maps/` and `fixation/`.
        fps: Frames per second, if the set tells.
    """
    maps, fixations = _truth(truth)
    annotated = sorted(maps.keys() | fixations.keys())
    if not annotated and (search.dataset, split) not in UNANNOTATED:
        search.report(
            split, truth, "no ground truth" + (", clip skipped" if search.ground_truth else "")
        )
        if search.ground_truth:
            return
    if images.is_dir():
        pictures = numbered(files_in(images, PICTURES))
        numbers = list(pictures)
    elif images.is_file():
        pictures = {}
        try:
            last = annotated[-1] if annotated else probe(images)[0]
        except SalemaError as error:
            search.report(split, images, str(error).split(":")[0])
            return
        numbers = list(range(1, last + 1))
    else:
        numbers = []
    if not numbers:
        search.report(split, images, "no frames, clip skipped")
        return
    _compare(search, split, images, truth, numbers, maps, fixations)
    search.clips.append(
        Clip(
            name=name,
            dataset=search.dataset,
            split=split,
            frame_names=tuple(
                Path(maps.get(n) or fixations.get(n) or pictures.get(n) or f"{n:04d}").stem
                for n in numbers
            ),
            images=Files(images, tuple(pictures.values())) if pictures else images,
            map_files=_aligned(truth, "maps", maps, numbers),
            fixation_files=_aligned(truth, "fixation", fixations, numbers),
            fps=fps,
        )
    )


def _truth(truth: Path | None) -> tuple[dict[int, str], dict[int, str]]:
    """Number -> name of the maps, and of the fixations: PNG, or MATLAB in `fixation/maps/`."""
    if truth is None:
        return {}, {}
    matlab = numbered(files_in(truth / "fixation" / "maps", (".mat",)))
    points = {number: f"maps/{name}" for number, name in matlab.items()}
    points |= numbered(files_in(truth / "fixation", PICTURES))
    return numbered(files_in(truth / "maps", PICTURES)), points


def _aligned(
    truth: Path | None, kind: str, files: dict[int, str], numbers: list[int]
) -> Files | None:
    if not files:
        return None
    return Files(truth / kind, tuple(files.get(number) for number in numbers))


def _compare(
    search: Search,
    split: str,
    images: Path,
    truth: Path | None,
    numbers: list[int],
    maps: dict[int, str],
    fixations: dict[int, str],
) -> None:
    """Reports maps and fixations without a frame, and frames without a map or fixations."""
    frames = set(numbers)
    for kind, what, files in [("maps", "map", maps), ("fixation", "fixation map", fixations)]:
        if not (maps or fixations):
            continue
        if extra := [Path(files[number]).stem for number in sorted(files.keys() - frames)]:
            search.report(split, truth / kind, f"{some(extra, what)} without a frame, left out")
        if lacking := sorted(frames - files.keys()):
            search.report(split, images, f"{some(lacking, 'frame')} without a {what}, not scored")
