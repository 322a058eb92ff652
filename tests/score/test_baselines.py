"""Reference rows: what they use, and that they use nothing else."""

import numpy as np
import pytest
import trees

from salema import data
from salema.files import SalemaError
from salema.score import baselines, protocols
from salema.score.maps import Maps

SIZE = trees.SIZE


def point(column, row, size):
    return tuple(np.array([row * size[0], column * size[1]]).astype(int))


@pytest.fixture
def root(tmp_path):
    """People look to the upper left in training clips, to the lower right in all others."""
    for number in (1, 2, 601, 602):
        folder = trees.dhf1k(tmp_path, number, 3) / "annotation" / f"{number:04d}"
        at = (6, 5) if number < 601 else (27, 20)
        for path in folder.rglob("*.png"):
            trees.grey(path, [at])
    return tmp_path


# ---------------------------------------------------------------------- centre prior


def test_the_prior_is_the_mean_of_training_maps_and_of_no_other(root):
    prior = baselines.centre_prior(data.load(root, "DHF1K", "train"))
    assert prior.shape == baselines.PRIOR_SIZE and prior.dtype == np.float32
    assert prior.max() == 1 and prior.min() == 0
    bright = np.argwhere(prior > 0)
    scale = np.array(prior.shape) / SIZE
    assert (bright / scale).mean(0) == pytest.approx((5.5, 6.5), abs=0.5)
    assert np.ptp(bright / scale, axis=0).max() <= 1


def test_the_prior_reads_nothing_but_training_clips(root, monkeypatch):
    asked = []
    load = data.load
    monkeypatch.setattr(data, "load", lambda *words: asked.append(words) or load(*words))
    before = baselines.centre_prior(data.load(root, "DHF1K", "train"))
    assert asked == [(root, "DHF1K", "train")]
    for path in (root / "DHF1K" / "annotation").glob("06*/maps/*.png"):
        trees.grey(path, [(0, 0)])
    np.testing.assert_array_equal(baselines.centre_prior(data.load(root, "DHF1K", "train")), before)


def test_every_frame_counts_alike_however_bright_its_map_and_blank_ones_do_not(root):
    folder = root / "DHF1K" / "annotation" / "0002" / "maps"
    trees.array(folder / "0001.png", np.full(SIZE, 0, np.uint8))
    faint = np.zeros(SIZE, np.uint8)
    faint[20, 27] = 10
    trees.array(folder / "0002.png", faint)
    prior = baselines.centre_prior(data.load(root, "DHF1K", "train"))
    scale = np.array(prior.shape) / SIZE
    row, column = (np.array((20.5, 27.5)) * scale).astype(int)
    assert prior[row, column] == pytest.approx(1 / 4)  # of five maps that are not blank


def test_without_training_clips_there_is_no_prior(tmp_path):
    trees.dhf1k(tmp_path, 601, 2)
    with pytest.raises(SalemaError, match="no clip of DHF1K train"):
        baselines.centre_prior(data.load(tmp_path, "DHF1K", "train"))


def test_training_maps_that_are_all_blank_give_a_flat_prior(root):
    for path in (root / "DHF1K" / "annotation").glob("000*/maps/*.png"):
        trees.grey(path, [])
    assert not baselines.centre_prior(data.load(root, "DHF1K", "train")).any()


# ---------------------------------------------------------------------- spectral residual


