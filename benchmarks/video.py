"""File to PNG and to overlay; time and memory as functions of the length of a video."""

import contextlib
import io
import json
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import cv2
import numpy as np
import torch

from benchmarks.network import Limits, gflop
from benchmarks.scale import Scale, random_network, scenes, starter
from benchmarks.straightforward import Straightforward, to_overlay, to_png
from benchmarks.timing import Row, row, take_turns
from salema.media import read
from salema.model.network import SaliencyModel
from salema.predict.predictor import Predictor
from salema.predict.sources import Output, predict_sources

GROWTH = {"width": 0.125, "size": [96, 128]}  # of the network that predicts long videos


def write_video(path: Path, frames: int, size: tuple[int, int]) -> Path:
    """An H.264 video of scenes."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        (stream.height, stream.width), stream.pix_fmt = size, "yuv420p"
        stream.options = {"preset": "ultrafast"}
        for frame in scenes(frames, size):
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return path


def predict(predictor: Predictor, source: Path, output: Output) -> None:
    """What `salema predict` does, without its output."""
    with contextlib.redirect_stdout(io.StringIO()):
        if predict_sources(predictor, [str(source)], output):
            raise RuntimeError(f"{source} was not predicted to its end")


def files(scale: Scale, device: torch.device, limits: Limits, folder: Path) -> Iterator[Row]:
    """Full width, and the starter weights (or a random network of their width)."""
    if scale.full_width_file:
        network = random_network("ema30", scale.width, scale.size)
        name = f"ema30, width {scale.width:g}"
        yield from _file(name, network, scale.full_width_file, 8, scale, device, limits, folder)
    network, name = starter(scale), "starter weights"
    if network is None:
        network = random_network("ema61", scale.narrow, scale.size)
        name = f"ema61, width {scale.narrow:g}"
    yield from _file(name, network, scale.narrow_file, 24, scale, device, limits, folder)


def _file(
    name: str,
    network: SaliencyModel,
    count: int,
    few: int,
    scale: Scale,
    device: torch.device,
    limits: Limits,
    folder: Path,
) -> Iterator[Row]:
    """The network alone over the frames of a file, and the whole of `salema predict`."""
    work = gflop(network)
    predictor = Predictor(network, device.type)
    limit = limits.of(predictor, work)
    simple, few = Straightforward(predictor), min(few, count)
    long = write_video(folder / "long.mp4", count, scale.source)
    short = write_video(folder / "short.mp4", few, scale.source)
    png, overlay = folder / "png", folder / "overlay.mp4"
    fitted = np.stack([predictor.fit(frame.image) for frame in read.open(str(long))])

    def again(call: Callable[[], object]) -> Callable[[], None]:
        def clean() -> None:
            shutil.rmtree(png, ignore_errors=True)
            overlay.unlink(missing_ok=True)
            call()

        return clean

    def alone() -> None:
        predictor.reset()
        for start in range(0, count, predictor.chunk):
            predictor.step(fitted[start : start + predictor.chunk])

    calls = {
        "network alone": alone,
        "file to PNG": again(lambda: predict(predictor, long, Output(png))),
        "file to overlay": again(lambda: predict(predictor, long, Output(overlay=overlay))),
        "straightforward, PNG": again(lambda: to_png(simple, short, png)),
        "straightforward, overlay": again(lambda: to_overlay(simple, short, overlay)),
    }
    seconds = take_turns(calls, scale.file_rounds)
    section = f"a file of {scale.source[1]}x{scale.source[0]}: {name}, {predictor.precision}"
    yield row(section, "network alone", seconds["network alone"], count, limit=limit)
    for kind in ("PNG", "overlay"):
        base = [value / few for value in seconds[f"straightforward, {kind}"]]
        yield row(section, f"straightforward, {kind}", base, 1, base)
        both = seconds[f"file to {kind}"], seconds["network alone"]
        share = float(np.median([a / b for a, b in zip(*both, strict=True)]))
        rate = count / float(np.median(both[0]))
        note = f"{share:.2f} x the network's time, {rate:.1f} frames/s"
        yield row(section, f"file to {kind}", both[0], count, base, limit, note=note)


def growth(scale: Scale, folder: Path) -> Iterator[Row]:
    """Time and peak memory as functions of the length, each length in a separate process."""
    section = "length of a video: file to PNG, width 0.125, 96x128 (ratio: to the first)"
    first = None
    for count in scale.lengths:
        video = write_video(folder / f"{count}.mp4", count, scale.source)
        command = [sys.executable, "-m", "benchmarks.video", str(video), str(folder / str(count))]
        root = Path(__file__).parent.parent
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
        result = json.loads(done.stdout)
        each, memory = 1e3 * result["seconds"] / count, result["peak_bytes"] / 2**20
        first = first or (each, memory)
        yield Row(section, f"time, {count:,} frames", "ms/frame", each, each, each, first[0] / each)
        note = f"{memory / first[1]:.3f} times the first"
        what = f"peak memory, {count:,} frames"
        yield Row(section, what, "MiB", memory, memory, memory, note=note)
        video.unlink()


def peak_bytes() -> int:
    """The peak memory of this process."""
    with contextlib.suppress(OSError):  # ru_maxrss also counts the parent, from before `exec`
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return 1024 * int(line.split()[1])
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _one_length(source: Path, out: Path) -> None:
    cv2.setNumThreads(1)
    predictor = Predictor(random_network("ema30", GROWTH["width"], GROWTH["size"]))
    _ = predictor.prepared  # outside the time
    start = time.perf_counter()
    predict(predictor, source, Output(out, size="model"))
    seconds = time.perf_counter() - start
    shutil.rmtree(out)
    print(json.dumps({"seconds": seconds, "peak_bytes": peak_bytes()}))


if __name__ == "__main__":
    _one_length(Path(sys.argv[1]), Path(sys.argv[2]))
