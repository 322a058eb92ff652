"""Weights files: safetensors with one JSON key that says what they are and what they saw."""

import copy
import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from salema.files import SalemaError, atomic
from salema.model.network import PLACEMENTS, SaliencyModel
from salema.params import Model, Placement, choose
from salema.predict import authors

FORMAT = 1
STARTER = Path(__file__).parent / "starter.safetensors"


@dataclass
class Card:
    """What a weights file says of itself, beside its configuration."""

    run: str = "unnamed"
    seen: dict[str, list[str]] = field(default_factory=dict)  # data set -> training clips
    params: dict = field(default_factory=dict)
    metrics: dict = field(default_factory=dict)


def build(
    placement: str | Placement = "ema30", width: float = 1.0, config: Model | None = None
) -> SaliencyModel:
    """A model with random weights.

    Args:
        placement: A name (see `salema.model.network.PLACEMENTS`) or a `Placement`.
        width: Times SalGAN's channels.
        config: The whole configuration of the static network, instead of `width`.

    Raises:
        SalemaError: No placement has this name.
    """
    if isinstance(placement, str):
        placement = PLACEMENTS[choose(placement, PLACEMENTS, "placement")]
    return SaliencyModel(config or Model(width=width), placement).eval()


def load(
    path: str | Path | None = None,
    device: str = "auto",
    precision: str = "auto",
    placement: str | Placement | None = None,
    alpha: float | None = None,
    sha256: str | None = None,
) -> SaliencyModel:
    """A model ready to predict.

    Args:
        path: A weights file of ours, or a checkpoint of the authors; None: the starter
            weights that come with the package.
        device: "auto", "cpu", "cuda", "cuda:1".
        precision: "auto" (bf16 where it is native), "fp32" or "bf16".
        placement: For the authors' files, which do not tell; or an EMA to put, untrained,
            into a static file of ours.
        alpha: Weight of the newest frame, for the authors' EMA files without one; or to be
            used instead of ours.
        sha256: What the file must hash to.

    Raises:
        SalemaError: There is no such file, it is not a weights file, it does not fit, its
            hash is another, or the device is not there.
    """
    return read(path, placement, alpha, sha256).prepare(device, precision)


def read(
    path: str | Path | None = None,
    placement: str | Placement | None = None,
    alpha: float | None = None,
    sha256: str | None = None,
) -> SaliencyModel:
    """Like `load`, but as stored: fp32 on the CPU, for training or conversion."""
    if path is None and not STARTER.exists():
        raise SalemaError("no starter weights are installed (pass --weights FILE)")
    path = Path(path or STARTER)
    if isinstance(placement, str):
        placement = PLACEMENTS[choose(placement, PLACEMENTS, "placement")]
    try:
        with path.open("rb") as file:
            head = file.read(512)
            if sha256:
                file.seek(0)
                _check_hash(hashlib.file_digest(file, "sha256").hexdigest(), sha256, path)
    except OSError as error:
        raise SalemaError(f"cannot read {path}: {error.strerror} (check --weights)") from error
    if not head:
        raise SalemaError(f"empty file: {path} (download it again)")
    if head.lstrip()[:1] == b"<":
        raise SalemaError(f"a web page, not weights: {path} (download the file itself)")
    if head[8:9] == b"{":  # safetensors: eight bytes of length, then JSON
        return _placed(_read_ours(path), placement, alpha, path)
    return authors.load(path, placement, alpha)


def read_ours(path: Path) -> tuple[SaliencyModel, Card]:
    """The network of a file of ours and its card."""
    model = read(path)
    return model, model.card


