"""Weights files -> models that are ready to predict: ours and the authors'."""

import hashlib
import json
from pathlib import Path

from salema.files import SalemaError, absent
from salema.model import weights
from salema.model.network import SaliencyModel
from salema.model.placements import named
from salema.model.weights import Card
from salema.params import Model, Placement
from salema.predict import authors
from salema.predict.predictor import Predictor


def build(
    placement: str | Placement = "ema30", width: float = 1.0, config: Model | None = None
) -> Predictor:
    """A model with random weights, in float32 on the CPU, with `width` times SalGAN's channels.

    `placement` may be a name (see `placements.named`); `config` is the whole static network's.
    """
    placement = named(placement) if isinstance(placement, str) else placement
    return Predictor(SaliencyModel(config or Model(width=width), placement), "cpu", "fp32")


def load(
    path: str | Path | None = None,
    device: str = "auto",
    precision: str = "auto",
    placement: str | Placement | None = None,
    alpha: float | None = None,
    sha256: str | None = None,
    static: str | Path | None = None,
) -> Predictor:
    """A model that is ready to predict.

    Args:
        path: A weights file of ours, or a checkpoint of the authors; None: the starter
            weights that come with the package.
        device: "auto", "cpu", "cuda", "cuda:1".
        precision: "auto" (bf16 where it is native), "fp32" or "bf16".
        placement: For the authors' files, which do not name it; or an untrained EMA to put
            into a static file of ours.
        alpha: Weight of the newest frame, for the authors' EMA files without one; or instead
            of the one in a file.
        sha256: The expected hash of the file.
        static: The file of the static network of a VideoSalGAN checkpoint, which holds none.
    """
    network, card = read(path, placement, alpha, sha256, static)
    return Predictor(network, device, precision, card=card)


def read(
    path: str | Path | None = None,
    placement: str | Placement | None = None,
    alpha: float | None = None,
    sha256: str | None = None,
    static: str | Path | None = None,
) -> tuple[SaliencyModel, Card]:
    """The network of `load` as it is stored, in float32 on the CPU, and its card."""
    if path is None and not weights.STARTER.exists():
        raise SalemaError("no starter weights are installed (pass --weights FILE)")
    path = Path(path or weights.STARTER)
    placement = named(placement) if isinstance(placement, str) else placement
    head = _head(path, sha256)
    if not head:
        raise SalemaError(f"empty file: {path} (download it again)")
    if head.lstrip()[:1] == b"<":
        raise SalemaError(f"a web page, not weights: {path} (download the file itself)")
    known, of_static = read(static, "static") if static is not None else (None, Card())
    if head[8:9] == b"{":  # safetensors: eight bytes of length, then JSON
        if known:
            raise SalemaError(authors.NO_STATIC.format(path))
        network, card = weights.read(path)
        return _placed(network, placement, alpha, path), card
    return authors.load(path, placement, alpha, known), Card(path.stem, of_static.seen)


def _head(path: Path, sha256: str | None) -> bytes:
    """The first bytes of a file whose hash is checked."""
    try:
        with path.open("rb") as file:
            head = file.read(512)
            file.seek(0)
            found = hashlib.file_digest(file, "sha256").hexdigest() if sha256 else None
    except OSError as error:
        raise SalemaError(f"cannot read {path}: {error.strerror} (check --weights)") from error
    if sha256 and found != sha256.strip().lower():
        raise SalemaError(f"sha256 of {path} is {found}, not {sha256} (download it again)")
    return head


def _placed(
    network: SaliencyModel, placement: Placement | None, alpha: float | None, path: Path
) -> SaliencyModel:
    """A network of ours with an EMA that it was not trained with, or with another alpha."""
    wanted = placement or network.placement
    if alpha is not None:
        if wanted.recurrence != "ema" or not 0 < alpha <= 1:
            raise SalemaError(f"--alpha {alpha} does not fit {path} (in (0, 1], for an EMA only)")
        wanted = wanted.model_copy(update={"alpha": alpha, "learned": False})
    if wanted.same_network(network.placement):
        return network
    of_static = network.placement.recurrence == "none" and wanted.recurrence == "ema"
    if not of_static and (wanted.recurrence, wanted.after) != ("ema", network.placement.after):
        raise SalemaError(f"{path} holds another placement (take its own, or another file)")
    placed = SaliencyModel(network.config, wanted)
    kept = {k: v for k, v in network.state_dict().items() if not k.endswith("alpha_logit")}
    placed.load_state_dict(kept, strict=False)
    return placed


def identity(predictor: Predictor) -> dict:
    """A hash of all that the maps of a model depend on, and the clips it was trained on."""
    config, placement = predictor.config.model_dump(), predictor.placement.model_dump()
    digest = hashlib.sha256(json.dumps([config, placement, predictor.precision]).encode())
    for name, tensor in predictor.network.state_dict().items():
        digest.update(name.encode() + tensor.float().cpu().numpy().tobytes())
    return {"model": digest.hexdigest(), "seen": predictor.card.seen}


def convert(
    old: Path,
    new: Path,
    placement: str | None = None,
    alpha: float | None = None,
    half: bool = False,
    static: Path | None = None,
    fps: float | None = None,
) -> Path:
    """Write an authors' checkpoint (or a file of ours) as a weights file of ours; returns it.

    With `fps`, the alpha of its EMA is for that frame rate (see `Predictor.at`).
    """
    absent(new)
    network, card = read(old, placement, alpha, static=static)
    if fps is not None:
        if network.placement.recurrence != "ema" or not fps > 0:
            raise SalemaError(f"--fps {fps} does not fit {old} (above 0, for an EMA only)")
        network.placement = network.placement.model_copy(update={"fps": fps})
    weights.save(network, new, card, half)
    return new
