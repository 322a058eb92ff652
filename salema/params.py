"""`params.yaml` -> frozen models: the profile merged in, every key and range checked at once."""

import difflib
import os
import re
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from salema.files import SalemaError

DatasetName = Literal[
    "SALICON", "DHF1K", "Hollywood-2", "UCF-sports", "OSIE", "NUSScene", "HEVC33", "other"
]
Split = Literal["train", "val", "test"]
Layer = Annotated[int, Field(ge=0, le=61)]
Positive = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(gt=0, le=1)]


class Block(BaseModel):
    """One block of `params.yaml`: frozen, and a key it does not know is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Data(Block):
    """Which sets each stage reads; `root` holds one folder per set."""

    root: str | None = None
    tune: list[DatasetName] = []
    finetune: list[DatasetName] = []
    evaluate: dict[DatasetName, Split] = {}


class Model(Block):
    """The static network. `size` is (rows, columns); input is (BGR - mean) / `std`."""

    size: Annotated[list[Positive], Field(min_length=2, max_length=2)] = [192, 256]
    width: Annotated[float, Field(gt=0, le=4)] = 1.0
    std: Rate = 1.0
    encoder: Literal["random", "imagenet", "efficientnet-lite0"] = "random"
    branches: bool = False

    @property
    def step(self) -> int:
        """What each side is a multiple of."""
        return 32 if self.encoder == "efficientnet-lite0" else 16

    @model_validator(mode="after")
    def _multiples(self) -> "Model":
        if any(side % self.step for side in self.size):
            raise ValueError(f"sides must be multiples of {self.step} (halvings), not {self.size}")
        if self.encoder == "efficientnet-lite0" and not self.branches:
            raise ValueError("`encoder: efficientnet-lite0` trains with `branches: true`")
        return self


class Training(Block):
    """What both stages need: how long, how fast, on what loss."""

    epochs: Positive
    batch: Positive
    learning_rate: Rate
    optimizer: Literal["adam", "adamw", "sgd", "adagrad"] = "adam"
    schedule: Literal["constant", "one-cycle", "plateau"] = "constant"
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    loss: Literal["bce", "bce-adversarial", "metrics"] = "bce"
    clip_norm: Rate | None = None
    average: Annotated[float, Field(ge=0, lt=1)] = 0.0  # decay of the weights' own average
    precision: Literal["auto", "fp32", "bf16"] = "auto"


class Tune(Training):
    """A static network on images (and, with `clips`, on single frames of videos)."""

    augment: Literal["none", "flip", "salbce", "zoom"] = "none"
    train: Literal["decoder", "all"] = "all"
    pool: Positive = 1  # average pooling of map and target before the BCE
    discriminator_learning_rate: Rate | None = None
    frames_per_clip: Positive = 12  # random frames a video gives to an epoch
    half_epochs: Annotated[int, Field(ge=0)] = 0  # first epochs at half the size: 4x as fast
    init: str | None = None  # a weights file to start from, of any size
    encoder_learning_rate: Rate | None = None  # of layers 0-29, instead of learning_rate

    @model_validator(mode="after")
    def _one_size(self) -> "Tune":
        if self.half_epochs and self.loss == "bce-adversarial":
            raise ValueError("`half_epochs` does not fit the discriminator's fixed size")
        return self


class Finetune(Training):
    """A placement on clips, by truncated backpropagation through time."""

    loss: Literal["bce", "metrics"] = "bce"
    bptt_frames: Positive = 10
    frames_per_clip: Positive | None = None  # None: the whole clip
    alpha_learning_rate: Rate = 0.1
    fresh_learning_rate: Rate | None = None  # of what starts anew: a ConvLSTM, `fresh` layers
    fresh_learning_rates: dict[str, Rate] = {}  # placement -> its own instead of that
    augment: Literal["none", "flip"] = "none"


class Placement(Block):
    """Where a recurrence sits and how it behaves; one row of the ablation table."""

    recurrence: Literal["none", "ema", "convlstm"]
    after: list[Layer] = []
    alpha: Fraction | None = None
    learned: bool = False
    residual: bool = False
    dropout: Literal["none", "train", "always"] = "none"
    decode: Literal["cell", "hidden"] = "cell"
    hidden: Positive | None = None  # channels of a ConvLSTM on maps, at width 1.0
    fresh: list[Layer] = []  # layers that start anew
    short_side: Positive | None = None  # a ConvLSTM works at this size
    static: Literal["tuned", "frozen", "plain"] = "tuned"  # plain: nothing is trained
    thaw: bool = False  # gradually: recurrence, decoder, encoder
    learning_rate: Rate | None = None  # instead of finetune.learning_rate

    @model_validator(mode="after")
    def _fits(self) -> "Placement":
        if (self.recurrence == "none") != (not self.after):
            raise ValueError("`after` names the layers of a recurrence, and only of one")
        if sorted(set(self.after)) != self.after:
            raise ValueError(f"`after` must rise, not {self.after}")
        if (self.recurrence == "ema") != (self.alpha is not None):
            raise ValueError("`alpha` belongs to recurrence: ema, and only to it")
        if self.learned and self.recurrence != "ema":
            raise ValueError("`learned` belongs to recurrence: ema")
        if self.learned and self.alpha == 1:
            raise ValueError("with `learned`, alpha starts below 1 (1 has no finite logit)")
        if self.recurrence != "convlstm" and (self.hidden or self.short_side):
            raise ValueError("`hidden` and `short_side` belong to recurrence: convlstm")
        if self.short_side and self.after != [61]:
            raise ValueError("`short_side` belongs to a ConvLSTM on the maps, after: [61]")
        if self.thaw and self.static != "tuned":
            raise ValueError(f"`thaw` belongs to static: tuned, not to {self.static}")
        return self


NAMED = re.compile(r"ema(\d+)(?:-(\d+))?((?:-(?:dropout|residual|learned))*)")
OTHERS = {
    "static": {"recurrence": "none"},
    "clstm30": {"recurrence": "convlstm", "after": [29]},  # before layer 30
    "clstm56": {"recurrence": "convlstm", "after": [55], "fresh": [56, 58, 60]},
    "videosalgan": {"recurrence": "convlstm", "after": [61], "hidden": 128, "short_side": 64},
}


def named(name: str) -> Placement:
    """The placement with a well-known name, e.g. "static", "ema30-residual" or "clstm56".

    "ema<layer>" averages with an alpha of 0.1, "ema<layer>-<layer>" with 0.3. The suffixes are
    "-dropout" (always), "-residual" and "-learned" (which starts at an alpha of 0.56).
    """
    match = NAMED.fullmatch(name)
    after = [int(layer) for layer in match.groups()[:2] if layer] if match else []
    if after and after == sorted(set(after)) and after[-1] <= 61:
        suffixes = match[3].split("-")
        learned = "learned" in suffixes
        return Placement(
            recurrence="ema",
            after=after,
            alpha=0.56 if learned else 0.1 if len(after) == 1 else 0.3,
            learned=learned,
            residual="residual" in suffixes,
            dropout="always" if "dropout" in suffixes else "none",
        )
    return Placement(**OTHERS[choose(name, [*OTHERS, "ema30", "ema61", "ema7-54"], "placement")])


class Predict(Block):
    """How maps are made; the maps do not depend on `chunk`."""

    chunk: Positive = 16
    precision: Literal["auto", "fp32", "bf16"] = "auto"


class Evaluate(Block):
    """How maps are scored."""

    protocol: Literal["exact", "dhf1k", "salema2019", "hevc33-peer"] = "exact"
    every: Positive = 1
    resamples: Annotated[int, Field(ge=100)] = 10000


class Params(Block):
    """The whole of `params.yaml` with its profile merged in."""

    profile: str
    runs: list[str]
    baselines: list[Literal["chance", "centre-prior", "spectral-residual", "human"]]
    seed: int
    data: Data
    model: Model
    tune: dict[str, Tune]
    finetune: Finetune
    placements: dict[str, Placement]
    predict: Predict
    evaluate: Evaluate

    @model_validator(mode="after")
    def _rows(self) -> "Params":
        rows = [*self.tune, *self.placements]
        if sorted(rows) != sorted(self.runs):
            odd = sorted(n for n in {*rows, *self.runs} if rows.count(n) != self.runs.count(n))
            raise ValueError(f"`runs` must list every name of tune and placements once: see {odd}")
        for name in self.finetune.fresh_learning_rates:
            if name not in self.placements:
                raise ValueError(f"`fresh_learning_rates` names placements, {name} is none")
        return self

    @cached_property
    def root(self) -> Path:
        """The folder that holds the data sets: `data.root`, else `$SALEMA_DATA`."""
        root = self.data.root or os.environ.get("SALEMA_DATA")
        if not root:
            sets = ", ".join(dict.fromkeys([*self.data.tune, *self.data.finetune]))
            raise SalemaError(
                f"profile {self.profile} needs {sets}, and no folder is named "
                "(set data.root in params.yaml or SALEMA_DATA to the folder that holds them)"
            )
        return Path(root)

    def run_folder(self, run: str) -> Path:
        """Where the stages of a run leave what they made."""
        return Path("runs") / self.profile / run

    @property
    def report_folder(self) -> Path:
        """Where the report of this profile lies."""
        return Path("reports") / self.profile


def _merged(base: dict, over: dict) -> dict:
    both = dict(base)
    for key, value in over.items():
        nested = isinstance(value, dict) and isinstance(base.get(key), dict)
        both[key] = _merged(base[key], value) if nested else value
    return both


def _names_at(location: tuple) -> list[str]:
    """The keys that are valid beside the misspelt one at `location`."""
    model: Any = Params
    for step in location[:-1]:
        field = getattr(model, "model_fields", {}).get(step)
        if field is None:
            continue
        kinds = [field.annotation, *getattr(field.annotation, "__args__", ())]
        model = next((k for k in kinds if isinstance(k, type) and issubclass(k, Block)), model)
    return list(getattr(model, "model_fields", {}))


def _one_line(error: ValidationError, path: Path) -> str:
    first = error.errors()[0]
    key = ".".join(str(step) for step in first["loc"] if step != "[key]") or "runs"
    if first["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(first["loc"][-1]), _names_at(first["loc"]), n=1)
        mend = f"did you mean {near[0]}?" if near else "remove it"
        return f"unknown key {key} in {path} ({mend})"
    if first["type"] == "missing":
        return f"missing key {key} in {path} (add it)"
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "value_error":
        return f"bad value of {key} in {path} ({message})"
    hint = ""
    if first["type"] == "literal_error":
        message = _nearest(str(first["input"]), first["ctx"]["expected"].split("'")[1::2])
    if isinstance(first["input"], str) and first["type"].startswith("float"):
        hint = "; YAML reads 1e-7 as text, write 1.0e-7"
    return f"bad value {first['input']!r} of {key} in {path} ({message}{hint})"


def from_dict(raw: dict, path: Path = Path("params.yaml")) -> Params:
    """Merge the profile into the rest and check it all.

    Raises:
        SalemaError: A misspelt key, a wrong type, a value out of range, an unknown
            profile; one line that names the key, the value and the nearest valid name.
    """
    if not isinstance(raw, dict) or not isinstance(raw.get("profiles"), dict):
        raise SalemaError(f"missing key profiles in {path} (add it)")
    raw = dict(raw)
    profiles = raw.pop("profiles")
    profile = raw.get("profile")
    if not isinstance(profile, str) or profile not in profiles:
        names = ", ".join(map(str, profiles))
        raise SalemaError(f"unknown profile {profile!r} in {path} (choose one of {names})")
    if not isinstance(profiles[profile], dict):
        raise SalemaError(f"bad value of profiles.{profile} in {path} (it must hold keys)")
    try:
        return Params.model_validate(_merged(raw, profiles[profile]))
    except ValidationError as error:
        raise SalemaError(_one_line(error, path)) from error


def read(path: str | Path = "params.yaml") -> Params:
    """Read a params file.

    Raises:
        SalemaError: There is no such file, it is not YAML, or a key is wrong.
    """
    path = Path(path)
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise SalemaError(f"no such file: {path} (run inside a clone, or pass --params)") from error
    except OSError as error:
        raise SalemaError(f"cannot read {path}: {error.strerror} (check --params)") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        line = getattr(getattr(error, "problem_mark", None), "line", 0) + 1
        raise SalemaError(f"not YAML: {path} (see line {line})") from error
    return from_dict(raw, path)


def choose(name: str, names: object, what: str) -> str:
    """`name` if it is among `names`.

    Raises:
        SalemaError: It is not; the message names the nearest one that is.
    """
    names = [str(n) for n in names]  # type: ignore[attr-defined]
    if name in names:
        return name
    raise SalemaError(f"unknown {what} {name!r} ({_nearest(name, names)})")


def _nearest(name: str, names: list[str]) -> str:
    near = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {near[0]}?" if near else f"choose one of {', '.join(names)}"
