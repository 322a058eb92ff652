"""Videos, folders and whole data sets -> files of maps; nothing half-written, nothing lost.

Decoding, the network and writing overlap; memory is constant in a video's length.
"""

import json
import re
import sys
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from salema import data as datasets
from salema.data import Clip
from salema.data.sets import PARTS
from salema.files import SalemaError, atomic
from salema.media import read as video
from salema.media import write as writers
from salema.media.threads import Behind, ahead
from salema.model import weights
from salema.model.network import SaliencyModel
from salema.params import Params, choose
from salema.predict.predictor import maps_of

SUFFIX = {"png": "", "gray": ".mkv", "npy": ".npy"}


@dataclass(frozen=True)
class Output:
    """What `salema predict` writes of each source.

    Attributes:
        folder: Where maps go; None for none.
        form: "png" (a folder of 8-bit pictures), "gray" (one lossless video) or "npy".
        overlay: An .mp4 (or a picture) of the frames with their maps; with several
            sources a folder; None for none.
        size: "source" or "model".
        colormap: An OpenCV colour map's name.
        opacity: Of the overlay where saliency is highest, in [0, 1].
        overwrite: Whether output that exists is made anew.
        shot_reset: Whether the memory starts anew at a cut.
    """

    folder: Path | None = None
    form: str = "png"
    overlay: Path | None = None
    size: str = "source"
    colormap: str = "turbo"
    opacity: float = 0.7
    overwrite: bool = False
    shot_reset: bool = False


def predict_sources(model: SaliencyModel, sources: list[str], output: Output) -> int:
    """Maps and overlays of any number of sources; returns the exit status.

    1 when a source ended early (what was decoded is kept, and a line says how much), or
    when output exists and stays; else 0.

    Raises:
        SalemaError: A source cannot be read or an output not written.
    """
    status, taken = 0, set()
    opened = [video.open(source) for source in sources]  # all are checked before the first runs
    several = len(sources) > 1
    planned = [_targets(_unique(f.name, taken), f, output, several) for f in opened]
    _spare(sources, planned)
    for source, frames, targets in zip(sources, opened, planned, strict=True):
        existing = [path for path in targets.values() if path.exists()]
        if existing and not output.overwrite:
            print(f"{source}: {existing[0]} exists, skipped (--overwrite makes it anew)")
            status = 1
            continue
        count = _predict_source(model, source, frames, targets, output)
        where = ", ".join(str(path) for path in targets.values())
        if frames.stopped:
            print(f"{source}: {frames.stopped}; {count} maps kept in {where}", file=sys.stderr)
            status = 1
        else:
            print(f"{source}: {count} maps in {where}")
    return status


def _spare(sources: list[str], planned: list[dict[str, Path]]) -> None:
    """Raises SalemaError where an output would replace what is read."""
    read = {Path(source).resolve() for source in sources}
    for path in (path for targets in planned for path in targets.values()):
        if path.resolve() in read:
            raise SalemaError(f"{path} is a source itself (choose another --out or --overlay)")


def _unique(name: str, taken: set[str]) -> str:
    """`name`, or `name-2` for the second source of this name."""
    unique, number = name, 1
    while unique in taken:
        number += 1
        unique = f"{name}-{number}"
    taken.add(unique)
    return unique


def _targets(name: str, frames: video.Frames, output: Output, several: bool) -> dict[str, Path]:
    targets = {}
    if output.folder is not None:
        targets["maps"] = output.folder / f"{name}{SUFFIX[output.form]}"
    if output.overlay is not None:
        one = bool(output.overlay.suffix)
        if several and one:
            raise SalemaError(f"several sources, one overlay {output.overlay} (name a folder)")
        suffix = ".png" if frames.names and len(frames.names) == 1 else ".mp4"
        targets["overlay"] = output.overlay if one else output.overlay / f"{name}{suffix}"
    return targets


