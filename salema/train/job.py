"""What determines a training: settings, clips, code, and the weights that it starts from."""

import hashlib
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from salema import data
from salema.files import SalemaError
from salema.model.network import SaliencyModel
from salema.params import Params, Training, Tune
from salema.train.features import FeatureCache
from salema.train.windows import Reader, clip_windows, image_windows

CODE = ("files.py", "params.py", "media", "data", "model", "train")  # what training depends on


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@dataclass(frozen=True)
class Job:
    """What determines one training: its settings, its clips, the weights it starts from."""

    params: Params
    run: str
    settings: Training
    clips: list[data.Clip]
    val: list[data.Clip]
    start: str | Path | None = None  # the weights file that training starts from
    seen: dict[str, list[str]] = field(default_factory=dict)  # clips that it was trained on
    frozen: SaliencyModel | None = None  # its encoder's features are read instead of frames
    order: str | None = None  # what the random numbers are drawn for; None: the run

    @cached_property
    def cache(self) -> data.FrameCache | FeatureCache:
        """Frames (or the frozen encoder's features) and maps of the clips at the model's size."""
        cache, settings = data.study_cache(tuple(self.params.model.size)), self.settings
        if self.frozen is None:
            return cache
        if settings.augment not in ("none", "flip") or getattr(settings, "half_epochs", 0):
            what = f"{self.run}: features of a frozen encoder are computed once"
            raise SalemaError(f"{what} (set augment: none or flip, and half_epochs: 0)")
        return FeatureCache(cache, self.frozen)

    def windows(self, epoch: int | None) -> Iterator[Reader]:
        """Functions that read the windows of an epoch, from 0; None is validation."""
        clips = self.val if epoch is None else self.clips
        drawn = zlib.crc32((self.order or self.run).encode())
        rng = np.random.default_rng([self.params.seed, drawn, epoch or 0])
        make = image_windows if isinstance(self.settings, Tune) else clip_windows
        return make(clips, self.cache, self.settings, rng, epoch)

    def described(self) -> dict:
        """The parameters of the run, for the card and the key."""
        shared = self.params.model_dump(include={"seed", "profile", "model"})
        placement = self.params.placements.get(self.run)  # its epochs are in the settings
        shared["placement"] = placement and placement.model_dump(exclude={"epochs"})
        return shared | {"settings": self.settings.model_dump()}

    def parts(self) -> dict:
        """Everything that determines the run, except for the number of epochs; files as hashes."""
        described = self.described()
        if self.settings.schedule != "one-cycle":  # each step of which depends on that number
            described["settings"].pop("epochs")
        both = [*self.clips, *self.val]
        clips = [(c.dataset, c.name, c.n_frames, self.cache.identity(c)) for c in both]
        clips = _digest(json.dumps(clips).encode())
        package = Path(__file__).parents[1]
        files = [p for n in CODE for p in sorted(package.glob(f"{n}/*.py")) or [package / n]]
        code = _digest(b"".join(path.read_bytes() for path in files))
        start = Path(self.start).read_bytes() if self.start else b""
        start = _digest(json.dumps([_digest(start), self.seen]).encode())
        return described | {"list of clips": clips, "code": code, "weights to start from": start}

    def key(self, parts: dict | None = None) -> str:
        """The name of the run with a hash of `parts`."""
        return f"{self.run}-{_digest(json.dumps(parts or self.parts()).encode())[:16]}"

    def all_seen(self) -> dict[str, list[str]]:
        """Data set -> names of the clips that the trained weights have seen, earlier or here."""
        names = {name: set(clips) for name, clips in self.seen.items()}
        for clip in self.clips:
            names.setdefault(clip.dataset, set()).add(clip.name)
        return {name: sorted(clips) for name, clips in names.items()}
