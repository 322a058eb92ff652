"""Frames to maps: the literal transcription first, then what must not change a map, then errors."""

from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import oracle
import pytest
import torch
from oracle import agree, video

from salema import params
from salema.files import SalemaError
from salema.media import write as writers
from salema.model.network import PLACEMENTS, SaliencyModel, State, pick_precision
from salema.model.recurrence import MapLSTM
from salema.params import Model, Placement
from salema.predict import sources as predict

STUDIED = params.read(Path(__file__).parents[2] / "params.yaml").placements
WIDE = Model(size=[80, 112], width=0.125)  # no multiple of VideoSalGAN's short side
SMALL = Model(size=[64, 96], width=0.125)
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
            if isinstance(memory, MapLSTM):
                memory.project.weight.mul_(8)
    return model.eval()


def tiny(name):
    """A placement of the study at the smallest size; VideoSalGAN's memory is made as small."""
    placement = STUDIED.get(name) or PLACEMENTS[name]
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


def written(model, frames, chunk, folder):
    """The PNG files that a data set run leaves, read again."""
    model.chunk = chunk
    names = [f"{number:04d}" for number in range(1, len(frames) + 1)]
    clip = SimpleNamespace(name="clip", fps=30.0, frames=lambda: iter(frames), frame_names=names)
    assert predict.predict_clip(model, clip, folder, "png") == len(frames)
    files = sorted(folder.iterdir())
    assert [path.stem for path in files] == names
    return np.stack([cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in files])


def saved(model, frames, chunk):
    """The same in memory."""
    model.chunk = chunk
    maps = model.stream(frames, size="model")
    return np.stack([writers.to_byte(writers.min_max(saliency)) for saliency in maps])


# ---------------------------------------------------------------- against the transcription


@pytest.mark.parametrize("name", STUDIED)
def test_maps_are_those_of_the_literal_transcription(name, tmp_path):
    config = WIDE if STUDIED[name].short_side else SMALL
    model = network(STUDIED[name], config).prepare("cpu", "fp32")
    frames = video(11)
    ours = written(model, frames, chunk=4, folder=tmp_path / "0601")
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
        Placement(recurrence="convlstm", after=[29], residual=True),
        Placement(recurrence="convlstm", after=[16, 29], dropout="always"),
        Placement(recurrence="convlstm", after=[61], hidden=5, decode="hidden"),
        Placement(recurrence="convlstm", after=[61], hidden=5, short_side=32, dropout="always"),
    ],
)
def test_placements_that_nobody_published_follow_the_same_rules(placement):
    model = network(placement, Model(size=[48, 64], width=0.125, std=64.0)).prepare("cpu", "fp32")
    frames = video(7, (70, 100))
    agree(saved(model, frames, chunk=3), transcribed(model, frames))


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
    maps = []
    for chunk in (1, 3, 7):
        model.chunk = chunk
        maps.append(model.predict(frames))
    np.testing.assert_allclose(maps[1], maps[0], atol=2e-6)
    np.testing.assert_allclose(maps[2], maps[0], atol=2e-6)


@pytest.mark.parametrize("name", STUDIED)
def test_no_frame_sees_the_future(name):
    model = tiny(name)
    model.chunk = 4
    frames = video(7, (32, 48))
    changed = frames.copy()
    changed[5] = 255 - changed[5]
    before, after = model.predict(frames), model.predict(changed)
    np.testing.assert_array_equal(after[:5], before[:5])
    assert np.abs(after[5] - before[5]).max() > 1e-3


def test_an_ema_leaves_a_clip_of_one_frame_as_the_static_network_has_it():
    frame = video(1, (32, 48))
    static = tiny("static")
    expected = static.predict(frame)
    for after in ([7], [30], [54], [61], [7, 54]):
        model = network(Placement(recurrence="ema", after=after, alpha=0.1), TINY)
        model.layers.load_state_dict(static.layers.state_dict())
        np.testing.assert_allclose(model.predict(frame), expected, atol=1e-6)


def test_each_call_starts_with_an_empty_memory_and_streams_do_not_mix():
    model = tiny("ema30")
    model.chunk = 2
    first, second = video(5, (32, 48), seed=1), video(5, (32, 48), seed=2)
    alone = [model.predict(first), model.predict(second)]
    pairs = list(zip(model.stream(first), model.stream(second), strict=True))
    for index in range(2):
        together = np.stack([pair[index] for pair in pairs])
        np.testing.assert_array_equal(together, alone[index])


