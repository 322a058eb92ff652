"""`params.yaml` -> frozen models, with one profile merged in and every key and range checked."""

import difflib
import math
import os
import re
from collections.abc import Collection
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from salema.files import SalemaError

_VIDEOS = ("HEVC33", "NTIRE26", "AViMoS")
DatasetName = Literal[
    "SALICON", "DHF1K", "Hollywood-2", "UCF-sports", "OSIE", "NUSScene", "Crowd", *_VIDEOS, "other"
]
ProtocolName = Literal["exact", "dhf1k", "salema2019", "hevc33-peer", "ntire26"]
Layer = Annotated[int, Field(ge=0, le=61)]
Positive = Annotated[int, Field(ge=1)]
# Of profiles, runs and placements: DVC passes them to a shell, and folders are called by them.
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]
Rate = Annotated[float, Field(gt=0)]
Thaw = Annotated[list[Layer], BeforeValidator(lambda value: value or [])]  # false in older files
LITE = ("efficientnet-lite0", "efficientnet-lite1", "efficientnet-lite2")
Optimizer = Literal["adam", "adamw", "sgd", "sgd-nesterov", "adagrad"]
# What a placement may have of its own instead of `finetune`'s.
RATES = {"learning_rate", "fresh_learning_rate", "optimizer", "epochs"}
TRAINING = RATES | {"start", "data", "thaw"}  # keys of a placement that do not change its network
MOST_TEXT = 100_000  # characters and parts of a params file
MOST_CELLS = 2**21  # pixels of the model's input


