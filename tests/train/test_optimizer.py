"""Which parameters train how fast, thawing, and the learning-rate schedule."""

import pytest
import torch

from salema.model.network import SaliencyModel
from salema.model.placements import named
from salema.params import Finetune, Model, Tune
from salema.train.optimizer import after_epoch, after_step, make_optimizer, make_schedule, thaw

FINETUNE = Finetune(epochs=1, batch=1, learning_rate=1e-6, weight_decay=1e-4)
TUNE = Tune(epochs=1, batch=1, learning_rate=1e-3)


# ---------------------------------------------------------------------- groups


def network_of(placement):
    return SaliencyModel(Model(width=0.125), named(placement))


def groups(placement, settings=FINETUNE, **changes):
    """Name of each parameter -> its learning rate and weight decay."""
    network = network_of(placement)
    optimizer = make_optimizer(network, settings.model_copy(update=changes))
    named = {id(parameter): name for name, parameter in network.named_parameters()}
    found = {}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            assert id(parameter) not in found
            found[id(parameter)] = (group["lr"], group["weight_decay"])
    assert set(found) == set(named)
    return {named[key]: value for key, value in found.items()}


def layers_in(names):
    return {name.split(".")[1] for name in names if name.startswith("layers.")}


def test_alpha_has_a_rate_of_its_own_and_no_weight_decay():
    found = groups("ema30-learned", alpha_learning_rate=0.1)
    assert found.pop("memories.30.alpha_logit") == (0.1, 0.0)
    assert set(found.values()) == {(1e-6, 1e-4)}
    assert set(groups("ema30").values()) == {(1e-6, 1e-4)}  # a fixed alpha is no parameter


def test_what_is_fresh_has_a_rate_of_its_own_where_one_is_given():
    found = groups("clstm56", fresh_learning_rate=3e-3)
    fast = {name for name, value in found.items() if value == (3e-3, 1e-4)}
    assert layers_in(fast) == {"56", "58", "60"}
    assert {name for name in found if name.startswith("memories.")} <= fast
    assert {found[name] for name in set(found) - fast} == {(1e-6, 1e-4)}
    assert set(groups("clstm56").values()) == {(1e-6, 1e-4)}


def test_the_encoder_has_a_rate_of_its_own_while_tuning_where_one_is_given():
    found = groups("static", TUNE, encoder_learning_rate=1e-5)
    slow = {name for name, value in found.items() if value == (1e-5, 0.0)}
    assert layers_in(slow) == {name for name in layers_in(found) if int(name) < 30}
    assert {found[name] for name in set(found) - slow} == {(1e-3, 0.0)}


def test_images_have_no_alpha_group():
    assert len(make_optimizer(network_of("static"), TUNE).param_groups) == 1


@pytest.mark.parametrize(
    ("row", "firsts"), [("clstm30", [57, 52, 47, 0]), ("clstm56", [51, 46, 41, 0])]
)
def test_thawing_reaches_the_first_layer_in_the_fifth_epoch_and_stays_there(row, firsts):
    placement = named(row).model_copy(update={"thaw": firsts})
    network = SaliencyModel(Model(width=0.125), placement)
    for epoch, first in enumerate([62, *firsts, 0]):
        thaw(network, epoch)
        for index, layer in enumerate(network.layers):
            trains = index >= first or index in placement.fresh
            assert all(p.requires_grad == trains for p in layer.parameters())
        assert all(p.requires_grad for p in network.memories.parameters())


@pytest.mark.parametrize(("name", "nesterov"), [("sgd", False), ("sgd-nesterov", True)])
def test_both_kinds_of_sgd_have_momentum_and_one_looks_ahead(name, nesterov):
    settings = TUNE.model_copy(update={"optimizer": name})
    (group,) = make_optimizer(network_of("static"), settings).param_groups
    assert (group["momentum"], group["nesterov"]) == (0.9, nesterov)


# ---------------------------------------------------------------------- the schedule


@pytest.fixture
def sgd():
    parameter = torch.nn.Parameter(torch.zeros(1))
    parameter.grad = torch.zeros(1)
    return torch.optim.SGD([parameter], lr=1.0, momentum=0.9)


def rate(optimizer):
    return optimizer.param_groups[0]["lr"]


def test_a_constant_rate_stays(sgd):
    schedule = make_schedule(sgd, TUNE, 10)
    assert schedule is None
    after_step(schedule)
    after_epoch(schedule, None)
    assert rate(sgd) == 1.0


def test_a_plateau_of_more_than_five_epochs_divides_the_rate_by_ten(sgd):
    schedule = make_schedule(sgd, TUNE.model_copy(update={"schedule": "plateau"}), 10)
    rates = []
    for val_loss in [1.0, 0.9, *[0.9] * 6, 0.8]:
        after_step(schedule)
        after_epoch(schedule, val_loss)
        rates.append(rate(sgd))
    assert rates == pytest.approx([1.0] * 7 + [0.1] * 2)


def test_steps_beyond_the_end_of_a_cycle_keep_its_last_rate(sgd):
    schedule = make_schedule(sgd, TUNE.model_copy(update={"schedule": "one-cycle"}), 20)
    rates = []
    for _ in range(25):
        sgd.step()
        after_step(schedule)
        rates.append(rate(sgd))
    assert max(rates) == pytest.approx(1.0, rel=0.01) and rates.index(max(rates)) == 2
    assert rates[19] < 1e-4 and set(rates[19:]) == {rates[19]}
