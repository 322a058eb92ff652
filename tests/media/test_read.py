import struct
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest

from salema.files import SalemaError
from salema.media import read

SIZE = (48, 64)
RED, GREEN, BLUE, WHITE = (220, 30, 20), (30, 200, 40), (20, 40, 210), (240, 240, 240)


def corners(size=SIZE):
    """A frame whose four quarters show how it is turned: red green / blue white."""
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
    return [round((float(frame.image.mean()) - 10) / 9) for frame in frames]


def times(frames):
    return [frame.time for frame in frames]


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
    source = read.open(path)
    frames = list(source)
    assert indices(frames) == list(range(12))
    assert all(f.image.dtype == np.uint8 and f.image.shape == (*SIZE, 3) for f in frames)
    assert (source.name, source.size, source.stopped) == (path.stem, SIZE, None)
    assert source.fps == pytest.approx(25)
    assert times(frames) == pytest.approx([i / 25 for i in range(12)])
    assert [f.name for f in frames] == [f"{i:05d}" for i in range(1, 13)]


def test_colors_come_out_in_the_order_red_green_blue(tmp_path):
    frame = next(iter(read.open(film(tmp_path / "a.mp4", [corners()]))))
    assert quarters(frame.image) == ["red", "green", "blue", "white"]


def test_a_source_can_be_read_twice(tmp_path):
    source = read.open(film(tmp_path / "a.mp4", ramp(5)))
    assert indices(source) == indices(source) == [0, 1, 2, 3, 4]
    assert times(source) == times(source)


def test_a_video_of_one_frame(tmp_path):
    (frame,) = read.open(film(tmp_path / "one.mp4", ramp(1)))
    assert indices([frame]) == [0] and frame.time == 0


def test_odd_sizes(tmp_path):
    source = read.open(film(tmp_path / "odd.mkv", [corners((33, 47))], pixels="yuv444p"))
    (frame,) = source
    assert frame.image.shape == (33, 47, 3)
    assert quarters(frame.image) == ["red", "green", "blue", "white"]


def test_interlaced_fields_stay_woven(tmp_path):
    stripes = np.zeros((*SIZE, 3), np.uint8)
    stripes[::2] = 200
    path = film(tmp_path / "i.mkv", [stripes] * 3, "ffv1", "gray")
    flagged = film(tmp_path / "i.mp4", [stripes] * 3, **{"x264opts": "tff"})
    with av.open(str(flagged)) as container:
        assert next(container.decode(video=0)).interlaced_frame
    for source in (path, flagged):
        _, woven, _ = (frame.image for frame in read.open(source))
        assert woven[::2].mean() > 180 and woven[1::2].mean() < 20


def test_frames_of_a_variable_rate_keep_their_times(tmp_path):
    uneven = [0.0, 0.1, 0.15, 0.6, 0.64, 2.0]
    frames = list(read.open(film(tmp_path / "vfr.mp4", ramp(6), times=uneven)))
    assert indices(frames) == list(range(6))
    assert times(frames) == pytest.approx(uneven, abs=0.001)


def test_times_rise_in_an_avi_whose_frames_are_stored_out_of_order(tmp_path):
    moving = [np.roll(corners(), 3 * i, axis=1) for i in range(20)]
    source = read.open(film(tmp_path / "b.avi", moving, bf="3"))
    assert times(source) == pytest.approx([i / 25 for i in range(20)])


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
    source = read.open(path)
    frames = list(source)
    assert source.size == (SIZE if a else SIZE[::-1])
    assert [quarters(frame.image) for frame in frames] == [expected] * 2
    assert frames[0].image.shape[:2] == source.size and frames[0].image.flags.c_contiguous


def test_alpha_of_a_video_goes_over_black(tmp_path):
    frame = np.full((*SIZE, 4), 200, np.uint8)
    frame[:, :32, 3], frame[:, 32:, 3] = 0, 128
    (seen,) = read.open(film(tmp_path / "alpha.mov", [frame], "png", "rgba"))
    assert (seen.image[:, :32] == 0).all()
    assert (seen.image[:, 32:] == 100).all()  # 200 * 128 / 255 = 100.4


