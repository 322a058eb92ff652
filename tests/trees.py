"""Tiny data sets in the official layouts, written into a test's own folder."""

from pathlib import Path

import cv2
import numpy as np

SIZE = (24, 32)  # (H, W) of every picture unless a test says otherwise


def picture(path: Path, value: int = 128, size: tuple[int, int] = SIZE) -> Path:
    """A grey picture of one value."""
    return array(path, np.full((*size, 3), value, np.uint8))


def array(path: Path, pixels: np.ndarray) -> Path:
    """Any pixels, RGB or grey."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _, data = cv2.imencode(path.suffix, pixels[..., ::-1] if pixels.ndim == 3 else pixels)
    path.write_bytes(data.tobytes())
    return path


def grey(path: Path, points: list[tuple[int, int]], size: tuple[int, int] = SIZE) -> Path:
    """A black picture with white pixels at x, y."""
    pixels = np.zeros(size, np.uint8)
    for x, y in points:
        pixels[y, x] = 255
    return array(path, pixels)


def video(path: Path, frames: int, fps: int = 25, size: tuple[int, int] = SIZE) -> Path:
    """A video whose frame k is grey of value 10 * k."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format="avi") as container:
        stream = container.add_stream("ffv1", rate=fps)
        stream.height, stream.width, stream.pix_fmt = *size, "bgr0"
        for index in range(frames):
            pixels = np.full((*size, 3), 10 * index, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def mat(path: Path, **variables: object) -> Path:
    """A MATLAB file up to v7."""
    from scipy.io import savemat

    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, variables)
    return path


def cells(shape: tuple[int, ...], values: list) -> np.ndarray:
    """A MATLAB cell array."""
    out = np.empty(shape, object)
    for index, value in zip(np.ndindex(*shape), values, strict=True):
        out[index] = value
    return out


def shot(folder: Path, names: list[str], kinds: tuple = ("images", "maps", "fixation")) -> Path:
    """One shot: a picture a name in each folder; frame k is grey 10 * k, fixated at (k, 0)."""
    for index, name in enumerate(names):
        if "images" in kinds:
            picture(folder / "images" / f"{name}.png", 10 * index)
        if "maps" in kinds:
            grey(folder / "maps" / f"{name}.png", [(index, 0)])
        if "fixation" in kinds:
            grey(folder / "fixation" / f"{name}.png", [(index, 0)])
    return folder


def dhf1k(root: Path, number: int, frames: int, truth: int | None = None) -> Path:
    """One clip: the official video, and ground truth for `truth` frames (None: for all)."""
    folder = root / "DHF1K"
    video(folder / "video" / f"{number:03d}.AVI", frames, fps=30)
    names = [f"{index + 1:04d}" for index in range(frames if truth is None else truth)]
    shot(folder / "annotation" / f"{number:04d}", names, ("maps", "fixation"))
    return folder


def salicon(root: Path, split: str, numbers: list[int], flat: bool = False) -> list[str]:
    """Images, maps and two observers: the first fixates the corners, the second nothing."""
    stems = [f"COCO_{split}2014_{number:012d}" for number in numbers]
    for stem in stems:
        part = "" if flat else split
        picture(root / "SALICON" / "images" / part / f"{stem}.jpg")
        if split != "test":
            grey(root / "SALICON" / "maps" / part / f"{stem}.png", [(3, 2)])
            path = root / "SALICON" / "fixations" / part / f"{stem}.mat"
            salicon_fixations(path, [[(1, 1), (32, 24)], []])
    return stems


def salicon_fixations(path: Path, observers: list[list], **more: object) -> Path:
    """A struct an observer, x, y from 1."""
    kinds = [(name, object) for name in ("location", "timestamp", "fixations")]
    gaze = np.zeros((len(observers), 1), kinds)
    for row, points in zip(gaze[:, 0], observers, strict=True):
        row["location"] = np.array([(5, 5), (6, 6)], np.uint16)
        row["timestamp"] = np.array([0, 10], np.uint16)
        row["fixations"] = np.array(points, np.uint8).reshape(-1, 2) if points else np.zeros((0, 0))
    return mat(path, image="x.jpg", gaze=gaze, **({"resolution": SIZE} | more))


def osie(root: Path, images: dict[int, list[list]], name: str = "OSIE") -> Path:
    """Number -> for each observer a list of x, y; `name` may be Crowd, of the same layout."""
    entries = []
    for number, observers in images.items():
        picture(root / name / "data" / "stimuli" / f"{number:03d}.jpg")
        subjects = [
            {"fix_x": [p[0] for p in points], "fix_y": [p[1] for p in points], "fix_duration": [9]}
            for points in observers
        ]
        subjects = cells((len(subjects), 1), subjects)
        entries.append({"img": f"{number:03d}.jpg", "subjects": subjects})
    path = root / name / "data" / "eye" / "fixations.mat"
    return mat(path, fixations=cells((len(entries), 1), entries))


def nusscene(root: Path, images: dict[int, list[list]]) -> Path:
    """Number -> for each observer a list of x, y."""
    rows = []
    for number, observers in images.items():
        picture(root / "NUSScene" / "data" / "stimuli" / f"{number:03d}.jpg")
        rows += [np.array([(y, x, 0.1, 0.2) for x, y in points]) for points in observers]
    path = root / "NUSScene" / "data" / "tidy" / "fixations.mat"
    return mat(path, fixations=cells((len(images), len(rows) // len(images)), rows))


def hevc33(root: Path, names: list[str], rows: list[tuple]) -> Path:
    """The table alone, as MATLAB writes it; rows: subject, video, ms, ms, x, y."""
    import h5py

    path = root / "HEVC33" / "video_database.mat"
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        top = file.create_group("video_database")
        top["fixdata"] = np.array(rows, float).reshape(-1, 6).T
        kind = h5py.special_dtype(ref=h5py.Reference)
        listed = top.create_dataset("video_names_list", (1, len(names)), kind)
        for index, name in enumerate(names):
            text = file.create_dataset(f"#refs#/{index}", data=[[ord(c)] for c in name])
            listed[0, index] = text.ref
    return path
