import errno
import subprocess
import sys
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from test_read import SIZE, corners, film, ramp

from salema.files import SalemaError
from salema.media import read as video
from salema.media import write as writers

BLACK_TO_WHITE = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)


def blob(size=SIZE, at=0.5):
    """A smooth map with its peak of 1 at (at, at) of the frame."""
    y, x = np.mgrid[: size[0], : size[1]] / np.array(size)[:, None, None]
    return np.exp(-20 * ((x - at) ** 2 + (y - at) ** 2)).astype(np.float32)


def maps(count, size=SIZE):
    return [blob(size, 0.2 + 0.6 * i / count) for i in range(count)]


def fill(writer, values, frames=None, times=None):
    """Runs a writer from start to end."""
    with writer:
        for index, value in enumerate(values):
            frame = None if frames is None else frames[index]
            writer.write(value, frame, f"{index:04d}", times and times[index])


def test_bytes_are_rounded_and_clipped():
    values = np.float32([[0, 0.25, 0.5, 1, -0.5, 1.5, 0.5 / 255 - 1e-4, 0.5 / 255 + 1e-4]])
    expected = [[0, 64, 128, 255, 0, 255, 0, 1]]  # 127.5 goes to the even 128
    np.testing.assert_array_equal(writers.to_byte(values), np.uint8(expected))


def test_min_max_stretches_to_zero_and_one():
    np.testing.assert_allclose(writers.min_max(np.float32([[2, 4], [3, 6]])), [[0, 0.5], [0.25, 1]])
    assert writers.min_max(np.float32([[2, 4]])).dtype == np.float32


@pytest.mark.parametrize("value", [0.0, 0.7, 1e-38])
def test_min_max_of_a_flat_map_is_zero(value):
    np.testing.assert_array_equal(writers.min_max(np.full((3, 4), value, np.float32)), 0)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_min_max_refuses_what_is_not_finite(value):
    with pytest.raises(ValueError, match="finite"):
        writers.min_max(np.float32([[0, value, 1]]))


def test_color_tables_are_rgb():
    jet = writers.color_table("jet").astype(int)
    assert jet.shape == (256, 3)
    assert jet[0, 2] > jet[0, 0] and jet[-1, 0] > jet[-1, 2]  # from blue to red
    np.testing.assert_array_equal(writers.color_table("bone")[[0, 255]], [[0] * 3, [255] * 3])


def test_a_misspelt_color_map_gets_the_nearest_name():
    with pytest.raises(SalemaError, match=r"no color map 'trubo' .did you mean 'turbo'"):
        writers.OverlayWriter("a.mp4", 25, SIZE, colormap="trubo")


def test_overlay_follows_its_formula():
    rng = np.random.default_rng(0)
    frame = rng.integers(0, 256, (40, 50, 3), np.uint8)
    value = rng.random((40, 50), np.float32)
    lut = rng.integers(0, 256, (256, 3), np.uint8)
    for opacity in (0, 0.3, 0.6, 1):
        level = np.rint(value * 255).astype(int)
        weight = opacity * level[..., None] / 255
        expected = (1 - weight) * frame + weight * lut[level]
        blended = writers.overlay(frame, value, lut, opacity)
        assert blended.dtype == np.uint8
        assert np.abs(blended - expected).max() <= 2


def test_overlay_leaves_the_frame_alone_where_the_map_is_zero():
    frame = np.random.default_rng(0).integers(0, 256, (8, 9, 3), np.uint8)
    seen = writers.overlay(frame, np.zeros((8, 9), np.float32), writers.color_table("turbo"), 1)
    np.testing.assert_array_equal(seen, frame)


def test_overlay_at_full_opacity_is_the_color_map():
    frame = np.full((4, 256, 3), 77, np.uint8)
    value = np.tile(np.arange(256, dtype=np.float32) / 255, (4, 1))
    value[:, 255] = 1
    seen = writers.overlay(frame, value, BLACK_TO_WHITE, 1)
    np.testing.assert_array_equal(seen[:, 255], 255)


def test_overlay_resizes_the_map_to_the_frame():
    value = np.float32([[0, 0, 1, 1]])
    seen = writers.overlay(np.zeros((30, 80, 3), np.uint8), value, BLACK_TO_WHITE, 1)
    assert (seen[:, :20] == 0).all() and (seen[:, -10:] >= 254).all()


