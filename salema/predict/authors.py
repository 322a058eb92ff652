"""The original release's checkpoints -> our networks.

Their files hold neither the placement nor, mostly, the alpha: both must be given. Code in a
file is never run: `torch.load(weights_only=True)`.

Formats: SalGAN and SalBCE (`salgan.<i>.*`, or bare `<i>.*`), SalEMA (from April 2019 on with an
`alpha`, which is a logit), SalCLSTM30 (`Gates.*`), SalCLSTM56 (`Gates.*`, `final_convs.*`);
below `state_dict` or bare, with or without `module.`, with or without optimizer state.
"""

import re
import warnings
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
GATES_KEY = re.compile(r"(?:^|\.)Gates\.(weight|bias)$")
FINAL_KEY = re.compile(r"^final_convs\.(\d+)\.(weight|bias)$")
FINAL_LAYERS = (56, 58, 60)


def load(path: Path, placement: Placement | None, alpha: float | None) -> SaliencyModel:
    """Read one of the authors' checkpoints.

    Args:
        path: A `.pt` file.
        placement: The recurrence that it was trained with.
        alpha: Effective weight of the newest frame, where the file has none.

    Returns:
        A network in float32 on the CPU.
    """
    tensors = _tensors(path)
    if placement is None:
        raise SalemaError(
            f"the placement is not in {path} (pass --placement: static, ema30, clstm30, ...)"
        )
    ema = placement.recurrence == "ema"
    logit = tensors.pop("alpha", None) if ema else None
    state = _renamed(tensors, placement, path)
    first = state.get("layers.0.weight")
    if first is None or first.ndim != 4 or not 0 < len(first) <= 256:
        raise SalemaError(f"no first convolution in {path} (is it a SalGAN or SalEMA file?)")
    config = Model(width=len(first) / 64)
    with torch.device("meta"):  # names and shapes only
        expected = SaliencyModel(config, placement).state_dict()
    _check(state, {k: v for k, v in expected.items() if "alpha_logit" not in k}, path)
    if ema:
        placement = placement.model_copy(
            update={"alpha": _effective(logit, alpha, path), "learned": False}
        )
    elif alpha is not None:
        raise SalemaError("--alpha fits an EMA, and the placement has none (leave it out)")
    network = SaliencyModel(config, placement)
    network.load_state_dict(state, strict=False)
    if ema and placement.after == [30]:
        warnings.warn(LEAK_NOTE, stacklevel=3)
    return network


def _tensors(path: Path) -> dict[str, Tensor]:
    """The file's named tensors, without wrappers and optimizer state."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about old pickles; an error has all details
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a broken pickle may raise anything
        raise SalemaError(
            f"cannot read weights from {path} (it is broken, or holds code, which is never run)"
        ) from error
    if isinstance(loaded, dict) and isinstance(loaded.get("state_dict"), dict):
        loaded = loaded["state_dict"]
    if not isinstance(loaded, dict):
        raise SalemaError(f"no weights in {path} (a dictionary of tensors is expected)")
    tensors = {str(k).removeprefix("module."): v for k, v in loaded.items()}
    return {k: v for k, v in tensors.items() if isinstance(v, Tensor)}


def _renamed(tensors: dict[str, Tensor], placement: Placement, path: Path) -> dict[str, Tensor]:
    """The tensors under our keys; keys that are not of this placement stay as they are."""
    state, unknown = {}, []
    finals = sorted({int(match[1]) for match in map(FINAL_KEY.match, tensors) if match})
    for key, tensor in tensors.items():
        final, gates = FINAL_KEY.match(key), GATES_KEY.search(key)
        if match := STATIC_KEY.match(key):
            state.setdefault(f"layers.{match[1]}.{match[2]}", tensor)
        elif gates and placement.recurrence == "convlstm":
            state[f"memories.{placement.after[0]}.gates.{gates[1]}"] = tensor
        elif final and len(finals) == len(FINAL_LAYERS):
            state[f"layers.{FINAL_LAYERS[finals.index(int(final[1]))]}.{final[2]}"] = tensor
        elif final or gates or key == "alpha":
            state[key] = tensor
        else:
            unknown.append(repr(key))
    if unknown:
        raise SalemaError(
            f"unknown keys in {path}: {', '.join(unknown[:4])} (is it a SalGAN or SalEMA file?)"
        )
    return state


def _effective(logit: Tensor | None, alpha: float | None, path: Path) -> float:
    """The weight of the newest frame: of the file, or the given one."""
    if logit is not None:
        if alpha is not None:
            raise SalemaError(f"{path} has an alpha of its own (leave --alpha out)")
        # Differs: one number had two meanings; a file with an `alpha` key holds the logit.
        alpha = float(torch.sigmoid(logit.float().flatten()[0]))
    elif alpha is None:
        raise SalemaError(
            f"no alpha in {path} (pass --alpha, the weight of the newest frame; the authors' "
            "published rows used 0.1)"
        )
    if not 0 < alpha <= 1:
        raise SalemaError(f"--alpha must be in (0, 1], not {alpha} (0.1 is the published weight)")
    return alpha


def _check(state: dict[str, Tensor], expected: dict[str, Tensor], path: Path) -> None:
    """Raises SalemaError unless both have the same keys and shapes; it uses their names."""
    faults = {
        "lacks": [_theirs(key) for key in expected if key not in state],
        "has the unexpected": [_theirs(key) for key in state if key not in expected],
        "differs:": [
            f"{_theirs(key)} is {tuple(state[key].shape)}, not {tuple(expected[key].shape)}"
            for key in expected
            if key in state and state[key].shape != expected[key].shape
        ],
    }
    found = []
    for fault, keys in faults.items():
        more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
        found += [f"{fault} {', '.join(keys[:3])}{more}"] if keys else []
    if found:
        raise SalemaError(f"{path} does not fit: {'; '.join(found)} (try another --placement)")


def _theirs(key: str) -> str:
    """Our name of a tensor -> theirs."""
    return re.sub(r"^memories\.\d+\.gates", "Gates", key).replace("layers.", "salgan.")
