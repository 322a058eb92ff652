"""Frames to maps: any way and any chunk give the same maps, in constant memory."""

import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
import torch
from oracle import video

from salema.files import SalemaError
from salema.media.read import Frame
from salema.model.network import SaliencyModel
from salema.model.placements import named
from salema.params import Model
from salema.predict import load
from salema.predict.predictor import Predictor, is_cut

SIZE = (64, 96)  # of the model


def predictor(placement="ema30", chunk=4, seed=1, precision="fp32", size=SIZE):
    """Random weights whose maps are away from 0 and 1, so that a difference shows."""
    torch.manual_seed(seed)
    network = SaliencyModel(Model(size=list(size), width=0.125, std=64.0), named(placement))
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if name.endswith("bias"):
                weight.normal_(0, 0.2)
    return Predictor(network, "cpu", precision, chunk)


@pytest.fixture(scope="module")
def model():
    return predictor()


def scene(count, seed=0, size=(40, 60)):
    """A texture that slides sideways; another seed is another shot."""
    rng = np.random.default_rng(seed)
    texture = cv2.resize(rng.integers(0, 256, (5, 7, 3), np.uint8), size[::-1])
    return [np.roll(texture, 3 * index, axis=1) for index in range(count)]


def frames_of(images):
    return (Frame(image, f"{number:05d}") for number, image in enumerate(images, 1))


def maps(model, images, **options):
    return np.stack([saliency for _, saliency in model.maps(frames_of(images), **options)])


# ---------------------------------------------------------------- any way, any chunk


@pytest.mark.parametrize("placement", ["ema30", "clstm30", "static"])
def test_any_chunk_and_any_way_give_the_same_maps(placement):
    model, images = predictor(placement), scene(11)
    expected = None
    for chunk in (1, 3, 4, 16):
        model.chunk = chunk
        model.reset()
        stepped = [model.step(np.stack(images[i : i + chunk])) for i in range(0, 11, chunk)]
        ways = (
            maps(model, images),
            model.predict(np.stack(images), size="model"),
            np.stack(list(model.stream(images, size="model"))),
            np.concatenate(stepped),
        )
        expected = ways[0] if expected is None else expected
        for way in ways:
            np.testing.assert_allclose(way, expected, atol=2e-6)
    assert expected.shape == (11, *SIZE) and expected.std() > 0.01


@pytest.mark.parametrize("name", ["ema30", "clstm30", "ema61"])
def test_maps_do_not_depend_on_how_many_frames_are_one_batch(name):
    model, images, found = predictor(name, 16, size=(32, 48)), video(7, (32, 48)), []
    for model.at_once in (1, 3, 16):
        found.append((model.predict(images), np.stack(list(model.images(images)))))
    for clip, singles in found[1:]:
        np.testing.assert_allclose(clip, found[0][0], atol=2e-6)
        np.testing.assert_allclose(singles, found[0][1], atol=2e-6)


def test_each_map_comes_with_its_own_frame(model):
    images = scene(9)
    for index, (frame, _) in enumerate(model.maps(frames_of(images))):
        np.testing.assert_array_equal(frame.image, images[index])
        assert frame.name == f"{index + 1:05d}"
    assert index == 8


def test_no_frames_give_no_maps(model):
    assert list(model.maps([])) == list(model.stream([])) == list(model.images([])) == []
    assert model.step(np.zeros((0, 40, 60, 3), np.uint8)).shape == (0, *SIZE)
    assert model.predict(np.zeros((0, 50, 70, 3), np.uint8)).shape == (0, 50, 70)


def test_maps_are_as_large_as_the_frames_or_as_the_model(model):
    images = video(3, (50, 70))
    small, large = model.predict(images, "model"), model.predict(images)
    assert small.shape == (3, *SIZE) and large.shape == (3, 50, 70)
    assert small.dtype == large.dtype == np.float32
    np.testing.assert_array_equal(large[1], cv2.resize(small[1], (70, 50)))