class Block(BaseModel):
    """One block of `params.yaml`. It is frozen, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Data(Block):
    """The data sets of each stage; `root` is the folder that holds one folder per set."""

    root: str | None = None
    tune: list[DatasetName] = []
    finetune: list[DatasetName] = []
    continued: list[DatasetName] = []  # those that rows with `data` may continue on
    evaluate: dict[DatasetName, Literal["train", "val", "test"]] = {}


class Model(Block):
    """The static network. `size` is (rows, columns); input is (BGR - mean) / `std`."""

    size: Annotated[list[Positive], Field(min_length=2, max_length=2)] = [192, 256]
    width: Annotated[float, Field(gt=0, le=4)] = 1.0
    std: Rate = 1.0
    encoder: Literal["random", "imagenet", *LITE] = "random"
    branches: bool = False

    @property
    def step(self) -> int:
        """The sides of `size` are multiples of this."""
        return 32 if self.encoder in LITE else 16

    @model_validator(mode="after")
    def _multiples(self) -> "Model":
        if math.prod(self.size) > MOST_CELLS:  # also of a hostile weights file
            raise ValueError(f"at most {MOST_CELLS} pixels, not {self.size}")
        if any(side % self.step for side in self.size):
            raise ValueError(f"sides must be multiples of {self.step} (halvings), not {self.size}")
        if self.encoder in LITE and not self.branches:
            raise ValueError(f"`encoder: {self.encoder}` trains with `branches: true`")
        return self


class Training(Block):
    """The settings that both training stages have."""

    epochs: Positive
    batch: Positive
    learning_rate: Rate
    optimizer: Optimizer = "adam"  # both kinds of sgd have a momentum of 0.9
    schedule: Literal["constant", "one-cycle", "plateau"] = "constant"
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    loss: Literal["bce", "bce-adversarial", "metrics"] = "bce"
    clip_norm: Rate | None = None
    average: Annotated[float, Field(ge=0, lt=1)] = 0.0  # decay of the weights' own average
    keep: Literal["last", "best"] = "last"  # the weights of which epoch; best: on validation
    precision: Literal["auto", "fp32", "bf16"] = "auto"


class Tune(Training):
    """A static network, trained on images and on single frames of videos."""

    augment: Literal["none", "flip", "salbce", "zoom"] = "none"
    train: Literal["decoder", "upper", "all"] = "all"  # upper: layers 17-61
    pool: Positive = 1  # average pooling of map and target before the BCE
    discriminator_learning_rate: Rate | None = None
    frames_per_clip: Positive = 12  # random frames of a video in each epoch
    half_epochs: Annotated[int, Field(ge=0)] = 0  # first epochs at half the size, 4 times as fast
    init: str | None = None  # a run of `tune` or a weights file to start from, of any size
    encoder_learning_rate: Rate | None = None  # of layers 0-29; None: learning_rate

    @model_validator(mode="after")
    def _one_size(self) -> "Tune":
        if self.half_epochs and self.loss == "bce-adversarial":
            raise ValueError("`half_epochs` does not fit the discriminator's fixed size")
        return self


class Finetune(Training):
    """A placement, trained on clips by truncated backpropagation through time."""

    loss: Literal["bce", "metrics"] = "bce"
    bptt_frames: Positive = 10
    frames_per_clip: Positive | None = None  # None: the whole clip
    alpha_learning_rate: Rate = 0.1
    fresh_learning_rate: Rate | None = None  # of a ConvLSTM and of `fresh` layers
    augment: Literal["none", "flip"] = "none"
    train: Literal["decoder", "all"] = "all"
    shuffle: bool = True  # the clips, in each epoch; false: in the order of their names


class Placement(Block):
    """The position and the behaviour of a recurrence: one row of the ablation table."""

    recurrence: Literal["none", "ema", "convlstm", "conv"]  # conv: a ConvLSTM's control, no memory
    after: list[Layer] = []
    alpha: Annotated[float, Field(gt=0, le=1)] | None = None
    fps: Rate | None = None  # the rate that alpha is for: its time constant holds at others, too
    learned: bool = False
    rectified: bool = False  # an EMA averages with the ReLU of its state
    residual: bool = False
    dropout: Literal["none", "train", "always"] = "none"
    zero: bool = False  # a convlstm or conv adds nothing at first: the network starts as it was
    decode: Literal["cell", "hidden"] = "cell"
    hidden: Positive | None = None  # channels of a convlstm or conv on maps, at width 1.0
    fresh: list[Layer] = []  # layers that start from random weights
    short_side: Positive | None = None  # a convlstm or conv on maps works at this size
    static: Literal["tuned", "frozen", "plain"] = "tuned"  # plain: nothing is trained
    thaw: Thaw = []  # first layer that trains from epoch 2, 3, ... on; before that, what is new
    # How it is trained; None: as `finetune` says.
    learning_rate: Rate | None = None
    fresh_learning_rate: Rate | None = None
    optimizer: Optimizer | None = None
    epochs: Positive | None = None
    # For rows of `continued`.
    start: Name = "static"  # the run whose weights it starts from
    data: DatasetName | None = None  # the set that it trains on; None: data.finetune

    @model_validator(mode="after")
    def _fits(self) -> "Placement":
        ema, convolves = self.recurrence == "ema", self.recurrence in ("convlstm", "conv")
        sized, rectified = self.hidden or self.short_side, self.rectified
        rules = [
            ((ema or convolves) != bool(self.after), "`after` belongs to ema, convlstm and conv"),
            (sorted(set(self.after)) != self.after, "`after` must be in ascending order"),
            (ema != (self.alpha is not None), "`alpha` belongs to recurrence: ema, which needs it"),
            (self.fps and not ema, "`fps` belongs to recurrence: ema"),
            (self.learned and not ema, "`learned` belongs to recurrence: ema"),
            (self.learned and self.alpha == 1, "`learned` needs an alpha below 1"),  # finite logit
            (rectified and not ema, "`rectified` belongs to recurrence: ema"),
            (rectified and self.residual, "`rectified` fits no residual, which keeps the state"),
            (sized and not convolves, "`hidden` and `short_side` belong to a convlstm or a conv"),
            (self.short_side and self.after != [61], "`short_side` needs after: [61], the maps"),
            (self.zero and not (convolves and self.residual), "`zero` needs a residual around it"),
            (self.thaw and self.static != "tuned", "`thaw` needs static: tuned"),
            (
                self.thaw and not (convolves or self.learned or self.fresh),
                "`thaw` needs something new, which trains from epoch 1",
            ),
            (sorted(set(self.thaw), reverse=True) != self.thaw, "`thaw` must be descending"),
        ]
        for broken, rule in rules:
            if broken:
                raise ValueError(rule)
        return self

    def same_network(self, other: "Placement") -> bool:
        """Whether two placements differ in nothing but in how they are trained."""
        return self.model_dump(exclude=TRAINING) == other.model_dump(exclude=TRAINING)


class Guards(Block):
    """How training is kept from being lost. The weights do not depend on it."""

    checkpoint_minutes: Rate = 10.0  # between checkpoints; also at the end of each epoch
    skip_fraction: Annotated[float, Field(ge=0, le=1)] = 0.01  # of windows that cannot be read


class Predict(Block):
    """How maps are predicted. The maps do not depend on `chunk`."""

    chunk: Positive = 16
    precision: Literal["auto", "fp32", "bf16"] = "auto"


class Evaluate(Block):
    """How maps are scored."""

    # The first protocol is the one that the report compares rows by.
    protocols: Annotated[list[ProtocolName], Field(min_length=1)] = ["exact"]
    every: Positive = 1
    resamples: Annotated[int, Field(ge=100)] = 10000


class Study(Block):
    """The two arms on clips that are cross-validated: `salema crossvalidate`.

    Static networks, one for each of `seeds`, are tuned on `images`. Arm A puts an average into them
    and trains nothing; arm B trains `rows` on all folds of `clips` but one.
    """

    images: list[DatasetName] = []
    clips: DatasetName | None = None
    model: Model = Model()
    static: Tune | None = None
    finetune: Finetune | None = None
    rates: Annotated[list[Rate], Field(min_length=1)] = [1.0e-4]  # tried for each row of arm B
    seeds: list[Annotated[int, Field(ge=0, lt=2**31)]] = []
    folds: Annotated[int, Field(ge=3)] = 5
    rows: list[Name] = []  # of `placements`, or of these
    placements: dict[Name, Placement] = {}
    taus: list[Rate] = []  # time constants of arm A's averages, in seconds
    after: list[Layer] = [61]  # and the layers that they are behind
    primary: Annotated[list[str], Field(max_length=3)] = []  # "<row> - <row>", decided beforehand
    margin: Rate = 0.1  # of equivalence, in NSS

    @model_validator(mode="after")
    def _complete(self) -> "Study":
        needs = [self.images, self.clips, self.static, self.finetune or not self.rows]
        if self.seeds and not all(needs):
            raise ValueError("with `seeds`, it needs images, clips, static, and finetune for rows")
        if odd := [text for text in self.primary if not re.fullmatch(r"\S+ [-=] \S+", text)]:
            raise ValueError(f"`primary` needs `<row> - <row>` or `<row> = <row>`; see {odd}")
        return self


class Params(Block):
    """A params file with its profile merged in. A file needs only the stages that it runs."""

    profile: Name
    runs: list[Name]
    baselines: list[Literal["chance", "centre-prior", "spectral-residual", "human"]] = []
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    data: Data
    model: Model
    tune: dict[Name, Tune] = {}
    finetune: Finetune | None = None  # with placements, never None
    placements: dict[Name, Placement] = {}  # `from_dict` adds the rows of `continued`
    continued: dict[Name, Placement] = {}
    guards: Guards = Guards()
    predict: Predict = Predict()
    evaluate: Evaluate = Evaluate()
    crossvalidate: Study = Study()

    @model_validator(mode="after")
    def _rows(self) -> "Params":
        rows = [*self.tune, *self.placements, *self.continued]
        if odd := sorted(n for n in {*rows, *self.runs} if rows.count(n) != self.runs.count(n)):
            names = "tune, placements and continued"
            raise ValueError(f"`runs` must list each name of {names} once; see {odd}")
        if odd := [name for name, settings in self.tune.items() if settings.init == name]:
            raise ValueError(f"`init` must be another run; see {odd}")
        if odd := [n for n, p in self.placements.items() if p.start != "static" or p.data]:
            raise ValueError(f"`start` and `data` belong to rows of continued; see {odd}")
        for name, row in self.continued.items():
            if "start" not in row.model_fields_set or row.start not in rows[: rows.index(name)]:
                raise ValueError(f"`start` of {name} must be a row above it, not {row.start!r}")
        return self

    @cached_property
    def root(self) -> Path:
        """The folder that holds the data sets: `data.root`, else `$SALEMA_DATA`."""
        root = self.data.root or os.environ.get("SALEMA_DATA")
        if not root:
            sets = dict.fromkeys([*self.data.tune, *self.data.finetune, *self.data.continued])
            needs = f"profile {self.profile} needs {', '.join(sets)}"
            raise SalemaError(f"{needs}, but no folder is named (set data.root or SALEMA_DATA)")
        return Path(root)

    def run_folder(self, run: str) -> Path:
        """The folder for the outputs of a run's stages."""
        return Path("runs") / self.profile / run

    def weights_file(self, run: str) -> Path:
        """The file of weights that a run's training writes."""
        return self.run_folder(run) / "weights.safetensors"

    @property
    def report_folder(self) -> Path:
        """The folder of this profile's report."""
        return Path("reports") / self.profile


