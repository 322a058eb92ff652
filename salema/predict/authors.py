"""The original release's checkpoints -> our models.

Their files hold neither the placement nor, mostly, the alpha: both must be given. Nothing in
them is ever executed: `torch.load(weights_only=True)`.

Formats: SalGAN and SalBCE (`salgan.<i>.*`, or bare `<i>.*`), SalEMA (with an `alpha` that is a
logit, where it was learned, or without), SalCLSTM30 (`Gates.*`), SalCLSTM56 (`Gates.*`,
`final_convs.*`), VideoSalGAN (`Gates.*`, `conv1x1.*`) and its control (`conv.*`, `conv1x1.*`),
both without a static network; with or without `state_dict`, `module.` and optimizer state.
"""

import re
import warnings
import zipfile
from pathlib import Path

import torch
from torch import Tensor

from salema.files import SalemaError
from salema.model.network import SaliencyModel
from salema.params import Model, Placement

LEAK_NOTE = (
    "note: the released SalEMA30 may have been trained on DHF1K's validation videos (601-700): "
    "its scores on them prove nothing"
)
STATIC_KEY = re.compile(r"^(?:salgan\.|layers\.)?(\d+)\.(weight|bias)$")
MEMORY_KEY = re.compile(r"(?:^|\.)(Gates|conv|conv1x1)\.(weight|bias)$")
FINAL_KEY = re.compile(r"^final_convs\.(\d+)\.(weight|bias)$")
FINAL_LAYERS = (56, 58, 60)
NO_STATIC = "--static is for a checkpoint of VideoSalGAN, and {} is none (leave it out)"


def load(
    path: str | Path,
    placement: Placement | None,
    alpha: float | None,
    static: SaliencyModel | None = None,
) -> SaliencyModel:
    """One of the authors' `.pt` files as a model in float32 on the CPU.

    `placement` is that of its training (None is an error); `alpha` is the weight of the newest
    frame in an EMA (None: the file's own); `static` is for a VideoSalGAN file, which holds none.
    """
    path = Path(path)
    tensors = _tensors(path)
    if placement is None:
        what = f"the placement is not in {path}"
        raise SalemaError(f"{what} (pass --placement: static, ema30, clstm30, videosalgan, ...)")
    state, logit = _renamed(tensors, placement, path)
    config, placement = _configured(state, placement, static, path)
    with torch.device("meta"):  # names and shapes only
        expected = SaliencyModel(config, placement).state_dict()
    _check(state, {k: v for k, v in expected.items() if "alpha_logit" not in k}, path)
    if placement.recurrence == "ema":
        placement = _with_alpha(placement, logit, alpha, path)
    elif alpha is not None:
        raise SalemaError("--alpha fits an EMA, and the placement has none (leave it out)")
    model = SaliencyModel(config, placement)
    model.load_state_dict(state, strict=False)
    if placement.recurrence == "ema" and placement.after == [30]:
        warnings.warn(LEAK_NOTE, stacklevel=3)
    return model


def _configured(
    state: dict[str, Tensor], placement: Placement, static: SaliencyModel | None, path: Path
) -> tuple[Model, Placement]:
    """Configuration and placement with the file's widths; the layers of `static` join `state`."""
    first, project = state.get("layers.0.weight"), state.get("memories.61.project.weight")
    if first is None and (project is not None or "conv1x1.weight" in state):
        if project is None or static is None:
            fix = "pass --placement videosalgan or videosalgan-conv, and --static FILE"
            raise SalemaError(f"{path} is VideoSalGAN's and holds no static network ({fix})")
        state |= {k: v for k, v in static.state_dict().items() if k.startswith("layers.")}
        hidden = max(1, round(project.numel() / static.config.width))  # at width 1.0
        return static.config, placement.model_copy(update={"hidden": hidden})
    if static is not None:
        raise SalemaError(NO_STATIC.format(path))
    if first is None or first.ndim != 4 or not 0 < len(first) <= 256:
        raise SalemaError(f"no first convolution in {path} (is it a SalGAN or SalEMA file?)")
    return Model(width=len(first) / 64), placement


