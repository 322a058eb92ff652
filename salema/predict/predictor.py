"""Frames -> maps, in order and in constant memory; decoding runs ahead of the network."""

from collections.abc import Iterable, Iterator

import cv2
import numpy as np

from salema.media.threads import ahead
from salema.model.network import SaliencyModel, State

AHEAD_BYTES = 256 * 2**20  # of decoded frames that wait for the network
CUT = 0.5  # share of pixels that change their colour bin at a cut


def maps_of(
    model: SaliencyModel, frames: Iterable[np.ndarray], shot_reset: bool = False
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs of a frame (H, W, 3) and its float32 map at the model's size, in order.

    Decoding and resizing happen in a thread ahead of the network. With `shot_reset` the
    memory starts anew at every cut.
    """
    state: State | None = None
    for chunk, cut in _chunks(model, frames, shot_reset):
        state = None if cut else state
        maps, state = model.step(np.stack([small for _, small in chunk]), state)
        yield from ((frame, saliency) for (frame, _), saliency in zip(chunk, maps, strict=True))


def _chunks(
    model: SaliencyModel, frames: Iterable[np.ndarray], shot_reset: bool
) -> Iterator[tuple[list, bool]]:
    """Chunks of (frame, frame at the model's size), and whether a shot starts with one."""
    iterator = iter(frames)
    first = next(iterator, None)
    if first is None:
        return
    depth = max(2, min(2 * model.chunk, AHEAD_BYTES // first.nbytes))

    def fitted() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        yield first, model.fit(first)
        for frame in iterator:
            yield frame, model.fit(frame)

    chunk: list[tuple[np.ndarray, np.ndarray]] = []
    cut, before = True, None
    for frame, small in ahead(fitted(), depth):
        if shot_reset and before is not None and is_cut(before, small):
            if chunk:
                yield chunk, cut
            chunk, cut = [], True
        before = small
        chunk.append((frame, small))
        if len(chunk) == model.chunk:
            yield chunk, cut
            chunk, cut = [], False
    if chunk:
        yield chunk, cut


def is_cut(before: np.ndarray, after: np.ndarray) -> bool:
    """Whether two uint8 (H, W, 3) frames belong to different shots, by their colours.

    The histograms of 8x8x8 colours differ in more than half of the pixels.
    """
    ranges, bins = [0, 256] * 3, [8, 8, 8]
    first, second = (
        cv2.calcHist([frame], [0, 1, 2], None, bins, ranges) for frame in (before, after)
    )
    return float(np.abs(first - second).sum()) / 2 > CUT * before.shape[0] * before.shape[1]
