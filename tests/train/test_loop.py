"""Training in miniature: what changes, what stays, where it starts, how it ends."""

import copy
import csv
import json
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors import safe_open
from safetensors.torch import load_file
from studies import little, raw

from salema import data, params
from salema.__main__ import main
from salema.files import SalemaError
from salema.model import weights
from salema.model.layers import salgan
from salema.params import Model
from salema.train import loop
from salema.train.losses import Adversary

NO_STEP = 1e-9  # a learning rate that leaves weights where they start


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with data and a tuned static network, which the tests share."""
    folder = tmp_path_factory.mktemp("study")
    little(folder / "data")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        loop.tune(params.from_dict(raw("data")), "static")
    return folder


@pytest.fixture
def study(place, monkeypatch):
    """Makes parameters in the shared folder, with other values where a test wants them."""
    monkeypatch.chdir(place)
    shutil.rmtree(".salema/training", ignore_errors=True)

    def make(run=None, /, **changes):
        """`changes`: of finetune, or of the block that `run` names under tune, placements, ..."""
        given = raw("data")
        tiny = given["profiles"]["tiny"]
        for key, value in changes.items():
            block = tiny["finetune"]
            if run is not None:
                (kind,) = (k for k in ("tune", "placements", "continued") if run in given[k])
                block = tiny.setdefault(kind, {}).setdefault(run, {})
            block[key] = value
        return params.from_dict(given)

    return make


def tensors(run):
    path = run if isinstance(run, Path) else Path(f"runs/tiny/{run}/weights.safetensors")
    return load_file(path)


def changed(before, after):
    """Numbers of the layers whose weights differ."""
    return sorted(
        int(name.split(".")[1])
        for name in before
        if name.startswith("layers.")
        and name.endswith("weight")
        and not torch.equal(before[name], after[name])
    )


CONVOLUTIONS = [i for i, layer in enumerate(salgan(0.125)) if isinstance(layer, torch.nn.Conv2d)]


@pytest.fixture
def epochs(monkeypatch):
    """The weights before the first epoch and after each; and the learner itself."""
    seen = []
    one_epoch = loop.Learner.one_epoch

    def copied(learner):
        return {name: tensor.clone() for name, tensor in learner.network.state_dict().items()}

    def watched(learner):
        if not seen:
            seen.append(copied(learner))
        one_epoch(learner)
        seen.append(copied(learner))
        watch.learner = learner

    def watch():
        return seen

    monkeypatch.setattr(loop.Learner, "one_epoch", watched)
    return watch


# ---------------------------------------------------------------------- what trains


def test_a_tuned_placement_trains_every_layer_from_the_static_weights(study, epochs):
    loop.finetune(study(), "ema30")
    start, end = epochs()
    assert changed(tensors("static"), start) == []
    assert changed(start, end) == CONVOLUTIONS
    assert changed(end, tensors("ema30")) == []
    assert torch.equal(start["memories.30.alpha_logit"], end["memories.30.alpha_logit"])


def test_frozen_layers_do_not_change_only_the_memory_does(study, epochs):
    loop.finetune(study(), "videosalgan")
    start, end = epochs()
    assert changed(start, end) == [] and changed(tensors("static"), tensors("videosalgan")) == []
    memories = [name for name in end if name.startswith("memories.")]
    assert memories and all(not torch.equal(start[name], end[name]) for name in memories)


def test_layers_thaw_group_by_group_from_the_second_epoch_to_the_fifth(study, epochs):
    loop.finetune(study("clstm30-thaw", epochs=6), "clstm30-thaw")
    states = epochs()
    trained = [changed(*pair) for pair in pairwise(states)]
    firsts = [62, 57, 52, 47, 0, 0]
    assert trained == [[i for i in CONVOLUTIONS if i >= first] for first in firsts]
    for before, after in pairwise(states):
        assert not torch.equal(
            before["memories.29.gates.weight"], after["memories.29.gates.weight"]
        )


def test_fresh_layers_train_from_the_first_epoch_also_while_thawing(study, epochs):
    loop.finetune(study("clstm56", thaw=[51, 46, 41, 0], epochs=2), "clstm56")
    trained = [changed(*pair) for pair in pairwise(epochs())]
    assert trained == [[56, 58, 60], [51, 53, 56, 58, 60]]


@pytest.mark.parametrize(("kind", "first"), [("decoder", 30), ("upper", 17)])
def test_the_decoder_or_the_upper_layers_alone_train_where_the_params_say_so(
    study, epochs, kind, first
):
    loop.tune(study("port", train=kind), "port")
    start, end = epochs()
    assert changed(start, end) == [i for i in CONVOLUTIONS if i >= first]


def test_a_row_may_have_its_own_epochs_and_optimizer(study, epochs):
    loop.finetune(study("ema61", epochs=2, optimizer="sgd"), "ema61")
    learner = epochs.learner
    assert learner.epoch == 2 and isinstance(learner.optimizer, torch.optim.SGD)
    loop.finetune(study(), "ema61")
    assert epochs.learner.epoch == 1 and isinstance(epochs.learner.optimizer, torch.optim.Adam)


def test_a_plain_run_is_the_static_weights_and_the_placement(study):
    path = loop.finetune(study(), "ema54-plain")
    static, plain = tensors("static"), tensors("ema54-plain")
    logit = plain.pop("memories.54.alpha_logit")
    assert float(torch.sigmoid(logit)) == pytest.approx(0.1)
    assert set(plain) == set(static)
    assert all(torch.equal(plain[name], static[name]) for name in static)
    model, card = weights.read(path)
    origin = described("runs/tiny/static/weights.safetensors")
    assert model.placement.static == "plain" and model.placement.after == [54]
    assert card.run == "ema54-plain" and origin.run == "static"
    assert card.seen == origin.seen
    assert path.with_name("losses.csv").read_text() == "epoch,train_loss,val_loss\n"


def test_fresh_layers_start_from_random_weights_and_the_others_from_static(study):
    loop.finetune(study(learning_rate=NO_STEP), "clstm56")
    static, tuned = tensors("static"), tensors("clstm56")
    for layer in CONVOLUTIONS:
        apart = (static[f"layers.{layer}.weight"] - tuned[f"layers.{layer}.weight"]).abs().max()
        assert apart > 0.01 if layer in (56, 58, 60) else apart < 1e-5


# ---------------------------------------------------------------------- rates and averages


def test_a_placement_may_have_its_own_rate_for_what_is_fresh(study):
    rates = []
    for row, own in (("clstm56", None), ("clstm56", 3e-3), ("clstm30", 3e-3)):
        loop.finetune(study(row, fresh_learning_rate=own), "clstm56")
        card = described("runs/tiny/clstm56/weights.safetensors")
        rates.append(card.params["settings"]["fresh_learning_rate"])
    assert rates == [None, 3e-3, None]


def test_a_learned_alpha_changes_and_is_in_the_table_of_losses(study):
    loop.finetune(study(epochs=2), "ema30-learned")
    with Path("runs/tiny/ema30-learned/losses.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["epoch", "train_loss", "val_loss", "alpha_30"]
    assert [row["epoch"] for row in rows] == ["1", "2"]
    alphas = [0.56, *(float(row["alpha_30"]) for row in rows)]
    assert alphas[0] != alphas[1] != alphas[2] and all(0 < alpha < 1 for alpha in alphas)
    logit = tensors("ema30-learned")["memories.30.alpha_logit"]
    assert float(torch.sigmoid(logit)) == pytest.approx(alphas[-1], abs=1e-5)


def test_two_averages_have_two_columns(study):
    loop.finetune(study(), "ema7-54")
    header = Path("runs/tiny/ema7-54/losses.csv").read_text().splitlines()[0]
    assert header == "epoch,train_loss,val_loss,alpha_7,alpha_54"
    assert Path("runs/tiny/static/losses.csv").read_text().startswith("epoch,train_loss,val_loss\n")


def test_one_cycle_rises_to_its_rate_and_ends_near_nothing(study, monkeypatch):
    rates = []
    step = loop.Learner._step

    def watched(learner, window, state):
        rates.append(learner.optimizer.param_groups[0]["lr"])
        return step(learner, window, state)

    monkeypatch.setattr(loop.Learner, "_step", watched)
    cycle = study("static", schedule="one-cycle", epochs=12, batch=1, learning_rate=1e-3)
    loop.tune(_elsewhere(cycle), "static")
    top = int(np.argmax(rates))
    assert len(rates) == 36
    assert rates[0] == pytest.approx(1e-3 / 25) and max(rates) == pytest.approx(1e-3, rel=0.05)
    assert all(np.diff(rates[: top + 1]) > 0) and all(np.diff(rates[top:]) < 0)
    assert 0 < top < 10 and rates[-1] < 1e-3 / 100


def _elsewhere(study):
    """The same study under another name, so that the shared static network stays."""
    return study.model_copy(update={"profile": "other"})


def test_the_average_follows_the_weights_and_is_what_is_written(study, monkeypatch):
    followed = []
    follow = loop.Learner._follow

    def watched(learner):
        slow = learner.average.layers[0].weight.clone()
        follow(learner)
        now = learner.average.layers[0].weight
        decay = min(0.5, (1 + learner.steps) / (10 + learner.steps))
        expected = decay * slow + (1 - decay) * learner.network.layers[0].weight
        torch.testing.assert_close(now, expected.detach())
        followed.append(learner)

    monkeypatch.setattr(loop.Learner, "_follow", watched)
    path = loop.tune(
        _elsewhere(study("static", average=0.5, batch=1, learning_rate=0.01)), "static"
    )
    assert len(followed) == 3
    learner, written = followed[-1], load_file(path)
    assert torch.equal(written["layers.0.weight"], learner.average.layers[0].weight)
    assert not torch.equal(written["layers.0.weight"], learner.network.layers[0].weight)


# ---------------------------------------------------------------------- windows and state


@pytest.fixture
def steps(monkeypatch):
    """Every window that was trained on, and the state before it."""
    seen = []
    step = loop.Learner._step

    def watched(learner, window, state):
        seen.append((window, state))
        return step(learner, window, state)

    monkeypatch.setattr(loop.Learner, "_step", watched)
    return seen


def test_the_state_is_carried_without_its_history_and_new_at_each_clip(study, steps):
    loop.finetune(study(batch=1), "ema30")
    assert [window.first for window, _ in steps] == [True, False, True, False]
    for window, state in steps:
        assert (state is None) == window.first
        if state is not None:
            assert state.frame == 2 and not state.memories[30].requires_grad


def test_the_first_epochs_run_at_half_the_size(study, steps):
    settings = study("static", half_epochs=1, epochs=2)
    model = settings.model.model_copy(update={"size": [32, 64]})
    loop.tune(_elsewhere(settings.model_copy(update={"model": model})), "static")
    assert [window.frames.shape[2:4] for window, _ in steps] == [(16, 32), (32, 64)]


def test_half_the_size_must_be_one_too(refused):
    def half(given):
        given["profiles"]["tiny"]["tune"]["static"]["half_epochs"] = 1

    told = refused("tune", "static", change=half)
    assert "tune.static.half_epochs needs sides in 32s, not [32, 48]" in told


def test_a_frozen_network_does_not_thaw(refused):
    def thaw(given):
        given["placements"]["videosalgan"]["thaw"] = [57]

    assert "`thaw` needs static: tuned" in refused("finetune", "videosalgan", change=thaw)


def test_the_generators_cycle_ends_with_its_own_half_of_the_steps(study, monkeypatch):
    rates = []
    step = loop.Learner._step

    def watched(learner, window, state):
        rates.append(learner.optimizer.param_groups[0]["lr"])
        return step(learner, window, state)

    monkeypatch.setattr(loop.Learner, "_step", watched)
    loop.tune(study("port", schedule="one-cycle", epochs=12, batch=1), "port")
    assert max(rates) == pytest.approx(1e-3, rel=0.05) and rates[-1] < 1e-3 / 50


def test_generator_and_discriminator_are_updated_in_turns(study, monkeypatch):
    turns = []
    step = loop.Learner._step

    def watched(learner, window, state):
        discriminator = learner.adversary.discriminator
        before = [[p.clone() for p in m.parameters()] for m in (learner.network, discriminator)]
        step(learner, window, state)
        after = [list(m.parameters()) for m in (learner.network, discriminator)]
        moved = [
            any(not torch.equal(a, b) for a, b in zip(*pair, strict=True))
            for pair in zip(before, after, strict=True)
        ]
        turns.append(
            ["generator", "discriminator"][moved.index(True)] if sum(moved) == 1 else moved
        )
        return float(0), None

    monkeypatch.setattr(loop.Learner, "_step", watched)
    loop.tune(study("port", batch=1, epochs=2), "port")
    assert turns == ["generator", "discriminator"] * 3


def test_only_the_adversarial_run_has_a_discriminator(study, epochs):
    loop.tune(study(), "port")
    assert isinstance(epochs.learner.adversary, Adversary)
    loop.finetune(study(), "static-video")
    assert epochs.learner.adversary is None


# ---------------------------------------------------------------------- where it starts


def described(path):
    return weights.read(Path(path))[1]


def test_training_continues_from_another_file_on_one_set_after_the_other(study, place):
    settings = study(learning_rate=NO_STEP)
    first = loop.finetune(study(), "ema30")
    assert set(described(first).seen) == {"SALICON", "DHF1K"}
    kept = first.read_bytes()
    second = loop.finetune(settings, "ema30", init=first, dataset="Hollywood-2")
    third = loop.finetune(settings, "ema30", init=second, dataset="UCF-sports")
    assert second == Path("runs/tiny/ema30-Hollywood-2/weights.safetensors")
    assert third == Path("runs/tiny/ema30-UCF-sports/weights.safetensors")
    assert described(third).run == "ema30-UCF-sports" and first.read_bytes() == kept
    assert described(third).params["placement"]["after"] == [30]
    seen = described(third).seen
    assert set(seen) == {"SALICON", "DHF1K", "Hollywood-2", "UCF-sports"}
    for name, clips in seen.items():
        there = {clip.name for clip in data.load(place / "data", name, "train")}
        assert set(clips) == there
    origin, end = tensors(first), tensors(third)
    apart = {name: (origin[name] - end[name]).abs().max() for name in origin}
    assert max(apart.values()) < 1e-5
    assert changed(tensors("static"), end) == CONVOLUTIONS


def test_another_placement_keeps_the_layers_and_gets_its_own_memory(study):
    init = loop.finetune(study(), "ema30")
    path = loop.finetune(study(learning_rate=NO_STEP), "clstm30", init=init)
    assert path == Path("runs/tiny/clstm30-DHF1K/weights.safetensors")
    taken = tensors(path)
    for layer in CONVOLUTIONS:
        name = f"layers.{layer}.weight"
        torch.testing.assert_close(taken[name], tensors(init)[name], atol=1e-5, rtol=0)
    assert "memories.30.alpha_logit" not in taken and "memories.29.gates.weight" in taken


def test_the_same_placement_keeps_its_memory_and_its_fresh_layers(study):
    init = loop.finetune(study(), "clstm56")
    path = loop.finetune(study(learning_rate=NO_STEP), "clstm56", init=init)
    for name, tensor in tensors(init).items():
        torch.testing.assert_close(tensors(path)[name], tensor, atol=1e-5, rtol=0)


def test_a_placement_that_is_trained_otherwise_is_the_same_placement(study):
    start, _ = weights.read(loop.finetune(study(), "clstm56"))
    otherwise = {"learning_rate": 0.1, "fresh_learning_rate": 0.2, "optimizer": "sgd", "epochs": 5}
    otherwise |= {"start": "ema30", "data": "UCF-sports", "thaw": [57]}
    same = start.placement.model_copy(update=otherwise)
    continued = loop.with_placement(start, same)
    for name, tensor in start.state_dict().items():
        assert torch.equal(continued.state_dict()[name], tensor)
    other = loop.with_placement(start, same.model_copy(update={"decode": "hidden"}))
    assert not torch.equal(other.layers[56].weight, start.layers[56].weight)
    assert other.placement.learning_rate == 0.1


def test_alpha_is_that_of_the_placement_unless_the_same_placement_continues(study):
    init = loop.finetune(study(), "ema30")
    other = study("ema30", alpha=0.5, learning_rate=NO_STEP)
    model, _ = weights.read(loop.finetune(other, "ema30", init=init))
    assert model.placement.alpha == 0.5 and model.alphas() == {"30": pytest.approx(0.5)}
    learned = study()
    init = loop.finetune(learned, "ema30-learned")
    origin = weights.read(init)[0].alphas()["30"]
    assert origin != pytest.approx(learned.placements["ema30-learned"].alpha, abs=1e-4)
    still = study(alpha_learning_rate=NO_STEP)
    again, _ = weights.read(loop.finetune(still, "ema30-learned", init=init))
    assert again.alphas()["30"] == pytest.approx(origin, abs=1e-6)


def test_a_run_never_writes_over_the_file_that_it_starts_from(refused, study):
    init = loop.finetune(study(), "ema30", dataset="UCF-sports")
    assert init == Path("runs/tiny/ema30-UCF-sports/weights.safetensors")
    words = ("finetune", "ema30", "--init", str(init.resolve()), "--dataset", "UCF-sports")
    assert "is the file that ema30-UCF-sports writes" in refused(*words)

    def own(given):
        path = "runs/tiny/port/weights.safetensors"
        given["profiles"]["tiny"]["tune"]["port"]["init"] = path

    assert "is the file that port writes" in refused("tune", "port", change=own)


def test_a_run_on_another_set_never_takes_the_name_of_a_run_of_the_study(study):
    given = study()
    taken = given.model_copy(update={"runs": [*given.runs, "ema30-UCF-sports"]})
    with pytest.raises(SalemaError, match="ema30-UCF-sports is a run of the study"):
        loop.finetune(taken, "ema30", dataset="UCF-sports")


def test_the_command_prints_where_the_weights_of_another_set_are(study, capsys):
    study()
    Path("tiny.yaml").write_text(yaml.safe_dump(raw("data")))
    assert main(["--params", "tiny.yaml", "finetune", "ema61", "--dataset", "UCF-sports"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out == ["runs/tiny/ema61-UCF-sports/weights.safetensors"]


def test_tuning_starts_from_the_weights_of_the_run_that_init_names(study, epochs):
    others = {"epochs": 2, "train": "all", "batch": 1, "learning_rate": 1e-3}
    port = loop.tune(_elsewhere(study("port", **others)), "port")
    origin = tensors(port)
    loop.tune(_elsewhere(study("static-metrics", init="port")), "static-metrics")
    end = tensors(Path("runs/other/static-metrics/weights.safetensors"))
    assert changed(origin, end) == [layer for layer in CONVOLUTIONS if layer >= 30]
    assert epochs.learner.job.start == port
    key = epochs.learner.job.key()
    port.write_bytes(Path("runs/tiny/static/weights.safetensors").read_bytes())
    assert epochs.learner.job.key() != key


def test_a_row_continues_from_another_row_on_its_own_set(study, epochs):
    first = loop.finetune(study(), "ema30-released")
    own = {"learning_rate": 1e-3, "epochs": 2}
    second = loop.finetune(study("ema30-hollywood2", **own), "ema30-hollywood2")
    assert epochs.learner.epoch == 2 and epochs.learner.job.start == first
    assert {clip.dataset for clip in epochs.learner.job.clips} == {"Hollywood-2"}
    assert set(described(second).seen) == {"SALICON", "DHF1K", "Hollywood-2"}
    assert changed(tensors(first), tensors(second)) == CONVOLUTIONS
    loop.finetune(study("ema30-ucf", learning_rate=NO_STEP, epochs=1), "ema30-ucf")
    alpha = "memories.30.alpha_logit"
    before, after = tensors(second), tensors("ema30-ucf")
    assert epochs.learner.job.start == second and before.keys() == after.keys()
    torch.testing.assert_close(before["layers.30.weight"], after["layers.30.weight"])
    assert float(before[alpha]) != pytest.approx(np.log(0.56 / 0.44), abs=1e-4)


def test_an_ema_is_put_into_the_fine_tuned_network_without_training(study):
    origin = loop.finetune(study(), "static-video")
    path = loop.finetune(study(), "ema30-on-video")
    placed = tensors(path)
    assert float(torch.sigmoid(placed.pop("memories.30.alpha_logit"))) == pytest.approx(0.1)
    assert all(torch.equal(placed[name], tensor) for name, tensor in tensors(origin).items())
    assert described(path).seen == described(origin).seen
    assert path.with_name("losses.csv").read_text() == "epoch,train_loss,val_loss\n"


def test_a_row_without_its_set_keeps_the_weights_that_it_starts_from(study):
    given = study()
    without = {"data": given.data.model_copy(update={"continued": ["UCF-sports"]})}
    origin = loop.finetune(given, "ema30-released")
    path = loop.finetune(given.model_copy(update=without), "ema30-hollywood2")
    kept = tensors(path)
    assert all(torch.equal(kept[name], tensor) for name, tensor in tensors(origin).items())
    assert path.with_name("losses.csv").read_text() == "epoch,train_loss,val_loss\n"
    assert set(described(path).seen) == {"SALICON", "DHF1K"}


def test_tuning_continues_from_a_file_with_the_decoder_alone_and_keeps_its_list_of_clips(
    study, epochs
):
    init = Path("runs/tiny/static-video/weights.safetensors")
    loop.finetune(study(), "static-video")
    path = loop.tune(study("port", init=str(init), train="decoder", loss="bce"), "port")
    assert changed(tensors("static-video"), tensors("port")) == [
        layer for layer in CONVOLUTIONS if layer >= 30
    ]
    assert set(described(path).seen) == {"SALICON", "DHF1K"}
    key = epochs.learner.job.key()
    shutil.copy("runs/tiny/static/weights.safetensors", "init.safetensors")
    other = study("port", init="init.safetensors", train="decoder", loss="bce")
    loop.tune(other, "port")
    assert epochs.learner.job.key() != key


def test_tuning_continues_at_another_size(place, monkeypatch):
    monkeypatch.chdir(place)
    given = raw("data")
    tiny = given["profiles"]["tiny"]
    tiny["model"]["size"] = [48, 64]
    tiny["tune"]["port"] |= {"init": "runs/tiny/static/weights.safetensors", "loss": "bce"}
    path = loop.tune(params.from_dict(given), "port")
    network, _ = weights.read(path)
    assert network.config.size == [48, 64]
    maps, _ = network(torch.zeros((1, 1, 48, 64, 3), dtype=torch.uint8))
    assert maps.shape == (1, 1, 48, 64)


def test_a_file_that_does_not_fit_gets_one_line(refused, study):
    loop.finetune(study(), "ema30")
    init = "runs/tiny/ema30/weights.safetensors"

    def larger(given):
        given["profiles"]["tiny"]["model"]["size"] = [64, 96]

    told = refused("finetune", "ema61", "--init", init, change=larger)
    assert "is for [32, 48], profile tiny trains at [64, 96]" in told

    def placed(given):
        given["profiles"]["tiny"]["tune"]["port"]["init"] = init

    assert "has a recurrence, tune.port is static" in refused("tune", "port", change=placed)


def test_a_file_to_start_from_is_part_of_what_determines_a_run(study):
    clips = data.load(study().root, "DHF1K", "train")
    keys = set()
    file = Path("runs/tiny/static/weights.safetensors")
    for start, seen in ((None, {}), (file, {}), (None, {"DHF1K": ["0003"]})):
        job = loop.Job(study(), "ema30", study().finetune, clips, [], start, seen)
        keys.add(job.key())
    assert len(keys) == 3


@pytest.fixture
def refused(study, capsys):
    """A command that must end with status 2 and one line."""

    def command(*words, status=2, change=lambda given: None):
        given = raw("data")
        change(given)
        Path("tiny.yaml").write_text(yaml.safe_dump(given))
        capsys.readouterr()
        assert main(["--params", "tiny.yaml", *words]) == status
        lines = [line for line in capsys.readouterr().err.splitlines() if "%|" not in line]
        assert len(lines) == 1 and lines[0].startswith("salema: error: "), lines
        return lines[0]

    study()
    return command


def test_misspelt_runs_and_sets_and_missing_files_get_one_line(refused):
    assert "unknown run of tune 'statik' (did you mean static?)" in refused("tune", "statik")
    assert "unknown placement 'ema31'" in refused("finetune", "ema31")
    assert "unknown data set 'DHF2K'" in refused("finetune", "ema30", "--dataset", "DHF2K")
    assert "none.safetensors" in refused("finetune", "ema30", "--init", "none.safetensors")
    assert "no data set HEVC33" in refused("finetune", "ema30", "--dataset", "HEVC33")
    told = refused("tune", "static", change=lambda given: given.update(profile="sampel"))
    assert "unknown profile 'sampel'" in told


def test_a_fine_tuning_without_the_static_network_says_which_file_is_missing(refused, tmp_path):
    def move(given):
        given["profiles"]["new"] = given["profiles"]["tiny"]
        given["profile"] = "new"

    assert "runs/new/static/weights.safetensors" in refused("finetune", "ema30", change=move)
    assert not Path("runs/new").exists()


# ---------------------------------------------------------------------- how it ends


def test_a_loss_that_is_not_finite_ends_in_one_line_and_leaves_nothing(refused):
    def wild(given):
        given["finetune"]["loss"] = "metrics"
        given["profiles"]["tiny"]["finetune"].update(learning_rate=1e30, epochs=3)

    shutil.rmtree("runs/tiny/ema61", ignore_errors=True)
    told = refused("finetune", "ema61", change=wild)
    assert "the loss of ema61 is not finite: step 2, rate 1e+30, DHF1K 000" in told
    assert not Path("runs/tiny/ema61").exists()


def test_maps_that_are_not_finite_end_in_the_same_line_before_the_bce_fails(refused):
    def wild(given):
        given["profiles"]["tiny"]["finetune"].update(learning_rate=1e30, epochs=3)

    told = refused("finetune", "ema54", change=wild)
    assert "the loss of ema54 is not finite: step 2, rate 1e+30, DHF1K 000" in told
    assert "(lower learning_rate, or look at the clip)" in told
    assert not Path("runs/tiny/ema54").exists()


def unvalidated(study, run):
    """The static network and a job without validation clips."""
    start, _ = weights.read(Path("runs/tiny/static/weights.safetensors"))
    clips = data.load(study.root, "DHF1K", "train")
    return start, loop.Job(study, run, study.finetune, clips, [])


def test_without_validation_clips_the_loss_is_an_empty_cell_and_null_on_the_card(study):
    path = loop.train(*unvalidated(study(), "static-video"))
    epoch, train_loss, val_loss = path.with_name("losses.csv").read_text().split()[1].split(",")
    assert epoch == "1" and float(train_loss) > 0 and val_loss == ""
    assert described(path).metrics["val_loss"] is None


def test_a_plateau_without_validation_clips_gets_one_line(study):
    with pytest.raises(SalemaError, match="static-video has no validation clips for schedule"):
        loop.train(*unvalidated(study(schedule="plateau"), "static-video"))


@pytest.mark.parametrize("cut", [None, 3])
def test_the_best_epoch_on_validation_is_kept_also_after_a_restart(study, epochs, monkeypatch, cut):
    losses = [0.5, 0.3, 0.4, 0.3]

    def val(learner):
        if learner.epoch == cut:
            raise KeyboardInterrupt
        return losses[learner.epoch - 1]

    monkeypatch.setattr(loop.Learner, "_val", val)
    best = _elsewhere(study("static", keep="best", epochs=4, batch=1))
    if cut:
        with pytest.raises(KeyboardInterrupt):
            loop.tune(best, "static")
        monkeypatch.setattr(loop.Learner, "_val", lambda learner: losses[learner.epoch - 1])
    path = loop.tune(best, "static")
    states, written = epochs(), load_file(path)
    assert all(torch.equal(written[name], states[2][name]) for name in written)
    assert not torch.equal(written["layers.0.weight"], states[-1]["layers.0.weight"])
    assert described(path).metrics["epoch"] == 2
    assert len(path.with_name("losses.csv").read_text().splitlines()) == 5


def test_the_best_epoch_of_an_average_is_the_average_of_that_epoch(study, monkeypatch):
    losses, seen = [0.3, 0.4], []

    def val(learner):
        seen.append(learner.result().layers[0].weight.clone())
        return losses[learner.epoch - 1]

    monkeypatch.setattr(loop.Learner, "_val", val)
    both = study("static", keep="best", average=0.5, epochs=2, batch=1)
    path = loop.tune(_elsewhere(both), "static")
    assert torch.equal(load_file(path)["layers.0.weight"], seen[0])


def test_the_best_epoch_needs_validation_clips_that_are_not_for_the_test(study):
    with pytest.raises(SalemaError, match="static-video has no validation clips for keep: best"):
        loop.train(*unvalidated(study(keep="best"), "static-video"))
    with pytest.raises(SalemaError, match="no validation clips for keep: best"):
        loop.finetune(study(keep="best"), "static-video", dataset="Hollywood-2")


CYCLE = {"schedule": "one-cycle", "average": 0.9, "batch": 1}


BEST = {"keep": "best", "optimizer": "sgd-nesterov", "schedule": "plateau", "batch": 1}


@pytest.mark.parametrize(
    ("run", "changes"), [("static", CYCLE), ("static", BEST), ("port", {"batch": 1})]
)
def test_a_learner_with_the_state_of_another_continues_as_the_other_does(study, run, changes):
    given = study(run, epochs=2, **changes)
    clips, val = (data.load(given.root, "SALICON", split) for split in ("train", "val"))
    learners = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        job = loop.Job(given, run, given.tune[run], clips, val)
        learners.append(loop.Learner(loop.new_static(given), job))
    one, other = learners
    one.one_epoch()
    other.load_state_dict(copy.deepcopy(one.state_dict()))
    for learner in learners:
        learner.one_epoch()
    assert one.history == other.history
    assert one.optimizer.param_groups[0]["lr"] == other.optimizer.param_groups[0]["lr"]
    pairs = [(one.network, other.network), (one.result(), other.result())]
    if run == "port":
        pairs.append((one.adversary.discriminator, other.adversary.discriminator))
    for ours, theirs in pairs:
        for name, tensor in ours.state_dict().items():
            assert torch.equal(tensor, theirs.state_dict()[name]), name


def test_a_shorter_training_never_takes_a_longer_ones_weights(study):
    short = loop.finetune(study(epochs=1), "ema61").read_bytes()
    loop.finetune(study(epochs=3), "ema61")
    path = loop.finetune(study(epochs=1), "ema61")
    assert path.read_bytes() == short
    assert len(path.with_name("losses.csv").read_text().splitlines()) == 2


def test_the_card_describes_how_the_weights_were_made(study):
    path = loop.finetune(study(), "ema61")
    card = described(path)
    assert card.run == "ema61" and card.params["profile"] == "tiny"
    assert card.params["placement"]["after"] == [61]
    assert card.metrics["epoch"] == 1 and np.isfinite(card.metrics["val_loss"])
    with safe_open(path, "pt") as file:
        keys = set(json.loads(file.metadata()["salema"]))
    assert keys == {"format", "model", "placement", "run", "seen", "params", "metrics"}
    assert set(card.seen) == {"SALICON", "DHF1K"} and card.seen["DHF1K"] == ["0001", "0002"]
    json.dumps(card.metrics, allow_nan=False)
    assert weights.read(path)[0].config == Model(size=[32, 48], width=0.125, std=64.0)