BLOCKS = {"data": Data, "model": Model, "guards": Guards, "predict": Predict, "evaluate": Evaluate}
BLOCKS |= {"tune": Tune, "finetune": Finetune, "placements": Placement, "continued": Placement}
BLOCKS |= {"crossvalidate": Study}


def _merged(base: Any, over: Any) -> Any:
    if not (isinstance(base, dict) and isinstance(over, dict)):
        return over
    return base | {key: _merged(base.get(key), value) for key, value in over.items()}


def _one_line(error: ValidationError, path: Path) -> str:
    """The first problem of a file: its key, its value and how to fix it."""
    first = error.errors()[0]
    kind, where, value = first["type"], first["loc"], first["input"]
    key = ".".join(str(step) for step in where if step != "[key]")
    if kind == "extra_forbidden":
        block = BLOCKS[where[0]] if len(where) > 1 else Params
        fix = nearest(str(where[-1]), block.model_fields, "remove it")
        return f"unknown key {key} in {path} ({fix})"
    if kind == "missing":
        return f"missing key {key} in {path} (add it)"
    reason = first["msg"].removeprefix("Value error, ")
    if kind == "value_error":
        return f"bad value{f' of {key}' if key else ''} in {path} ({reason})"
    if kind == "literal_error":
        reason = nearest(str(value), first["ctx"]["expected"].split("'")[1::2])
    if isinstance(value, str) and kind.startswith("float"):
        reason += "; YAML reads 1e-7 as text, write 1.0e-7"
    return f"bad value {value!r:.100} of {key} in {path} ({reason})"