def test_png_files_carry_the_names_of_the_frames(tmp_path):
    values = maps(3)
    writer = writers.PngWriter(tmp_path / "out" / "clip")
    with writer:
        for value, name in zip(values, ("0001", "0002", "été 3"), strict=True):
            writer.write(value, None, name)
        assert not (tmp_path / "out" / "clip").exists()
    folder = tmp_path / "out" / "clip"
    assert sorted(p.name for p in folder.iterdir()) == ["0001.png", "0002.png", "été 3.png"]
    assert [p.name for p in folder.parent.iterdir()] == ["clip"]
    for value, name in zip(values, ("0001", "0002", "été 3"), strict=True):
        data = np.fromfile(folder / f"{name}.png", np.uint8)
        seen = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(seen, np.rint(value * 255).astype(np.uint8))


def test_an_array_is_streamed_and_loads_as_one(tmp_path):
    values = maps(11, (7, 5))
    fill(writers.NpyWriter(tmp_path / "a.npy"), values)
    seen = np.load(tmp_path / "a.npy", mmap_mode="r")
    assert seen.shape == (11, 7, 5) and seen.dtype == np.float32
    np.testing.assert_array_equal(seen, np.stack(values))


def test_an_array_refuses_maps_of_two_sizes(tmp_path):
    with pytest.raises(ValueError, match="one array"):
        fill(writers.NpyWriter(tmp_path / "a.npy"), [blob((4, 4)), blob((4, 5))])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("bits", "step"), [(8, 1 / 255), (16, 1 / 65535)])
@pytest.mark.parametrize("size", [SIZE, (33, 47), (1, 1)])
def test_a_gray_video_gives_its_maps_back(tmp_path, bits, step, size):
    values = maps(6, size)
    values[3] = np.zeros(size, np.float32)
    values[4] = np.ones(size, np.float32)
    fill(writers.GrayWriter(tmp_path / "m.mkv", 29.97, size, bits), values)
    seen = list(writers.read_gray(tmp_path / "m.mkv"))
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
        fill(writers.GrayWriter(tmp_path / name, 25, SIZE), maps(5))
    assert (tmp_path / "a.mkv").read_bytes() == (tmp_path / "b.mkv").read_bytes()


def test_a_gray_video_cut_short_is_not_read_as_whole(tmp_path):
    path = tmp_path / "m.mkv"
    fill(writers.GrayWriter(path, 25, SIZE), maps(9))
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(SalemaError, match=r"m\.mkv"):
        list(writers.read_gray(path))


@pytest.mark.parametrize("content", [None, b"", b"These are words."])
def test_reading_maps_from_what_is_no_video_costs_one_line(tmp_path, content):
    if content is not None:
        (tmp_path / "m.mkv").write_bytes(content)
    with pytest.raises(SalemaError, match=r"m\.mkv"):
        list(writers.read_gray(tmp_path / "m.mkv"))


def boxes(path):
    """The names of the outermost boxes of an mp4, in order."""
    data, at, names = path.read_bytes(), 0, []
    while at < len(data):
        names.append(data[at + 4 : at + 8].decode())
        at += int.from_bytes(data[at : at + 4], "big")
    return names


