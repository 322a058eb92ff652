"""The cache of decoded frames: the same arrays, whatever happens to its files."""

import os
import shutil

import numpy as np
import pytest
import trees

from salema.data import FrameCache, load
from salema.data import cache as cache_module
from salema.data.cache import HEADER, SourceArray, stretch
from salema.files import SalemaError

SMALL = (12, 16)
PLENTY = 10**8


@pytest.fixture
def clip(tmp_path):
    trees.dhf1k(tmp_path, 1, 5)
    return load(tmp_path, "DHF1K")[0]


def files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_arrays_have_the_models_size_and_are_bytes(tmp_path, clip):
    cache = FrameCache(tmp_path / "scratch", SMALL, PLENTY)
    frames, maps, fixations = cache.frames(clip), cache.maps(clip), cache.fixations(clip)
    assert frames.shape == (5, 12, 16, 3) and maps.shape == fixations.shape == (5, 12, 16)
    assert frames.dtype == maps.dtype == fixations.dtype == np.uint8
    assert frames[:, 0, 0, 0].tolist() == [0, 10, 20, 30, 40]
    assert fixations.sum() == 5 and fixations[3, 0, 1] == 1
    assert len(files(tmp_path / "scratch")) == 3


def test_a_clips_identity_changes_with_any_of_its_files(tmp_path, clip):
    known = {FrameCache.identity(clip)}
    assert FrameCache.identity(load(tmp_path, "DHF1K")[0]) in known
    for path in clip.files():
        os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
        assert FrameCache.identity(clip) not in known
        known.add(FrameCache.identity(clip))
    assert len(known) > 5


def test_a_map_is_resized_by_area_and_stretched(tmp_path, clip):
    maps = FrameCache(tmp_path / "scratch", SMALL, PLENTY).maps(clip)
    # One white pixel of 24x32 is a quarter of one cell of 12x16; stretched it is white.
    assert maps[0, 0, 0] == 255 and maps[0].sum() == 255


def test_an_official_map_of_an_image_keeps_its_values(tmp_path):
    (stem,) = trees.salicon(tmp_path, "train", [1])
    map_ = np.full(trees.SIZE, 40, np.uint8)
    map_[:2, :2], map_[4:6, 4:6] = 120, 201
    trees.array(tmp_path / "SALICON" / "maps" / "train" / f"{stem}.png", map_)
    (clip,) = load(tmp_path, "SALICON", "train")
    maps = FrameCache(tmp_path / "scratch", SMALL, PLENTY).maps(clip)
    assert (maps[0, 0, 0], maps[0, 2, 2], maps.min(), maps.max()) == (120, 201, 40, 201)


def test_a_flat_map_becomes_zeros():
    assert not stretch(np.full((3, 4), 0.7, np.float32)).any()
    assert stretch(np.array([[0.1, 0.2, 0.5]])).tolist() == [[0, 64, 255]]


def test_blank_and_missing_maps_are_zeros(tmp_path):
    folder = trees.shot(tmp_path / "DHF1K" / "annotation" / "0001", ["0001", "0002", "0003"])
    trees.grey(folder / "maps" / "0001.png", [])
    (folder / "maps" / "0002.png").unlink()
    trees.picture(tmp_path / "other" / "1" / "1.png")
    cache = FrameCache(tmp_path / "scratch", SMALL, PLENTY)
    assert cache.maps(load(tmp_path, "DHF1K")[0]).max((1, 2)).tolist() == [0, 0, 255]
    (bare,) = load(tmp_path, "other")
    assert cache.maps(bare).shape == (1, 12, 16) and not cache.maps(bare).any()
    assert not cache.fixations(bare).any()


def test_maps_of_points_are_blurred_at_the_models_size(tmp_path):
    trees.osie(tmp_path, {1001: [[(20, 10)], [(5, 5), (99, 5)]]})
    (clip,) = load(tmp_path, "OSIE")
    cache = FrameCache(tmp_path / "scratch", SMALL, PLENTY)
    map_ = cache.maps(clip)[0]
    assert map_.shape == SMALL and map_.max() == 255 and map_[5, 10] > 200 and map_[2, 2] > 200
    assert cache.fixations(clip)[0].sum() == 2


