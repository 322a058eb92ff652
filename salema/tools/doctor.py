"""What this machine has, and what to mend: one line each, and never a traceback."""

import hashlib
import importlib
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Callable
from fractions import Fraction
from importlib import metadata
from pathlib import Path

import salema

OPENCVS = ("opencv-python", "opencv-python-headless", "opencv-contrib-python",
           "opencv-contrib-python-headless")  # fmt: skip


class Wrong(Exception):  # noqa: N818 - it is what a line says, not a failure of ours
    """Something to mend: what it is, and how."""

    def __init__(self, what: str, mend: str) -> None:
        super().__init__(what)
        self.mend = mend


def report() -> int:
    """Print a line for each thing; 0 if `salema predict` would work, else 1.

    Marks: `ok`; `no`, without which nothing can be predicted; `--`, missed by some
    commands only. What to do about it stands behind an arrow.
    """
    status = 0
    for needed, name, check in CHECKS:
        mark = "no" if needed else "--"
        try:
            mark, text = "ok", check()
        except Wrong as wrong:
            text = f"{wrong} -> {wrong.mend}"
        except Exception as error:  # a line is due whatever happens
            text = f"{type(error).__name__}: {error} -> reinstall it"
        if mark == "no":
            status = 1
        print(f"{mark}  {name:<12}  {' '.join(text.split())}")
    print("predict works" if status == 0 else "predict will not work: mend the lines marked `no`")
    return status


