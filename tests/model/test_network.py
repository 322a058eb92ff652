"""Frames to maps: the literal transcription first, then what must not change a map, then errors."""

from pathlib import Path

import numpy as np
import oracle
import pytest
import torch
from oracle import agree, video

from salema import params
from salema.files import SalemaError
from salema.media import write
from salema.model.device import pick_device, pick_precision
from salema.model.network import SaliencyModel, State
from salema.model.placements import NAMES, named
from salema.model.recurrence import OnMaps
from salema.params import Model, Placement
from salema.predict.predictor import Predictor

ROWS = params.read(Path(__file__).parents[2] / "params.yaml").placements
STUDIED = ROWS | {name: named(name) for name in NAMES if name not in ("static", *ROWS)}
WIDE = Model(size=[80, 112], width=0.125)  # no multiple of VideoSalGAN's short side
SMALL = Model(size=[64, 96], width=0.125)
HIGH = Model(size=[80, 32], width=0.125, std=64.0)
TINY = Model(size=[32, 48], width=0.125)


def network(placement, config=SMALL, seed=0):
    """Random weights that leave every layer in its working range, biases included."""
    torch.manual_seed(seed)
    model = SaliencyModel(config, placement)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("bias"):
                weight.normal_(0, 0.2)
        model.layers[0].weight.mul_(config.std / 64)
        model.layers[60].weight.mul_(0.4)
        for memory in model.memories.values():
            if isinstance(memory, OnMaps):
                memory.project.weight.mul_(8)
    return model.eval()


def tiny(name):
    """A placement of the study at the smallest size; VideoSalGAN's memory is made as small."""
    placement = STUDIED.get(name) or named(name)
    if placement.short_side:
        placement = placement.model_copy(update={"hidden": 8, "short_side": 24})
    return network(placement, TINY)


def transcribed(model, frames, **keywords):
    """What the transcription makes of the same weights and frames."""
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    settings = model.placement.model_dump()
    return oracle.gray_levels(
        weights, settings, frames, model.config.size, model.config.std, **keywords
    )


def predicted(model, frames, chunk=16):
    """Maps at the model's size, in fp32 on the CPU."""
    return Predictor(model, "cpu", "fp32", chunk).predict(frames, "model")


def saved(model, frames, chunk):
    """The same as the gray levels that are written to files."""
    maps = predicted(model, frames, chunk)
    return np.stack([write.to_byte(write.min_max(saliency)) for saliency in maps])


# ---------------------------------------------------------------- against the transcription


@pytest.mark.parametrize("name", STUDIED)
def test_maps_are_those_of_the_literal_transcription(name):
    for config, chunk in ((WIDE if STUDIED[name].short_side else SMALL, 4), (HIGH, 1), (TINY, 16)):
        model = network(STUDIED[name], config)
        frames = video(11)
        ours = saved(model, frames, chunk)
        agree(ours, transcribed(model, frames))
        assert ours.std(axis=(1, 2)).min() > 10  # there is something to agree on


@pytest.mark.parametrize(
    "placement",
    [
        Placement(recurrence="ema", after=[29], alpha=0.2, residual=True),
        Placement(recurrence="ema", after=[31], alpha=0.2, residual=True, dropout="always"),
        Placement(recurrence="ema", after=[0], alpha=0.2),
        Placement(recurrence="ema", after=[60], alpha=0.2),
        Placement(recurrence="ema", after=[61], alpha=0.2, residual=True),
        Placement(recurrence="ema", after=[4, 8, 36, 55], alpha=0.4),
        Placement(recurrence="ema", after=[30], alpha=1.0),
        Placement(recurrence="convlstm", after=[29], decode="hidden"),
        Placement(recurrence="convlstm", after=[29], residual=True, dropout="always"),
        Placement(recurrence="convlstm", after=[30, 54], residual=True),
        Placement(recurrence="conv", after=[28, 55], residual=True, dropout="always"),
        Placement(recurrence="conv", after=[61], hidden=5, dropout="always"),
        Placement(recurrence="ema", after=[30], alpha=0.1, residual=True, dropout="always"),
        Placement(recurrence="ema", after=[7, 54], alpha=0.3, dropout="always"),
        Placement(recurrence="ema", after=[7, 54], alpha=0.3, rectified=True, dropout="always"),
        Placement(recurrence="ema", after=[0, 12, 28], alpha=0.3, rectified=True),
        Placement(recurrence="ema", after=[7], alpha=0.3),
        Placement(recurrence="convlstm", after=[16, 29], dropout="always"),
        Placement(recurrence="convlstm", after=[61], hidden=5, decode="hidden"),
        Placement(recurrence="convlstm", after=[61], hidden=5, short_side=32, dropout="always"),
    ],
)
def test_placements_that_nobody_published_follow_the_same_rules(placement):
    for size, chunk in (([48, 64], 3), ([80, 32], 1), ([32, 48], 16)):
        model = network(placement, Model(size=size, width=0.125, std=64.0))
        frames = video(7, (70, 100))
        agree(saved(model, frames, chunk), transcribed(model, frames))