def test_the_second_time_nothing_is_decoded(tmp_path, clip):
    first = np.array(FrameCache(tmp_path / "scratch", SMALL, PLENTY).frames(clip))
    state = clip.images.stat()
    clip.images.write_bytes(b"\0" * state.st_size)
    os.utime(clip.images, ns=(state.st_atime_ns, state.st_mtime_ns))
    again = FrameCache(tmp_path / "scratch", SMALL, PLENTY).frames(clip)
    assert isinstance(again, np.memmap) and np.array_equal(first, again)


def changed(path):
    trees.grey(path, [(20, 20)])
    os.utime(path, ns=(1, 1))


def test_a_changed_source_is_decoded_again_by_the_next_run(tmp_path, clip):
    folder = tmp_path / "scratch"
    cache = FrameCache(folder, SMALL, PLENTY)
    before = cache.maps(clip)[0].copy()
    path = clip.map_files.folder / "0001.png"
    trees.grey(path, [(20, 20)])
    os.utime(path, ns=(1, 1))
    assert np.array_equal(before, cache.maps(clip)[0])
    assert not np.array_equal(before, FrameCache(folder, SMALL, PLENTY).maps(clip)[0])
    assert np.array_equal(before, cache.maps(clip)[0])
    assert len(files(folder)) == 1  # the old one is gone


def test_the_folder_may_be_deleted_while_it_is_in_use(tmp_path, clip):
    cache = FrameCache(tmp_path / "scratch", SMALL, PLENTY)
    frames = cache.frames(clip)
    shutil.rmtree(tmp_path / "scratch")
    assert frames[:, 0, 0, 0].tolist() == [0, 10, 20, 30, 40]
    assert np.array_equal(cache.frames(clip), frames) and len(cache.maps(clip)) == 5


def test_sources_are_looked_at_once_a_run(tmp_path, clip, monkeypatch):
    cache = FrameCache(tmp_path / "scratch", SMALL, PLENTY)
    cache.maps(clip)
    monkeypatch.setattr("salema.data.cache._key", lambda *_: pytest.fail("looked at again"))
    assert len(cache.maps(clip)) == len(cache.maps(clip)) == 5


def test_another_size_is_another_file(tmp_path, clip):
    for size in (SMALL, (6, 8)):
        frames = FrameCache(tmp_path / "scratch", size, PLENTY).frames(clip)
        assert frames.shape == (5, *size, 3)
    assert len(files(tmp_path / "scratch")) == 2