def from_dict(raw: dict, path: Path = Path("params.yaml"), profile: str | None = None) -> Params:
    """Merge a profile (None: the one that `raw` names) into the rest of a file and check it all.

    An error is one line with the key in `path`, its value and the nearest valid name.
    """
    if not isinstance(raw, dict) or not isinstance(raw.get("profiles"), dict):
        raise SalemaError(f"missing key profiles in {path} (add it)")
    profile, profiles = profile or raw.get("profile"), raw["profiles"]
    if not isinstance(profile, str) or profile not in profiles:
        names = ", ".join(map(str, profiles))
        raise SalemaError(f"unknown profile {profile!r} in {path} (choose one of {names})")
    if not isinstance(profiles[profile], dict):
        raise SalemaError(f"bad value of profiles.{profile} in {path} (it must be a mapping)")
    rest = {key: value for key, value in raw.items() if key != "profiles"}
    merged = _merged(rest, profiles[profile]) | {"profile": profile}
    if (merged.get("placements") or merged.get("continued")) and not merged.get("finetune"):
        raise SalemaError(f"missing key finetune in {path} (placements need it)")
    try:
        params = Params.model_validate(merged)
    except ValidationError as error:
        raise SalemaError(_one_line(error, path)) from error
    return params.model_copy(update={"placements": params.placements | params.continued})


def _loaded(text: str) -> Any:
    """The content of a YAML file of bounded length, depth and number of parts, aliases expanded."""
    loader, parts = yaml.SafeLoader(text), 0
    try:
        waiting = [root] if (root := loader.get_single_node()) else []
        while waiting:
            children, parts = waiting.pop().value, parts + 1
            if max(parts, len(text)) > MOST_TEXT:
                raise yaml.YAMLError("too long")
            if not isinstance(children, str):
                waiting += [n for c in children for n in (c if isinstance(c, tuple) else (c,))]
        return loader.construct_document(root) if root else None
    finally:
        loader.dispose()


def read(path: str | Path = "params.yaml", profile: str | None = None) -> Params:
    """Read a params file, with a profile of it (None: the one that the file names)."""
    path = Path(path)
    try:
        with path.open(encoding="utf-8") as file:
            raw = _loaded(file.read(MOST_TEXT + 1))
    except FileNotFoundError as error:
        raise SalemaError(f"no such file: {path} (run inside a clone, or pass --params)") from error
    except OSError as error:
        raise SalemaError(f"cannot read {path}: {error.strerror} (check --params)") from error
    except Exception as error:  # PyYAML raises whatever its constructors fail with
        line = getattr(getattr(error, "problem_mark", None), "line", 0) + 1
        raise SalemaError(f"not YAML: {path} (see line {line})") from error
    return from_dict(raw, path, profile)


def choose(name: str, names: Collection[str], what: str) -> str:
    """`name`, if it is among `names`; else a SalemaError that suggests the nearest of them."""
    if name in names:
        return name
    raise SalemaError(f"unknown {what} {name!r} ({nearest(name, names)})")


def nearest(name: str, names: Collection[str], otherwise: str = "") -> str:
    """Which of the names may have been meant, or all of them."""
    near = difflib.get_close_matches(name, names, n=1)
    otherwise = otherwise or f"choose one of {', '.join(names)}"
    return f"did you mean {near[0]}?" if near else otherwise