def _predict_source(
    model: SaliencyModel, source: str, frames: video.Frames, targets: dict[str, Path],
    output: Output,
) -> int:  # fmt: skip
    count = 0
    fps = frames.fps or video.FALLBACK_FPS
    shape = frames.size if output.size == "source" else tuple(model.config.size)
    with ExitStack() as stack:
        sinks: list[Callable] = []
        if "maps" in targets:
            _only_maps(targets["maps"])
            maps_out = _map_writer(targets["maps"], output.form, fps, shape, replace=True)
            sinks.append(_sink(stack.enter_context(maps_out), shape, output.form == "npy"))
        if "overlay" in targets:
            sound = source if frames.names is None and Path(source).exists() else None
            picture = writers.OverlayWriter(
                targets["overlay"], fps, frames.size, output.colormap, output.opacity, sound
            )
            sinks.append(_sink(stack.enter_context(picture)))

        def write(saliency: np.ndarray, frame: np.ndarray, name: str, time: float | None) -> None:
            for sink in sinks:
                sink(saliency, frame, name, time)

        behind = stack.enter_context(Behind(write, depth=model.chunk))
        bar = tqdm(total=frames.hint, desc=frames.name, unit="frame", disable=None)
        stack.enter_context(bar)
        try:
            for frame, saliency in maps_of(model, frames, output.shot_reset):
                name = frames.names[count] if frames.names else f"{count + 1:05d}"
                time = frames.times[count] if count < len(frames.times) else None
                behind(saliency, frame, name, time)
                count += 1
                bar.update()
        except KeyboardInterrupt:
            if not source.startswith("camera:"):
                raise
            frames.stopped = f"stopped after {count} frames"  # a camera has no other end
        if count == 0:
            raise SalemaError(f"no frame could be decoded: {source} (is it a video?)")
    return count


def _only_maps(path: Path) -> None:
    """Raises SalemaError where a folder that would be replaced holds something else."""
    if path.is_dir():
        strangers = [item for item in path.iterdir() if item.suffix != ".png"]
        if strangers:
            raise SalemaError(f"{path} holds {strangers[0].name} too (choose another --out)")


def _map_writer(
    path: Path, form: str, fps: float, shape: tuple[int, int], bits: int = 8, replace: bool = False
) -> Any:
    match form:
        case "png":
            return writers.PngWriter(path, replace)
        case "gray":
            return writers.GrayWriter(path, fps, shape, bits=bits)
        case "npy":
            return writers.NpyWriter(path)
    raise SalemaError(f"unknown format {form!r} (choose png, gray or npy)")


def _sink(writer: Any, shape: tuple[int, int] | None = None, raw: bool = False) -> Callable:
    """Takes maps as the network gives them, stretches each, and resizes them to `shape`."""

    def write(saliency: np.ndarray, frame: np.ndarray, name: str, time: float | None) -> None:
        saliency = saliency if raw else writers.min_max(saliency)
        if shape is not None and saliency.shape != shape:
            saliency = cv2.resize(saliency, shape[::-1])
        writer.write(saliency, frame, name, time)

    return write


# ---------------------------------------------------------------------- data sets


def predict_run(params: Params, run: str) -> Path:
    """The study: maps of every clip that a run is scored on; returns the folder.

    Raises:
        SalemaError: No such run, no weights, or the data are missing.
    """
    choose(run, params.runs, "run")
    folder = params.run_folder(run)
    model = weights.load(folder / "weights.safetensors", precision=params.predict.precision)
    model.chunk = params.predict.chunk
    cache = datasets.study_cache(tuple(model.config.size))
    with atomic(folder / "maps", replace=True) as part:  # an output of this stage, made anew
        for dataset, split in params.data.evaluate.items():
            clips = datasets.load(params.root, dataset, split)
            images = [clip for clip in clips if datasets.is_image(clip)]
            _predict_images(model, images, part / dataset)
            videos = [clip for clip in clips if not datasets.is_image(clip)]
            for clip in tqdm(videos, desc=f"{run} {dataset}", disable=None):
                path = part / dataset / f"{clip.name}.mkv"
                predict_clip(model, clip, path, "gray", bits=16, frames=cache.frames(clip))
    for problem in cache.problems:
        print(problem, file=sys.stderr)
    return folder / "maps"


def predict_clip(
    model: SaliencyModel,
    clip: Clip,
    path: Path,
    form: str,
    bits: int = 8,
    frames: Iterable[np.ndarray] | None = None,
    replace: bool = False,
) -> int:
    """Maps of one clip at the model's size under its frames' own names; returns how many.

    Args:
        model: Ready to predict.
        clip: Names the frames, and gives them where `frames` does not.
        path: The folder or file to write.
        form: "png", "gray" or "npy".
        bits: 8 or 16, of "gray".
        frames: The clip's frames, already at the model's size.
        replace: Whether a folder of maps that exists is replaced when the new one is there.
    """
    count, size = 0, tuple(model.config.size)
    with (
        _map_writer(path, form, clip.fps or 30.0, size, bits, replace) as writer,
        Behind(writer.write, depth=model.chunk) as behind,
    ):
        for frame, saliency in maps_of(model, clip.frames() if frames is None else frames):
            behind(writers.min_max(saliency), frame, clip.frame_names[count])
            count += 1
    return count