def test_images_are_clips_of_their_own_whatever_their_size(model):
    images = [*video(3, (40, 60)), *video(2, (64, 96)), *video(1, (40, 30))]
    singly = [model.predict(image[None], "model")[0] for image in images]
    np.testing.assert_allclose(np.stack(list(model.images(images))), singly, atol=2e-6)


# ---------------------------------------------------------------- the memory


def test_the_state_is_carried_from_step_to_step_until_it_is_reset(model):
    images = video(4, SIZE)
    model.reset()
    whole = model.step(images)
    assert model.state.frame == 4
    model.reset()
    assert model.state is None
    np.testing.assert_allclose(model.step(images[:2]), whole[:2], atol=2e-6)
    np.testing.assert_allclose(model.step(images[2:]), whole[2:], atol=2e-6)


def test_frames_of_another_size_start_a_new_clip(model):
    first, second = video(3, (50, 70)), video(3, (64, 40))
    expected = [*model.predict(first), *model.predict(second)]
    found = list(model.stream([*first, *second]))
    assert [saliency.shape for saliency in found] == [(50, 70)] * 3 + [(64, 40)] * 3
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-6)
    model.reset()
    model.step(first)
    model.step(second)
    assert model.state.frame == 3


def test_calls_start_with_an_empty_memory_and_do_not_mix(model):
    first, second = scene(5, 1), scene(5, 2)
    alone = [np.stack(list(model.stream(clip))) for clip in (first, second)]
    model.step(np.stack(first))
    pairs = zip(model.stream(first), model.stream(second), strict=True)
    for together, expected in zip(zip(*pairs, strict=True), alone, strict=True):
        np.testing.assert_array_equal(np.stack(together), expected)
    assert model.state.frame == 5  # no stream changed it


@pytest.mark.parametrize("placement", ["ema30", "clstm30"])
def test_threads_that_share_a_model_do_not_mix_their_memories(placement):
    model = predictor(placement, chunk=2)
    clips = [scene(12, seed) for seed in (1, 2, 3)]
    alone = [np.stack(list(model.stream(clip))) for clip in clips]
    gate = threading.Barrier(len(clips))

    def together(clip):
        gate.wait()
        return np.stack(list(model.stream(clip)))

    with ThreadPoolExecutor(len(clips)) as pool:
        for found, expected in zip(pool.map(together, clips), alone, strict=True):
            np.testing.assert_allclose(found, expected, atol=2e-6)


def test_a_cut_is_a_change_of_more_than_half_of_the_colours():
    red, blue = np.zeros((10, 10, 3), np.uint8), np.zeros((10, 10, 3), np.uint8)
    red[..., 0], blue[..., 2] = 200, 200
    assert is_cut(red, blue)
    mixed = red.copy()
    mixed[:5] = blue[:5]
    assert not is_cut(red, mixed)  # exactly half
    mixed[5, 0] = blue[0, 0]
    assert is_cut(red, mixed)
    assert not is_cut(red, red + 20)  # 200 and 220 share a bin


@pytest.mark.parametrize("chunk", [1, 3, 4, 16])
def test_shots_do_not_see_each_other_with_a_reset_at_cuts(chunk):
    model = predictor(chunk=chunk)
    first, second = scene(4, 1), scene(5, 2)
    apart = np.concatenate([maps(model, first), maps(model, second)])
    np.testing.assert_allclose(maps(model, first + second, shot_reset=True), apart, atol=2e-6)
    assert np.abs(maps(model, first + second)[4:] - apart[4:]).max() > 1e-3


# ---------------------------------------------------------------- ahead, in constant memory


def most_alive(consume, count):
    """The most images that were in memory at once while `count` of them went through."""
    alive, most = set(), 0

    def images():
        nonlocal most
        for _ in range(count):
            image = np.full((8, 8, 3), 50, np.uint8)
            alive.add(key := id(image))
            weakref.finalize(image, alive.discard, key)
            most = max(most, len(alive))
            yield image
            del image

    for _ in consume(images()):
        pass
    return most