@pytest.mark.parametrize("name", sorted(set(STUDIED) - {"static-video"}))
def test_a_recurrence_changes_the_maps_of_a_video(name):
    model, static = tiny(name), tiny("static")
    static.layers.load_state_dict(model.layers.state_dict())
    frames = video(6, (32, 48))
    apart = np.abs(saved(model, frames, 4).astype(int) - saved(static, frames, 4))
    assert apart[-1].mean() > 2


# ---------------------------------------------------------------- what must not change a map


@pytest.mark.parametrize("name", STUDIED)
def test_the_length_of_a_chunk_changes_no_map(name):
    model = tiny(name)
    frames = video(7, (32, 48))
    maps = [predicted(model, frames, chunk) for chunk in (1, 3, 7)]
    np.testing.assert_allclose(maps[1], maps[0], atol=2e-6)
    np.testing.assert_allclose(maps[2], maps[0], atol=2e-6)


@pytest.mark.parametrize("name", STUDIED)
def test_no_frame_sees_the_future(name):
    model = tiny(name)
    frames = video(7, (32, 48))
    changed = frames.copy()
    changed[5] = 255 - changed[5]
    before, after = predicted(model, frames, 4), predicted(model, changed, 4)
    np.testing.assert_array_equal(after[:5], before[:5])
    assert np.abs(after[5] - before[5]).max() > 1e-3


def test_an_ema_leaves_a_clip_of_one_frame_as_the_static_network_has_it():
    frame = video(1, (32, 48))
    static = tiny("static")
    expected = predicted(static, frame)
    for name in ("ema7", "ema30", "ema54", "ema61", "ema7-54"):
        model = network(named(name), TINY)
        model.layers.load_state_dict(static.layers.state_dict())
        np.testing.assert_allclose(predicted(model, frame), expected, atol=1e-6)


def test_clips_side_by_side_do_not_see_each_other():
    for name in ("ema30-dropout", "clstm30", "ema7-54"):
        model = network(named(name), TINY)
        clips = torch.from_numpy(np.stack([video(4, (32, 48), seed) for seed in (1, 2)]))
        with torch.inference_mode():
            both, _ = model(clips)
            for index in range(2):
                one, _ = model(clips[index : index + 1])
                torch.testing.assert_close(both[index], one[0], atol=2e-6, rtol=0)


def test_dropout_always_is_repeatable_and_train_is_off_at_inference():
    frames = video(5, (32, 48))
    always = tiny("ema30-dropout")
    dropped = predicted(always, frames)
    np.testing.assert_array_equal(dropped, predicted(always, frames))
    train = named("ema30").model_copy(update={"dropout": "train"})
    sometimes, never = network(train, TINY), tiny("ema30")
    np.testing.assert_array_equal(predicted(sometimes, frames), predicted(never, frames))
    assert np.abs(dropped - predicted(never, frames)).max() > 1e-3


@torch.inference_mode()
def test_dropout_draws_another_mask_at_each_layer():
    placement = Placement(recurrence="ema", after=[19, 26], alpha=0.1, dropout="always")
    model, dropped = network(placement, TINY), []
    for layer in placement.after:  # as many channels at both
        hook = lambda _, x: dropped.append((x[0] == 0).all(dim=(2, 3)))  # noqa: E731
        model.layers[layer].register_forward_pre_hook(hook)
    model(torch.from_numpy(video(4, (32, 48)))[None])
    assert (dropped[0] != dropped[1]).float().mean() > 0.3