def _tensors(path: Path) -> dict[str, Tensor]:
    """The file's named tensors, without wrappers and optimizer state."""
    try:
        if zipfile.is_zipfile(path):  # torch stores its tensors as they are
            with zipfile.ZipFile(path) as parts:
                if sum(p.file_size for p in parts.infolist()) > 2 * path.stat().st_size + 2**20:
                    raise ValueError("compressed, and much larger than the file")
        with warnings.catch_warnings(action="ignore"):  # of old pickles; an error says all
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a broken pickle may raise anything
        what = f"cannot read weights from {path}"
        raise SalemaError(f"{what} (it is broken, or holds code, which is never run)") from error
    if isinstance(loaded, dict) and isinstance(loaded.get("state_dict"), dict):
        loaded = loaded["state_dict"]
    if not isinstance(loaded, dict):
        raise SalemaError(f"no weights in {path} (a dictionary of tensors is expected)")
    tensors = {str(k).removeprefix("module."): v for k, v in loaded.items()}
    return {k: v for k, v in tensors.items() if isinstance(v, Tensor)}


def _renamed(
    tensors: dict[str, Tensor], placement: Placement, path: Path
) -> tuple[dict[str, Tensor], Tensor | None]:
    """Their keys -> ours, and the logit of alpha where there is one."""
    state, unknown, logit = {}, [], None
    names = {"Gates": "gates"} if placement.recurrence == "convlstm" else {}
    if placement.after == [61] and placement.recurrence != "ema":
        names = {"Gates": "memory.gates", "conv": "memory.conv", "conv1x1": "project"}
    finals = sorted({int(m[1]) for m in map(FINAL_KEY.match, tensors) if m})
    for key, tensor in tensors.items():
        if key == "alpha" and placement.recurrence == "ema" and tensor.numel() == 1:
            logit = tensor
        elif match := STATIC_KEY.match(key):
            state.setdefault(f"layers.{match[1]}.{match[2]}", tensor)
        elif (match := MEMORY_KEY.search(key)) and match[1] in names:
            state[f"memories.{placement.after[0]}.{names[match[1]]}.{match[2]}"] = tensor
        elif (match := FINAL_KEY.match(key)) and len(finals) == len(FINAL_LAYERS):
            layer = FINAL_LAYERS[finals.index(int(match[1]))]
            state[f"layers.{layer}.{match[2]}"] = tensor
        elif key == "alpha" or MEMORY_KEY.search(key) or FINAL_KEY.match(key):
            state[key] = tensor  # theirs, but not of this placement: `_check` names it
        else:
            unknown.append(repr(key))
    if unknown:
        what = f"unknown keys in {path}: {', '.join(unknown[:4])}"
        raise SalemaError(f"{what} (is it a SalGAN or SalEMA file?)")
    return state, logit


def _with_alpha(
    placement: Placement, logit: Tensor | None, alpha: float | None, path: Path
) -> Placement:
    # Differs: one number had two meanings; a file with an `alpha` key holds the logit.
    own = None if logit is None else float(torch.sigmoid(logit.float()))
    if alpha is None and own is None:
        values = "0.1 in the published rows; since April 2019 `-alpha=0.1` means 0.525"
        values = values if len(placement.after) == 1 else "0.3, as published"  # never a logit
        raise SalemaError(f"no alpha in {path} (pass --alpha, the newest frame's weight: {values})")
    if alpha is not None and own is not None:
        warnings.warn(f"note: alpha is {alpha:g}; {path} has its own, {own:.4g}", stacklevel=4)
    alpha = own if alpha is None else alpha
    if not 0 < alpha <= 1:
        raise SalemaError(f"--alpha must be in (0, 1], not {alpha} (0.1 is the published weight)")
    return placement.model_copy(update={"alpha": alpha, "learned": False})


def _check(state: dict[str, Tensor], expected: dict[str, Tensor], path: Path) -> None:
    faults: dict[str, list[str]] = {"lacks": [], "has the unexpected": [], "differs:": []}
    for key in expected | state:
        name = re.sub(r"^memories\.\d+\.(memory\.)?", "", key).replace("layers.", "salgan.")
        name = name.replace("gates.", "Gates.").replace("project.", "conv1x1.")
        if key not in state:
            faults["lacks"].append(name)
        elif key not in expected:
            faults["has the unexpected"].append(name)
        elif state[key].shape != expected[key].shape:
            shapes = f"{tuple(state[key].shape)}, not {tuple(expected[key].shape)}"
            faults["differs:"].append(f"{name} is {shapes}")
    told = []
    for what, names in faults.items():
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        told += [f"{what} {', '.join(names[:3])}{more}"] if names else []
    if told:
        raise SalemaError(f"{path} does not fit: {'; '.join(told)} (try another --placement)")