def test_a_video_that_changes_its_size_keeps_that_of_its_first_frame(tmp_path):
    path = tmp_path / "sizes.mjpeg"
    small = cv2.resize(corners(), (20, 30))
    encoded = [cv2.imencode(".jpg", f[:, :, ::-1])[1].tobytes() for f in (corners(), small)]
    path.write_bytes(b"".join(encoded))
    frames = list(read.open(path))
    assert [f.image.shape for f in frames] == [(*SIZE, 3)] * 2
    assert quarters(frames[1].image) == ["red", "green", "blue", "white"]


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
    source = read.open(path)
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
    expected, source = list(read.open(whole)), read.open(path)
    frames = list(source)
    assert 5 <= len(frames) < 20
    assert source.stopped == f"file cut short after {len(frames)} frames"
    good = len(frames) - (kind in ("gif", "ts"))  # there the last one may be half a picture
    for seen, wanted in zip(frames[:good], expected, strict=False):
        np.testing.assert_array_equal(seen.image, wanted.image)


def test_broken_last_packets_keep_what_came_before(tmp_path):
    path = film(tmp_path / "a.mov", noise(12), "mjpeg", "yuvj420p")
    with av.open(str(path)) as container:
        places = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    data = bytearray(path.read_bytes())
    for position, size in places[9:]:
        data[position : position + size] = bytes(size)
    path.write_bytes(data)
    source = read.open(path)
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
    source = read.open(path)
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
    source = read.open(folder)
    frames = list(source)
    assert [f.name for f in frames] == ["1", "2", "3", "10", "11"]
    assert indices(frames) == [0, 1, 2, 3, 4] and times(frames) == [None] * 5
    assert (source.name, source.fps, source.hint, source.size) == ("two words", None, 5, SIZE)


def test_a_folder_with_one_frame_in_two_formats_is_refused(tmp_path):
    folder = write_images(tmp_path / "f", ["1.png", "2.png", "2.jpg"])
    with pytest.raises(SalemaError, match=r"f: 2\.jpg and 2\.png"):
        read.open(folder)


def test_a_broken_image_ends_a_folder_and_is_named(tmp_path):
    folder = write_images(tmp_path / "f", ["1.png", "2.png", "3.png", "4.png"])
    (folder / "3.png").write_bytes((folder / "3.png").read_bytes()[:60])
    source = read.open(folder)
    assert indices(source) == [0, 1]
    assert source.stopped == "unreadable image 3.png after 2 frames"


def test_images_of_other_sizes_take_that_of_the_first(tmp_path):
    folder = write_images(tmp_path / "f", ["1.png"])
    cv2.imwrite(str(folder / "2.png"), np.full((90, 31, 3), 19, np.uint8))
    frames = list(read.open(folder))
    assert [f.image.shape for f in frames] == [(*SIZE, 3)] * 2
    assert indices(frames) == [0, 1]


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
    camera = read.open(source)
    frames = list(camera)
    assert [quarters(f.image) for f in frames] == [["red", "green", "blue", "white"]] * 3
    assert [f.name for f in frames] == ["00001", "00002", "00003"]
    assert (camera.name, camera.fps, camera.hint) == ("camera0", 30.0, None)
    assert camera.stopped == "no more from camera 0 after 3 frames"
    assert times(frames) == sorted(times(frames)) and times(frames)[0] >= 0