def test_clips_side_by_side_do_not_see_each_other():
    for placement in (PLACEMENTS["ema30-dropout"], PLACEMENTS["clstm30"], PLACEMENTS["ema7-54"]):
        model = network(placement, TINY)
        clips = torch.from_numpy(np.stack([video(4, (32, 48), seed) for seed in (1, 2)]))
        with torch.inference_mode():
            both, _ = model(clips)
            for index in range(2):
                one, _ = model(clips[index : index + 1])
                torch.testing.assert_close(both[index], one[0], atol=2e-6, rtol=0)


def test_images_of_a_batch_are_clips_of_their_own():
    model = tiny("ema30")
    images = video(3, (32, 48))
    singly = np.concatenate([model.predict(image[None]) for image in images])
    np.testing.assert_allclose(model.step_images(images), singly, atol=2e-6)


def test_dropout_always_is_repeatable_and_train_is_off_at_inference():
    frames = video(5, (32, 48))
    always = tiny("ema30-dropout")
    np.testing.assert_array_equal(always.predict(frames), always.predict(frames))
    train = PLACEMENTS["ema30"].model_copy(update={"dropout": "train"})
    sometimes, never = network(train, TINY), tiny("ema30")
    np.testing.assert_array_equal(sometimes.predict(frames), never.predict(frames))
    assert np.abs(always.predict(frames) - never.predict(frames)).max() > 1e-3


@pytest.mark.parametrize("dropout", ["train", "always"])
def test_dropout_draws_whole_channels_at_random_in_training(dropout):
    model = network(PLACEMENTS["ema30"].model_copy(update={"dropout": dropout}), TINY).train()
    inputs = []
    model.layers[30].register_forward_pre_hook(lambda _, x: inputs.append(x[0].detach().clone()))
    frames = torch.from_numpy(video(4, (32, 48)))[None]
    with torch.no_grad():
        model(frames)
        model(frames)
    dropped = [(x == 0).all(dim=(2, 3)) for x in inputs]
    assert not torch.equal(dropped[0], dropped[1])
    assert 0.3 < torch.cat(dropped).float().mean() < 0.7


def test_branches_fold_into_the_same_maps():
    torch.manual_seed(0)
    model = SaliencyModel(TINY, PLACEMENTS["ema30"], branches=True).double()
    frames = torch.from_numpy(video(4, (32, 48)))[None]
    with torch.no_grad():
        model.train()
        model(frames)  # running statistics that are not the initial ones
        model.eval()
        apart, _ = model(frames)
        keys = set(SaliencyModel(TINY, PLACEMENTS["ema30"]).state_dict())
        assert set(model.fold().state_dict()) == keys
        folded, _ = model(frames)
    torch.testing.assert_close(folded, apart, atol=1e-6, rtol=0)


def test_bf16_stays_close_to_fp32_and_keeps_the_memory_in_fp32():
    for name in ("ema30", "ema61", "clstm30", "clstm56", "videosalgan", "ema30-residual"):
        full = tiny(name)
        half = tiny(name).prepare("cpu", "bf16")
        frames = video(5, (32, 48))
        exact, rounded = full.predict(frames), half.predict(frames)
        assert half.layers[30].weight.dtype == torch.bfloat16
        assert rounded.dtype == np.float32
        assert np.corrcoef(exact.ravel(), rounded.ravel())[0, 1] > 0.999
        _, state = half.step(frames)
        memory = next(iter(state.memories.values()))
        kept = memory if isinstance(memory, torch.Tensor) else memory[0]
        assert kept.dtype == torch.float32


def test_state_counts_frames_and_detaches():
    model = tiny("clstm30")
    frames = torch.from_numpy(video(3, (32, 48)))[None]
    _, state = model(frames)
    _, state = model(frames, state)
    assert state.frame == 6
    assert all(part.requires_grad for part in state.memories[29])
    cut = state.detach()
    assert not any(part.requires_grad for part in cut.memories[29])
    assert all(part.requires_grad for part in state.memories[29])
    assert State().detach() == State()


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
    model = SaliencyModel(Model(width=0.125, std=2.0), PLACEMENTS["static"])
    x = model.normalise(torch.tensor([10, 20, 30], dtype=torch.uint8).view(1, 1, 1, 3))
    expected = [(30 - 103.939) / 2, (20 - 116.779) / 2, (10 - 123.68) / 2]
    torch.testing.assert_close(x.flatten(), torch.tensor(expected))


