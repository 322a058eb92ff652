import struct

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
