"""Which parameters train, how fast, and the learning-rate schedule."""

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR, ReduceLROnPlateau

from salema.model.layers import FIRST_DECODER
from salema.model.network import SaliencyModel
from salema.params import Finetune, Training, Tune


def thaw(network: SaliencyModel, epoch: int) -> None:
    """Let the layers train that thawing has reached in `epoch`, counted from 0.

    `fresh` layers and memories always train. Source: the released code, whose layers 57, 52, 47
    and 0 of SalCLSTM30 (51, 46, 41 and 0 of SalCLSTM56) start epochs 2 to 5.
    """
    firsts = (len(network.layers), *network.placement.thaw)
    first = firsts[min(epoch, len(firsts) - 1)]
    for index, layer in enumerate(network.layers):
        layer.requires_grad_(index >= first or index in network.placement.fresh)


def make_optimizer(network: SaliencyModel, settings: Training) -> Optimizer:
    """The optimizer, with a group for each learning rate and weight decay.

    What is fresh, the alphas (without weight decay) and the encoder may have rates of their own.
    """
    rate, decay, placement = settings.learning_rate, settings.weight_decay, network.placement
    table = [(("",), rate, decay)]  # a parameter belongs to the last row with a prefix of its name
    if isinstance(settings, Tune) and settings.encoder_learning_rate:
        encoder = tuple(f"layers.{layer}." for layer in range(FIRST_DECODER))
        table.append((encoder, settings.encoder_learning_rate, decay))
    if isinstance(settings, Finetune):
        fresh = ("memories.", *(f"layers.{layer}." for layer in placement.fresh))
        alphas = tuple(f"memories.{layer}.alpha_logit" for layer in placement.after)
        table.append((fresh, settings.fresh_learning_rate or rate, decay))
        table.append((alphas, settings.alpha_learning_rate, 0.0))
    groups = [{"params": [], "lr": rate, "weight_decay": decay} for _, rate, decay in table]
    for name, parameter in network.named_parameters():
        row = max(i for i, (prefixes, *_) in enumerate(table) if name.startswith(prefixes))
        groups[row]["params"].append(parameter)
    groups = [group for group in groups if group["params"]]
    match settings.optimizer:
        case "adam":
            return torch.optim.Adam(groups, fused=True)
        case "adamw":
            return torch.optim.AdamW(groups, fused=True)
        case "sgd" | "sgd-nesterov" as kind:
            return torch.optim.SGD(groups, momentum=0.9, nesterov=kind == "sgd-nesterov")
        case "adagrad":
            return torch.optim.Adagrad(groups)


def make_schedule(optimizer: Optimizer, settings: Training, steps: int) -> LRScheduler | None:
    """The learning-rate schedule for a training of `steps` steps of the optimizer.

    "one-cycle" rises from 1/25 of each rate to the rate in 15% of the steps, then falls to almost
    0. "plateau" divides by 10 after over five epochs without a better validation loss.
    """
    match settings.schedule:
        case "one-cycle":
            rates = [group["lr"] for group in optimizer.param_groups]
            return OneCycleLR(optimizer, rates, total_steps=steps + 1, pct_start=0.15)
        case "plateau":
            return ReduceLROnPlateau(optimizer, patience=5)
    return None


def after_step(schedule: LRScheduler | None) -> None:
    """Change the rates after a step; more steps than planned keep the last rate."""
    if isinstance(schedule, OneCycleLR) and schedule.last_epoch < schedule.total_steps - 1:
        schedule.step()


def after_epoch(schedule: LRScheduler | None, val_loss: float | None) -> None:
    """Change the rates after an epoch; "plateau" needs a validation loss."""
    if isinstance(schedule, ReduceLROnPlateau):
        schedule.step(val_loss)