def test_predict_gives_maps_as_large_as_the_frames_or_as_the_model():
    model = tiny("ema61")
    frames = video(3, (50, 70))
    small, large = model.predict(frames, "model"), model.predict(frames)
    assert small.shape == (3, 32, 48) and large.shape == (3, 50, 70)
    assert small.dtype == large.dtype == np.float32
    np.testing.assert_array_equal(large[1], cv2.resize(small[1], (70, 50)))
    assert model.predict(frames[:0]).shape == (0, 50, 70)


def test_a_stream_may_change_its_frame_size():
    model = tiny("ema30")
    frames = [*video(2, (50, 70)), *video(2, (64, 40))]
    assert [m.shape for m in model.stream(frames)] == [(50, 70)] * 2 + [(64, 40)] * 2


def test_a_blank_video_gives_maps_without_nan():
    for name in ("ema30", "clstm30", "videosalgan"):
        model = tiny(name)
        for value in (0, 255):
            maps = model.predict(np.full((3, 32, 48, 3), value, np.uint8))
            assert np.isfinite(maps).all() and maps.min() >= 0 and maps.max() <= 1


def test_alphas_are_the_effective_weights():
    learned = SaliencyModel(TINY, PLACEMENTS["ema30-learned"])
    assert learned.alphas() == pytest.approx({"30": 0.56})
    double = SaliencyModel(TINY, PLACEMENTS["ema7-54"])
    assert double.alphas() == pytest.approx({"7": 0.3, "54": 0.3})
    assert SaliencyModel(TINY, PLACEMENTS["clstm30"]).alphas() == {}


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("frames", "told"),
    [
        (np.zeros((4, 32, 48), np.uint8), "(4, 32, 48)"),
        (np.zeros((1, 32, 48, 4), np.uint8), "(1, 32, 48, 4)"),
        (np.zeros((1, 32, 48, 3), np.float32), "float32"),
    ],
)
def test_predict_refuses_what_is_not_frames(frames, told):
    with pytest.raises(ValueError, match="uint8") as raised:
        tiny("static").predict(frames)
    assert told in str(raised.value)


@pytest.mark.parametrize("device", ["cuda:99", "tpu9", "toaster"])
def test_a_device_that_is_not_there_is_told_in_one_line(device):
    with pytest.raises(SalemaError, match=f"no such device: {device}"):
        tiny("static").prepare(device)


def test_precision_can_be_chosen_and_auto_is_one_of_the_two():
    cpu = torch.device("cpu")
    assert pick_precision("fp32", cpu) == "fp32" and pick_precision("bf16", cpu) == "bf16"
    assert pick_precision("auto", cpu) in ("fp32", "bf16")


@pytest.mark.parametrize("after", [0, 4, 51, 55])  # channels, half, channels, twice the size
def test_a_residual_needs_the_same_shape_on_both_sides(after):
    placement = Placement(recurrence="ema", after=[after], alpha=0.1, residual=True)
    with pytest.raises(SalemaError, match=f"residual around layer {after}"):
        SaliencyModel(TINY, placement)


def test_a_hidden_size_fits_the_layer_but_is_free_on_maps_and_goes_with_the_width():
    on_maps = Placement(recurrence="convlstm", after=[61], hidden=128)
    gates = SaliencyModel(TINY, on_maps).memories["61"].memory.gates
    assert gates.out_channels == 4 * 128 * 0.125
    inside = Placement(recurrence="convlstm", after=[29], hidden=12)
    with pytest.raises(SalemaError, match="hidden: 12 after layer 29"):
        SaliencyModel(TINY, inside)


def test_only_a_convolution_can_be_fresh():
    with pytest.raises(SalemaError, match="fresh: 57"):
        SaliencyModel(TINY, Placement(recurrence="convlstm", after=[55], fresh=[56, 57]))
