"""What training minimises: BCE, BCE + adversarial, or the field's metrics.

Source: Pan et al., arXiv 1701.01081 (SalGAN) for the first two.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from salema.params import Training, Tune


def window_loss(maps: Tensor, targets: Tensor, settings: Training) -> Tensor:
    """Loss of a window, summed over its frames and averaged over clips and pixels.

    Args:
        maps: (B, T, H, W) in [0, 1].
        targets: (B, T, H, W) in [0, 1], each frame's maximum 1, or 0 all over.
        settings: `loss` is "bce" (also what "bce-adversarial" validates with) or "metrics".
    """
    time = maps.shape[1]
    if settings.loss == "metrics":
        return metric_loss(maps.flatten(0, 1), targets.flatten(0, 1)) * time
    pool = settings.pool if isinstance(settings, Tune) else 1
    return pooled_bce(maps.flatten(0, 1), targets.flatten(0, 1), pool) * time


def metric_loss(maps: Tensor, targets: Tensor) -> Tensor:
    """KLD - CC / 2 - NSS / 10 of (N, H, W) maps, mean over the frames that have gaze.

    The NSS is taken with the blurred gaze as weights. Frames without gaze count nothing.
    """
    p, q = maps.flatten(1), targets.flatten(1)
    kept = q.sum(1) > 0
    if not bool(kept.any()):
        return maps.sum() * 0.0
    p, q = p[kept] + 1e-7, q[kept]
    p, q = p / p.sum(1, keepdim=True), q / q.sum(1, keepdim=True)
    kld = (q * (torch.log(q + 1e-9) - torch.log(p))).sum(1)
    # In units of the mean, and with a floor: a constant map has CC and NSS 0, and a gradient.
    centred, wanted = p * p.shape[1] - 1, q * q.shape[1] - 1
    spread, spread_q = ((x.square().mean(1) + 1e-6).sqrt() for x in (centred, wanted))
    cc = (centred * wanted).mean(1) / (spread * spread_q)
    nss = (centred * q).sum(1) / spread
    return (kld - cc / 2 - nss / 10).mean()


def pooled_bce(maps: Tensor, targets: Tensor, pool: int) -> Tensor:
    """BCE of maps and targets (N, H, W) in [0, 1], average-pooled first; mean over all."""
    if pool > 1:
        maps, targets = F.avg_pool2d(maps, pool), F.avg_pool2d(targets, pool)
    return F.binary_cross_entropy(maps, targets)


class Discriminator(nn.Module):
    """SalGAN's judge: map and image, (N, 4, H, W) at the model's size -> (N, 1) real or not.

    Args:
        size: Rows and columns of the input, multiples of 16.

    Source: the training code of SalGAN (2017).
    """

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()

        def convolution(before: int, after: int) -> list[nn.Module]:
            weights = nn.utils.parametrizations.weight_norm
            return [weights(nn.Conv2d(before, after, 3, padding=1)), nn.ReLU(inplace=True)]

        self.features = nn.Sequential(
            nn.Conv2d(4, 3, 1), nn.ReLU(inplace=True),
            *convolution(3, 32), nn.MaxPool2d(4),
            *convolution(32, 64), *convolution(64, 64), nn.MaxPool2d(2),
            *convolution(64, 64), *convolution(64, 64), nn.MaxPool2d(2),
        )  # fmt: skip
        cells = (size[0] // 16) * (size[1] // 16)
        self.judge = nn.Sequential(
            nn.Flatten(), nn.Linear(64 * cells, 100), nn.Tanh(),
            nn.Linear(100, 2), nn.Tanh(), nn.Linear(2, 1), nn.Sigmoid(),
        )  # fmt: skip

    def forward(self, maps: Tensor, images: Tensor) -> Tensor:
        """(N, 1, H, W) maps in [0, 1] and (N, 3, H, W) normalised images -> (N, 1)."""
        return self.judge(self.features(torch.cat([maps, images], 1)))


class Adversary:
    """SalGAN's adversarial loss; generator and discriminator learn on alternate batches."""

    def __init__(self, settings: Tune, size: list[int], device: torch.device) -> None:
        self.pool = settings.pool
        self.judge = Discriminator((size[0], size[1])).to(device)
        rate = settings.discriminator_learning_rate or settings.learning_rate
        self.optimizer = torch.optim.Adagrad(self.judge.parameters(), lr=rate)

    def loss(self, maps: Tensor, targets: Tensor, images: Tensor, step: int) -> Tensor:
        """(N, H, W) maps and targets: the generator's loss, or the judge's (after its step)."""
        if step % 2 == 0:
            verdict = self.judge(maps[:, None], images)
            fooled = F.binary_cross_entropy(verdict, torch.ones_like(verdict))
            return fooled + pooled_bce(maps, targets, self.pool) / 20
        real = self.judge(targets[:, None], images)
        made = self.judge(maps.detach()[:, None], images)
        loss = F.binary_cross_entropy(real, torch.ones_like(real))
        loss = loss + F.binary_cross_entropy(made, torch.zeros_like(made))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def state_dict(self) -> dict:
        """For a pause."""
        return {"judge": self.judge.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict) -> None:
        """Continue from what `state_dict` gave."""
        self.judge.load_state_dict(state["judge"])
        self.optimizer.load_state_dict(state["optimizer"])
