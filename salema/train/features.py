"""The features of a frozen encoder, computed once: decoder and memory then train in a minute."""

import copy
import hashlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch

from salema.data import Clip, FrameCache
from salema.files import SalemaError, atomic
from salema.model.device import pick_device, pick_precision
from salema.model.network import SaliencyModel

BATCH = 16  # frames that go through the encoder together


class FeatureCache:
    """As `FrameCache`, with the features of a network's frozen encoder in place of frames.

    Features are float16 (T, h, w, C), computed in the precision that the device has ("auto") and
    stored next to the cached frames. Any file of them may be deleted at any moment.
    """

    dtype = np.dtype(np.float16)

    def __init__(self, cache: FrameCache, network: SaliencyModel) -> None:
        self.cache, self.size = cache, cache.size
        self.device = pick_device("auto")
        self.mixed = pick_precision("auto", self.device) == "bf16"
        self.network = copy.deepcopy(network).fold().eval().requires_grad_(False)
        self.network.to(self.device).to(memory_format=torch.channels_last)
        encoder = self.network.layers[0]
        digest = hashlib.sha256(f"{network.config.std} {self.mixed}".encode())
        for name, tensor in encoder.state_dict().items():
            if not name.startswith("mix."):
                digest.update(tensor.cpu().numpy().tobytes())
        self.encoder, self.key = encoder, digest.hexdigest()[:12]
        channels = encoder.mix.convolution.in_channels
        self.row = (*(side // 16 for side in self.size), channels)  # of one frame
        self.maps, self.fixations, self.identity = cache.maps, cache.fixations, cache.identity
        self._open: dict[Path, np.ndarray] = {}

    def frames(self, clip: Clip, mirrored: bool = False) -> np.ndarray:
        """The features of a clip's frames, or of its frames mirrored."""
        name = f"{'mirrored' if mirrored else 'features'}.{self.size[0]}x{self.size[1]}"
        name = f"{name}.{self.identity(clip).split()[0]:.16}.{self.key}.npy"
        path = self.cache.folder / clip.dataset / clip.name / name
        if path not in self._open:
            with suppress(OSError, ValueError):
                self._open[path] = np.load(path, mmap_mode="r")
        if path not in self._open:
            self._write(path, clip, mirrored)
            self._open[path] = np.load(path, mmap_mode="r")
        return self._open[path]

    def _write(self, path: Path, clip: Clip, mirrored: bool) -> None:
        frames = self.cache.frames(clip)
        if len(frames) < clip.n_frames:
            ends = f"{clip.dataset} {clip.name} ends after {len(frames)} of {clip.n_frames} frames"
            raise SalemaError(f"{ends} (copy it again; `salema index --check` shows more)")
        with atomic(path) as part, part.open("wb") as file:
            header = {"descr": "<f2", "fortran_order": False, "shape": (clip.n_frames, *self.row)}
            np.lib.format.write_array_header_1_0(file, header)
            for features in self._computed(frames, mirrored):
                file.write(features.tobytes())

    @torch.inference_mode()
    def _computed(self, frames: np.ndarray, mirrored: bool) -> Iterator[np.ndarray]:
        for start in range(0, len(frames), BATCH):
            batch = np.asarray(frames[start : start + BATCH])[:, :, :: -1 if mirrored else 1]
            images = self.network.normalise(torch.from_numpy(batch.copy()).to(self.device))
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.mixed):
                features = self.encoder.features(images)
            yield features.permute(0, 2, 3, 1).to(torch.float16).cpu().numpy()