def probe(path):
    """Codec names, pixel format, size and the times of the pictures of a video."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        context = stream.codec_context
        facts = (context.name, context.pix_fmt, (context.height, context.width))
        sound = [s.codec_context.codec.canonical_name for s in container.streams.audio]
        times = [float(p.time) for p in container.decode(stream)]
        return facts, sound, times


def test_an_overlay_is_what_browsers_play(tmp_path):
    fill(writers.OverlayWriter(tmp_path / "o.mp4", 25, SIZE), maps(12), ramp(12))
    facts, sound, times = probe(tmp_path / "o.mp4")
    assert facts == ("h264", "yuv420p", SIZE) and sound == []
    assert times == pytest.approx([i / 25 for i in range(12)], abs=1e-4)
    names = boxes(tmp_path / "o.mp4")
    assert names[0] == "ftyp" and names.index("moov") < names.index("mdat")
    assert [p.name for p in tmp_path.iterdir()] == ["o.mp4"]


def test_an_overlay_shows_the_map_in_color_over_the_frame(tmp_path):
    frames = [corners()] * 4
    lut = writers.color_table("turbo")
    fill(writers.OverlayWriter(tmp_path / "o.mp4", 25, SIZE), [blob()] * 4, frames)
    expected = writers.overlay(frames[0], blob(), lut, 0.6).astype(int)
    for seen in video.open(tmp_path / "o.mp4"):
        assert np.abs(seen - expected).mean() < 12
        assert np.abs(seen[2:8, 2:8] - expected[2:8, 2:8]).max() < 25
        assert np.abs(seen[20:28, 28:36] - corners()[20:28, 28:36].astype(int)).mean() > 30


@pytest.mark.parametrize("size", [(33, 47), (33, 48), (32, 47), (1, 1), (2, 2), (1, 300)])
def test_an_overlay_of_an_odd_size_is_padded(tmp_path, size):
    frame = np.full((*size, 3), 120, np.uint8)
    fill(writers.OverlayWriter(tmp_path / "o.mp4", 25, size), [np.zeros(size, np.float32)], [frame])
    even = (size[0] + size[0] % 2, size[1] + size[1] % 2)
    assert probe(tmp_path / "o.mp4")[0] == ("h264", "yuv420p", even)
    (seen,) = video.open(tmp_path / "o.mp4")
    assert np.abs(seen.astype(int) - 120).max() < 8


def test_an_overlay_of_one_frame_lasts_as_long_as_a_frame(tmp_path):
    fill(writers.OverlayWriter(tmp_path / "o.mp4", 5, SIZE), maps(1), ramp(1))
    with av.open(str(tmp_path / "o.mp4")) as container:
        assert container.duration / av.time_base == pytest.approx(0.2, abs=0.01)


def test_an_overlay_keeps_the_times_of_a_variable_rate(tmp_path):
    times = [0.0, 0.1, 0.15, 0.6, 0.6, 2.0]
    fill(writers.OverlayWriter(tmp_path / "o.mp4", 25, SIZE), maps(6), ramp(6), times)
    assert probe(tmp_path / "o.mp4")[2] == pytest.approx(times, abs=1e-3)


def test_an_overlay_may_be_one_picture(tmp_path):
    for name in ("o.png", "o.JPG"):
        fill(writers.OverlayWriter(tmp_path / name, None, SIZE), [blob()], [corners()])
        expected = writers.overlay(corners(), blob(), writers.color_table("turbo"), 0.6)
        seen = video.read_image(tmp_path / name).astype(int)
        assert np.abs(seen - expected).mean() < (0.1 if name == "o.png" else 4)
    with pytest.raises(SalemaError, match="one picture only"):
        fill(writers.OverlayWriter(tmp_path / "p.png", 25, SIZE), maps(2), ramp(2))
    assert not (tmp_path / "p.png").exists()


def test_an_overlay_of_an_unknown_kind_is_refused():
    with pytest.raises(SalemaError, match=r"name it \.mp4, \.png or \.jpg"):
        writers.OverlayWriter("overlay.xyz", 25, SIZE)
    with pytest.raises(SalemaError, match="opacity must be from 0 to 1"):
        writers.OverlayWriter("overlay.mp4", 25, SIZE, opacity=60)


RATE = 16000  # Hz


def sounding(path, seconds, audio_codec, pictures="libx264", rate=RATE):
    """A black video with a tone of 1000 Hz in its second half."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(pictures, rate=25)
        stream.height, stream.width, stream.pix_fmt = *SIZE, "yuv420p"
        sound = container.add_stream(audio_codec, rate=rate, layout="mono")
        for frame in [np.zeros((*SIZE, 3), np.uint8)] * int(seconds * 25):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        clock = np.arange(int(seconds * rate)) / rate
        wave = np.sin(2000 * np.pi * clock) * 0.5 * (clock >= seconds / 2)
        for start in range(0, len(wave), 1024):
            piece = (wave[None, start : start + 1024] * 32767).astype(np.int16)
            block = av.AudioFrame.from_ndarray(piece, "s16", "mono")
            block.sample_rate, block.pts = rate, start
            container.mux(sound.encode(block))
        container.mux(stream.encode(None))
        container.mux(sound.encode(None))
    return path


def loudness(path):
    """When the tone begins, when the sound ends (seconds), and its loudest frequency (Hz)."""
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        resampler = av.AudioResampler("flt", "mono", RATE)
        start, pieces = None, []
        for frame in container.decode(stream):
            start = float(frame.time) if start is None else start
            pieces += [f.to_ndarray()[0] for f in resampler.resample(frame)]
    wave = np.concatenate(pieces)
    loud = np.flatnonzero(np.abs(wave) > 0.25)
    tone = wave[loud[0] :]
    peak = np.abs(np.fft.rfft(tone)).argmax() * RATE / len(tone)
    return start + loud[0] / RATE, start + len(wave) / RATE, peak


