"""The well-known placements by name, as the original called them."""

import re

from salema.files import SalemaError
from salema.params import Placement, nearest

# A suffix of a name changes one setting.
SUFFIXES = {None: {}, "dropout": {"dropout": "always"}, "residual": {"residual": True}}
SUFFIXES |= {"learned": {"learned": True, "alpha": 0.56}, "plain": {"static": "plain"}}
EMAS = ("ema7", "ema30", "ema30-dropout", "ema30-residual", "ema30-learned", "ema54", "ema61")
CLSTMS = ("clstm30", "clstm30-residual", "clstm56", "videosalgan", "videosalgan-conv")
NAMES = ("static", *EMAS, "ema7-54", *CLSTMS)  # the well-known ones
ENCODER = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)  # its convolutions


def named(name: str) -> Placement:
    """The placement that a name stands for, e.g. "static", "ema7-54" or "clstm56".

    "ema<L>" is an EMA behind layer L with an alpha of 0.1, "ema<L>-<M>" one behind each of two
    layers with 0.3, and a suffix changes one setting, as in "ema30-residual" (see `SUFFIXES`).

    An EMA behind a convolution of the encoder is `rectified`, as in the released code: the ReLU
    that follows works in place, on the state, unless there is a residual. The output of layer 54
    is never negative, so one flag is right for both EMAs of "ema7-54".
    """
    match name:
        case "static" | "static-video":
            return Placement(recurrence="none")
        case "clstm30" | "clstm30-residual":  # before layer 30
            residual = name.endswith("residual")
            return Placement(recurrence="convlstm", after=[29], residual=residual)
        case "clstm56":
            return Placement(recurrence="convlstm", after=[55], fresh=[56, 58, 60])
        case "videosalgan" | "videosalgan-conv":  # and its control
            kind = "conv" if name.endswith("conv") else "convlstm"
            size = {"hidden": 128, "short_side": 64}
            return Placement(recurrence=kind, after=[61], static="frozen", **size)
    ema = re.fullmatch(r"ema(\d+)(?:-(\d+))?(?:-([a-z]+))?", name)
    after = [int(layer) for layer in ema.groups()[:2] if layer] if ema else [62]
    if max(after) > 61 or sorted(set(after)) != after or ema[3] not in SUFFIXES:
        raise SalemaError(f"unknown placement {name!r} ({nearest(name, NAMES)})")
    settings = {"alpha": 0.1 if len(after) == 1 else 0.3, **SUFFIXES[ema[3]]}
    in_place = after[0] in ENCODER and after[-1] in (*ENCODER, 54)
    settings["rectified"] = in_place and "residual" not in settings
    return Placement(recurrence="ema", after=after, **settings)