@pytest.mark.parametrize(
    "harm", ["short", "long", "empty", "garbled", "header", "other", "deleted"]
)
def test_a_harmed_file_is_made_again(tmp_path, clip, harm):
    folder = tmp_path / "scratch"
    good = np.array(FrameCache(folder, SMALL, PLENTY).frames(clip))
    (path,) = files(folder)
    data = path.read_bytes()
    match harm:
        case "short":
            path.write_bytes(data[: len(data) // 2])
        case "empty":
            path.write_bytes(b"")
        case "garbled":
            path.write_bytes(bytes([data[0] ^ 255]) + data[1:])
        case "header":
            path.write_bytes(data[:20] + b"(((" + data[23:])
        case "other":
            np.save(path, np.zeros((5, 3), np.uint8))
        case "long":
            np.save(path, np.zeros((6, *SMALL, 3), np.uint8))
        case "deleted":
            shutil.rmtree(folder)
    again = FrameCache(folder, SMALL, PLENTY).frames(clip)
    assert np.array_equal(good, again) and isinstance(again, np.memmap)


def test_without_budget_the_source_is_read_each_time(tmp_path, clip):
    cached = FrameCache(tmp_path / "scratch", SMALL, PLENTY)
    direct = FrameCache(tmp_path / "none", SMALL, 100)
    for kind in ("frames", "maps", "fixations"):
        one, other = getattr(cached, kind)(clip), getattr(direct, kind)(clip)
        assert isinstance(other, SourceArray) and not (tmp_path / "none").exists()
        assert other.shape == one.shape and len(other) == 5 and other.dtype == one.dtype
        for part in (slice(0, 2), slice(2, 4), slice(4, 9), slice(1, 3), slice(3, 3)):
            assert np.array_equal(one[part], other[part]), (kind, part)
        assert np.array_equal(one, list(other))


def test_slices_in_order_read_the_source_once():
    starts = []

    def read(start):
        starts.append(start)
        yield from (np.full((1, 1), value, np.uint8) for value in range(start, 6))

    frames = SourceArray(read, (6, 1, 1))
    assert [frames[i : i + 2].ravel().tolist() for i in (0, 2, 4)] == [[0, 1], [2, 3], [4, 5]]
    assert starts == [0]
    assert frames[1:3].ravel().tolist() == [1, 2] and starts == [0, 1]
    assert [int(row[0, 0]) for row in frames] == [0, 1, 2, 3, 4, 5]


def test_few_maps_are_kept_and_the_others_opened_again(tmp_path, clip, monkeypatch):
    monkeypatch.setattr(cache_module, "OPEN", 1)
    cache = FrameCache(tmp_path / "scratch", SMALL, PLENTY)
    for _ in range(2):
        assert [len(cache.frames(clip)), len(cache.maps(clip))] == [5, 5]


def test_the_budget_holds(tmp_path):
    for number in range(1, 9):
        trees.dhf1k(tmp_path, number, 2)
    folder, one = tmp_path / "scratch", 2 * 12 * 16 * 3
    cache = FrameCache(folder, SMALL, 2 * one + 2 * HEADER)
    kinds = [type(cache.frames(clip)) for clip in load(tmp_path, "DHF1K")]
    assert kinds == [np.memmap, np.memmap, *[SourceArray] * 6]
    assert sum(path.stat().st_size for path in files(folder)) <= cache.budget_bytes


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path, clip):
    (tmp_path / "scratch").write_text("a file is in the way")
    frames = FrameCache(tmp_path / "scratch", SMALL, PLENTY).frames(clip)
    assert frames[:2][:, 0, 0, 0].tolist() == [0, 10]


def test_a_source_that_breaks_off_gives_a_shorter_array_and_a_problem(tmp_path):
    trees.dhf1k(tmp_path, 1, 3, truth=5)
    (clip,) = load(tmp_path, "DHF1K")
    for _ in range(2):  # the second time from the file
        cache = FrameCache(tmp_path / "scratch", SMALL, PLENTY)
        assert len(cache.frames(clip)) == len(cache.frames(clip)) == 3
        assert len(cache.maps(clip)) == 5
        (problem,) = cache.problems.values()
        assert "DHF1K/0001: frames of 3 of 5 frames read" in str(problem)
        assert "001.AVI ends early (5 frames expected)" in problem.reason
    direct = FrameCache(tmp_path / "none", SMALL, 0)
    assert direct.frames(clip)[2:5].shape == (1, 12, 16, 3) and len(direct.problems) == 1


def test_a_source_that_could_not_be_read_for_a_while_is_decoded_again(tmp_path, clip, monkeypatch):
    def unread(path):
        if path.name == "0003.png":
            raise SalemaError(f"cannot read {path}: Input/output error")
        return read(path)

    read = cache_module.read_gray
    monkeypatch.setattr(cache_module, "read_gray", unread)
    cache = FrameCache(tmp_path / "scratch", SMALL, PLENTY)
    assert len(cache.maps(clip)) == 2 and "0003.png" in str(*cache.problems.values())
    monkeypatch.setattr(cache_module, "read_gray", read)
    cache = FrameCache(tmp_path / "scratch", SMALL, PLENTY)
    assert len(cache.maps(clip)) == 5 and cache.problems == {}


def test_a_source_without_a_frame_is_an_error_and_leaves_nothing(tmp_path, clip):
    clip.images.write_bytes(b"not a video")
    with pytest.raises(SalemaError, match=r"001\.AVI"):
        FrameCache(tmp_path / "scratch", SMALL, PLENTY).frames(clip)
    assert not (tmp_path / "scratch").exists()