@pytest.mark.parametrize("dropout", ["train", "always"])
def test_dropout_draws_whole_channels_at_random_in_training(dropout):
    model = network(named("ema30").model_copy(update={"dropout": dropout}), TINY).train()
    inputs = []
    model.layers[30].register_forward_pre_hook(lambda _, x: inputs.append(x[0].detach().clone()))
    frames = torch.from_numpy(video(4, (32, 48)))[None]
    with torch.no_grad():
        model(frames)
        model(frames)
    dropped = [(x == 0).all(dim=(2, 3)) for x in inputs]
    assert not torch.equal(dropped[0], dropped[1])
    assert 0.3 < torch.cat(dropped).float().mean() < 0.7


@torch.inference_mode()
@pytest.mark.parametrize("kind", ["convlstm", "conv"])
def test_dropout_of_a_convlstm_is_on_what_enters_its_gates(kind):
    model = network(Placement(recurrence=kind, after=[29], dropout="always"), TINY)
    entering, leaving = [], []
    memory = model.memories["29"]
    memory.register_forward_pre_hook(lambda _, x: entering.append(x[0][0]))
    model.layers[29].register_forward_hook(lambda *x: leaving.append(x[2]))
    model(torch.from_numpy(video(3, (32, 48)))[None])
    kept = entering[0].abs().amax((2, 3)) > 0
    assert 0.2 < kept.float().mean() < 0.8
    torch.testing.assert_close(entering[0], leaving[0] * kept[:, :, None, None] * 2)


@torch.inference_mode()
def test_the_residual_of_a_convlstm_is_the_output_of_its_layer():
    model = network(named("clstm30-residual"), TINY)
    plain = network(named("clstm30"), TINY)
    plain.load_state_dict(model.state_dict())
    entering = []
    for one in (model, plain):
        one.layers[30].register_forward_pre_hook(lambda _, x: entering.append(x[0].clone()))
        one.layers[29].register_forward_hook(lambda *x: entering.append(x[2].clone()))
        one(torch.from_numpy(video(3, (32, 48)))[None])
    encoded, with_residual, _, cells = entering
    assert encoded.min() == 0  # after the ReLU
    torch.testing.assert_close(with_residual, cells + encoded)


def test_fresh_layers_start_with_xavier_weights_and_zero_biases():
    torch.manual_seed(0)
    model = SaliencyModel(Model(width=0.5), named("clstm56"))
    for layer, (before, after, side) in {56: (64, 32, 3), 58: (32, 32, 3), 60: (32, 1, 1)}.items():
        weight, bias = model.layers[layer].weight, model.layers[layer].bias
        assert weight.shape == (after, before, side, side) and not bias.any()
        expected = (2 / ((before + after) * side**2)) ** 0.5
        assert weight.std().item() == pytest.approx(expected, rel=0.05 if side == 3 else 0.4)


def test_the_control_of_a_convlstm_sees_one_frame_only():
    frames = video(5, (32, 48))
    for after in ([29], [61]):
        model = network(Placement(recurrence="conv", after=after), TINY)
        together = predicted(model, frames)
        alone = [predicted(model, frame[None])[0] for frame in frames]
        np.testing.assert_allclose(together, alone, atol=1e-6)
        maps, state = model(torch.from_numpy(frames)[None])
        assert maps.requires_grad and state.each(torch.Tensor.detach).memories == {after[0]: ()}


def test_branches_fold_into_the_same_maps():
    torch.manual_seed(0)
    model = SaliencyModel(TINY, named("ema30"), branches=True).double()
    frames = torch.from_numpy(video(4, (32, 48)))[None]
    with torch.no_grad():
        model.train()
        model(frames)  # running statistics that are not the initial ones
        model.eval()
        apart, _ = model(frames)
        keys = set(SaliencyModel(TINY, named("ema30")).state_dict())
        assert set(model.fold().state_dict()) == keys
        folded, _ = model(frames)
    torch.testing.assert_close(folded, apart, atol=1e-6, rtol=0)


