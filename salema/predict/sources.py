"""Videos, folders and whole data sets -> files of maps; nothing half-written, nothing lost.

Decoding, the network and writing overlap; memory is constant in a video's length.
"""

import json
import re
import sys
import zipfile
from collections.abc import Collection, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import numpy as np
from tqdm import tqdm

from salema import data
from salema.data import Clip
from salema.files import SalemaError, absent, atomic
from salema.media import overlay, read, write
from salema.media.read import Frame, Source
from salema.media.threads import behind
from salema.media.write import Write
from salema.params import Params, choose
from salema.predict.load import load
from salema.predict.predictor import Predictor

CHUNK_BYTES = 128 * 2**20  # of the frames that are computed or written together

Images = Iterable[np.ndarray]
Pairs = Iterable[tuple[Frame, np.ndarray]]  # frames with their maps
Outputs = list[tuple[AbstractContextManager[Write], bool]]  # writers; whether maps stay raw


class BrokenClipError(SalemaError):
    """Some frame of a clip cannot be read, so that the clip gets no maps."""


@dataclass(frozen=True)
class Output:
    """What `salema predict` writes for each source."""

    folder: Path | None = None  # of the maps
    form: str = "png"  # or "gray" (one lossless video) or "npy"
    overlay: Path | None = None  # an .mp4, or a picture; a folder for several sources
    size: str = "source"  # or "model"
    colormap: str = "turbo"  # of OpenCV
    opacity: float = 0.7  # of the overlay where saliency is highest, in [0, 1]
    overwrite: bool = False
    shot_reset: bool = False  # empty the memory at every cut


def _save(name: str, pairs: Pairs, outputs: Outputs, depth: int, endless: bool = False) -> int:
    """Write every map to every output, in a thread that follows; returns how many.

    Maps are stretched to [0, 1] first, except for raw outputs; if all are flat, a line warns. An
    interruption ends an `endless` source and keeps its maps; any other error leaves no output.
    """
    done, flat = 0, 0
    with ExitStack() as stack:
        writes = [(stack.enter_context(writer), raw) for writer, raw in outputs]

        def write_all(saliency: np.ndarray, frame: Frame) -> None:
            nonlocal flat
            stretched = write.min_max(saliency)
            flat += not stretched.any()
            for put, raw in writes:
                put(saliency if raw else stretched, frame)

        hand_over = stack.enter_context(behind(write_all, depth))
        try:
            for frame, saliency in pairs:
                hand_over(saliency, frame)
                done += 1
        except KeyboardInterrupt:
            if not endless:
                raise
        if done == 0:
            raise SalemaError(f"no frame could be read: {name} (check the source)")
    if flat == done:
        print(f"{name}: all {done} maps are flat; are the weights broken?", file=sys.stderr)
    return done


