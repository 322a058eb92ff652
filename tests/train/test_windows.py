"""Windows: their order and state, and changes that frame and map go through alike."""

import cv2
import numpy as np
import pytest
import torch
import trees

from salema import data
from salema.files import SalemaError
from salema.params import Finetune, Tune
from salema.train.windows import augmented, clip_windows, image_windows, recoloured, zoomed

SIZE = (32, 48)  # of the model, and of every picture here: nothing is resized
CLIPS = {1: 7, 2: 5, 3: 9}  # number -> frames


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Three clips; frame k of clip n is grey 20 * n + k, and fixated at (4 * k, 2 * k)."""
    root = tmp_path_factory.mktemp("data")
    for number, frames in CLIPS.items():
        folder = root / "UCF-sports" / "training" / f"Run-Side-{number:03d}"
        for k in range(frames):
            name = f"Run-Side_{number:03d}_{k + 1:03d}.png"
            pixels = np.full((*SIZE, 3), 20 * number + k, np.uint8)
            pixels[:, : SIZE[1] // 2] += 100  # so that a mirrored frame is told from another
            trees.array(folder / "images" / name, pixels)
            trees.grey(folder / "maps" / name, [(4 * k, 2 * k)], SIZE)
            trees.grey(folder / "fixation" / name, [(4 * k, 2 * k)], SIZE)
    return root


@pytest.fixture(scope="module")
def clips(root):
    return data.load(root, "UCF-sports", "train")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return data.FrameCache(tmp_path_factory.mktemp("cache"), SIZE, 2**30)


def rng(seed=0):
    return np.random.default_rng(seed)


def finetune(**settings):
    given = {"epochs": 1, "batch": 1, "learning_rate": 1e-3, "bptt_frames": 3}
    return Finetune(**given | settings)


def tune(**settings):
    return Tune(**{"epochs": 1, "batch": 4, "learning_rate": 1e-3, "frames_per_clip": 4} | settings)


def loaded(readers):
    return [read() for read in readers]


def values(window):
    """(B, T) number of the clip and of the frame, by the grey of the darker half."""
    grey = window.frames[..., 0].min((2, 3)).astype(int)
    return [[divmod(value - 20, 20) for value in row] for row in grey]


def same(first, second):
    pairs = list(zip(first, second, strict=True))
    return all(
        a.first == b.first
        and np.array_equal(a.frames, b.frames)
        and np.array_equal(a.targets, b.targets)
        for a, b in pairs
    )


# ---------------------------------------------------------------------- windows of clips


def test_windows_follow_each_other_through_a_clip_and_then_the_next_begins(clips, cache):
    windows = loaded(clip_windows(clips, cache, finetune(), rng(), 0))
    frames = [place for window in windows for place in values(window)[0]]
    order = list(dict.fromkeys(clip for clip, _ in frames))
    assert sorted(order) == [0, 1, 2]
    assert frames == [(clip, k) for clip in order for k in range(CLIPS[clip + 1])]
    assert all(len(values(window)[0]) <= 3 for window in windows)


def test_without_shuffling_every_epoch_has_the_clips_in_order(clips, cache):
    for epoch in range(3):
        windows = loaded(clip_windows(clips, cache, finetune(shuffle=False), rng(epoch), epoch))
        frames = [place for window in windows for place in values(window)[0]]
        assert frames == [(clip, k) for clip in range(3) for k in range(CLIPS[clip + 1])]


def test_the_state_is_new_where_a_clip_starts_and_nowhere_else(clips, cache):
    for window in loaded(clip_windows(clips, cache, finetune(), rng(1), 0)):
        assert window.first == (values(window)[0][0][1] == 0)


def test_the_last_window_of_a_clip_is_as_short_as_what_is_left(clips, cache):
    windows = loaded(clip_windows(clips[:1], cache, finetune(), rng(), 0))
    assert [window.frames.shape[1] for window in windows] == [3, 3, 1]
    assert windows[0].frames.shape == (1, 3, *SIZE, 3)
    assert windows[0].targets.shape == (1, 3, *SIZE)


def test_clips_in_parallel_last_as_long_as_the_shortest_and_start_anywhere(clips, cache):
    settings, starts = finetune(batch=3), set()
    for seed in range(8):
        windows = loaded(clip_windows(clips, cache, settings, rng(seed), 0))
        assert [window.first for window in windows] == [True, False]
        assert [window.frames.shape[:2] for window in windows] == [(3, 3), (3, 2)]
        for row in range(3):
            places = values(windows[0])[row] + values(windows[1])[row]
            clip, first = places[0]
            assert places == [(clip, first + k) for k in range(5)]
            assert first + 5 <= CLIPS[clip + 1]
            starts.add((clip, first))
    assert len(starts) > 3


def test_frames_per_clip_is_the_most_that_a_clip_gives_to_an_epoch(clips, cache):
    settings = finetune(frames_per_clip=4)
    windows = loaded(clip_windows(clips, cache, settings, rng(), 0))
    assert [window.frames.shape[1] for window in windows] == [3, 1] * 3


def test_validation_is_the_first_two_windows_of_every_clip_in_order_and_not_mirrored(clips, cache):
    settings = finetune(augment="flip", frames_per_clip=1)
    windows = loaded(clip_windows(clips, cache, settings, rng(), None))
    frames = [place for window in windows for place in values(window)[0]]
    assert frames == [(clip, k) for clip in range(3) for k in range(min(6, CLIPS[clip + 1]))]
    assert all((window.frames[..., 0, 0] > 100).all() for window in windows)
    assert same(windows, loaded(clip_windows(clips, cache, settings, rng(9), None)))


def test_a_clip_is_mirrored_as_a_whole_and_its_maps_with_it(clips, cache):
    seen = set()
    for seed in range(6):
        windows = loaded(clip_windows(clips, cache, finetune(augment="flip"), rng(seed), 0))
        for window in windows:
            mirrored = window.frames[0, :, 0, 0, 0] < window.frames[0, :, 0, -1, 0]
            if window.first:
                now = bool(mirrored[0])
                seen.add(now)
            assert (mirrored == now).all()
            for target, (_, k) in zip(window.targets[0], values(window)[0], strict=True):
                column = SIZE[1] - 1 - 4 * k if now else 4 * k
                assert np.argwhere(target).tolist() == [[2 * k, column]]
    assert seen == {True, False}


def test_a_window_is_read_only_when_its_reader_is_called(clips, cache, monkeypatch):
    monkeypatch.setattr(cache, "frames", lambda clip: pytest.fail("read"))
    readers = [*clip_windows(clips, cache, finetune(), rng(), 0)]
    readers += image_windows(clips, cache, tune(), rng(), 0)
    for read in readers:
        with pytest.raises(pytest.fail.Exception, match="read"):
            read()


@pytest.mark.parametrize("make", ["clips", "images"])
def test_a_seed_gives_the_same_windows_and_another_seed_others(clips, cache, make):
    def windows(seed):
        if make == "clips":
            settings = finetune(augment="flip", batch=2)
            return loaded(clip_windows(clips, cache, settings, rng(seed), 0))
        return loaded(image_windows(clips, cache, tune(augment="zoom"), rng(seed), 0))

    first = windows(0)
    assert same(first, windows(0))
    assert not all(same(first, other) for other in (windows(1), windows(2)))


def test_tensors_are_what_the_network_and_the_loss_take(clips, cache):
    window = next(clip_windows(clips, cache, finetune(), rng(), 0))()
    frames, targets = window.tensors(torch.device("cpu"))
    assert frames.dtype == torch.uint8 and frames.shape == (1, 3, *SIZE, 3)
    assert targets.dtype == torch.float32 and targets.shape == (1, 3, *SIZE)
    assert targets.max() == 1.0 and targets.min() == 0.0
    np.testing.assert_array_equal(frames.numpy(), window.frames)


@pytest.mark.parametrize("make", ["clips", "images"])
def test_a_source_that_ends_too_early_is_black_has_no_weight_and_is_named(
    clips, cache, monkeypatch, make
):
    monkeypatch.setattr(cache, "frames", lambda clip: np.zeros((2, *SIZE, 3), np.uint8))
    if make == "clips":
        windows = loaded(clip_windows(clips[:1], cache, finetune(bptt_frames=2), rng(), 0))
        assert [window.weights.tolist() for window in windows] == [[1], [0], [0], [0]]
    else:
        windows = loaded(image_windows(clips[:1], cache, tune(frames_per_clip=7), rng(), 0))
        assert sum(window.weights.sum() for window in windows) <= 2
    ends = "UCF-sports Run-Side-001 ends after 2 of 7 frames (copy it again"
    assert ends in windows[-1].problems[0] and not windows[-1].frames.any()
    assert set(windows[-1].clips) == {"UCF-sports Run-Side-001"}


def test_a_reader_that_dies_is_reported_with_its_clip(clips, cache, monkeypatch):
    monkeypatch.setattr(cache, "frames", lambda clip: 1 / 0)
    with pytest.raises(SalemaError, match="the reader of UCF-sports Run-Side-001 died of ZeroDiv"):
        loaded(clip_windows(clips[:1], cache, finetune(), rng(), 0))


# ---------------------------------------------------------------------- windows of images


def test_every_image_comes_once_and_a_small_last_batch_is_left_out(clips, cache):
    settings = tune(frames_per_clip=9)  # all 21 frames
    windows = loaded(image_windows(clips, cache, settings, rng(), 0))
    assert [window.frames.shape[:2] for window in windows] == [(4, 1)] * 5
    assert all(window.first for window in windows)
    frames = [row[0] for window in windows for row in values(window)]
    assert len(set(frames)) == 20
    assert frames != sorted(frames)


def test_fewer_images_than_a_batch_are_a_batch(clips, cache):
    windows = loaded(image_windows(clips[:1], cache, tune(batch=50), rng(), 0))
    assert [window.frames.shape[:2] for window in windows] == [(4, 1)]


def test_a_video_gives_other_frames_to_every_epoch(clips, cache):
    generator = rng()
    epochs = [
        {
            row[0]
            for window in loaded(image_windows(clips, cache, tune(), generator, epoch))
            for row in values(window)
        }
        for epoch in range(3)
    ]
    assert all(len(epoch) == 12 for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


def test_validation_takes_frames_evenly_spread_and_all_of_them(clips, cache):
    settings = tune(frames_per_clip=3, augment="salbce", half_epochs=9, batch=4)
    windows = loaded(image_windows(clips, cache, settings, rng(), None))
    frames = [row[0] for window in windows for row in values(window)]
    assert frames == [(0, 0), (0, 3), (0, 6), (1, 0), (1, 2), (1, 4), (2, 0), (2, 4), (2, 8)]
    assert windows[-1].frames.shape == (1, 1, *SIZE, 3)


def test_the_first_epochs_run_at_half_the_size(clips, cache):
    settings = tune(half_epochs=2)
    shapes = []
    for epoch in range(3):
        window = next(image_windows(clips, cache, settings, rng(), epoch))()
        shapes.append(window.frames.shape[2:4])
        assert window.targets.shape[2:] == window.frames.shape[2:4]
    half = (SIZE[0] // 2, SIZE[1] // 2)
    assert shapes == [half, half, SIZE]


# ---------------------------------------------------------------------- changes of a picture


def corner(place=(2, 3)):
    """A black picture with one bright pixel, and the map that is bright there too."""
    image, target = np.zeros((*SIZE, 3), np.uint8), np.zeros(SIZE, np.uint8)
    image[place], target[place] = 255, 255
    return image, target


def brightest(picture):
    grey = picture if picture.ndim == 2 else picture.max(2)
    return np.unravel_index(int(np.argmax(grey)), grey.shape)


def kinds(augment, count=60):
    """How often each outcome is seen, by where the bright pixel ends up."""
    seen = {}
    for seed in range(count):
        image, target = augmented(*corner(), augment, rng(seed))
        assert brightest(image) == brightest(target) or target.max() < 255
        place = brightest(target) if target.max() == 255 else "turned"
        seen[place] = seen.get(place, 0) + 1
    return seen


def test_none_changes_nothing():
    assert kinds("none", 5) == {(2, 3): 5}


def test_flip_mirrors_half_of_the_pictures():
    seen = kinds("flip")
    assert set(seen) == {(2, 3), (2, 44)}
    assert min(seen.values()) > 15


def test_salbce_applies_one_of_four_changes_to_image_and_map():
    """Mirrored, upside down, turned (here the corner is cropped away), or as it is."""
    seen = kinds("salbce", 120)
    assert set(seen) == {(2, 3), (2, 44), (29, 3), "turned"}
    assert min(seen.values()) > 12


def turning(shape):
    """A seed with which SalBCE turns a picture: a corner's pixel is cropped away."""
    target = np.zeros(shape, np.uint8)
    target[0, 0] = 255
    image = np.zeros((*shape, 3), np.uint8)
    for seed in range(100):
        if not augmented(image, target, "salbce", rng(seed))[1].any():
            return seed
    raise AssertionError("no seed turns")