SOUNDS = {
    "a.mp4": ("aac", "aac"),
    "a.ts": ("aac", "aac"),
    "mp3.mkv": ("libmp3lame", "mp3"),
    "pcm.avi": ("pcm_s16le", "aac"),
    "opus.webm": ("libopus", "aac"),
}


@pytest.mark.parametrize("name", SOUNDS)
def test_the_sound_goes_along_and_stays_in_step(tmp_path, name):
    encoder, expected = SOUNDS[name]
    pictures, rate = ("libvpx", 48000) if name.endswith("webm") else ("libx264", RATE)
    path = sounding(tmp_path / name, 2, encoder, pictures, rate)
    source = video.open(path)
    writer = writers.OverlayWriter(tmp_path / "o.mp4", source.fps, SIZE, audio_from=path)
    with writer:
        for frame in source:
            writer.write(blob(), frame, "", source.times[-1])
    _, sound, times = probe(tmp_path / "o.mp4")
    assert sound == [expected]
    assert len(times) == 50 and times[-1] == pytest.approx(1.96, abs=0.1)
    begin, end, peak = loudness(tmp_path / "o.mp4")
    begin_before, *_ = loudness(path)
    with av.open(str(path)) as container:
        begin_before -= container.start_time / av.time_base
    assert begin == pytest.approx(begin_before, abs=0.05)
    assert end == pytest.approx(2, abs=0.15)
    assert peak == pytest.approx(1000, abs=10)


def test_the_sound_ends_with_the_pictures(tmp_path):
    path = sounding(tmp_path / "a.mp4", 2, "aac")
    fill(
        writers.OverlayWriter(tmp_path / "o.mp4", 25, SIZE, audio_from=path),
        maps(30),
        [corners()] * 30,
    )
    _, end, _ = loudness(tmp_path / "o.mp4")
    assert end == pytest.approx(1.2, abs=0.1)


@pytest.mark.parametrize("content", [None, b"These are words, and no sound.", "silent film"])
def test_a_source_without_sound_gives_a_silent_overlay(tmp_path, content):
    path = tmp_path / "source.mp4"
    if content == "silent film":
        film(path, ramp(3))
    elif content is not None:
        path.write_bytes(content)
    fill(writers.OverlayWriter(tmp_path / "o.mp4", 25, SIZE, audio_from=path), maps(3), ramp(3))
    assert probe(tmp_path / "o.mp4")[1] == []


def every_writer(folder, size=SIZE):
    return [
        writers.PngWriter(folder / "png"),
        writers.NpyWriter(folder / "a.npy"),
        writers.GrayWriter(folder / "m.mkv", 25, size),
        writers.OverlayWriter(folder / "o.mp4", 25, size),
        writers.OverlayWriter(folder / "o.png", 25, size),
    ]


@pytest.mark.parametrize("index", range(5))
@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, SalemaError])
def test_an_error_half_way_leaves_nothing(tmp_path, index, error):
    writer = every_writer(tmp_path)[index]
    with pytest.raises(error, match="half way"), writer:
        writer.write(blob(), corners(), "0")
        raise error("half way")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("index", range(5))
def test_no_frame_at_all_is_an_error_and_leaves_nothing(tmp_path, index):
    with pytest.raises(SalemaError, match="not one frame came"), every_writer(tmp_path)[index]:
        pass
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
        fill(writers.PngWriter(tmp_path / "png"), maps(2))
    assert [p.name for p in tmp_path.rglob("*")] == ["png", "mine.txt"]


FULL = """
import resource, signal, sys
from pathlib import Path
import numpy as np
from salema.files import SalemaError
from test_write import every_writer
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
rng, size = np.random.default_rng(0), (240, 320)
try:
    with every_writer(Path(sys.argv[1]), size)[int(sys.argv[2])] as writer:
        frame = rng.integers(0, 256, (*size, 3), np.uint8)
        for i in range(1 if sys.argv[2] == "4" else 60):
            writer.write(rng.random(size, np.float32), frame, str(i))
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
        env={
            "PYTHONPATH": f"{Path(__file__).parents[2]}:{Path(__file__).parent}:{Path(__file__).parents[1]}"
        },
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
    with pytest.raises(SalemaError, match=r"cannot write .*No space left on device"), writer:
        writer.write(blob(), corners(), "0")
        raise kind(errno.ENOSPC, "No space left on device")
    assert list(tmp_path.iterdir()) == []
