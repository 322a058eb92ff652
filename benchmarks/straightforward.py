"""The network as the released code runs it: frame by frame, fp32, NCHW, everything in memory."""

import copy
from pathlib import Path

import av
import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from salema.model.layers import MEAN_BGR, SIGMOID
from salema.predict.predictor import Predictor


class Straightforward:
    """The network of a predictor without shortcuts: every layer, one frame at a time."""

    def __init__(self, predictor: Predictor) -> None:
        self.size, self.std = predictor.config.size, predictor.config.std
        self.placement, self.device = predictor.placement, predictor.device
        self.layers, self.memories = (
            copy.deepcopy(part).to(self.device, memory_format=torch.contiguous_format).eval()
            for part in (predictor.network.layers, predictor.network.memories)
        )
        self.states: dict[int, tuple[Tensor, ...]] = {}

    @torch.inference_mode()
    def __call__(self, frame: np.ndarray) -> np.ndarray:
        """A uint8 (H, W, 3) RGB frame of any size -> its float32 map at the model's size."""
        small = cv2.resize(frame, self.size[::-1], interpolation=cv2.INTER_AREA)
        picture = small[:, :, ::-1].astype(np.float32) - np.array(MEAN_BGR, np.float32)
        x = torch.from_numpy(picture / self.std).permute(2, 0, 1).contiguous()[None].to(self.device)
        for index, layer in enumerate(self.layers):
            if index not in self.placement.after:
                x = layer(x)
                continue
            inside = self.placement.recurrence == "ema"  # or the ConvLSTM works on the output
            before = x = x if inside else layer(x)
            if self.placement.dropout == "always":
                x = F.dropout2d(x, 0.5)
            x = self._remember(index, layer(x) if inside else x)
            if self.placement.residual:
                x = x + before
        return x[0, 0].cpu().numpy()

    def _remember(self, index: int, x: Tensor) -> Tensor:
        memory = self.memories[str(index)]
        if self.placement.recurrence == "ema":
            if index in self.states:
                (last,) = self.states[index]
                last = last.relu() if memory.rectified else last
                x = memory.alpha * x + (1 - memory.alpha) * last
            self.states[index] = (x.clone(),)  # the next ReLU works in place
            return x
        if index != SIGMOID:
            return self._convolve(index, memory, x).clone()
        side = x.shape[-2:]
        if memory.short_side:
            small = [round(length * memory.short_side / min(side)) for length in side]
            x = F.interpolate(x, small, mode="area")
        x = memory.project(self._convolve(index, memory.memory, x))
        return torch.sigmoid(F.interpolate(x, side, mode="bilinear"))

    def _convolve(self, index: int, memory: nn.Module, x: Tensor) -> Tensor:
        if self.placement.recurrence == "conv":
            return memory.conv(x)
        return self._walk(index, memory.gates, x)

    def _walk(self, index: int, gates: nn.Conv2d, x: Tensor) -> Tensor:
        """One step of a ConvLSTM: a convolution of input and hidden state together."""
        zeros = x.new_zeros(1, gates.out_channels // 4, *x.shape[-2:])
        cell, hidden = self.states.get(index, (zeros, zeros))
        enter, forget, out, new = gates(torch.cat([x, hidden], 1)).chunk(4, 1)
        cell = torch.sigmoid(forget) * cell + torch.sigmoid(enter) * torch.tanh(new)
        hidden = torch.sigmoid(out) * torch.tanh(cell)
        self.states[index] = (cell, hidden)
        return cell if self.placement.decode == "cell" else hidden


def read_all(path: Path) -> list[np.ndarray]:
    """Every frame of a video, in memory."""
    with av.open(str(path)) as container:
        return [picture.to_ndarray(format="rgb24") for picture in container.decode(video=0)]


def _level(saliency: np.ndarray, frame: np.ndarray) -> np.ndarray:
    saliency = (saliency - saliency.min()) / max(saliency.max() - saliency.min(), 1e-12)
    return np.uint8(255 * cv2.resize(saliency, frame.shape[1::-1]))


def to_png(network: Straightforward, path: Path, folder: Path) -> None:
    """Read all frames, then predict one at a time and write its PNG."""
    folder.mkdir()
    for number, frame in enumerate(read_all(path), 1):
        cv2.imwrite(str(folder / f"{number:04d}.png"), _level(network(frame), frame))


def to_overlay(network: Straightforward, path: Path, out: Path) -> None:
    """The same with a coloured map over each frame, in H.264 with the settings that we use."""
    frames = read_all(path)
    with av.open(str(out), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt, stream.options = "yuv420p", {"preset": "superfast", "crf": "20"}
        for frame in frames:
            level = _level(network(frame), frame)
            color = cv2.applyColorMap(level, cv2.COLORMAP_TURBO)[:, :, ::-1].astype(np.float32)
            weight = 0.7 / 255 * level[:, :, None].astype(np.float32)
            blended = np.uint8((1 - weight) * frame + weight * color)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(blended, format="rgb24")))
        container.mux(stream.encode(None))
