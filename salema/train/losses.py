"""Losses: BCE, BCE with an adversary (SalGAN), or metrics of saliency maps.

Source: Pan et al., arXiv 1701.01081 (SalGAN) for the first two.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from salema.params import Training, Tune


def frame_losses(maps: Tensor, targets: Tensor, settings: Training) -> tuple[Tensor, Tensor]:
    """The loss of each frame (B, T), and a weight (B, T): 0 where it does not count, else 1.

    Maps and targets are (B, T, H, W) in [0, 1]; a frame without gaze is 0 everywhere, and
    `loss: metrics` does not count it. The adversarial training validates with this BCE.
    """
    shape, maps, targets = maps.shape[:2], maps.flatten(0, 1), targets.flatten(0, 1)
    counted = torch.ones_like(maps[:, 0, 0])
    if settings.loss == "metrics":
        gaze = targets.flatten(1).sum(1) > 0
        losses, counted = torch.zeros_like(counted), gaze.to(maps.dtype)
        losses[gaze] = metric_losses(maps[gaze], targets[gaze])
    else:
        pool = settings.pool if isinstance(settings, Tune) else 1
        losses = pooled_bce(maps, targets, pool, "none").flatten(1).mean(1)
    return losses.view(shape), counted.view(shape)


def metric_losses(maps: Tensor, targets: Tensor) -> Tensor:
    """KLD - CC / 2 - NSS / 10 of (N, H, W) maps and targets that have gaze -> (N,).

    The NSS weights pixels by the blurred gaze.
    """
    p, q = maps.flatten(1) + 1e-7, targets.flatten(1)
    p, q = p / p.sum(1, keepdim=True), q / q.sum(1, keepdim=True)
    kld = (q * (torch.log(q + 1e-9) - torch.log(p))).sum(1)
    # In units of the mean, and with a floor: a constant map has a CC and NSS of 0 and a gradient.
    centred, wanted = p * p.shape[1] - 1, q * q.shape[1] - 1
    spread, spread_q = ((x.square().mean(1) + 1e-6).sqrt() for x in (centred, wanted))
    cc = (centred * wanted).mean(1) / (spread * spread_q)
    nss = (centred * q).sum(1) / spread
    return kld - cc / 2 - nss / 10


def pooled_bce(maps: Tensor, targets: Tensor, pool: int, reduction: str = "mean") -> Tensor:
    """BCE of maps and targets (N, H, W) in [0, 1] after average pooling."""
    if pool > 1:
        maps, targets = F.avg_pool2d(maps, pool), F.avg_pool2d(targets, pool)
    return F.binary_cross_entropy(maps, targets, reduction=reduction)


class Discriminator(nn.Module):
    """SalGAN's discriminator of real and predicted maps; `size` is in multiples of 16.

    Source: the training code of SalGAN (2017).
    """

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(4, 3, 1), nn.ReLU(inplace=True)]
        before = 3
        for index, (channels, pool) in enumerate(((32, 4), (64, 1), (64, 2), (64, 1), (64, 2))):
            convolution = nn.Conv2d(before, channels, 3, padding=1)
            if index > 2:  # the last two
                convolution = nn.utils.parametrizations.weight_norm(convolution)
            layers += [convolution, nn.ReLU(inplace=True)]
            layers += [nn.MaxPool2d(pool)] if pool > 1 else []
            before = channels
        self.features = nn.Sequential(*layers)
        first = nn.Linear(64 * (size[0] // 16) * (size[1] // 16), 100)
        last = [nn.Linear(100, 2), nn.Tanh(), nn.Linear(2, 1), nn.Sigmoid()]
        self.head = nn.Sequential(nn.Flatten(), first, nn.Tanh(), *last)

    def forward(self, maps: Tensor, images: Tensor) -> Tensor:
        """Maps (N, 1, H, W) in [0, 1] and normalised images (N, 3, H, W) -> (N, 1), 1 is real."""
        return self.head(self.features(torch.cat([maps, images], 1)))


class Adversary:
    """SalGAN's adversarial loss; generator and discriminator train on alternate batches."""

    def __init__(self, settings: Tune, size: list[int], device: torch.device) -> None:
        self.pool = settings.pool
        self.discriminator = Discriminator((size[0], size[1])).to(device)
        rate = settings.discriminator_learning_rate or settings.learning_rate
        self.optimizer = torch.optim.Adagrad(self.discriminator.parameters(), lr=rate)

    def loss(self, maps: Tensor, targets: Tensor, images: Tensor, step: int) -> Tensor:
        """The generator's loss in even steps; in odd ones the discriminator's, after its update.

        Maps and targets are (N, H, W) in [0, 1], and normalised images (N, 3, H, W).
        """
        if step % 2 == 0:
            verdict = self.discriminator(maps[:, None], images)
            fooled = F.binary_cross_entropy(verdict, torch.ones_like(verdict))
            return fooled + pooled_bce(maps, targets, self.pool) / 20
        real = self.discriminator(targets[:, None], images)
        made = self.discriminator(maps.detach()[:, None], images)
        loss = F.binary_cross_entropy(real, torch.ones_like(real))
        loss = loss + F.binary_cross_entropy(made, torch.zeros_like(made))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        return loss.detach()
