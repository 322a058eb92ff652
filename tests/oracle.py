"""The network as it is described, written out slowly: one frame at a time, fp32, NCHW.

Nothing is shared with the package: plain functions, a dictionary of weights under their
official numbers, a dictionary of settings. Torch gives the convolutions and OpenCV the
resizing by area; every other rule is written out here.
"""

import math

import cv2
import numpy as np
import torch
from torch.nn import functional as F

BLUE, GREEN, RED = 103.939, 116.779, 123.68
CONVOLUTIONS = {0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28,
                30, 32, 34, 37, 39, 41, 44, 46, 48, 51, 53, 56, 58}  # fmt: skip
POOLINGS = {4, 9, 16, 23}
UPSAMPLINGS = {36, 43, 50, 55}
TO_ONE_CHANNEL, SIGMOID = 60, 61


def gray_levels(weights, settings, frames, size, std=1.0, always=True):
    """The 8-bit maps of one video, as they would be saved.

    Args:
        weights: `layers.<i>.*`, `memories.<i>.*`, float32.
        settings: A placement: recurrence, after, alpha, rectified, residual, dropout, decode,
            short_side.
        frames: uint8 RGB pictures of any size.
        size: Rows and columns of the network.
        std: What the mean-subtracted input is divided by (1: as the authors do).
        always: False leaves dropout out although the settings ask for it.
    """
    memory, levels = {}, []
    for number, frame in enumerate(frames):
        x = prepared(frame, size, std)
        saliency = one_frame(weights, settings, x, memory, number, always)
        levels.append(eight_bits(saliency))
    return np.stack(levels)


def prepared(frame, size, std):
    rows, columns = size
    small = cv2.resize(frame, (columns, rows), interpolation=cv2.INTER_AREA)
    red, green, blue = small[:, :, 0], small[:, :, 1], small[:, :, 2]
    planes = [blue.astype(np.float32) - np.float32(BLUE),
              green.astype(np.float32) - np.float32(GREEN),
              red.astype(np.float32) - np.float32(RED)]  # fmt: skip
    return torch.from_numpy(np.stack(planes))[None] / std


def one_frame(weights, settings, x, memory, number, always):
    """One picture (1, 3, H, W) through the 62 layers; `memory` is changed in place."""
    for index in range(62):
        if index not in settings["after"]:
            x = layer(weights, index, x)
            continue
        dropped = settings["dropout"] == "always" and always
        if settings["recurrence"] == "ema":  # around the layer: its input is dropped and added
            encoded = x
            if dropped:
                x = x * dropout_mask(index, number, x.shape[1])
            x = moving_average(weights, settings, index, layer(weights, index, x), memory)
        else:  # behind the layer: its output is dropped and added
            encoded = x = layer(weights, index, x)
            if dropped:
                x = x * dropout_mask(index, number, x.shape[1])
            x = behind(weights, settings, index, x, memory)
        if settings["residual"]:
            x = encoded + x
    return x[0, 0].numpy()


def behind(weights, settings, index, x, memory):
    """A ConvLSTM or its control, on features or on maps."""
    if index == SIGMOID:
        return on_maps(weights, settings, index, x, memory)
    return one_step(weights, settings, f"memories.{index}", x, memory, index)


def one_step(weights, settings, name, x, memory, index):
    if settings["recurrence"] == "conv":
        return convolve(x, weights, f"{name}.conv", padding=1)
    return lstm(weights, settings, f"{name}.gates", x, memory, index)


def layer(weights, index, x):
    if index in CONVOLUTIONS:
        return convolve(x, weights, f"layers.{index}", padding=1)
    if index == TO_ONE_CHANNEL:
        return convolve(x, weights, f"layers.{index}", padding=0)
    if index in POOLINGS:
        quarters = [x[:, :, row::2, column::2] for row in (0, 1) for column in (0, 1)]
        return torch.stack(quarters).amax(0)
    if index in UPSAMPLINGS:
        return x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    if index == SIGMOID:
        return 1 / (1 + torch.exp(-x))
    return torch.where(x > 0, x, torch.zeros_like(x))


def convolve(x, weights, name, padding):
    return F.conv2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], padding=padding)


