"""What this machine has and what to fix: one line for each check, and never a traceback."""

import hashlib
import os
import platform
import shutil
import time
from importlib import import_module, metadata
from pathlib import Path

import salema
from salema.files import SCRATCH, SalemaError

OPENCV = "opencv-python-headless"
OPENCVS = ("opencv-python", OPENCV, "opencv-contrib-python", "opencv-contrib-python-headless")


def report() -> int:
    """Print a line for each check; returns 0 if `salema predict` would work, else 1.

    Marks: `ok`; `no`: nothing can be predicted without it; `--`: only some commands need it.
    """
    system = f"{platform.python_version()}, {platform.system()} {platform.machine()}"
    print(f"ok  Python   {system}, salema {salema.__version__} in {Path(salema.__file__).parent}")
    status = 0
    for name, check in (NEEDED | OTHERS).items():
        mark = "no" if name in NEEDED else "--"
        try:
            mark, text = "ok", check()
        except SalemaError as error:  # with status 1, only some commands need it
            mark = mark if error.status == 2 else "--"
            text = " -> ".join(str(error).removesuffix(")").rsplit(" (", 1))
        except ModuleNotFoundError as error:
            module = str(error.name).partition(".")[0]
            package = OPENCV if module == "cv2" else module
            text = f"{module} is not installed -> pip install {package}"
        except Exception as error:  # the other checks still run, whatever happens
            text = f"{type(error).__name__}: {error} -> reinstall it"
        status = 1 if mark == "no" else status
        print(f"{mark}  {name:<7}  {' '.join(text.split())}")
    print("predict works" if status == 0 else "predict will not work: fix the lines marked `no`")
    return status


def _torch() -> str:
    torch = import_module("torch")
    from salema.model.device import pick_device, pick_precision

    device = pick_device("auto")
    precision = pick_precision("auto", device)
    chosen = f"{torch.__version__}, {torch.get_num_threads()} threads, {device} in {precision}"
    if torch.cuda.is_available():
        return f"{chosen}, {torch.cuda.get_device_name()}"
    if shutil.which("nvidia-smi"):
        fix = "update the GPU's driver" if torch.version.cuda else "install torch's build for CUDA"
        raise SalemaError(f"{chosen}, as torch does not see the NVIDIA GPU ({fix})", status=1)
    return f"{chosen}{'' if precision == 'bf16' else ', without AMX or AVX512-BF16'}"


def _video() -> str:
    av = import_module("av")
    for name in ("libx264", "ffv1"):
        try:
            av.CodecContext.create(name, "w")
        except (av.error.FFmpegError, ValueError) as error:
            what = f"no encoder {name}, {error}"
            raise SalemaError(f"{what} (pip install --force-reinstall av)", status=1) from error
    return f"PyAV {av.__version__}, FFmpeg {av.ffmpeg_version_info}, encoders of H.264 and FFV1"


def _opencv() -> str:
    found = [name for name in OPENCVS if name in _versions()]
    fix = f"pip uninstall {' '.join(found)}, then pip install {OPENCV}"
    if len(found) > 1:
        raise SalemaError(f"{' and '.join(found)} overwrite each other ({fix})")
    try:
        return import_module("cv2").__version__
    except ImportError as error:
        if "libGL" in str(error) or "libgthread" in str(error):
            raise SalemaError(f"it needs the library of a screen, {error} ({fix})") from error
        raise


def _weights() -> str:
    import numpy as np

    from salema.model.weights import STARTER

    model = salema.load()
    frames = np.random.default_rng(0).integers(0, 256, (4, 120, 160, 3), np.uint8)
    model.predict(frames)
    begin = time.perf_counter()
    maps = model.predict(frames)
    rate = len(frames) / (time.perf_counter() - begin)
    if not np.isfinite(maps).all():
        raise SalemaError(f"maps with NaN in {model.precision} (pass --precision fp32)")
    data = STARTER.read_bytes()
    digest = hashlib.sha256(data).hexdigest()[:12]
    return f"{STARTER.name}, {len(data) / 1e6:.1f} MB, sha256 {digest}, {rate:.1f} frames a second"


def _study() -> str:
    versions = _versions()
    both = f"torchvision {versions.get('torchvision')}, torch {versions.get('torch')}"
    try:
        import_module("torchvision.ops")
    except RuntimeError as error:
        fix = "install both from one index, for the CPU or for the same CUDA"
        raise SalemaError(f"{both} do not fit, {error} ({fix})") from error
    if "dvc" not in versions:
        raise SalemaError("DVC is not installed (pip install salema[study])")
    if not shutil.which("git"):
        raise SalemaError("git is not installed (install git)")
    return f"{both}, DVC {versions['dvc']}, git"


def _data() -> str:
    from salema.data import DATASETS

    size = sum(path.stat().st_size for path in SCRATCH.rglob("*") if path.is_file())
    scratch = f"{size / 1e9:.2f} GB in {SCRATCH}/, which may be deleted"
    root = os.environ.get("SALEMA_DATA")
    if found := [name for name in DATASETS if root and (Path(root) / name).is_dir()]:
        return f"{root} holds {', '.join(found)}; {scratch}"
    what = f"no data set in SALEMA_DATA, {root}" if root else "SALEMA_DATA is not set"
    raise SalemaError(f"{what}; {scratch} (set it to the folder of {', '.join(DATASETS)})")


def _versions() -> dict[str, str]:
    return {package.name: package.version for package in metadata.distributions()}


# Name -> check, which returns its findings or raises: for predictions, and for some commands.
NEEDED = {"torch": _torch, "video": _video, "OpenCV": _opencv, "weights": _weights}
OTHERS = {"study": _study, "data": _data}
