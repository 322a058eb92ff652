import struct
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest

from salema.files import SalemaError
from salema.media import read as video

SIZE = (48, 64)
RED, GREEN, BLUE, WHITE = (220, 30, 20), (30, 200, 40), (20, 40, 210), (240, 240, 240)


def corners(size=SIZE):
    """A frame whose four quarters tell how it is turned: red green / blue white."""
    height, width = size
    frame = np.zeros((height, width, 3), np.uint8)
    frame[: height // 2, : width // 2] = RED
    frame[: height // 2, width // 2 :] = GREEN
    frame[height // 2 :, : width // 2] = BLUE
    frame[height // 2 :, width // 2 :] = WHITE
    return frame


def quarters(frame):
    """The color in the middle of each quarter, row by row, named by the nearest of four."""
    height, width = frame.shape[:2]
    known = {"red": RED, "green": GREEN, "blue": BLUE, "white": WHITE}
    picked = [
        frame[row, column].astype(int)
        for row in (height // 4, height * 3 // 4)
        for column in (width // 4, width * 3 // 4)
    ]
    return [min(known, key=lambda name: abs(known[name] - p).max()) for p in picked]


def film(path, frames, codec="libx264", pixels="yuv420p", rate=25, times=None, **more):
    """Encodes frames, a (T, H, W, 3) array or a list; `times` in seconds makes the rate vary."""
    with av.open(str(path), "w", options=more.pop("container", {})) as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pixels
        stream.options = more
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for index, frame in enumerate(frames):
            layout = "rgb24" if frame.shape[2] == 3 else "rgba"
            picture = av.VideoFrame.from_ndarray(frame, format=layout)
            if times is not None:
                picture.pts, picture.time_base = round(times[index] * 1000), Fraction(1, 1000)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return path


def ramp(count, size=SIZE):
    """Frames whose gray level is 10, 19, 28, ...: the index can be read off a frame."""
    return [np.full((*size, 3), 10 + 9 * i, np.uint8) for i in range(count)]


def noise(count, size=SIZE):
    """Frames that no encoder shrinks to nothing."""
    return list(np.random.default_rng(0).integers(0, 255, (count, *size, 3), np.uint8))


def indices(frames):
    return [round((float(frame.mean()) - 10) / 9) for frame in frames]


KINDS = {
    "h264.mp4": ("libx264", "yuv420p"),
    "ten bits.mkv": ("libx264", "yuv420p10le"),
    "mpeg4.avi": ("mpeg4", "yuv420p"),
    "vp8.webm": ("libvpx", "yuv420p"),
    "vp9.webm": ("libvpx-vp9", "yuv420p"),
    "motion-jpeg.mov": ("mjpeg", "yuvj420p"),
    "gray.mkv": ("ffv1", "gray"),
    "gray of 16 bits.mkv": ("ffv1", "gray16le"),
    "moving.gif": ("gif", "gray"),
    "fenêtre été 日本 %03d.mp4": ("libx264", "yuv420p"),
    "12:30.mp4": ("libx264", "yuv420p"),
    "stream.ts": ("mpeg2video", "yuv420p"),
}


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_file_gives_its_frames_in_order(tmp_path, name):
    codec, pixels = KINDS[name]
    path = film(tmp_path / name, ramp(12), codec, pixels)
    source = video.open(path)
    frames = list(source)
    assert indices(frames) == list(range(12))
    assert all(f.dtype == np.uint8 and f.shape == (*SIZE, 3) for f in frames)
    assert (source.name, source.size, source.names, source.stopped) == (path.stem, SIZE, None, None)
    assert source.fps == pytest.approx(25)
    assert source.times == pytest.approx([i / 25 for i in range(12)])


def test_colors_come_out_in_the_order_red_green_blue(tmp_path):
    frame = next(iter(video.open(film(tmp_path / "a.mp4", [corners()]))))
    assert quarters(frame) == ["red", "green", "blue", "white"]


def test_a_source_can_be_read_twice(tmp_path):
    source = video.open(film(tmp_path / "a.mp4", ramp(5)))
    assert indices(source) == indices(source) == [0, 1, 2, 3, 4]
    assert len(source.times) == 5


def test_a_video_of_one_frame(tmp_path):
    source = video.open(film(tmp_path / "one.mp4", ramp(1)))
    assert indices(source) == [0]
    assert source.times == [0]


def test_odd_sizes(tmp_path):
    source = video.open(film(tmp_path / "odd.mkv", [corners((33, 47))], pixels="yuv444p"))
    (frame,) = source
    assert frame.shape == (33, 47, 3)
    assert quarters(frame) == ["red", "green", "blue", "white"]


def test_interlaced_fields_stay_woven(tmp_path):
    stripes = np.zeros((*SIZE, 3), np.uint8)
    stripes[::2] = 200
    path = film(tmp_path / "i.mkv", [stripes] * 3, "ffv1", "gray")
    flagged = film(tmp_path / "i.mp4", [stripes] * 3, **{"x264opts": "tff"})
    with av.open(str(flagged)) as container:
        assert next(container.decode(video=0)).interlaced_frame
    for source in (path, flagged):
        frames = list(video.open(source))
        assert len(frames) == 3
        assert frames[1][::2].mean() > 180 and frames[1][1::2].mean() < 20


def test_frames_of_a_variable_rate_keep_their_times(tmp_path):
    times = [0.0, 0.1, 0.15, 0.6, 0.64, 2.0]
    source = video.open(film(tmp_path / "vfr.mp4", ramp(6), times=times))
    assert indices(source) == list(range(6))
    assert source.times == pytest.approx(times, abs=0.001)


def test_times_rise_in_an_avi_whose_frames_are_stored_out_of_order(tmp_path):
    moving = [np.roll(corners(), 3 * i, axis=1) for i in range(20)]
    source = video.open(film(tmp_path / "b.avi", moving, bf="3"))
    assert sum(1 for _ in source) == 20
    assert source.times == pytest.approx([i / 25 for i in range(20)])


ONE = 65536
TURNS = {  # the display matrix (a, b, c, d) and what the quarters then look like
    "as it is": ((ONE, 0, 0, ONE), ["red", "green", "blue", "white"]),
    "a quarter clockwise": ((0, ONE, -ONE, 0), ["blue", "red", "white", "green"]),
    "half a turn": ((-ONE, 0, 0, -ONE), ["white", "blue", "green", "red"]),
    "a quarter back": ((0, -ONE, ONE, 0), ["green", "white", "red", "blue"]),
    "mirrored": ((-ONE, 0, 0, ONE), ["green", "red", "white", "blue"]),
    "transposed": ((0, ONE, ONE, 0), ["red", "blue", "green", "white"]),
}


@pytest.mark.parametrize("turn", TURNS)
def test_rotation_in_the_header_is_applied(tmp_path, turn):
    (a, b, c, d), expected = TURNS[turn]
    path = film(tmp_path / "phone.mov", [corners()] * 2)
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 44  # after the box's version, times, id, layer and volume
    assert struct.unpack(">9i", data[at : at + 36]) == (ONE, 0, 0, 0, ONE, 0, 0, 0, 1 << 30)
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    source = video.open(path)
    frames = list(source)
    assert source.size == (SIZE if a else SIZE[::-1])
    assert [quarters(frame) for frame in frames] == [expected] * 2
    assert frames[0].shape[:2] == source.size and frames[0].flags.c_contiguous


def test_alpha_of_a_video_goes_over_black(tmp_path):
    frame = np.full((*SIZE, 4), 200, np.uint8)
    frame[:, :32, 3], frame[:, 32:, 3] = 0, 128
    (seen,) = video.open(film(tmp_path / "alpha.mov", [frame], "png", "rgba"))
    assert (seen[:, :32] == 0).all()
    assert (seen[:, 32:] == 100).all()  # 200 * 128 / 255 = 100.4


def test_a_video_that_changes_its_size_keeps_that_of_its_first_frame(tmp_path):
    path = tmp_path / "sizes.mjpeg"
    small = cv2.resize(corners(), (20, 30))
    encoded = [cv2.imencode(".jpg", f[:, :, ::-1])[1].tobytes() for f in (corners(), small)]
    path.write_bytes(b"".join(encoded))
    frames = list(video.open(path))
    assert [f.shape for f in frames] == [(*SIZE, 3)] * 2
    assert quarters(frames[1]) == ["red", "green", "blue", "white"]


@pytest.mark.parametrize("promised", [3, 5000])
def test_a_header_that_lies_about_the_length_is_not_believed(tmp_path, promised):
    path = film(tmp_path / "liar.avi", ramp(12), "mpeg4")
    data = bytearray(path.read_bytes())
    at = data.index(b"avih") + 8 + 16  # dwTotalFrames
    assert struct.unpack("<I", data[at : at + 4]) == (12,)
    data[at : at + 4] = struct.pack("<I", promised)
    at = data.index(b"strh") + 8 + 32  # dwLength of the stream
    assert struct.unpack("<I", data[at : at + 4]) == (12,)
    data[at : at + 4] = struct.pack("<I", promised)
    path.write_bytes(data)
    source = video.open(path)
    assert source.hint == promised
    assert indices(source) == list(range(12))
    assert source.stopped is None


CUT = ["mp4", "mov", "avi", "mkv", "webm", "gif", "ts"]


@pytest.mark.parametrize("kind", CUT)
def test_a_file_cut_short_keeps_its_frames_and_says_how_many(tmp_path, kind):
    codec, pixels = {"webm": ("libvpx", "yuv420p"), "gif": ("gif", "rgb8")}.get(
        kind, ("libx264", "yuv420p")
    )
    container = {"movflags": "faststart"} if kind in ("mp4", "mov") else {}
    whole = film(tmp_path / f"whole.{kind}", noise(20), codec, pixels, container=container)
    data = whole.read_bytes()
    path = tmp_path / f"cut.{kind}"
    path.write_bytes(data[: len(data) * 6 // 10])
    expected, source = list(video.open(whole)), video.open(path)
    frames = list(source)
    assert 5 <= len(frames) < 20
    assert source.stopped == f"file cut short after {len(frames)} frames"
    good = len(frames) - (kind in ("gif", "ts"))  # there the last one may be half a picture
    for seen, wanted in zip(frames[:good], expected, strict=False):
        np.testing.assert_array_equal(seen, wanted)


def test_broken_last_packets_keep_what_came_before(tmp_path):
    path = film(tmp_path / "a.mov", noise(12), "mjpeg", "yuvj420p")
    with av.open(str(path)) as container:
        places = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    data = bytearray(path.read_bytes())
    for position, size in places[9:]:
        data[position : position + size] = bytes(size)
    path.write_bytes(data)
    source = video.open(path)
    assert len(list(source)) == 9
    assert source.stopped == "3 broken packets after 9 frames"


def test_a_broken_packet_in_the_middle_costs_one_frame(tmp_path):
    path = film(tmp_path / "a.mov", ramp(12), "mjpeg", "yuvj420p")
    with av.open(str(path)) as container:
        places = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    data = bytearray(path.read_bytes())
    position, size = places[4]
    data[position : position + size] = bytes(size)
    path.write_bytes(data)
    source = video.open(path)
    assert indices(source) == [0, 1, 2, 3, 5, 6, 7, 8, 9, 10, 11]
    assert source.stopped == "broken packet after 4 frames, 11 frames in all"


def write_images(folder, names):
    folder.mkdir()
    for index, name in enumerate(names):
        assert cv2.imwrite(str(folder / name), np.full((*SIZE, 3), 10 + 9 * index, np.uint8))
    return folder


def test_a_folder_is_read_by_number_and_not_by_text(tmp_path):
    folder = write_images(tmp_path / "two words", ["1.png", "2.png", "3.jpg", "10.png", "11.bmp"])
    (folder / "Thumbs.db").write_text("no image")
    (folder / ".2.png").write_text("hidden")
    source = video.open(folder)
    assert source.names == ("1", "2", "3", "10", "11")
    assert indices(source) == [0, 1, 2, 3, 4]
    assert (source.name, source.fps, source.hint, source.size) == ("two words", None, 5, SIZE)
    assert source.times == []


def test_numbers_within_names_are_sorted_as_numbers_too(tmp_path):
    names = ["a1_b2.png", "a1_b10.png", "a2_b1.png", "a10.png", "b1.png"]
    source = video.open(write_images(tmp_path / "f", names))
    assert source.names == tuple(name[:-4] for name in names)


def test_a_folder_with_one_frame_in_two_formats_is_refused(tmp_path):
    folder = write_images(tmp_path / "f", ["1.png", "2.png", "2.jpg"])
    with pytest.raises(SalemaError, match=r"f: 2\.jpg and 2\.png"):
        video.open(folder)


def test_a_broken_image_ends_a_folder_and_is_named(tmp_path):
    folder = write_images(tmp_path / "f", ["1.png", "2.png", "3.png", "4.png"])
    (folder / "3.png").write_bytes((folder / "3.png").read_bytes()[:60])
    source = video.open(folder)
    assert indices(source) == [0, 1]
    assert source.stopped == "unreadable image 3.png after 2 frames"


def test_images_of_other_sizes_take_that_of_the_first(tmp_path):
    folder = write_images(tmp_path / "f", ["1.png"])
    cv2.imwrite(str(folder / "2.png"), np.full((90, 31, 3), 19, np.uint8))
    frames = list(video.open(folder))
    assert [f.shape for f in frames] == [(*SIZE, 3)] * 2
    assert indices(frames) == [0, 1]


@pytest.mark.parametrize("suffix", [".png", ".tif", ".pgm"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_gray_and_16_bit_images(tmp_path, suffix, dtype):
    values = np.linspace(0, np.iinfo(dtype).max, 64).astype(dtype)
    path = tmp_path / f"deep{suffix}"
    cv2.imwrite(str(path), np.tile(values, (8, 1)))
    source = video.open(path)
    (frame,) = source
    assert frame.shape == (8, 64, 3) and source.names == ("deep",) and source.hint == 1
    expected = np.linspace(0, 255, 64)
    assert np.abs(frame[3, :, 1] - expected).max() <= 1
    assert (frame[..., 0] == frame[..., 2]).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_alpha_of_an_image_goes_over_black(tmp_path, dtype):
    top = np.iinfo(dtype).max
    image = np.full((4, 6, 4), top, dtype)
    image[:, :3] = 0, 0, top, top // 5  # red in OpenCV's order, a fifth of it
    cv2.imwrite(str(tmp_path / "a.png"), image)
    frame = video.read_image(tmp_path / "a.png")
    assert (frame[:, :3] == (51, 0, 0)).all()
    assert (frame[:, 3:] == 255).all()


def with_orientation(jpeg, value):
    """The JPEG with an EXIF block that holds nothing but its orientation."""
    tag = struct.pack("<2sHIHHHIHHI", b"II", 42, 8, 1, 0x0112, 3, 1, value, 0, 0)
    block = b"Exif\0\0" + tag
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + jpeg[2:]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1, ["red", "green", "blue", "white"]),
        (3, ["white", "blue", "green", "red"]),
        (6, ["blue", "red", "white", "green"]),  # to be turned a quarter clockwise
        (8, ["green", "white", "red", "blue"]),
    ],
)
def test_the_orientation_of_a_photo_is_applied(tmp_path, value, expected):
    jpeg = cv2.imencode(".jpg", corners()[:, :, ::-1])[1].tobytes()
    (tmp_path / "photo.JPG").write_bytes(with_orientation(jpeg, value))
    source = video.open(tmp_path / "photo.JPG")
    assert source.size == (SIZE if value in (1, 3) else SIZE[::-1])
    assert quarters(next(iter(source))) == expected


class FakeCamera:
    """Three frames in OpenCV's color order, then none."""

    def __init__(self, index):
        self.left = 3 if index == 0 else 0

    def isOpened(self):  # noqa: N802
        return self.left > 0

    def read(self):
        self.left -= 1
        frame = np.ascontiguousarray(corners()[:, :, ::-1])
        return (True, frame) if self.left >= 0 else (False, None)

    def get(self, key):
        return 30.0

    def release(self):
        self.left = 0


@pytest.mark.parametrize("source", [0, "camera:0"])
def test_a_camera_gives_frames_until_it_ends(monkeypatch, source):
    monkeypatch.setattr(cv2, "VideoCapture", FakeCamera)
    camera = video.open(source)
    frames = list(camera)
    assert [quarters(f) for f in frames] == [["red", "green", "blue", "white"]] * 3
    assert (camera.name, camera.fps, camera.hint) == ("camera0", 30.0, None)
    assert camera.stopped == "no more from camera 0 after 3 frames"
    assert len(camera.times) == 3 and camera.times == sorted(camera.times)


def test_a_camera_that_is_not_there_costs_one_line(capfd):
    with pytest.raises(SalemaError, match="no camera 97"):
        video.open("camera:97")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.mp4", None, "no such file: .*none.mp4"),
        ("empty.mp4", b"", "empty file: .*empty.mp4"),
        ("text.mp4", b"These are words, and not a video.\n" * 40, "not a video: .*text.mp4"),
        ("text.txt", b"These are words, and not a video.\n" * 40, "not a video: .*text.txt"),
        ("titles.mp4", b"1\n00:00:01,000 --> 00:00:02,000\nHello\n", "not a video: .*titles.mp4"),
        ("list.mp4", b"#EXTM3U\n#EXTINF:1,\nother.ts\n", "not a video: .*list.mp4"),
        ("junk.avi", bytes(5000), "not a video: .*junk.avi"),
        ("text.png", b"These are words.", "unreadable image: .*text.png"),
        ("empty.png", b"", "empty file: .*empty.png"),
        ("x" * 300 + ".mp4", None, "cannot read .*name too long"),
    ],
)
def test_bad_files_are_told_in_one_line(tmp_path, capfd, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(SalemaError, match=message) as caught:
        video.open(tmp_path / name)
    assert "\n" not in str(caught.value) and caught.value.status == 2
    assert capfd.readouterr() == ("", "")


def test_a_folder_without_images_is_named(tmp_path):
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(SalemaError, match=f"no images in the folder {tmp_path}"):
        video.open(tmp_path)


def test_sound_without_pictures_is_not_a_video(tmp_path):
    path = tmp_path / "song.m4a"
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), "fltp", "mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(SalemaError, match=r"song.m4a \(it holds no pictures"):
        video.open(path)


def test_a_truncated_image_prints_nothing(tmp_path, capfd):
    for suffix in (".png", ".jpg", ".tif", ".webp", ".bmp"):
        data = cv2.imencode(suffix, noise(1)[0])[1].tobytes()
        path = tmp_path / f"cut{suffix}"
        path.write_bytes(data[: len(data) // 2])
        with pytest.raises(SalemaError, match="unreadable image"):
            video.open(path)
    assert capfd.readouterr() == ("", "")


def test_frames_are_decoded_only_when_asked_for(tmp_path):
    source = video.open(film(tmp_path / "long.mp4", ramp(25)))
    frames = iter(source)
    for wanted in range(3):
        assert indices([next(frames)]) == [wanted]
        assert len(source.times) == wanted + 1
