"""What training minimises: closed forms, blank frames, and two that learn in turns."""

import math

import pytest
import torch
from torch.nn import functional as F

from salema.params import Finetune, Tune
from salema.score import metrics
from salema.train.losses import Adversary, Discriminator, frame_losses, pooled_bce

METRICS = Finetune(epochs=1, batch=1, learning_rate=1e-3, loss="metrics")
BCE = Finetune(epochs=1, batch=1, learning_rate=1e-3)
POOLED = Tune(epochs=1, batch=1, learning_rate=1e-3, pool=4)


def window_loss(maps, targets, settings):
    """Loss of a window, summed over its frames and averaged over clips, as it is trained on."""
    losses, counted = frame_losses(maps, targets, settings)
    return (losses * counted).sum() * maps.shape[1] / counted.sum().clamp(min=1)


def metric_loss(maps, targets):
    """That of frames (N, H, W), one a clip."""
    return window_loss(maps[:, None], targets[:, None], METRICS)


def dots(places, size=(8, 8)):
    """A target that is 1 at some places: (1, H, W)."""
    target = torch.zeros(1, *size)
    target.view(-1)[places] = 1
    return target


def noise(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


# ---------------------------------------------------------------- the metrics as a loss


def test_a_perfect_map_costs_only_its_closed_form():
    target = dots([3, 20, 41, 60])
    n, k = 64, 4  # KLD 0, CC 1, and an NSS of sqrt((n - k) / k)
    expected = -0.5 - math.sqrt((n - k) / k) / 10
    assert float(metric_loss(target, target)) == pytest.approx(expected, abs=1e-3)


def test_a_constant_map_costs_the_divergence_from_uniform():
    for value in (0.0, 1e-6, 0.5, 1.0):
        loss = metric_loss(torch.full((1, 8, 8), value), dots([3, 20, 41, 60]))
        assert float(loss) == pytest.approx(math.log(64 / 4), abs=1e-3)


def test_it_is_computed_from_the_metrics_by_its_formula():
    maps, targets = noise(3, 12, 16), noise(3, 12, 16, seed=1) ** 6
    total = 0.0
    for saliency, density in zip(maps.double().numpy(), targets.double().numpy(), strict=True):
        z = (saliency - saliency.mean()) / saliency.std()
        weighted_nss = (z * density / density.sum()).sum()
        kld = metrics.kld(saliency, density, minmax=False)
        total += kld - metrics.cc(saliency, density) / 2 - weighted_nss / 10
    assert float(metric_loss(maps, targets)) == pytest.approx(total / 3, rel=1e-4)


def test_the_scale_of_a_map_does_not_matter():
    maps, targets = noise(2, 8, 8) + 0.1, noise(2, 8, 8, seed=1)
    assert float(metric_loss(maps / 5, targets)) == pytest.approx(
        float(metric_loss(maps, targets)), rel=1e-4
    )


def test_a_better_map_costs_less():
    target = dots([27])
    near, far = (F.avg_pool2d(dots([place]), 3, 1, 1) for place in (28, 60))
    assert metric_loss(near, target) < metric_loss(far, target)


def test_frames_without_gaze_count_nothing():
    maps, targets = noise(3, 8, 8), noise(3, 8, 8, seed=1)
    targets[1] = 0
    both = metric_loss(maps[[0, 2]], targets[[0, 2]])
    torch.testing.assert_close(metric_loss(maps, targets), both)


def test_a_window_without_any_gaze_costs_nothing_and_moves_nothing():
    maps = noise(2, 8, 8).requires_grad_()
    loss = metric_loss(maps, torch.zeros(2, 8, 8))
    loss.backward()
    assert float(loss.detach()) == 0
    assert not maps.grad.any()


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_the_gradient_at_a_constant_map_is_finite_and_points_to_the_gaze(value):
    maps = torch.full((1, 8, 8), value, requires_grad=True)
    metric_loss(maps, dots([27])).backward()
    assert torch.isfinite(maps.grad).all()
    assert maps.grad.flatten().argmin() == 27


# ---------------------------------------------------------------- BCE


def test_bce_is_the_mean_cross_entropy_of_pooled_maps():
    maps = torch.tensor([[[0.1, 0.3], [0.5, 0.7]]])
    targets = torch.tensor([[[0.0, 1.0], [1.0, 1.0]]])
    single = [-math.log(0.9), -math.log(0.3), -math.log(0.5), -math.log(0.7)]
    assert float(pooled_bce(maps, targets, 1)) == pytest.approx(sum(single) / 4)
    pooled = -(0.75 * math.log(0.4) + 0.25 * math.log(0.6))  # means .4 and .75
    assert float(pooled_bce(maps, targets, 2)) == pytest.approx(pooled)


def test_bce_of_a_saturated_map_is_finite():
    maps = torch.tensor([[[0.0, 1.0], [0.0, 1.0]]], requires_grad=True)
    loss = pooled_bce(maps, torch.tensor([[[0.0, 1.0], [1.0, 0.0]]]), 1)
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(maps.grad).all()


@pytest.mark.parametrize("settings", [BCE, POOLED, METRICS])
def test_a_window_sums_over_frames_and_averages_over_clips(settings):
    maps, targets = noise(2, 5, 8, 8), noise(2, 5, 8, 8, seed=1)
    apart = [window_loss(maps[:, t : t + 1], targets[:, t : t + 1], settings) for t in range(5)]
    torch.testing.assert_close(window_loss(maps, targets, settings), sum(apart))
    clips = [window_loss(maps[b : b + 1], targets[b : b + 1], settings) for b in range(2)]
    torch.testing.assert_close(window_loss(maps, targets, settings), sum(clips) / 2)


def test_only_tuning_pools():
    maps, targets = noise(1, 1, 8, 8), noise(1, 1, 8, 8, seed=1)
    for settings, pool in ((POOLED, 4), (BCE, 1)):
        expected = pooled_bce(maps[0], targets[0], pool)
        torch.testing.assert_close(window_loss(maps, targets, settings), expected)


def test_the_adversarial_run_validates_with_its_content_loss():
    maps, targets = noise(1, 1, 8, 8), noise(1, 1, 8, 8, seed=1)
    adversarial = POOLED.model_copy(update={"loss": "bce-adversarial"})
    torch.testing.assert_close(
        window_loss(maps, targets, adversarial), window_loss(maps, targets, POOLED)
    )


# ---------------------------------------------------------------- the adversary


def adversary(rate=1e-2):
    torch.manual_seed(0)
    settings = Tune(
        epochs=1,
        batch=4,
        learning_rate=1.0,
        loss="bce-adversarial",
        pool=4,
        discriminator_learning_rate=rate,
    )
    return Adversary(settings, [32, 48], torch.device("cpu"))


def batch():
    maps = noise(4, 32, 48).requires_grad_()
    targets = torch.stack(
        [F.avg_pool2d(dots([200 + 99 * i], (32, 48)), 9, 1, 4)[0] * 81 for i in range(4)]
    )
    return maps, targets, noise(4, 3, 32, 48, seed=2) * 2 - 1


def test_the_discriminator_gives_one_probability_a_map():
    torch.manual_seed(0)
    for size in ((32, 48), (96, 128), (192, 256)):
        verdict = Discriminator(size)(noise(2, 1, *size), noise(2, 3, *size))
        assert verdict.shape == (2, 1)
        assert verdict.min() > 0 and verdict.max() < 1


def test_the_discriminator_has_the_published_layers():
    discriminator = Discriminator((192, 256))
    kinds = [type(layer).__name__.removeprefix("Parametrized") for layer in discriminator.features]
    names = {"Conv2d": "c", "ReLU": "r", "MaxPool2d": "p"}
    assert "".join(names[kind] for kind in kinds) == "crcrpcrcrpcrcrp"
    convolutions = [layer for layer in discriminator.features if isinstance(layer, torch.nn.Conv2d)]
    assert [c.out_channels for c in convolutions] == [3, 32, 64, 64, 64, 64]
    assert convolutions[0].in_channels == 4 and convolutions[0].kernel_size == (1, 1)
    dense = [
        layer.out_features for layer in discriminator.head if isinstance(layer, torch.nn.Linear)
    ]
    assert dense == [100, 2, 1]
    normed = [torch.nn.utils.parametrize.is_parametrized(c, "weight") for c in convolutions]
    assert normed == [False] * 4 + [True] * 2


def test_on_even_steps_the_generator_learns_and_the_discriminator_does_not():
    rival, (maps, targets, images) = adversary(), batch()
    before = {name: weight.clone() for name, weight in rival.discriminator.state_dict().items()}
    loss = rival.loss(maps, targets, images, step=0)
    verdict = rival.discriminator(maps[:, None], images)
    expected = -torch.log(verdict).mean() + pooled_bce(maps, targets, 4) / 20
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert maps.grad.abs().max() > 0
    for name, weight in rival.discriminator.state_dict().items():
        torch.testing.assert_close(weight, before[name], rtol=0, atol=0)


def test_on_odd_steps_the_discriminator_learns_and_the_generator_does_not():
    rival, (maps, targets, images) = adversary(), batch()
    real, made = (
        rival.discriminator(targets[:, None], images),
        rival.discriminator(maps[:, None], images),
    )
    expected = -torch.log(real).mean() - torch.log(1 - made).mean()
    before = {name: weight.clone() for name, weight in rival.discriminator.state_dict().items()}
    loss = rival.loss(maps, targets, images, step=1)
    torch.testing.assert_close(loss, expected.detach())
    assert not loss.requires_grad and maps.grad is None
    after = rival.discriminator.state_dict()
    assert all(not torch.equal(after[name], before[name]) for name in before)


def test_they_take_turns():
    rival, (maps, targets, images) = adversary(), batch()
    turns = [rival.loss(maps, targets, images, step).requires_grad for step in range(6)]
    assert turns == [True, False] * 3


def test_what_the_generator_left_in_the_discriminators_gradients_is_not_learned_from():
    with_step, without = adversary(), adversary()
    maps, targets, images = batch()
    with_step.loss(maps, targets, images, step=0).backward()
    for rival in (with_step, without):
        rival.loss(maps, targets, images, step=1)
    for one, other in zip(
        with_step.discriminator.parameters(), without.discriminator.parameters(), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_each_of_the_discriminators_steps_lowers_its_loss():
    rival, (maps, targets, images) = adversary(rate=1e-4), batch()
    losses = [float(rival.loss(maps, targets, images, step=1)) for _ in range(6)]
    assert losses == sorted(losses, reverse=True) and losses[-1] < losses[0]


def test_the_discriminator_has_its_own_rate_or_the_generators():
    assert adversary(0.25).optimizer.param_groups[0]["lr"] == 0.25
    assert adversary(None).optimizer.param_groups[0]["lr"] == 1.0
