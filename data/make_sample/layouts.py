"""The four sets as files: official folders, names, numbering and encodings, smaller pictures."""

import io
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from data.make_sample.observers import OBSERVERS, blur, points, view, watch
from data.make_sample.scenes import Scene, render, scene
from salema.files import SalemaError

HEADER = b"MATLAB 5.0 MAT-file, written by salema sample"  # instead of SciPy's, which has a date
SALICON = {"train": 200, "val": 40}
SALICON_SIZE = (120, 160)
SALICON_OBSERVERS = 12
DHF1K = {"train": range(1, 15), "val": range(601, 609)}
DHF1K_SIZE = (90, 160)
# Clips of Hollywood-2 as (frame size, frames of each shot); a shot of one frame among them.
HOLLYWOOD = {
    "training": [((48, 72), (8, 1)), ((40, 72), (9,)), ((48, 64), (6,))],
    "testing": [((40, 72), (7, 1, 5)), ((48, 64), (8,)), ((36, 80), (6,))],
}
UCF = {
    "training": [("Diving-Side", 1, (48, 72), 12), ("Lifting", 2, (40, 72), 10)],
    "testing": [("Diving-Side", 8, (48, 72), 11), ("Run-Side", 3, (48, 64), 10)],
}
SLOW = 10.0  # frames a second of the short shots, so that a few frames hold a few looks