@contextmanager
def bounded(predictor: Predictor, size: tuple[int, int]) -> Iterator[None]:
    """Inside, chunks of frames of this (H, W) stay below `CHUNK_BYTES`: no map depends on it."""
    asked = predictor.chunk
    predictor.chunk = max(1, min(asked, CHUNK_BYTES // (3 * size[0] * size[1])))
    try:
        yield
    finally:
        predictor.chunk = asked


def predict_sources(predictor: Predictor, names: list[str], output: Output) -> int:
    """Maps and overlays of any number of sources; returns the exit status.

    The status is 1 when a source ended early (its decoded part is kept, and a line reports
    how much), or when existing output is kept; else 0.
    """
    status = 0
    sources = [read.open(name) for name in names]  # all are checked before the first runs
    called = unique(source.name for source in sources)
    if output.overlay and output.overlay.suffix and len(sources) > 1:
        raise SalemaError(f"several sources, one overlay {output.overlay} (name a folder)")
    planned = [targets(*pair, output) for pair in zip(sources, called, strict=True)]
    inputs = {Path(name).resolve() for name in names}
    for path in (path for paths in planned for path in paths.values()):
        if path.resolve() in inputs:
            raise SalemaError(f"{path} is a source itself (choose another --out or --overlay)")
    for name, source, paths in zip(names, sources, planned, strict=True):
        existing = [path for path in paths.values() if path.exists()]
        if existing and not output.overwrite:
            print(f"{name}: {existing[0]} exists, skipped (--overwrite replaces it)")
            status = 1
            continue
        done = predict_source(predictor, name, source, paths, output)
        status = max(status, report(name, source, paths, done))
    return status


def report(name: str, source: Source, paths: dict[str, Path], done: int) -> int:
    """Print how many maps of a source are where; returns the status, 1 if it ended early."""
    where = ", ".join(str(path) for path in paths.values())
    if source.stopped:
        print(f"{name}: {source.stopped}; {done} maps kept in {where}", file=sys.stderr)
        return 1
    print(f"{name}: {done} maps in {where}")
    return 0


def unique(names: Iterable[str]) -> list[str]:
    """The names of sources, of which the second of one name becomes `name-2`."""
    given, numbered = {}, {}  # the former keeps their order
    for name in names:
        new, numbers = name, numbered.setdefault(name, count(2))
        while new in given:
            new = f"{name}-{next(numbers)}"
        given[new] = None
    return list(given)


def targets(source: Source, name: str, output: Output) -> dict[str, Path]:
    """The paths to write for a source that is called `name`."""
    paths, overlaid = {}, output.overlay
    if output.folder is not None:
        paths["maps"] = output.folder / f"{name}{write.SUFFIX[output.form]}"
    if overlaid is not None:
        suffix = ".png" if source.fps is None and source.hint == 1 else ".mp4"
        paths["overlay"] = overlaid if overlaid.suffix else overlaid / f"{name}{suffix}"
    return paths


def predict_source(
    predictor: Predictor, name: str, source: Source, paths: dict[str, Path], output: Output
) -> int:
    """Write what `targets` names and replace what is there; returns the number of maps."""
    outputs: Outputs = []
    if "maps" in paths:
        _only_maps(paths["maps"], source.names)
        size = source.size if output.size == "source" else predictor.size
        maps = write.open(paths["maps"], output.form, size, source.fps, replace=True)
        outputs.append((maps, output.form == "npy"))
    if "overlay" in paths:
        sound = name if source.fps and Path(name).exists() else None
        colored = overlay.overlay(
            paths["overlay"], source.size, source.fps, output.colormap, output.opacity, sound
        )
        outputs.append((colored, False))
    camera = name.startswith("camera:")
    with bounded(predictor, source.size):
        pairs = predictor.maps(source, output.shot_reset)
        bar = tqdm(pairs, total=source.hint, desc=source.name, unit="frame", disable=None)
        done = _save(name, bar, outputs, predictor.chunk, endless=camera)
    if camera and not source.stopped:
        source.stopped = f"stopped after {done} frames"
    return done


def _only_maps(path: Path, names: Collection[str] | None) -> None:
    """Check that a folder which would be replaced holds maps only.

    They are gray PNG files called by the names of the frames; None: by numbers.
    """
    for item in path.iterdir() if path.is_dir() else []:
        named = item.stem in names if names else item.stem.isdecimal()
        if not (named and item.suffix == ".png" and item.is_file() and _is_gray(item)):
            what = f"{path} holds {item.name}, which is not one of these maps"
            raise SalemaError(f"{what} (choose another --out)")


def _is_gray(png: Path) -> bool:
    with png.open("rb") as file:
        return file.read(26)[25:] == b"\0"


def predict_run(params: Params, run: str) -> Path:
    """The study: maps of every clip that a run is scored on; returns the folder.

    Videos become gray videos and photographs PNG files, both of 16 bits.
    """
    choose(run, params.runs, "run")
    folder = params.run_folder(run)
    predictor = load(folder / "weights.safetensors", precision=params.predict.precision)
    predictor.chunk = params.predict.chunk
    cache = data.study_cache(predictor.size)
    with atomic(folder / "maps", replace=True) as part:  # an output of this stage, made again
        for dataset, split in params.data.evaluate.items():
            clips = data.load(params.root, dataset, split)
            images = [clip for clip in clips if data.is_image(clip)]
            if images:
                maps = predictor.images(next(clip.frames()) for clip in images)
                # Frames for their names only: the pictures are not needed any more.
                pairs = ((Frame(m, c.name), m) for c, m in zip(images, maps, strict=True))
                png = write.png(part / dataset, predictor.size, bits=16)
                _save(dataset, pairs, [(png, False)], predictor.chunk)
            videos = [clip for clip in clips if not data.is_image(clip)]
            for clip in tqdm(videos, desc=f"{run} {dataset}", disable=None):
                path = part / dataset / f"{clip.name}.mkv"
                predict_clip(predictor, clip, cache.frames(clip), path, "gray", 16)
    for problem in cache.problems.values():
        print(problem, file=sys.stderr)
    return folder / "maps"


def predict_clip(
    predictor: Predictor, clip: Clip, images: Images, path: Path, form: str, bits: int = 8
) -> int:
    """Maps of a clip's images at the model's size, under its frames' names; returns how many.

    What exists at `path` is replaced at the end; `bits`, 8 or 16, count for "png" and "gray".
    """
    frames = (Frame(i, name) for i, name in zip(images, clip.frame_names, strict=False))
    maps = write.open(path, form, predictor.size, clip.fps or 30.0, bits, replace=True)
    return _save(clip.name, predictor.maps(frames, fps=clip.fps), [(maps, False)], predictor.chunk)


def predict_dataset(
    predictor: Predictor,
    clips: list[Clip],
    folder: Path,
    form: str,
    overwrite: bool,
    name: str = "salema",
    about: dict | None = None,
) -> int:
    """The original's inference: maps of a data set in its folders; returns the status.

    They are in `<folder>/<name>_predictions/<clip>/<frame>.png`; of Hollywood-2 and UCF-sports in
    `<folder>/<set>/testing/<shot>/<name>_predictions/`. Existing clips are skipped unless
    `overwrite`, so an interrupted run can be resumed. A clip with a broken frame gets a line and no
    maps; the status is 1. `about` (see `load.identity`) goes into `<name>_predictions.json`.
    """
    if about is not None:
        record(folder / f"{name}_predictions.json", about, overwrite)
    # Differs: the released code named maps by their count, and wrote double EMA into one file.
    made = skipped = broken = frames = 0
    for clip in tqdm(clips, unit="clip", disable=None):
        inner = Path(f"{name}_predictions", clip.name)
        if parts := data.SETS[clip.dataset].parts:
            inner = Path(clip.dataset, parts[clip.split], clip.name, inner.parent)
        path = folder / inner.with_name(inner.name + write.SUFFIX[form])
        if path.exists() and not overwrite:
            skipped += 1
            continue
        _only_maps(path, clip.frame_names)
        try:
            frames += predict_clip(predictor, clip, _readable(clip), path, form)
            made += 1
        except BrokenClipError as error:
            print(f"{clip.name} skipped: {error}", file=sys.stderr)
            broken += 1
    print(f"{made} clips, {frames} maps in {folder}; {skipped} there already, {broken} broken")
    return 1 if broken else 0


def _readable(clip: Clip) -> Iterator[np.ndarray]:
    try:
        yield from clip.frames()
    except SalemaError as error:
        raise BrokenClipError(str(error)) from error


def record(path: Path, about: dict, overwrite: bool) -> None:
    """Write which model made the maps, so that the maps of two models are never mixed."""
    if path.exists():
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
            same, seen = before["model"] == about["model"], before["seen"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise SalemaError(f"{path} is in the way (move it, or choose another --out)") from error
        if not (same or overwrite):
            what = f"{path.with_suffix('')} holds maps of other weights"
            raise SalemaError(f"{what} (choose another --out, or --overwrite)")
        union = {d: {*seen.get(d, []), *about["seen"].get(d, [])} for d in {*seen, *about["seen"]}}
        about = {**about, "seen": {dataset: sorted(union[dataset]) for dataset in sorted(union)}}
    with atomic(path) as part:
        part.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


def submission(folder: Path, clips: list[Clip], path: Path) -> None:
    """Zip PNG maps as DHF1K's server takes them: `<clip>/<frame>.png`, four digits each."""
    with atomic(absent(path)) as part, zipfile.ZipFile(part, "w") as archive:
        for clip in clips:
            pictures = sorted((folder / clip.name).glob("*.png"))
            if len(pictures) != clip.n_frames:
                what = f"{len(pictures)} of {clip.n_frames} maps in {folder / clip.name}"
                raise SalemaError(f"{what} (predict this clip again)")
            for picture in pictures:
                archive.write(picture, f"{int(clip.name):04d}/{int(picture.stem):04d}.png")


def numbers(text: str) -> range:
    """The range of "601-700" (or "601"), both ends included."""
    match = re.fullmatch(r"(\d{1,9})(?:-(\d{1,9}))?", text.strip())
    if not match or int(match[2] or match[1]) < int(match[1]):
        raise SalemaError(f"bad range --videos {text} (write 601-700; both ends count)")
    return range(int(match[1]), int(match[2] or match[1]) + 1)