@pytest.mark.parametrize("way", ["stream", "maps", "images"])
def test_memory_is_constant_in_the_length_of_the_video(way):
    model = predictor("static", chunk=4)
    consume = getattr(model, way)
    if way == "maps":
        consume = lambda images: model.maps(frames_of(images))  # noqa: E731
    bound = 2 if way != "maps" else 5 * model.chunk  # a chunk, twice as many ahead, some on the way
    assert max(most_alive(consume, count) for count in (30, 120)) <= bound


def test_stopping_early_stops_the_thread_that_works_ahead(model):
    before = threading.active_count()
    pairs = model.maps(frames_of(scene(500)))
    next(pairs)
    pairs.close()
    assert threading.active_count() == before


def test_an_error_in_the_source_comes_after_the_maps_before_it(model):
    def frames():
        yield from frames_of(scene(5))
        raise SalemaError("it broke", 1)

    done = []
    with pytest.raises(SalemaError, match="it broke"):
        for _, saliency in model.maps(frames()):
            done.append(saliency)
    assert len(done) == 4  # whole chunks


# ---------------------------------------------------------------- the network


def test_weights_may_change_before_the_first_map_and_the_network_is_never_changed():
    images = video(3, (32, 48))
    model, other = predictor(size=(32, 48)), predictor(size=(32, 48), seed=2)
    model.network.load_state_dict(other.network.state_dict())
    before = {name: tensor.clone() for name, tensor in model.network.state_dict().items()}
    np.testing.assert_array_equal(model.predict(images), other.predict(images))
    assert model.network.training and model.network.layers[0].weight.requires_grad
    for name, tensor in model.network.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_attributes_are_those_of_the_network():
    model = predictor("ema7")
    assert model.size == SIZE and model.placement == named("ema7")
    assert model.config == model.network.config and model.card.run == "unnamed"
    assert model.device == torch.device("cpu") and model.precision == "fp32"


def test_bf16_stays_close_to_fp32_and_keeps_the_memory_in_fp32():
    for name in ("ema30", "clstm30", "clstm56", "videosalgan", "ema30-residual"):
        full = predictor(name, size=(32, 48))
        half = Predictor(full.network, "cpu", "bf16")
        images = video(5, (32, 48))
        exact, rounded = full.predict(images), half.predict(images)
        assert rounded.dtype == np.float32
        assert np.corrcoef(exact.ravel(), rounded.ravel())[0, 1] > 0.999
        half.step(images)
        memory = next(iter(half.state.memories.values()))
        kept = memory if isinstance(memory, torch.Tensor) else memory[0]
        assert kept.dtype == torch.float32


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("frames", "told"),
    [
        (np.zeros((4, 32, 48), np.uint8), "(4, 32, 48)"),
        (np.zeros((1, 32, 48, 4), np.uint8), "(1, 32, 48, 4)"),
        (np.zeros((1, 32, 48, 3), np.float32), "float32"),
    ],
)
def test_what_is_not_frames_is_refused(model, frames, told):
    for way in (model.predict, model.step):
        with pytest.raises(ValueError, match="uint8") as raised:
            way(frames)
        assert told in str(raised.value)


def test_an_average_keeps_its_seconds_at_another_frame_rate():
    place = named("ema61").model_copy(update={"alpha": 0.3, "fps": 30.0})
    model = load.build(place, config=Model(size=[32, 48], width=0.125, std=64.0))
    frames = video(6, (32, 48))
    twice = np.repeat(frames, 2, axis=0)
    wanted = model.predict(frames, fps=30)
    np.testing.assert_allclose(model.predict(twice, fps=60)[1::2], wanted, atol=1e-5)
    np.testing.assert_array_equal(model.predict(frames), wanted)  # no rate: as it is for
    assert np.abs(model.predict(twice)[1::2] - wanted).max() > 1e-3


def test_an_average_without_a_rate_averages_frames():
    model = load.build("ema61", config=Model(size=[32, 48], width=0.125, std=64.0))
    frames = video(4, (32, 48))
    np.testing.assert_array_equal(model.predict(frames, fps=60), model.predict(frames))