def _put(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def _picture(path: Path, picture: np.ndarray) -> None:
    """Write uint8 (H, W) or (H, W, 3) RGB as the kind that the suffix names."""
    options = [cv2.IMWRITE_PNG_COMPRESSION, 9]
    if path.suffix == ".jpg":
        options = [cv2.IMWRITE_JPEG_QUALITY, 75]
    _put(
        path,
        cv2.imencode(path.suffix, picture[..., ::-1] if picture.ndim == 3 else picture, options)[
            1
        ].tobytes(),
    )


def _mat(path: Path, variables: dict) -> None:
    """Write a MATLAB 5 file whose bytes depend on the variables only."""
    from scipy.io import savemat

    buffer = io.BytesIO()
    savemat(buffer, variables, do_compression=True)
    _put(path, HEADER.ljust(116) + buffer.getvalue()[116:])


def _video(path: Path, frames: Iterator[np.ndarray], size: tuple[int, int], fps: int) -> None:
    """Write uint8 (H, W, 3) RGB frames as MPEG-4 in AVI, without a date or a version."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format="avi", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("mpeg4", rate=fps, options={"qmin": "4", "qmax": "6"})
        stream.height, stream.width = size
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        stream.codec_context.flags |= av.codec.context.Flags.bitexact
        for picture in frames:
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _gaze(world: Scene, rng: np.random.Generator) -> np.ndarray:
    """(T, N, 2) x, y of every observer on a clip; NaN in saccades."""
    return np.stack([watch(world, rng) for _ in range(OBSERVERS)], 1)


def _truth(maps: Path, fixation: Path, gaze: np.ndarray, size: tuple[int, int]) -> None:
    """Write one frame's saliency map and its fixation map, both PNG."""
    _picture(maps, blur(gaze, size))
    _picture(fixation, points(gaze, size))


def salicon(folder: Path, seed: int, scale: float) -> None:
    """Write SALICON: JPEG images, grey PNG maps, a struct `gaze` of observers each."""
    height, width = SALICON_SIZE
    for part, (split, count) in enumerate(SALICON.items()):
        for number in range(1, max(2, round(scale * count)) + 1):
            rng = np.random.default_rng([seed, 0, part, number])
            world = scene(rng, SALICON_SIZE)
            seen = [view(world, rng) for _ in range(SALICON_OBSERVERS)]
            name = f"COCO_{split}2014_{number:012d}"
            _picture(folder / "images" / split / f"{name}.jpg", render(world, 0, rng))
            _picture(
                folder / "maps" / split / f"{name}.png", blur(np.concatenate(seen), SALICON_SIZE)
            )
            kinds = [("location", object), ("timestamp", object), ("fixations", object)]
            gaze = np.zeros((len(seen), 1), kinds)
            for row, fixations in zip(gaze[:, 0], seen, strict=True):
                start = fixations[:, 2:] * 1000
                row["fixations"] = np.floor(fixations[:, :2] + 0.5).astype(np.uint16) + 1
                row["location"] = row["fixations"]
                row["timestamp"] = start.astype(np.uint16)
            _mat(
                folder / "fixations" / split / f"{name}.mat",
                {"image": name, "resolution": np.array([[height, width]], np.uint16), "gaze": gaze},
            )


def dhf1k(folder: Path, seed: int, scale: float) -> None:
    """Write DHF1K: AVI videos with 3 digits, annotation folders and frames with 4."""
    for numbers in DHF1K.values():
        for number in numbers[: max(2, round(scale * len(numbers)))]:
            rng = np.random.default_rng([seed, 1, number])
            frames = int(rng.integers(36, 45))
            world = scene(rng, DHF1K_SIZE, frames, 30.0)
            gaze = _gaze(world, rng)
            pictures = (render(world, frame, rng) for frame in range(frames))
            _video(folder / "video" / f"{number:03d}.AVI", pictures, DHF1K_SIZE, 30)
            notes = folder / "annotation" / f"{number:04d}"
            for frame in range(frames):
                name = f"{frame + 1:04d}"
                _truth(
                    notes / "maps" / f"{name}.png",
                    notes / "fixation" / f"{name}.png",
                    gaze[frame],
                    DHF1K_SIZE,
                )
                _mat(
                    notes / "fixation" / "maps" / f"{name}.mat",
                    {"I": points(gaze[frame], DHF1K_SIZE) // 255},
                )


def _shot(
    folder: Path, names: list[str], size: tuple[int, int], entropy: list[int], matlab: bool
) -> None:
    """Write one folder of frames with `images`, `maps` and `fixation`."""
    rng = np.random.default_rng(entropy)
    world = scene(rng, size, max(len(names), 2), SLOW)
    gaze = _gaze(world, rng)
    for frame, name in enumerate(names):
        _picture(folder / "images" / f"{name}.png", render(world, frame, rng))
        _truth(
            folder / "maps" / f"{name}.png", folder / "fixation" / f"{name}.png", gaze[frame], size
        )
        if matlab:
            _mat(
                folder / "fixation" / "maps" / f"{name}.mat",
                {"I": points(gaze[frame], size) // 255},
            )


def hollywood2(folder: Path, seed: int, scale: float) -> None:
    """Write Hollywood-2: one folder per shot; frame numbers continue across the shots of a clip."""
    for part, (split, clips) in enumerate(HOLLYWOOD.items()):
        for number, (size, shots) in enumerate(clips[: max(1, round(scale * len(clips)))], 1):
            clip = f"actionclip{split.removesuffix('ing')}{number:05d}"
            first = 1
            for shot, frames in enumerate(shots, 1):
                names = [f"{clip}_{first + frame:05d}" for frame in range(frames)]
                _shot(
                    folder / split / f"{clip}_{shot}",
                    names,
                    size,
                    [seed, 2, part, number, shot],
                    True,
                )
                first += frames


def ucf_sports(folder: Path, seed: int, scale: float) -> None:
    """Write UCF-sports: one folder per clip, named with dashes; its frames with underscores."""
    for part, (split, clips) in enumerate(UCF.items()):
        for action, number, size, frames in clips[: max(1, round(scale * len(clips)))]:
            names = [f"{action}_{number:03d}_{frame + 1:03d}" for frame in range(frames)]
            _shot(
                folder / split / f"{action}-{number:03d}",
                names,
                size,
                [seed, 3, part, number],
                False,
            )


def refuse_if_taken(folder: Path) -> None:
    """Raise SalemaError unless `folder` is new or empty."""
    if folder.exists() and not folder.is_dir():
        raise SalemaError(f"not a folder: {folder} (choose another)")
    if folder.is_dir() and next(folder.iterdir(), None) is not None:
        raise SalemaError(f"the folder is not empty: {folder} (choose another)")
