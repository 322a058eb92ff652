"""Weights files of ours: safetensors with one JSON key that describes them."""

import copy
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from salema.files import SalemaError, atomic
from salema.model.network import SaliencyModel
from salema.params import Model, Placement

FORMAT = 1
STARTER = Path(__file__).parent / "starter.safetensors"


@dataclass
class Card:
    """What a weights file holds next to its tensors and its configuration."""

    run: str = "unnamed"
    seen: dict[str, list[str]] = field(default_factory=dict)  # data set -> training clips
    params: dict = field(default_factory=dict)
    metrics: dict = field(default_factory=dict)


def read(path: str | Path) -> tuple[SaliencyModel, Card]:
    """A weights file of ours: the network in float32 on the CPU, and its card."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            described = json.loads((file.metadata() or {})["salema"])
            tensors = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
        if described.pop("format") > FORMAT:
            raise SalemaError(f"{path} was written by a newer salema (update this one)")
    except OSError as error:
        reason = error.strerror or "no such file"
        raise SalemaError(f"cannot read {path}: {reason} (check the path)") from error
    except SafetensorError as error:
        raise SalemaError(f"broken weights file: {path} (download or convert it again)") from error
    except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
        raise SalemaError(f"not a weights file of ours: {path} (see `salema convert`)") from error
    described.pop("commit", None)  # of files that were written before this version
    try:
        placement = Placement(**described.pop("placement"))
        network = SaliencyModel(Model(**described.pop("model")), placement)
        network.load_state_dict(tensors)
        return network, Card(**described)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise SalemaError(f"{path} does not fit its own description: {reason} (broken?)") from error


def save(network: SaliencyModel, path: str | Path, card: Card, half: bool = False) -> None:
    """Write a weights file, in fp16 if `half`; branches are folded in the file only."""
    from safetensors.torch import save_file

    plain = copy.deepcopy(network).cpu().float().fold()
    kind = torch.float16 if half else torch.float32
    tensors = {name: tensor.to(kind).contiguous() for name, tensor in plain.state_dict().items()}
    described = asdict(card) | {"format": FORMAT, "model": network.config.model_dump()}
    described["placement"] = network.placement.model_dump()
    with atomic(path) as part:
        # One key: with two, safetensors writes different bytes on every run.
        save_file(tensors, part, metadata={"salema": json.dumps(described, sort_keys=True)})
        part.chmod(0o644)  # safetensors makes it readable by its owner only