def dropout_mask(index, number, channels):
    """Ours, so that a run can be repeated: drawn from the numbers of layer and frame, doubled."""
    drawn = np.random.default_rng([7, index, number]).random(channels)
    return torch.tensor([2.0 if value < 0.5 else 0.0 for value in drawn]).view(1, channels, 1, 1)


def moving_average(weights, settings, index, x, memory):
    """s_1 = x_1; s_t = a x_t + (1 - a) s_{t-1}, or with relu(s_{t-1}) where it is rectified."""
    alpha = settings["alpha"]
    if settings.get("learned"):
        alpha = 1 / (1 + math.exp(-float(weights[f"memories.{index}.alpha_logit"])))
    if index in memory:
        last = memory[index]
        if settings["rectified"]:
            last = torch.where(last > 0, last, torch.zeros_like(last))
        x = alpha * x + (1 - alpha) * last
    memory[index] = x
    return x


def lstm(weights, settings, name, x, memory, index):
    """The cell (or the hidden state) after one more frame; both start at zero."""
    hidden_channels = weights[f"{name}.bias"].shape[0] // 4
    if index not in memory:
        zeros = torch.zeros(1, hidden_channels, *x.shape[2:])
        memory[index] = zeros, zeros
    cell, hidden = memory[index]
    gates = convolve(torch.cat([x, hidden], dim=1), weights, name, padding=1)
    enter = 1 / (1 + torch.exp(-gates[:, :hidden_channels]))
    forget = 1 / (1 + torch.exp(-gates[:, hidden_channels : 2 * hidden_channels]))
    out = 1 / (1 + torch.exp(-gates[:, 2 * hidden_channels : 3 * hidden_channels]))
    candidate = torch.tanh(gates[:, 3 * hidden_channels :])
    cell = forget * cell + enter * candidate
    hidden = out * torch.tanh(cell)
    memory[index] = cell, hidden
    return cell if settings["decode"] == "cell" else hidden


def on_maps(weights, settings, index, x, memory):
    """VideoSalGAN: the static map made small, ConvLSTM or conv, 1x1 to logits, made large."""
    rows, columns = x.shape[2:]
    short = settings["short_side"]
    if short is not None:
        ratio = short / min(rows, columns)
        x = by_area(x[0, 0], round(rows * ratio), round(columns * ratio))[None, None]
    decoded = one_step(weights, settings, f"memories.{index}.memory", x, memory, index)
    logits = convolve(decoded, weights, f"memories.{index}.project", padding=0)
    logits = F.interpolate(logits, (rows, columns), mode="bilinear", align_corners=False)
    return 1 / (1 + torch.exp(-logits))


def by_area(image, rows, columns):
    """Each small pixel is the mean of the large pixels that it touches."""
    return shares(rows, image.shape[0]) @ image @ shares(columns, image.shape[1]).T


def shares(small, large):
    """(small, large): how much of each large row belongs to each small one."""
    table = torch.zeros(small, large)
    for row in range(small):
        first, last = row * large // small, -(-(row + 1) * large // small)
        table[row, first:last] = 1 / (last - first)
    return table


def eight_bits(saliency):
    """Each frame stretched from its own least to its own greatest value; flat maps are black."""
    low, high = float(saliency.min()), float(saliency.max())
    if high == low:
        return np.zeros(saliency.shape, np.uint8)
    stretched = (saliency.astype(np.float64) - low) / (high - low)
    return np.rint(255 * stretched).astype(np.uint8)


def agree(ours, theirs):
    """Within one grey level everywhere, and the same in 99.9 % of the pixels."""
    assert ours.shape == theirs.shape
    apart = np.abs(ours.astype(int) - theirs)
    assert apart.max() <= 1
    assert (apart == 0).mean() >= 0.999


def video(count, size=(90, 150), seed=0):
    """A texture that slides, a block that crosses it, and a cut to another in the middle."""
    rng = np.random.default_rng(seed)
    scenes = []
    for _ in range(2):
        noise = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        smooth = cv2.GaussianBlur(noise, (0, 0), 3)
        scenes.append(cv2.normalize(smooth, None, 0, 255, cv2.NORM_MINMAX))
    frames = []
    for number in range(count):
        frame = np.roll(scenes[2 * number // count], 2 * number, axis=1)
        frame[20:40, 5 * number % (size[1] - 20) :][:, :20] = (250, 180, 10)
        frames.append(frame)
    return np.stack(frames)