def test_a_camera_that_is_not_there_costs_one_line(capfd):
    with pytest.raises(SalemaError, match="no camera 97"):
        read.open("camera:97")
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
def test_bad_files_cost_one_line(tmp_path, capfd, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(SalemaError, match=message) as caught:
        read.open(tmp_path / name)
    assert "\n" not in str(caught.value) and caught.value.status == 2
    assert capfd.readouterr() == ("", "")


def test_a_folder_without_images_is_named(tmp_path):
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(SalemaError, match=f"no images in the folder {tmp_path}"):
        read.open(tmp_path)


def test_sound_without_pictures_is_not_a_video(tmp_path):
    path = tmp_path / "song.m4a"
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), "fltp", "mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(SalemaError, match=r"song.m4a \(it holds no pictures"):
        read.open(path)


def test_frames_are_decoded_only_when_asked_for(tmp_path):
    source = read.open(film(tmp_path / "long.mp4", ramp(25)))
    true, decoded = source.decode, []
    source.decode = lambda of: (decoded.append(one) or one for one in true(of))
    frames = iter(source)
    for wanted in range(3):
        assert indices([next(frames)]) == [wanted]
        assert len(decoded) == wanted + 1


def camera_film(path, value, turn=None):
    """What cameras record: JPEG pictures with EXIF data, stored as they are."""
    jpeg = cv2.imencode(".jpg", corners()[:, :, ::-1])[1].tobytes()
    tag = struct.pack("<2sHIHHHIHHI", b"II", 42, 8, 1, 0x0112, 3, 1, value, 0, 0)
    block = b"Exif\0\0" + tag
    jpeg = jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + jpeg[2:]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.height, stream.width, stream.pix_fmt = *SIZE, "yuvj420p"
        if turn:
            stream.set_display_rotation(turn)
        for index in range(3):
            packet = av.Packet(jpeg)
            packet.pts = packet.dts = index
            packet.time_base, packet.stream, packet.is_keyframe = Fraction(1, 25), stream, True
            container.mux(packet)
    return path


@pytest.mark.parametrize(
    ("name", "value", "turn", "expected"),
    [
        ("a.avi", 1, None, ["red", "green", "blue", "white"]),
        ("a.mov", 1, None, ["red", "green", "blue", "white"]),
        ("a.mov", 1, -90, ["blue", "red", "white", "green"]),
        ("a.mov", 1, 180, ["white", "blue", "green", "red"]),
        ("a.avi", 6, None, ["blue", "red", "white", "green"]),
        ("a.jfif", 8, None, ["green", "white", "red", "blue"]),
    ],
)
def test_exif_data_in_the_frames_of_a_video(tmp_path, name, value, turn, expected):
    if name.endswith("jfif"):
        film = camera_film(tmp_path / "a.avi", value)
        with av.open(str(film)) as container:
            (tmp_path / name).write_bytes(bytes(next(container.demux(video=0))))
    else:
        camera_film(tmp_path / name, value, turn)
    source = read.open(tmp_path / name)
    for frame in source:
        assert quarters(frame.image) == expected
    assert source.stopped is None


@pytest.mark.parametrize("kind", ["avi", "mp4", "mov", "mkv"])
def test_a_title_in_any_encoding_is_no_obstacle(tmp_path, kind):
    path = tmp_path / f"a.{kind}"
    with av.open(str(path), "w") as container:
        container.metadata["title"] = "TITLETITLE"
        stream = container.add_stream("mpeg4", rate=25)
        stream.height, stream.width, stream.pix_fmt = *SIZE, "yuv420p"
        for frame in ramp(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    data = path.read_bytes()
    assert b"TITLETITLE" in data
    path.write_bytes(data.replace(b"TITLETITLE", "Prüfung äß".encode("latin-1")))
    assert indices(read.open(path)) == [0, 1, 2]


def test_a_list_of_files_reads_none_of_them(tmp_path):
    film(tmp_path / "secret.mp4", ramp(3))
    (tmp_path / "list.mp4").write_text("ffconcat version 1.0\nfile secret.mp4\n")
    with pytest.raises(SalemaError, match=r"not a video: .*list\.mp4"):
        read.open(tmp_path / "list.mp4")


@pytest.mark.parametrize("name", ["..mp4", "...mp4"])
def test_no_name_of_a_source_is_that_of_a_folder_above(tmp_path, name):
    assert read.open(film(tmp_path / "a.mp4", ramp(1)).rename(tmp_path / name)).name == name


def test_a_file_removed_while_it_is_read_keeps_its_frames_and_blames_the_source(tmp_path):
    source = read.open(film(tmp_path / "a.mp4", ramp(9)))
    frames = []
    for frame in source:
        (tmp_path / "a.mp4").unlink(missing_ok=True)
        frames.append(frame)
    assert indices(frames) == list(range(9))
    assert source.stopped == "cannot be read after 9 frames: No such file or directory"


def test_a_second_reading_that_yields_nothing_gives_no_frame(tmp_path, monkeypatch):
    source = read.open(film(tmp_path / "a.ts", ramp(9), "mpeg2video"))
    monkeypatch.setattr(read, "_pictures", lambda *_: iter(()))
    assert list(source) == []


def test_a_stream_without_a_decoder_costs_one_line(tmp_path):
    path = film(tmp_path / "a.avi", ramp(3), "mpeg4")
    path.write_bytes(path.read_bytes().replace(b"FMP4", b"QQ7Q"))
    with pytest.raises(SalemaError, match=r"no decoder for .*a\.avi"):
        read.open(path)


def test_a_video_of_too_many_pixels_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    path = film(tmp_path / "a.mp4", ramp(1))
    monkeypatch.setattr(read, "MOST_PIXELS", 3000)
    with pytest.raises(SalemaError, match=r"a\.mp4 has 64 x 48 pixels, above 3000"):
        read.open(path)


@pytest.mark.parametrize("camera", ["camera:99999", "camera:" + "9" * 5000])
def test_a_camera_number_that_is_none_is_one_line(camera):
    with pytest.raises(SalemaError):
        read.open(camera)
