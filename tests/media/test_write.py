import errno
import subprocess
import sys
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from test_read import SIZE, corners

from salema.files import SalemaError
from salema.media import read, write
from salema.media.overlay import overlay
from salema.media.read import Frame


def blob(size=SIZE, at=0.5):
    """A smooth map with its peak of 1 at (at, at) of the frame."""
    y, x = np.mgrid[: size[0], : size[1]] / np.array(size)[:, None, None]
    return np.exp(-20 * ((x - at) ** 2 + (y - at) ** 2)).astype(np.float32)


def maps(count, size=SIZE):
    return [blob(size, 0.2 + 0.6 * i / count) for i in range(count)]


def fill(writer, values, frames=None, times=None):
    """Runs a writer from start to end."""
    with writer as put:
        for index, value in enumerate(values):
            image = value if frames is None else frames[index]
            put(value, Frame(image, f"{index:04d}", times and times[index]))


def test_bytes_are_rounded_and_clipped():
    values = np.float32([[0, 0.25, 0.5, 1, -0.5, 1.5, 0.5 / 255 - 1e-4, 0.5 / 255 + 1e-4]])
    expected = [[0, 64, 128, 255, 0, 255, 0, 1]]  # 127.5 goes to the even 128
    np.testing.assert_array_equal(write.to_byte(values), np.uint8(expected))


def test_min_max_stretches_to_zero_and_one():
    np.testing.assert_allclose(write.min_max(np.float32([[2, 4], [3, 6]])), [[0, 0.5], [0.25, 1]])
    assert write.min_max(np.float32([[2, 4]])).dtype == np.float32


@pytest.mark.parametrize("value", [0.0, 0.7, 1e-38])
def test_min_max_of_a_flat_map_is_zero(value):
    np.testing.assert_array_equal(write.min_max(np.full((3, 4), value, np.float32)), 0)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_min_max_refuses_what_is_not_finite(value):
    with pytest.raises(ValueError, match="finite"):
        write.min_max(np.float32([[0, value, 1]]))


def test_png_files_carry_the_names_of_the_frames(tmp_path):
    values = maps(3)
    with write.png(tmp_path / "out" / "clip", SIZE) as put:
        for value, name in zip(values, ("0001", "0002", "été 3"), strict=True):
            put(value, Frame(value, name))
        assert not (tmp_path / "out" / "clip").exists()
    folder = tmp_path / "out" / "clip"
    assert sorted(p.name for p in folder.iterdir()) == ["0001.png", "0002.png", "été 3.png"]
    assert [p.name for p in folder.parent.iterdir()] == ["clip"]
    for value, name in zip(values, ("0001", "0002", "été 3"), strict=True):
        data = np.fromfile(folder / f"{name}.png", np.uint8)
        seen = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(seen, np.rint(value * 255).astype(np.uint8))