def _predict_images(model: SaliencyModel, clips: list[Clip], folder: Path) -> None:
    """Photographs, a batch at a time: each is a clip of one frame. 16-bit PNG."""
    if not clips:
        return
    folder.mkdir(parents=True, exist_ok=True)
    pictures = ahead((next(clip.frames()) for clip in clips), 2 * model.chunk)
    batch: list[np.ndarray] = []
    done = 0
    for number, picture in enumerate(pictures, 1):
        batch.append(model.fit(picture))
        if len(batch) == model.chunk or number == len(clips):
            for saliency in model.step_images(np.stack(batch)):
                path = folder / f"{clips[done].name}.png"
                cv2.imwrite(str(path), np.round(writers.min_max(saliency) * 65535).astype("uint16"))
                done += 1
            batch = []


def predict_dataset(
    model: SaliencyModel,
    clips: list[Clip],
    folder: Path,
    form: str,
    overwrite: bool,
    name: str = "salema",
    about: dict | None = None,
) -> int:
    """The seeds' inference: maps of a data set in the original's folders; returns the status.

    DHF1K and others: `<folder>/<name>_predictions/<clip>/<frame>.png`; Hollywood-2 and
    UCF-sports: `<folder>/<set>/testing/<shot>/<name>_predictions/<frame>.png`. Each map is
    named after its source frame. Clips that are there already are skipped, so an
    interrupted run continues; nothing is overwritten unless asked. A clip with a broken
    frame gets a line and no maps, and the status is 1.

    `about`, what the model is and saw, goes into `<folder>/<name>_predictions.json`.

    Raises:
        SalemaError: The folder holds maps of another model, something else than maps, or
            cannot be written.
    """
    if about is not None:
        _tell(folder / f"{name}_predictions.json", about, overwrite)
    # Differs: the released code named maps by their count, and wrote double EMA into one file.
    made = skipped = broken = frames = 0
    for clip in tqdm(clips, unit="clip", disable=None):
        inner = Path(f"{name}_predictions", clip.name)
        if datasets.SETS[clip.dataset].parts:
            inner = Path(clip.dataset, PARTS[clip.split], clip.name, inner.parent)
        path = folder / inner.with_name(inner.name + SUFFIX[form])
        if path.exists() and not overwrite:
            skipped += 1
            continue
        _only_maps(path)
        try:
            frames += predict_clip(model, clip, path, form, frames=_readable(clip), replace=True)
            made += 1
        except SalemaError as error:
            if error.status != 1:
                raise
            print(f"{clip.name} skipped: {error}", file=sys.stderr)
            broken += 1
    print(f"{made} clips, {frames} maps in {folder}; {skipped} there already, {broken} broken")
    return 1 if broken else 0


def _tell(path: Path, about: dict, overwrite: bool) -> None:
    """Write what made the maps and what it saw, so that two models' maps are never mixed."""
    if path.exists():
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
            same, seen = before["model"] == about["model"], before["seen"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise SalemaError(f"{path} is in the way (move it, or choose another --out)") from error
        if not (same or overwrite):
            raise SalemaError(
                f"{path.with_suffix('')} holds maps of other weights (choose another --out, or "
                "--overwrite)"
            )
        union = {d: {*seen.get(d, []), *about["seen"].get(d, [])} for d in {*seen, *about["seen"]}}
        about = {**about, "seen": {dataset: sorted(union[dataset]) for dataset in sorted(union)}}
    with atomic(path) as part:
        part.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


def _readable(clip: Clip) -> Iterator[np.ndarray]:
    """A clip's frames, up to one that is broken: work that ended early, with status 1."""
    try:
        yield from clip.frames()
    except SalemaError as error:
        error.status = 1
        raise


def submission(folder: Path, clips: list[Clip], path: Path) -> None:
    """Zip PNG maps as DHF1K's server takes them: `<clip>/<frame>.png`, four digits each.

    Raises:
        SalemaError: The zip exists, or a clip's maps are missing.
    """
    if path.exists():
        raise SalemaError(f"{path} exists (choose another name, or remove it yourself)")
    with atomic(path) as part, zipfile.ZipFile(part, "w", zipfile.ZIP_STORED) as archive:
        for clip in clips:
            inner = folder / clip.name
            pictures = sorted(inner.glob("*.png"))
            if len(pictures) != clip.n_frames:
                raise SalemaError(
                    f"{len(pictures)} of {clip.n_frames} maps in {inner} (predict this clip again)"
                )
            for picture in pictures:
                archive.write(picture, f"{int(clip.name):04d}/{int(picture.stem):04d}.png")


def numbers(text: str) -> range:
    """The range that "601-700" (or "601") says, both ends included.

    Raises:
        SalemaError: It is not of that form.
    """
    match = re.fullmatch(r"(\d+)(?:-(\d+))?", text.strip())
    if not match or int(match[2] or match[1]) < int(match[1]):
        raise SalemaError(f"bad range --videos {text} (write 601-700; both ends count)")
    return range(int(match[1]), int(match[2] or match[1]) + 1)