@pytest.mark.parametrize("shape", [(33, 33), SIZE])
def test_the_rotation_crops_to_the_frame_and_fills_the_corners(shape):
    image = np.full((*shape, 3), 200, np.uint8)
    changed, target = augmented(image, image[..., 0], "salbce", rng(turning(shape)))
    assert changed.shape == image.shape and target.shape == shape
    for row, column in ((0, 0), (0, -1), (-1, 0), (-1, -1)):
        assert changed[row, column].tolist() == [124, 117, 104] and target[row, column] == 0
    middle = slice(shape[1] // 2 - 5, shape[1] // 2 + 5)
    assert (changed[:, middle] == 200).all() and (target[:, middle] == 200).all()


def test_the_rotation_is_by_45_degrees_about_the_centre_without_zoom():
    shape = (33, 33)
    image, target = np.zeros((*shape, 3), np.uint8), np.zeros(shape, np.uint8)
    image[15:18, 21:24], target[15:18, 21:24] = 255, 255  # six pixels right of the centre
    changed = augmented(image, target, "salbce", rng(turning(shape)))
    for picture in changed:
        rows, columns = np.nonzero((picture if picture.ndim == 2 else picture.max(2)) > 127)
        right, up = columns.mean() - 16, 16 - rows.mean()
        away = 6 / 2**0.5
        assert right == pytest.approx(away, abs=0.3) and up == pytest.approx(away, abs=0.3)


# ---------------------------------------------------------------------- zoom


def fixated(place):
    """A dark picture with a bright square where the only fixation is, its map, its counts."""
    row, column = place
    image, counts = np.full((*SIZE, 3), 30, np.uint8), np.zeros(SIZE, np.uint8)
    image[row - 1 : row + 2, column - 1 : column + 2] = 220
    counts[row, column] = 1
    points = np.array([(column, row, 0.0)])
    target = data.blur(points, SIZE, data.sigma(SIZE))
    return image, np.round(255 * target).astype(np.uint8), counts


def light(picture):
    """Row and column of the centre of what is bright."""
    grey = cv2.GaussianBlur(picture.astype(np.float32).mean(2), (0, 0), 1)
    return brightest(grey)


@pytest.mark.parametrize("place", [(4, 5), (15, 24), (27, 40), (10, 33)])
def test_zoom_keeps_the_blob_on_what_was_looked_at(place):
    image, target, counts = fixated(place)
    moved = 0
    for seed in range(40):
        seen, wanted = zoomed(image, target, counts, rng(seed))
        assert seen.shape == image.shape and wanted.shape == target.shape
        assert seen.dtype == wanted.dtype == np.uint8
        there, blob = light(seen), brightest(wanted)
        assert np.hypot(there[0] - blob[0], there[1] - blob[1]) <= 2
        assert wanted.max() == 255
        moved += blob not in (place, (place[0], SIZE[1] - 1 - place[1]))
    assert moved > 15


def test_a_zoomed_blob_is_as_wide_as_any_other_and_repeated_looks_count():
    image, target, counts = fixated((15, 24))
    counts[15, 24], counts[25, 10] = 3, 1
    widths, ratios = set(), []
    for seed in range(30):
        _, wanted = zoomed(image, target, counts, rng(seed))
        if np.array_equal(wanted, target) or np.array_equal(wanted, target[:, ::-1]):
            continue  # not zoomed
        widths.add(int((wanted > 127).sum()))
        rest = wanted.copy()
        row, column = brightest(wanted)
        rest[max(0, row - 5) : row + 6, max(0, column - 5) : column + 6] = 0
        ratios.append(rest.max() / 255)
    assert widths and max(widths) - min(widths) <= 2
    assert any(abs(ratio - 1 / 3) < 0.01 for ratio in ratios)


def test_a_set_with_maps_only_gets_its_map_resized_with_the_picture():
    image, target, counts = fixated((14, 20))
    for seed in range(30):
        seen, wanted = zoomed(image, target, np.zeros_like(counts), rng(seed))
        there, blob = light(seen), brightest(wanted)
        assert np.hypot(there[0] - blob[0], there[1] - blob[1]) <= 2


def test_a_part_without_most_of_the_gaze_is_never_taken():
    image, target, counts = fixated((2, 2))
    for seed in range(60):
        _, wanted = zoomed(image, target, counts, rng(seed))
        assert wanted.max() == 255


def test_zoom_of_a_picture_that_nobody_looked_at_stays_blank():
    image, _, counts = fixated((15, 24))
    for seed in range(10):
        _, wanted = zoomed(image, np.zeros(SIZE, np.uint8), counts * 0, rng(seed))
        assert not wanted.any()


def test_zooming_does_not_change_its_arguments():
    given = fixated((15, 24))
    before = [array.copy() for array in given]
    for seed in range(10):
        zoomed(*given, rng(seed))
    for array, copy in zip(given, before, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_images_are_zoomed_with_their_fixations(clips, cache):
    windows = loaded(image_windows(clips, cache, tune(augment="zoom"), rng(3), 0))
    areas = {int((target > 127).sum()) for window in windows for target in window.targets[:, 0]}
    assert max(areas) > 1  # those that were blurred again; the maps on disk are single pixels
    assert all(target.max() == 255 for window in windows for target in window.targets[:, 0])


def test_recolouring_changes_light_and_tint_within_bounds_and_moves_nothing():
    gradient = np.tile(np.linspace(40, 180, SIZE[1]).astype(np.uint8)[:, None], (SIZE[0], 1, 3))
    seen = [recoloured(gradient, rng(seed)) for seed in range(20)]
    for image in seen:
        assert image.shape == gradient.shape and image.dtype == np.uint8
        steps = np.diff(image.astype(int), axis=1)
        assert (steps >= -1).all() or (steps <= 1).all()  # still a gradient
    assert len({image.tobytes() for image in seen}) == 20