def test_png_files_may_have_sixteen_bits(tmp_path):
    fill(write.png(tmp_path / "deep", SIZE, bits=16), maps(1))
    seen = cv2.imread(str(tmp_path / "deep" / "0000.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(seen, np.round(maps(1)[0] * 65535).astype(np.uint16))


@pytest.mark.parametrize("form", write.SUFFIX)
def test_every_format_resizes_its_maps_to_the_size_asked_for(tmp_path, form):
    path = tmp_path / f"a{write.SUFFIX[form]}"
    fill(write.open(path, form, (20, 31), 25), maps(2))
    match form:
        case "png":
            seen = [cv2.imread(str(file), cv2.IMREAD_UNCHANGED) for file in path.iterdir()]
        case "gray":
            seen = list(read.maps(path))
        case "npy":
            seen = np.load(path)
    assert [value.shape for value in seen] == [(20, 31)] * 2


def test_an_unknown_format_is_refused(tmp_path):
    with pytest.raises(SalemaError, match=r"unknown format 'tiff' .choose one of png, gray, npy"):
        write.open(tmp_path / "a", "tiff", SIZE, 25)


def test_an_array_is_streamed_and_loads_as_one(tmp_path):
    values = maps(11, (7, 5))
    fill(write.npy(tmp_path / "a.npy", (7, 5)), values)
    seen = np.load(tmp_path / "a.npy", mmap_mode="r")
    assert seen.shape == (11, 7, 5) and seen.dtype == np.float32
    np.testing.assert_array_equal(seen, np.stack(values))


@pytest.mark.parametrize(("bits", "step"), [(8, 1 / 255), (16, 1 / 65535)])
@pytest.mark.parametrize("size", [SIZE, (33, 47), (1, 1)])
def test_a_gray_video_gives_its_maps_back(tmp_path, bits, step, size):
    values = maps(6, size)
    values[3] = np.zeros(size, np.float32)
    values[4] = np.ones(size, np.float32)
    fill(write.gray(tmp_path / "m.mkv", size, 29.97, bits), values)
    seen = list(read.maps(tmp_path / "m.mkv"))
    assert len(seen) == 6 and seen[0].dtype == np.float32
    assert np.abs(np.stack(seen) - np.stack(values)).max() <= step / 2 * 1.001
    assert seen[3].max() == 0 and seen[4].min() == 1
    with av.open(str(tmp_path / "m.mkv")) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "ffv1"
        assert stream.codec_context.pix_fmt == ("gray" if bits == 8 else "gray16le")
        assert float(stream.average_rate) == pytest.approx(29.97, abs=0.01)


def test_a_gray_video_has_the_same_bytes_each_time(tmp_path):
    for name in ("a.mkv", "b.mkv"):
        fill(write.gray(tmp_path / name, SIZE, 25), maps(5))
    assert (tmp_path / "a.mkv").read_bytes() == (tmp_path / "b.mkv").read_bytes()


def test_a_gray_video_cut_short_is_not_read_as_whole(tmp_path):
    path = tmp_path / "m.mkv"
    fill(write.gray(path, SIZE, 25), maps(9))
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(SalemaError, match=r"m\.mkv"):
        list(read.maps(path))


@pytest.mark.parametrize("content", [None, b"", b"These are words."])
def test_reading_maps_from_what_is_no_video_costs_one_line(tmp_path, content):
    if content is not None:
        (tmp_path / "m.mkv").write_bytes(content)
    with pytest.raises(SalemaError, match=r"m\.mkv"):
        list(read.maps(tmp_path / "m.mkv"))


def every_writer(folder, size=SIZE):
    return [
        write.png(folder / "png", size),
        write.npy(folder / "a.npy", size),
        write.gray(folder / "m.mkv", size, 25),
        overlay(folder / "o.mp4", size, 25),
        overlay(folder / "o.png", size, 25),
    ]


@pytest.mark.parametrize("index", range(5))
@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, SalemaError])
def test_an_error_half_way_leaves_nothing(tmp_path, index, error):
    writer = every_writer(tmp_path)[index]
    with pytest.raises(error, match="half way"), writer as put:
        put(blob(), Frame(corners(), "0"))
        raise error("half way")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("index", range(5))
def test_a_folder_below_a_file_costs_one_line(tmp_path, index):
    (tmp_path / "file").write_text("in the way")
    with (
        pytest.raises(SalemaError, match="a file is in the way"),
        every_writer(tmp_path / "file")[index],
    ):
        pass
    assert (tmp_path / "file").read_text() == "in the way"


def test_a_folder_that_exists_is_not_replaced(tmp_path):
    (tmp_path / "png").mkdir()
    (tmp_path / "png" / "mine.txt").write_text("kept")
    with pytest.raises(SalemaError, match="cannot write"):
        fill(write.png(tmp_path / "png", SIZE), maps(2))
    assert [p.name for p in tmp_path.rglob("*")] == ["png", "mine.txt"]


FULL = """
import resource, signal, sys
from pathlib import Path
import numpy as np
from salema.files import SalemaError
from salema.media.read import Frame
from test_write import every_writer
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
rng, size = np.random.default_rng(0), (240, 320)
try:
    with every_writer(Path(sys.argv[1]), size)[int(sys.argv[2])] as put:
        image = rng.integers(0, 256, (*size, 3), np.uint8)
        for i in range(1 if sys.argv[2] == "4" else 60):
            put(rng.random(size, np.float32), Frame(image, str(i)))
except SalemaError as error:
    print(error)
    sys.exit(error.status)
"""


@pytest.mark.parametrize("index", range(5))
def test_a_limit_on_the_size_of_files_costs_one_line_and_leaves_nothing(tmp_path, index):
    out = tmp_path / "out"
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(out), str(index)],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": f"{Path(__file__).parents[2]}:{Path(__file__).parent}"},
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr == ""
    assert done.stdout.count("\n") == 1 and "cannot write" in done.stdout
    assert "too large" in done.stdout and "free some space" in done.stdout
    assert list(out.iterdir()) == []


@pytest.mark.parametrize("kind", [OSError, av.error.OSError])
@pytest.mark.parametrize("index", range(5))
def test_no_space_left_costs_one_line_and_leaves_nothing(tmp_path, index, kind):
    writer = every_writer(tmp_path)[index]
    with pytest.raises(SalemaError, match=r"cannot write .*No space left on device"), writer as put:
        put(blob(), Frame(corners(), "0"))
        raise kind(errno.ENOSPC, "No space left on device")
    assert list(tmp_path.iterdir()) == []
