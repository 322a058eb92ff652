"""Damage in the middle of a file is reported, and a file that is whole is not accused."""

import av
import numpy as np
import pytest
from test_overlay import SOUNDS, sounding
from test_read import SIZE, film, noise, ramp

from salema.media import read, write
from salema.media.read import Frame

DAMAGED = {
    "a.gif": ("gif", "rgb8"),
    "a.webm": ("libvpx", "yuv420p"),
    "b.webm": ("libvpx-vp9", "yuv420p"),
    "a.mkv": ("libx264", "yuv420p"),
    "a.avi": ("mjpeg", "yuvj420p"),
    "a.ts": ("mpeg2video", "yuv420p"),
}


@pytest.mark.parametrize("name", DAMAGED)
@pytest.mark.parametrize("seed", range(4))
def test_no_frame_is_lost_in_silence(tmp_path, name, seed):
    path = film(tmp_path / name, noise(40), *DAMAGED[name])
    data = bytearray(path.read_bytes())
    rng = np.random.default_rng(seed)
    at = rng.integers(len(data) // 4, len(data) * 3 // 4)
    data[at : at + 3000] = rng.bytes(3000)
    path.write_bytes(data)
    source = read.open(path)
    count = len(list(source))
    assert count == 40 or source.stopped, f"{count} of 40 frames"


@pytest.mark.parametrize("name", SOUNDS)
def test_a_whole_file_with_sound_is_not_accused(tmp_path, name):
    encoder, _ = SOUNDS[name]
    pictures, rate = ("libvpx", 48000) if name.endswith("webm") else ("libx264", 16000)
    source = read.open(sounding(tmp_path / name, 2, encoder, pictures, rate))
    assert len(list(source)) == 50 and source.stopped is None


@pytest.mark.parametrize("name", DAMAGED)
def test_a_whole_file_of_many_frames_is_not_accused(tmp_path, name):
    source = read.open(film(tmp_path / name, noise(60), *DAMAGED[name]))
    assert len(list(source)) == 60 and source.stopped is None


def test_a_stream_without_a_length_is_not_accused(tmp_path):
    path = tmp_path / "live.mkv"
    film(path, ramp(12), container={"live": "1"})
    source = read.open(path)
    assert len(list(source)) == 12 and source.stopped is None


def test_a_gif_with_a_comment_and_more_behind_its_end_is_not_accused(tmp_path):
    path = film(tmp_path / "a.gif", ramp(6), "gif", "gray")
    data = path.read_bytes()
    at = 13 + (3 << ((data[10] & 7) + 1) if data[10] & 0x80 else 0)
    path.write_bytes(data[:at] + b"!\xfe\x05hello\0" + data[at:] + b"\0\0")
    source = read.open(path)
    assert len(list(source)) == 6 and source.stopped is None


def test_maps_that_lost_frames_are_not_read_as_whole(tmp_path):
    with write.gray(tmp_path / "m.mkv", SIZE, 25) as put:
        for value in np.random.default_rng(0).random((30, *SIZE), np.float32):
            put(value, Frame(value, ""))
    assert len(list(read.maps(tmp_path / "m.mkv"))) == 30
    data = bytearray((tmp_path / "m.mkv").read_bytes())
    with av.open(str(tmp_path / "m.mkv")) as container:
        place = [packet.pos for packet in container.demux(video=0) if packet.size][12]
    data[place - 8 : place + 12] = bytes(20)
    (tmp_path / "m.mkv").write_bytes(data)
    with pytest.raises(ValueError, match=r"m\.mkv"):
        list(read.maps(tmp_path / "m.mkv"))
