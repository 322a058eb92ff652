"""Maps of a run and of the observers, beside their frames; and what a memory does to them."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd

from salema import data as datasets
from salema.data import Clip
from salema.files import SalemaError
from salema.params import Params
from salema.report.tables import synthetic


def shows_frames(params: Params, local: bool) -> bool:
    """Whether a report may hold pictures: of the sample, or where git does not see it."""
    return local or synthetic(params)


def choose_clips(params: Params, dataset: str | None = None, count: int = 1) -> list[Clip]:
    """Clips of the evaluated split, evenly spread over their names.

    Args:
        params: The study.
        dataset: One of `params.data.evaluate`; None for the set that clips are trained on.
        count: At most so many.

    Raises:
        SalemaError: The set is not evaluated, or not there.
    """
    dataset = dataset or next(iter(params.data.finetune), "")
    if dataset not in params.data.evaluate:
        raise SalemaError(f"{dataset} is not evaluated (see data.evaluate in params.yaml)")
    clips = datasets.load(params.root, dataset, params.data.evaluate[dataset])
    places = np.linspace(0, len(clips), count, endpoint=False).astype(int)
    return [clips[place] for place in dict.fromkeys(places.tolist())]


def maps_of(params: Params, run: str, clip: Clip) -> Iterator[np.ndarray]:
    """The maps that a run made of a clip: float32 (h, w) in [0, 1], one a frame.

    Raises:
        SalemaError: There is none, or it is broken.
    """
    folder = params.run_folder(run) / "maps" / clip.dataset
    video, picture = folder / f"{clip.name}.mkv", folder / f"{clip.name}.png"
    if video.is_file():
        from salema.media import read

        yield from read.maps(video)
    elif picture.is_file():
        yield _picture(picture)
    else:
        raise SalemaError(f"no maps of {clip.name} by {run}: {video} (run `dvc repro` first)")


def _picture(path: Path) -> np.ndarray:
    import cv2

    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if image is None or image.ndim != 2:
        raise SalemaError(f"not a map: {path} (predict it again)")
    return image.astype(np.float32) / np.float32(np.iinfo(image.dtype).max)


def map_at(params: Params, run: str, clip: Clip, frame: int) -> np.ndarray:
    """One map of a run, (h, w).

    Raises:
        SalemaError: There is none, or the clip's maps end before this frame.
    """
    found = next(islice(maps_of(params, run, clip), frame, None), None)
    if found is None:
        raise SalemaError(f"{run} has no map of frame {frame} of {clip.name} (predict it again)")
    return found


def frame_at(clip: Clip, frame: int) -> np.ndarray:
    """One frame, uint8 (H, W, 3) RGB."""
    return next(clip.frames(frame, frame + 1))


def human_at(clip: Clip, frame: int) -> np.ndarray | None:
    """The observers' map of one frame; None where nobody looked."""
    truth = next(clip.maps(frame, frame + 1))
    return truth if truth is not None and truth.max() > 0 else None


def memory_frames(clip: Clip, count: int = 6) -> list[int]:
    """Frames of a clip that have a human map, evenly spread, the last ones among them.

    A clip of one frame gives that frame. The first frames are left out where there are
    more: a memory knows nothing yet.
    """
    places = np.linspace(0, clip.n_frames - 1, count + 1).round().astype(int)[1:]
    return [frame for frame in dict.fromkeys(places.tolist()) if human_at(clip, frame) is not None]


def telling_frame(clip: Clip) -> int:
    """A frame in the last third with a human map, or the nearest before it that has one."""
    start = (clip.n_frames - 1) * 2 // 3
    order = [*range(start, clip.n_frames), *range(start - 1, -1, -1)]
    return next((frame for frame in order if human_at(clip, frame) is not None), start)


def human_maps(clip: Clip, size: tuple[int, int]) -> Iterator[np.ndarray]:
    """The observers' map of every frame at a small size, (h, w); zeros where nobody looked."""
    import cv2

    if clip.points is not None:  # blurred at that size: a full one of a large video is slow
        for points in clip.fixations():
            yield datasets.blur(points, clip.size, datasets.sigma(clip.size), size)
        return
    for truth in clip.maps():
        truth = np.zeros(size, np.float32) if truth is None else truth
        yield cv2.resize(truth, size[::-1], interpolation=cv2.INTER_AREA)


def trace(maps: Iterator[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """A clip's maps (h, w) in [0, 1] as space over time, and how much they change.

    Returns:
        (w, T) mean over the rows of each map, and (T - 1,) mean absolute difference of
        consecutive maps.
    """
    profile, change, before = [], [], None
    for now in maps:
        profile.append(now.mean(0))
        if before is not None:
            change.append(float(np.abs(now - before).mean()))
        before = now
    return np.stack(profile, 1), np.array(change)


def flicker(params: Params, clips: list[Clip], runs: list[str]) -> pd.DataFrame:
    """How much maps change from frame to frame: a row a run, columns the clips and their mean.

    Clips of one frame are left out. The numbers are means of |difference| of consecutive
    maps in [0, 1]: 0 is a still map.
    """
    rows = {}
    moving = [clip for clip in clips if clip.n_frames > 1]
    for run in runs:
        means = [float(trace(maps_of(params, run, clip))[1].mean()) for clip in moving]
        rows[run] = dict(zip([clip.name for clip in moving], means, strict=True))
        rows[run]["mean"] = float(np.mean(means)) if means else 0.0
    return pd.DataFrame.from_dict(rows, orient="index").map("{:.4f}".format)