def _module(name: str, package: str) -> object:
    """The imported module, or what to install."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise Wrong("not installed", f"pip install {package}") from error


def _python() -> str:
    return f"{platform.python_version()}, {platform.system()} {platform.machine()}"


def _salema() -> str:
    return f"{salema.__version__} in {Path(salema.__file__).parent}"


def _torch() -> str:
    torch = _module("torch", "torch")
    build = f"for CUDA {torch.version.cuda}" if torch.version.cuda else "for the CPU"
    return f"{torch.__version__} {build}, threads: {torch.get_num_threads()}"


def _device() -> str:
    torch = _module("torch", "torch")
    if torch.cuda.is_available():
        return f"cuda, {torch.cuda.get_device_name()}"
    if shutil.which("nvidia-smi") and torch.version.cuda is None:
        raise Wrong("cpu, though there is an NVIDIA GPU", "install torch's build for CUDA")
    if shutil.which("nvidia-smi"):
        raise Wrong("cpu, as torch does not see the NVIDIA GPU", "update the GPU's driver")
    return "cpu"


def _precision() -> str:
    torch = _module("torch", "torch")
    from salema.model.network import pick_device, pick_precision

    device = pick_device("auto")
    chosen = pick_precision("auto", device)
    if device.type == "cuda":
        can = "multiplies" if chosen == "bf16" else "does not multiply"
        return f"{chosen}: this GPU {can} bf16 natively"
    units = {"AMX": torch.cpu._is_amx_tile_supported(),
             "AVX512-BF16": torch.cpu._is_avx512_bf16_supported()}  # fmt: skip
    found = " and ".join(name for name, there in units.items() if there)
    return f"{chosen}: this CPU has {found or 'neither AMX nor AVX512-BF16'}"


def _pyav() -> str:
    av = _module("av", "av")
    return f"{av.__version__} with FFmpeg {av.ffmpeg_version_info}"


def _encoder(name: str, pixels: str) -> Callable[[], str]:
    def check() -> str:
        av = _module("av", "av")
        import numpy as np

        mend = "pip install --force-reinstall av"
        try:
            codec = av.CodecContext.create(name, "w")
            codec.width = codec.height = 64
            codec.pix_fmt, codec.framerate, codec.time_base = pixels, 25, Fraction(1, 25)
            picture = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
            size = sum(packet.size for packet in codec.encode(picture) + codec.encode(None))
        except (av.error.FFmpegError, ValueError) as error:
            raise Wrong(
                f"no encoder {name} ({error})", "pip install --force-reinstall av"
            ) from error
        if not size:
            raise Wrong(f"{name} encodes nothing", mend)
        return f"{name} encodes"

    return check


def _opencv() -> str:
    found = [name for name in OPENCVS if _version(name)]
    try:
        cv2 = _module("cv2", "opencv-python-headless")
    except ImportError as error:
        if "libGL" in str(error) or "libgthread" in str(error):
            mend = "pip uninstall opencv-python, then pip install opencv-python-headless"
            raise Wrong(f"it wants a screen's library ({error})", mend) from error
        raise
    if len(found) > 1:
        mend = "uninstall all of them, then pip install opencv-python-headless"
        raise Wrong(f"{cv2.__version__}, twice: {', '.join(found)} overwrite each other", mend)
    window = "needs no libGL" if "headless" in "".join(found) else "needs libGL, and found it"
    return f"{cv2.__version__}, {window}"


def _torchvision() -> str:
    try:
        vision = _module("torchvision", "torchvision (only for ImageNet's weights)")
        importlib.import_module("torchvision.ops")
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
        mend = "install both from one index: both builds for the CPU, or both for the same CUDA"
        there = f"{_version('torchvision')} does not fit torch {_version('torch')}"
        raise Wrong(f"{there} ({error})", mend) from error
    return f"{vision.__version__}, and its operators load"


def _dvc() -> str:
    if version := _version("dvc"):
        return version
    raise Wrong("not installed, as only the study needs it", "pip install salema[study]")


def _git() -> str:
    if not shutil.which("git"):
        raise Wrong("not installed, as only the study needs it", "install git")
    return subprocess.run(["git", "--version"], capture_output=True, text=True).stdout.split()[2]


def _weights() -> str:
    path = Path(salema.__file__).parent / "model" / "starter.safetensors"
    if not path.exists():
        raise Wrong("no starter weights are installed", "pass --weights FILE to every command")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return f"{path.name}, {path.stat().st_size / 1e6:.1f} MB, sha256 {digest[:12]}"


def _predicts() -> str:
    import numpy as np

    from salema.files import SalemaError
    from salema.model.weights import load

    frames = np.random.default_rng(0).integers(0, 256, (4, 120, 160, 3), np.uint8)
    try:
        model = load()
    except SalemaError as error:
        what, _, mend = str(error).rpartition(" (")
        raise Wrong(f"not tried, {what}", mend.removesuffix(")")) from error
    model.predict(frames)
    begin = time.perf_counter()
    maps = model.predict(frames)
    seconds = (time.perf_counter() - begin) / len(frames)
    if not np.isfinite(maps).all():
        raise Wrong(f"maps with NaN in {model.precision}", "pass --precision fp32")
    return f"{1 / seconds:.1f} frames a second with the starter weights"


def _scratch() -> str:
    folder = Path(".salema")
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return f"{size / 1e9:.2f} GB in {folder}/ here, which may be deleted at any moment"


def _data() -> str:
    root = os.environ.get("SALEMA_DATA")
    if not root:
        what = "not set, as only the study's real data need it"
        raise Wrong(what, "set it to the folder that holds them")
    if not Path(root).is_dir():
        raise Wrong(f"{root} is no folder", "set it to the folder that holds the data sets")
    from salema.data import DATASETS

    found = [name for name in DATASETS if (Path(root) / name).is_dir()]
    if not found:
        raise Wrong(f"no data set in {root}", f"name its folders {', '.join(DATASETS)}")
    return f"{root} holds {', '.join(found)}"


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


CHECKS: tuple[tuple[bool, str, Callable[[], str]], ...] = (
    (True, "Python", _python),
    (True, "salema", _salema),
    (True, "torch", _torch),
    (False, "device", _device),
    (True, "precision", _precision),
    (True, "PyAV", _pyav),
    (False, "H.264", _encoder("libx264", "yuv420p")),
    (False, "FFV1", _encoder("ffv1", "gray16le")),
    (True, "OpenCV", _opencv),
    (True, "weights", _weights),
    (True, "a prediction", _predicts),
    (False, "torchvision", _torchvision),
    (False, "DVC", _dvc),
    (False, "git", _git),
    (False, "scratch", _scratch),
    (False, "SALEMA_DATA", _data),
)
