import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from test_read import SIZE, corners, noise, quarters

from salema.files import SalemaError
from salema.media import image, read


def test_names_are_sorted_by_number_and_not_by_text(tmp_path):
    names = [
        "01.png",
        "1.png",
        "1.tif",
        "1 (2).png",
        "2.jpg",
        "10.png",
        "a.png",
        "a1_b2.png",
        "a1_b10.png",
        "a2_b1.png",
        "a10.png",
        "b1.png",
    ]
    assert sorted(reversed(names), key=image.natural) == names
    assert sorted((tmp_path / name for name in names[::-1]), key=image.natural)[5].name == "10.png"


def test_fit_resizes_only_what_has_another_size():
    frame = corners()
    assert image.fit(frame, SIZE) is frame
    np.testing.assert_array_equal(
        image.fit(frame, (24, 32)), cv2.resize(frame, (32, 24), interpolation=cv2.INTER_AREA)
    )


@pytest.mark.parametrize("suffix", [".png", ".tif", ".pgm"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_gray_and_16_bit_images(tmp_path, suffix, dtype):
    values = np.linspace(0, np.iinfo(dtype).max, 64).astype(dtype)
    path = tmp_path / f"deep{suffix}"
    cv2.imwrite(str(path), np.tile(values, (8, 1)))
    source = read.open(path)
    (frame,) = source
    assert frame.image.shape == (8, 64, 3) and frame.name == "deep" and source.hint == 1
    expected = np.linspace(0, 255, 64)
    assert np.abs(frame.image[3, :, 1] - expected).max() <= 1
    assert (frame.image[..., 0] == frame.image[..., 2]).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_alpha_of_an_image_goes_over_black(tmp_path, dtype):
    top = np.iinfo(dtype).max
    picture = np.full((4, 6, 4), top, dtype)
    picture[:, :3] = 0, 0, top, top // 5  # red in OpenCV's order, a fifth of it
    cv2.imwrite(str(tmp_path / "a.png"), picture)
    frame = image.read_image(tmp_path / "a.png")
    assert (frame[:, :3] == (51, 0, 0)).all()
    assert (frame[:, 3:] == 255).all()


def test_gray_pictures_and_maps_are_read_as_numbers(tmp_path):
    deep = np.arange(0, 65536, 64, dtype=np.uint16).reshape(8, 128)
    cv2.imwrite(str(tmp_path / "deep.png"), deep)
    cv2.imwrite(str(tmp_path / "color.png"), corners()[:, :, ::-1])
    np.testing.assert_array_equal(image.read_map(tmp_path / "deep.png"), deep)
    np.testing.assert_array_equal(image.read_gray(tmp_path / "deep.png"), deep >> 8)
    np.testing.assert_array_equal(image.read_map(tmp_path / "color.png"), corners().mean(2))
    luma = cv2.cvtColor(corners(), cv2.COLOR_RGB2GRAY).astype(int)
    assert np.abs(image.read_gray(tmp_path / "color.png") - luma).max() <= 1


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
    source = read.open(tmp_path / "photo.JPG")
    assert source.size == (SIZE if value in (1, 3) else SIZE[::-1])
    assert quarters(next(iter(source)).image) == expected
    assert image.image_size(tmp_path / "photo.JPG") == source.size


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tif"])
def test_the_size_is_read_without_decoding_where_the_header_has_it(tmp_path, suffix, monkeypatch):
    path = tmp_path / f"a{suffix}"
    cv2.imwrite(str(path), corners((18, 50)))
    if suffix in (".png", ".jpg"):
        monkeypatch.setattr(image, "read_image", None)
    assert image.image_size(path) == (18, 50)


def test_a_truncated_image_prints_nothing(tmp_path, capfd):
    readers = (read.open, image.read_image, image.read_gray, image.read_map)
    for suffix in (".png", ".jpg", ".tif", ".webp", ".bmp"):
        data = cv2.imencode(suffix, noise(1)[0])[1].tobytes()
        path = tmp_path / f"cut{suffix}"
        path.write_bytes(data[: len(data) // 2])
        for reader in readers:
            with pytest.raises(SalemaError, match="unreadable image"):
                reader(path)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "reader", [image.read_image, image.read_gray, image.read_map, image.image_size]
)
def test_a_picture_that_is_not_there_costs_one_line(tmp_path, reader):
    with pytest.raises(SalemaError, match=r"cannot read .*none\.png: No such file"):
        reader(tmp_path / "none.png")


def written(path, pixels, *options):
    """A picture in OpenCV's order, with its options."""
    assert cv2.imwrite(str(path), pixels, options)
    return path


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32, np.uint32])
@pytest.mark.parametrize("color", [False, True])
def test_tiff_files_of_other_numbers_are_read(tmp_path, dtype, color):
    values = np.tile(np.linspace(0, 1 if dtype().dtype.kind == "f" else 255, 64), (8, 1))
    pixels = np.stack([0 * values, values, values / 2], 2) if color else values
    path = written(tmp_path / "a.tif", pixels.astype(dtype))
    expected = np.linspace(0, 255, 64)
    seen = image.read_image(path)
    assert seen.dtype == np.uint8 and seen.shape == (8, 64, 3)
    assert np.abs(seen[3, :, 1] - expected).max() <= 1
    assert np.abs(seen[3, :, 0] - expected / (2 if color else 1)).max() <= 1
    gray = image.read_gray(path)
    assert gray.shape == (8, 64) and gray.dtype == np.uint8
    assert color or np.abs(gray[3] - expected).max() <= 1


def test_a_float_picture_of_any_range_is_stretched_and_one_with_nan_is_refused(tmp_path):
    path = written(tmp_path / "a.tif", np.float32([[-3, 0, 5]]))
    np.testing.assert_array_equal(image.read_gray(path), [[0, 96, 255]])
    written(path, np.float32([[-3, np.nan, 5]]))
    with pytest.raises(SalemaError, match="not finite"):
        image.read_image(path)


def tiff(path, pixels, extra):
    """An uncompressed TIFF file (H, W, 4) that says what its fourth number is."""
    height, width, bits = *pixels.shape[:2], 8 * pixels.itemsize
    tags = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 4, 8), (259, 3, 1, 1), (262, 3, 1, 2)]
    tags += [(273, 4, 1, 16), (277, 3, 1, 4), (278, 4, 1, height), (279, 4, 1, pixels.nbytes)]
    tags += [(284, 3, 1, 1), (338, 3, 1, extra)]
    data = struct.pack("<4H", *[bits] * 4) + pixels.tobytes()
    rows = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    end = struct.pack("<H", len(tags)) + rows + bytes(4)
    path.write_bytes(b"II*\0" + struct.pack("<I", 8 + len(data)) + data + end)
    return path


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("extra", [0, 1, 2])  # unspecified, multiplied already, straight
def test_alpha_of_a_tiff_counts_once(tmp_path, dtype, extra):
    top, pixels = np.iinfo(dtype).max, np.zeros((4, 6, 4), dtype)
    pixels[:] = top // 5 if extra == 1 else top, 0, 0, top // 5
    frame = image.read_image(tiff(tmp_path / "a.tif", pixels, extra))
    assert (frame == (51, 0, 0)).all(), frame[0, 0]


