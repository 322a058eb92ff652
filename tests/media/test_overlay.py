import av
import numpy as np
import pytest
from test_read import SIZE, corners, film, ramp
from test_write import blob, fill, maps

from salema.files import SalemaError
from salema.media import read
from salema.media.image import read_image
from salema.media.overlay import blend, color_table, overlay

BLACK_TO_WHITE = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)


def test_color_tables_are_rgb():
    jet = color_table("jet").astype(int)
    assert jet.shape == (256, 3)
    assert jet[0, 2] > jet[0, 0] and jet[-1, 0] > jet[-1, 2]  # from blue to red
    np.testing.assert_array_equal(color_table("bone")[[0, 255]], [[0] * 3, [255] * 3])


def test_a_misspelt_color_map_gets_the_nearest_name():
    with pytest.raises(SalemaError, match=r"unknown color map 'trubo' .did you mean turbo"):
        color_table("trubo")


def test_blending_follows_its_formula():
    rng = np.random.default_rng(0)
    frame = rng.integers(0, 256, (40, 50, 3), np.uint8)
    value = rng.random((40, 50), np.float32)
    lut = rng.integers(0, 256, (256, 3), np.uint8)
    for opacity in (0, 0.3, 0.6, 1):
        level = np.rint(value * 255).astype(int)
        weight = opacity * level[..., None] / 255
        expected = (1 - weight) * frame + weight * lut[level]
        blended = blend(frame, value, lut, opacity)
        assert blended.dtype == np.uint8
        assert np.abs(blended - expected).max() <= 2


def test_blending_leaves_the_frame_alone_where_the_map_is_zero():
    frame = np.random.default_rng(0).integers(0, 256, (8, 9, 3), np.uint8)
    seen = blend(frame, np.zeros((8, 9), np.float32), color_table("turbo"), 1)
    np.testing.assert_array_equal(seen, frame)


def test_blending_at_full_opacity_is_the_color_map():
    frame = np.full((4, 256, 3), 77, np.uint8)
    value = np.tile(np.arange(256, dtype=np.float32) / 255, (4, 1))
    value[:, 255] = 1
    seen = blend(frame, value, BLACK_TO_WHITE, 1)
    np.testing.assert_array_equal(seen[:, 255], 255)


def test_blending_resizes_the_map_to_the_frame():
    value = np.float32([[0, 0, 1, 1]])
    seen = blend(np.zeros((30, 80, 3), np.uint8), value, BLACK_TO_WHITE, 1)
    assert (seen[:, :20] == 0).all() and (seen[:, -10:] >= 254).all()


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
    fill(overlay(tmp_path / "o.mp4", SIZE, 25), maps(12), ramp(12))
    facts, sound, times = probe(tmp_path / "o.mp4")
    assert facts == ("h264", "yuv420p", SIZE) and sound == []
    assert times == pytest.approx([i / 25 for i in range(12)], abs=1e-4)
    names = boxes(tmp_path / "o.mp4")
    assert names[0] == "ftyp" and names.index("moov") < names.index("mdat")
    assert [p.name for p in tmp_path.iterdir()] == ["o.mp4"]


def test_an_overlay_shows_the_map_in_color_over_the_frame(tmp_path):
    frames = [corners()] * 4
    lut = color_table("turbo")
    fill(overlay(tmp_path / "o.mp4", SIZE, 25), [blob()] * 4, frames)
    expected = blend(frames[0], blob(), lut, 0.6).astype(int)
    for seen in (frame.image for frame in read.open(tmp_path / "o.mp4")):
        assert np.abs(seen - expected).mean() < 12
        assert np.abs(seen[2:8, 2:8] - expected[2:8, 2:8]).max() < 25
        assert np.abs(seen[20:28, 28:36] - corners()[20:28, 28:36].astype(int)).mean() > 30


@pytest.mark.parametrize("size", [(33, 47), (33, 48), (32, 47), (1, 1), (2, 2), (1, 300)])
def test_an_overlay_of_an_odd_size_is_padded(tmp_path, size):
    frame = np.full((*size, 3), 120, np.uint8)
    fill(overlay(tmp_path / "o.mp4", size, 25), [np.zeros(size, np.float32)], [frame])
    even = (size[0] + size[0] % 2, size[1] + size[1] % 2)
    assert probe(tmp_path / "o.mp4")[0] == ("h264", "yuv420p", even)
    (seen,) = read.open(tmp_path / "o.mp4")
    assert np.abs(seen.image.astype(int) - 120).max() < 8


def test_an_overlay_of_one_frame_lasts_as_long_as_a_frame(tmp_path):
    fill(overlay(tmp_path / "o.mp4", SIZE, 5), maps(1), ramp(1))
    with av.open(str(tmp_path / "o.mp4")) as container:
        assert container.duration / av.time_base == pytest.approx(0.2, abs=0.01)