def test_state_counts_frames_and_detaches():
    model = tiny("clstm30")
    frames = torch.from_numpy(video(3, (32, 48)))[None]
    _, state = model(frames)
    _, state = model(frames, state)
    assert state.frame == 6
    assert all(part.requires_grad for part in state.memories[29])
    cut = state.each(torch.Tensor.detach)
    assert not any(part.requires_grad for part in cut.memories[29])
    assert all(part.requires_grad for part in state.memories[29])
    assert State().each(torch.Tensor.detach) == State()


@pytest.mark.parametrize("name", STUDIED)
def test_every_weight_gets_a_finite_gradient(name):
    model = tiny(name).train()
    maps, _ = model(torch.from_numpy(video(3, (32, 48)))[None])
    maps.square().sum().backward()
    for key, weight in model.named_parameters():
        assert weight.grad is not None and torch.isfinite(weight.grad).all(), key
        assert weight.grad.abs().max() > 0, key


# ---------------------------------------------------------------- sizes and scales


def test_normalise_gives_bgr_less_the_mean_over_std():
    model = SaliencyModel(Model(width=0.125, std=2.0), named("static"))
    x = model.normalise(torch.tensor([10, 20, 30], dtype=torch.uint8).view(1, 1, 1, 3))
    expected = [(30 - 103.939) / 2, (20 - 116.779) / 2, (10 - 123.68) / 2]
    torch.testing.assert_close(x.flatten(), torch.tensor(expected))


def test_a_blank_video_gives_maps_without_nan():
    for name in ("ema30", "clstm30", "videosalgan"):
        model = tiny(name)
        for value in (0, 255):
            maps = predicted(model, np.full((3, 32, 48, 3), value, np.uint8))
            assert np.isfinite(maps).all() and maps.min() >= 0 and maps.max() <= 1


def test_alphas_are_the_effective_weights():
    learned = SaliencyModel(TINY, named("ema30-learned"))
    assert learned.alphas() == pytest.approx({"30": 0.56})
    double = SaliencyModel(TINY, named("ema7-54"))
    assert double.alphas() == pytest.approx({"7": 0.3, "54": 0.3})
    assert SaliencyModel(TINY, named("clstm30")).alphas() == {}


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize("device", ["cuda:99", "tpu9", "toaster"])
def test_a_device_that_is_absent_is_reported_in_one_line(device):
    with pytest.raises(SalemaError, match=f"no such device: {device}"):
        pick_device(device)


def test_precision_can_be_chosen_and_auto_is_one_of_the_two():
    cpu = torch.device("cpu")
    assert pick_precision("fp32", cpu) == "fp32" and pick_precision("bf16", cpu) == "bf16"
    assert pick_precision("auto", cpu) in ("fp32", "bf16")


@pytest.mark.parametrize("after", [0, 4, 51, 55])  # channels, half, channels, twice the size
def test_a_residual_around_a_layer_needs_the_same_shape_on_both_sides(after):
    placement = Placement(recurrence="ema", after=[after], alpha=0.1, residual=True)
    with pytest.raises(SalemaError, match=f"residual around layer {after}"):
        SaliencyModel(TINY, placement)
    SaliencyModel(TINY, Placement(recurrence="convlstm", after=[after], residual=True))  # behind it


def test_a_hidden_size_fits_the_layer_but_is_free_on_maps_and_goes_with_the_width():
    on_maps = Placement(recurrence="convlstm", after=[61], hidden=128)
    gates = SaliencyModel(TINY, on_maps).memories["61"].memory.gates
    assert gates.out_channels == 4 * 128 * 0.125
    for kind in ("convlstm", "conv"):
        inside = Placement(recurrence=kind, after=[29], hidden=12)
        with pytest.raises(SalemaError, match="hidden: 12 after layer 29"):
            SaliencyModel(TINY, inside)


def test_only_a_convolution_can_be_fresh():
    with pytest.raises(SalemaError, match="fresh: 57"):
        SaliencyModel(TINY, Placement(recurrence="convlstm", after=[55], fresh=[56, 57]))