def chunk(kind, data):
    body = kind + data
    return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))


def with_chunk(png, kind, data):
    """The PNG with a chunk more, right after its header."""
    return png[:33] + chunk(kind, data) + png[33:]


def exif(value):
    return struct.pack("<2sHIHHHIHHI", b"II", 42, 8, 1, 0x0112, 3, 1, value, 0, 0)


@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("value", range(1, 9))
def test_the_orientation_of_a_png_is_applied_with_and_without_alpha(tmp_path, value, alpha):
    pixels = corners()[:, :, ::-1]
    jpeg = cv2.imencode(".jpg", pixels)[1].tobytes()
    (tmp_path / "a.jpg").write_bytes(with_orientation(jpeg, value))
    if alpha:
        pixels = np.dstack([pixels, np.full(SIZE, 255, np.uint8)])
    png = cv2.imencode(".png", pixels)[1].tobytes()
    path = tmp_path / "a.png"
    path.write_bytes(with_chunk(png, b"eXIf", exif(value)))
    seen = image.read_image(path)
    assert quarters(seen) == quarters(image.read_image(tmp_path / "a.jpg"))
    assert image.image_size(path) == seen.shape[:2] and seen.flags.c_contiguous


def test_odd_chunks_of_a_png_change_nothing_and_print_nothing(tmp_path, capfd):
    png = cv2.imencode(".png", noise(1)[0])[1].tobytes()
    path = tmp_path / "a.png"
    path.write_bytes(png + b"more behind the end")
    expected = image.read_image(path)
    np.testing.assert_array_equal(expected, noise(1)[0][:, :, ::-1])
    for extra in (
        chunk(b"iCCP", b"icc\0\0no profile"),
        chunk(b"tIME", b"x"),
        b"\0\0\0\4tEXtabcdnone",
    ):
        path.write_bytes(png[:33] + extra + png[33:])
        np.testing.assert_array_equal(image.read_image(path), expected)
    assert capfd.readouterr() == ("", "")