def _placed(
    model: SaliencyModel, placement: Placement | None, alpha: float | None, path: Path
) -> SaliencyModel:
    """A model of ours with an EMA that it was not trained with, or with another alpha.

    Raises:
        SalemaError: The file has a recurrence of another kind or place, or alpha is not one.
    """
    wanted = placement or model.placement
    if alpha is not None:
        if wanted.recurrence != "ema" or not 0 < alpha <= 1:
            raise SalemaError(f"--alpha {alpha} does not fit {path} (in (0, 1], for an EMA only)")
        wanted = wanted.model_copy(update={"alpha": alpha, "learned": False})
    if wanted == model.placement:
        return model
    of_static = model.placement.recurrence == "none" and wanted.recurrence == "ema"
    if not of_static and (wanted.recurrence, wanted.after) != ("ema", model.placement.after):
        raise SalemaError(f"{path} holds another placement (leave --placement out)")
    placed = SaliencyModel(model.config, wanted)
    placed.load_state_dict(
        {k: v for k, v in model.state_dict().items() if not k.endswith("alpha_logit")},
        strict=False,
    )
    placed.card = model.card
    return placed


def _check_hash(found: str, wanted: str, path: Path) -> None:
    if found != wanted.strip().lower():
        raise SalemaError(f"sha256 of {path} is {found}, not {wanted} (download it again)")


def _read_ours(path: Path) -> SaliencyModel:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            described = json.loads((file.metadata() or {})["salema"])
            tensors = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
        newer = described.pop("format") > FORMAT
        described.pop("commit", None)  # in files of earlier versions
    except SafetensorError as error:
        raise SalemaError(f"broken weights file: {path} (download or convert it again)") from error
    except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
        raise SalemaError(f"not a weights file of ours: {path} (see `salema convert`)") from error
    if newer:
        raise SalemaError(f"{path} was written by a newer salema (update this one)")
    try:
        placement = Placement(**described.pop("placement"))
        model = SaliencyModel(Model(**described.pop("model")), placement)
        model.load_state_dict(tensors)
        model.card = Card(**described)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise SalemaError(f"{path} does not fit its own description: {reason} (broken?)") from error
    return model


def identity(model: SaliencyModel) -> dict:
    """What tells this model from another: a hash of all that its maps depend on; and `seen`."""
    config, placement = model.config.model_dump(), model.placement.model_dump()
    digest = hashlib.sha256(json.dumps([config, placement, model.precision]).encode())
    for name, tensor in model.state_dict().items():
        digest.update(name.encode() + tensor.float().cpu().numpy().tobytes())
    return {"model": digest.hexdigest(), "seen": getattr(model, "card", Card()).seen}


def save(model: SaliencyModel, path: str | Path, card: Card, half: bool = False) -> None:
    """Write a weights file, whole or not at all.

    Args:
        model: Its branches are folded into the copy that is written.
        path: The file, `.safetensors`.
        card: What the file says of itself.
        half: Store fp16, half the size.

    Raises:
        SalemaError: It cannot be written.
    """
    from safetensors.torch import save_file

    plain = copy.deepcopy(model).cpu().float().fold()
    kind = torch.float16 if half else torch.float32
    tensors = {name: tensor.to(kind).contiguous() for name, tensor in plain.state_dict().items()}
    described = {"format": FORMAT, "model": model.config.model_dump(),
                 "placement": model.placement.model_dump(), **asdict(card)}  # fmt: skip
    with atomic(path) as part:
        # One key: with two, safetensors writes different bytes on every run.
        save_file(tensors, part, metadata={"salema": json.dumps(described, sort_keys=True)})
        part.chmod(0o644)  # safetensors makes it readable by its owner only


def convert(
    old: str | Path,
    new: str | Path,
    placement: str | None = None,
    alpha: float | None = None,
    half: bool = False,
) -> SaliencyModel:
    """Write an authors' checkpoint (or a file of ours) as a weights file of ours.

    Raises:
        SalemaError: See `load`; or `new` exists.
    """  # fmt: skip
    if Path(new).exists():
        raise SalemaError(f"{new} exists (choose another name, or remove it yourself)")
    model = read(old, placement, alpha)
    card = getattr(model, "card", Card(run=Path(old).stem))
    save(model, new, card, half)
    return model