def texture(size, seed=0):
    """Waves of a few sizes in all directions: no place is salient."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: size[0], : size[1]] / size[0]
    waves = np.zeros(size)
    for k in range(12):
        angle, phase = np.pi * k / 12, rng.uniform(0, 2 * np.pi)
        waves += np.sin(2 * np.pi * 6 * (x * np.cos(angle) + y * np.sin(angle)) + phase)
    grey = 110 + 40 * waves / np.abs(waves).max()
    return np.repeat(grey[..., None], 3, 2).astype(np.uint8)


@pytest.mark.parametrize("size", [(96, 128), (120, 213), (128, 72)])
@pytest.mark.parametrize("place", [(0.3, 0.25), (0.7, 0.6)])
def test_the_spectral_residual_finds_a_lone_blob(size, place):
    row, column = point(*place[::-1], size)
    frame = texture(size)
    y, x = np.mgrid[: size[0], : size[1]]
    blob = (y - row) ** 2 + (x - column) ** 2 < (0.05 * size[0]) ** 2
    frame[blob] = 250
    saliency = baselines.spectral_residual(frame)
    assert saliency.dtype == np.float32 and saliency.shape[0] == 64
    assert saliency.shape[1] == round(64 * size[1] / size[0])
    peak = np.array(np.unravel_index(saliency.argmax(), saliency.shape)) / saliency.shape
    assert peak == pytest.approx(place, abs=0.08)


@pytest.mark.parametrize("value", [0, 128, 255])
def test_the_spectral_residual_of_a_flat_frame_is_finite(value):
    saliency = baselines.spectral_residual(np.full((*SIZE, 3), value, np.uint8))
    assert np.isfinite(saliency).all() and saliency.min() >= 0


# ---------------------------------------------------------------------- one half of the observers


def looks(observers, each=3):
    return np.array([(k, k, o) for o in range(observers) for k in range(each)], float)


@pytest.mark.parametrize(("count", "half"), [(2, 1), (5, 2), (12, 6), (17, 8)])
def test_observers_are_on_one_side_each_and_halves_are_equal_or_one_apart(count, half):
    points = looks(count)
    ((first, second),) = baselines.split_half([points], np.random.default_rng(0))
    sides = [set(part[:, 2]) for part in (first, second)]
    assert not sides[0] & sides[1] and len(sides[0]) == half
    both = np.concatenate([first, second])
    assert sorted(map(tuple, both)) == sorted(map(tuple, points))


def test_halves_are_drawn_and_the_draw_is_seeded():
    def side(seed):
        ((first, _),) = baselines.split_half([looks(6)], np.random.default_rng(seed))
        return frozenset(first[:, 2])

    sides = [side(seed) for seed in range(20)]
    assert len(set(sides)) > 5 and side(0) == sides[0]


def test_who_did_not_look_at_this_frame_still_has_a_side():
    frames = [looks(6), looks(6)[:3]]  # one observer only in the second
    whole, part = baselines.split_half(frames, np.random.default_rng(1))
    assert sorted(map(len, part)) == [0, 3]
    assert all(set(some[:, 2]) <= set(side[:, 2]) for some, side in zip(part, whole, strict=True))


# ---------------------------------------------------------------------- maps


def test_every_baseline_gives_a_map_a_frame(root):
    (clip, _) = data.load(root, "DHF1K", "val")
    prior = baselines.centre_prior(data.load(root, "DHF1K", "train"))
    for name in ("chance", "centre-prior", "spectral-residual"):
        maps = list(Maps(baseline=name, prior=prior).of(clip))
        assert len(maps) == 3
        assert all(saliency.ndim == 2 and np.isfinite(saliency).all() for saliency in maps)
    assert all(
        saliency is prior for saliency in Maps(baseline="centre-prior", prior=prior).of(clip)
    )


@pytest.mark.parametrize("name", protocols.NAMES)
def test_chance_scores_a_half_and_nothing_by_every_protocol(name):
    size = (90, 160)
    rng = np.random.default_rng(0)
    points = np.column_stack([rng.uniform(0, 160, 9), rng.uniform(0, 90, 9), np.arange(9)])
    pool = protocols.Pool({"a": (size, [points]), "b": (size, [points[::2]])})
    protocol = protocols.get(name)
    density = data.blur(points, size, 5.0)
    (flat,) = Maps(baseline="chance").of(one_frame())
    scores = protocol.score(flat, points, density, size, protocol.negatives(pool, "a"))
    assert scores["auc_judd"] == scores.get("auc_shuffled", 0.5) == 0.5
    assert scores["nss"] == scores["cc"] == 0.0
    assert 0 < scores["sim"] < 0.5 < scores.get("kld", 1)


def one_frame():
    return data.Clip("a", "DHF1K", "val", ("0001",), images=None)