def test_a_png_with_a_wrong_check_sum_is_refused_and_prints_nothing(tmp_path, capfd):
    data = bytearray(cv2.imencode(".png", noise(1)[0])[1].tobytes())
    data[len(data) // 2] ^= 255
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(SalemaError, match="unreadable image"):
        image.read_image(tmp_path / "a.png")
    assert capfd.readouterr() == ("", "")


BOMB = """
import sys, tracemalloc
from salema.files import SalemaError
from salema.media import image
try:
    image.read_image(sys.argv[1])
except SalemaError as error:
    print(error)
"""


def test_a_small_file_that_promises_a_huge_picture_is_refused_before_it_is_decoded(tmp_path):
    rows = zlib.compress(bytes(30_001) * 30_000, 1)
    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 0, 0, 0, 0)
    png = image.PNG + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    (tmp_path / "bomb.png").write_bytes(png)
    words = [sys.executable, "-c", BOMB, str(tmp_path / "bomb.png")]
    said = subprocess.run(words, capture_output=True, text=True, check=True)
    assert said.stderr == "" and "bomb.png has more than 67108864 pixels" in said.stdout


def test_alpha_of_a_large_picture_is_the_same_in_every_row():
    rgba = np.random.default_rng(0).integers(0, 256, (600, 3, 4), np.uint8)
    expected = np.rint(rgba[..., :3] * (rgba[..., 3:] * np.float32(255 / 255 / 255)))
    np.testing.assert_array_equal(image.over_black(rgba), expected.astype(np.uint8))


def test_damage_in_a_jpeg_is_no_picture_and_prints_nothing(tmp_path, capfd):
    data = bytearray(cv2.imencode(".jpg", noise(1)[0])[1].tobytes())
    half = len(data) // 2
    data[half : half + 40] = b"\xff\x9a" * 20
    (tmp_path / "a.jpg").write_bytes(data)
    with pytest.raises(SalemaError, match="unreadable image"):
        image.read_image(tmp_path / "a.jpg")
    assert capfd.readouterr() == ("", "")


def test_bytes_before_the_end_of_a_jpeg_are_no_damage(tmp_path, capfd):
    data = cv2.imencode(".jpg", noise(1)[0])[1].tobytes()
    (tmp_path / "a.jpg").write_bytes(data)
    expected = image.read_image(tmp_path / "a.jpg")
    (tmp_path / "a.jpg").write_bytes(data[:-2] + b"\0\0\0\0" + data[-2:])
    np.testing.assert_array_equal(image.read_image(tmp_path / "a.jpg"), expected)
    assert capfd.readouterr() == ("", "")


def test_what_others_print_during_a_decoding_is_printed(capfd):
    with image.quiet() as caught:
        os.write(2, b"libpng warning: x\nanother line\n")
    assert caught == [b"libpng warning: x\n"] and capfd.readouterr().err == "another line\n"


@pytest.mark.parametrize("closed", ["2>&-", ">&- 2>&-", ""])
def test_pictures_are_read_without_a_standard_error_or_a_temporary_folder(tmp_path, closed):
    written(tmp_path / "a.png", corners())
    code = "import sys; from salema.media.image import read_image; read_image('a.png')"
    shell = f'cd {tmp_path} && TMPDIR=/nowhere {sys.executable} -c "{code}" {closed}'
    root = str(Path(__file__).parents[2])
    done = subprocess.run(shell, shell=True, env={**os.environ, "PYTHONPATH": root}, check=False)
    assert done.returncode == 0
