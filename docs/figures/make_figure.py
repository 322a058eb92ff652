"""Draw the README's picture: frames of a clip with the maps of the starter weights.

    python docs/figures/make_figure.py one-by-one-person-detection.mp4

Each row is one moment: the frame, the maps without the memory, the maps with it. The memory
runs over the whole clip up to the last moment that is shown.
"""

import argparse
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import cv2
import numpy as np

import salema

TITLES = ("frame {}", "static network", "with the EMA (alpha 0.2)")
WIDTH, BAR, GAP = 420, 28, 6  # pixels


def main() -> None:
    """Read the clip, predict it twice, write one picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clip", type=Path, help="a video file")
    parser.add_argument("--frames", type=int, nargs="+", default=[184, 188], help="from 0")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("memory.jpg"))
    parsed = parser.parse_args()
    clip = np.stack(list(islice(frames(parsed.clip), max(parsed.frames) + 1)))
    static = salema.load(precision="fp32", alpha=1.0).predict(clip, size="model")
    memory = salema.load(precision="fp32").predict(clip, size="model")
    rows = []
    for number in parsed.frames:
        titles = [title.format(number) for title in TITLES]
        views = (clip[number], *(over(clip[number], maps[number]) for maps in (static, memory)))
        rows.append(np.hstack([titled(*pair) for pair in zip(views, titles, strict=True)]))
    cv2.imwrite(str(parsed.out), np.vstack(rows)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88])
    print(parsed.out)


def frames(path: Path) -> Iterator[np.ndarray]:
    """uint8 (H, W, 3) RGB frames of a video, WIDTH pixels wide."""
    video = cv2.VideoCapture(str(path))
    while (read := video.read())[0]:
        height = round(read[1].shape[0] * WIDTH / read[1].shape[1])
        yield cv2.resize(read[1], (WIDTH, height), interpolation=cv2.INTER_AREA)[..., ::-1]


def over(frame: np.ndarray, saliency: np.ndarray) -> np.ndarray:
    """The map, scaled to its own range, in colour over the frame."""
    saliency = cv2.resize(saliency, frame.shape[1::-1])
    saliency = (saliency - saliency.min()) / np.ptp(saliency)
    colour = cv2.applyColorMap(np.uint8(255 * saliency), cv2.COLORMAP_TURBO)[..., ::-1]
    weight = 0.75 * saliency[..., None]
    return np.uint8((1 - weight) * frame + weight * colour)


def titled(picture: np.ndarray, title: str) -> np.ndarray:
    """The picture with a white margin and its title above."""
    framed = cv2.copyMakeBorder(
        np.ascontiguousarray(picture), BAR, GAP, GAP, GAP, cv2.BORDER_CONSTANT, value=(255,) * 3
    )
    cv2.putText(framed, title, (GAP, 20), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (0,) * 3, 1, cv2.LINE_AA)
    return framed


if __name__ == "__main__":
    main()