def test_an_overlay_keeps_the_times_of_a_variable_rate(tmp_path):
    times = [0.0, 0.1, 0.15, 0.6, 0.6, 2.0]
    fill(overlay(tmp_path / "o.mp4", SIZE, 25), maps(6), ramp(6), times)
    assert probe(tmp_path / "o.mp4")[2] == pytest.approx(times, abs=1e-3)


def test_an_overlay_may_be_one_picture(tmp_path):
    for name in ("o.png", "o.JPG"):
        fill(overlay(tmp_path / name, SIZE, None), [blob()], [corners()])
        expected = blend(corners(), blob(), color_table("turbo"), 0.6)
        seen = read_image(tmp_path / name).astype(int)
        assert np.abs(seen - expected).mean() < (0.1 if name == "o.png" else 4)
    with pytest.raises(SalemaError, match="one picture only"):
        fill(overlay(tmp_path / "p.png", SIZE, 25), maps(2), ramp(2))
    assert not (tmp_path / "p.png").exists()


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("overlay.xyz", {}, r"name it \.mp4, \.png or \.jpg"),
        ("overlay.mp4", {"size": (48, 16386)}, "a side above 16384 pixels"),
        ("overlay.mp4", {"opacity": 60}, "opacity must be from 0 to 1"),
        ("overlay.mp4", {"colormap": "trubo"}, "unknown color map 'trubo'"),
    ],
)
def test_an_overlay_that_cannot_be_made_is_refused(tmp_path, name, options, message):
    options = {"size": SIZE, "fps": 25} | options
    with pytest.raises(SalemaError, match=message), overlay(tmp_path / name, **options):
        pass
    assert list(tmp_path.iterdir()) == []


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
    source = read.open(path)
    with overlay(tmp_path / "o.mp4", SIZE, source.fps, audio_from=path) as put:
        for frame in source:
            put(blob(), frame)
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
        overlay(tmp_path / "o.mp4", SIZE, 25, audio_from=path),
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
    fill(overlay(tmp_path / "o.mp4", SIZE, 25, audio_from=path), maps(3), ramp(3))
    assert probe(tmp_path / "o.mp4")[1] == []


def joined(folder, seconds):
    """Sound of 32 kHz and then of 48 kHz in one track; the second begins at `seconds`."""
    path = folder / "joined.ts"
    with av.open(str(path), "w") as output:
        track = None
        for index, rate in enumerate((32000, 48000)):
            part = sounding(folder / f"{rate}.ts", 1, "ac3", "mpeg2video", rate)
            with av.open(str(part)) as source:
                (stream,) = source.streams.audio
                track = track or output.add_stream_from_template(stream)
                for packet in source.demux(stream):
                    if packet.dts is not None:
                        shift = round(index * seconds / packet.time_base)
                        packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                        packet.stream = track
                        output.mux(packet)
    return path


def test_sound_that_changes_its_format_goes_on(tmp_path):
    path = joined(tmp_path, 1)
    fill(overlay(tmp_path / "o.mp4", SIZE, 25, audio_from=path), maps(50), [corners()] * 50)
    with av.open(str(tmp_path / "o.mp4")) as container:
        frames = list(container.decode(audio=0))
    assert {frame.sample_rate for frame in frames} == {32000}
    assert sum(frame.samples for frame in frames) / 32000 == pytest.approx(2, abs=0.15)


@pytest.mark.parametrize("codec", ["ac3", "mp2", "aac"])
def test_sound_whose_times_go_back_is_silence_and_no_error(tmp_path, codec):
    parts = [
        sounding(tmp_path / f"{n}.ts", 1, codec, "mpeg2video", 32000).read_bytes() for n in "ab"
    ]
    (tmp_path / "c.ts").write_bytes(b"".join(parts))
    values = maps(50)
    writer = overlay(tmp_path / "o.mp4", SIZE, 25, audio_from=tmp_path / "c.ts")
    fill(writer, values, [corners()] * 50)
    _, sound, times = probe(tmp_path / "o.mp4")
    assert len(times) == 50 and len(sound) == 1


def test_a_high_frame_is_blended_as_a_whole():
    frame = np.random.default_rng(0).integers(0, 256, (1100, 8, 3), np.uint8)
    value, lut = (
        np.linspace(0, 1, 1100, dtype=np.float32)[:, None].repeat(8, 1),
        color_table("turbo"),
    )
    parts = [blend(frame[at : at + 10], value[at : at + 10], lut, 0.6) for at in range(0, 1100, 10)]
    np.testing.assert_array_equal(blend(frame, value, lut, 0.6), np.concatenate(parts))
