import numpy as np
import pytest
import trees
from test_predictor import predictor, scene
from test_read import film, ramp

import salema
from salema.files import SalemaError
from salema.media import read
from salema.media.overlay import blend, color_table
from salema.media.write import min_max


def test_frames_are_those_of_the_reader_from_start_to_stop(tmp_path):
    path = film(tmp_path / "clip.mkv", ramp(7), "ffv1", "bgr0")
    whole = np.stack([frame.image for frame in read.open(path)])
    assert salema.frames(path).dtype == np.uint8
    np.testing.assert_array_equal(salema.frames(str(path)), whole)
    np.testing.assert_array_equal(salema.frames(path, 2, 5), whole[2:5])
    trees.array(tmp_path / "photo.png", whole[0])
    np.testing.assert_array_equal(salema.frames(tmp_path / "photo.png"), whole[:1])


@pytest.mark.parametrize("camera", [0, "camera:0"])
def test_a_camera_needs_an_end_and_a_clip_needs_a_frame(tmp_path, camera):
    with pytest.raises(SalemaError, match=r"a camera never ends: .*\(give stop"):
        salema.frames(camera)
    path = film(tmp_path / "clip.mkv", ramp(3), "ffv1", "bgr0")
    with pytest.raises(SalemaError, match=r"no frame of .*clip\.mkv from 3 on"):
        salema.frames(path, 3)


def test_a_damaged_file_gives_what_is_there_with_a_warning(tmp_path):
    path = film(tmp_path / "clip.avi", ramp(20), "mjpeg", "yuvj420p")
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    with pytest.warns(UserWarning, match=r"clip\.avi: .* frames"):
        found = salema.frames(path)
    assert 1 <= len(found) < 20


def test_an_overlay_stretches_each_map_and_keeps_the_shape():
    frames = np.stack(scene(3))
    maps = np.random.default_rng(0).random((3, 10, 15)) * 40 - 7
    seen = salema.overlay(frames, maps)
    assert seen.shape == frames.shape and seen.dtype == np.uint8
    one = blend(frames[1], min_max(maps[1]), color_table("turbo"), 0.7)
    np.testing.assert_array_equal(seen[1], one)
    np.testing.assert_array_equal(salema.overlay(frames[1], maps[1]), one)
    np.testing.assert_array_equal(salema.overlay(frames, maps, opacity=0), frames)


@pytest.mark.parametrize(
    ("frame", "map"),
    [((4, 6, 3), (2, 4, 6)), ((2, 4, 6, 3), (4, 6)), ((2, 4, 6, 3), (3, 4, 6)), ((4, 6), (4, 6))],
)
def test_an_overlay_of_what_does_not_fit_is_refused(frame, map):
    with pytest.raises(SalemaError, match=r"no overlay of uint8 .*\(give"):
        salema.overlay(np.zeros(frame, np.uint8), np.zeros(map))
    with pytest.raises(SalemaError, match="no overlay of float64"):
        salema.overlay(np.zeros((4, 6, 3)), np.zeros((4, 6)))


def test_predict_takes_a_path_or_a_list_of_frames(tmp_path):
    model, images = predictor(), scene(6)
    path = film(tmp_path / "clip.mkv", images, "ffv1", "bgr0")
    wanted = model.predict(np.stack(images))
    np.testing.assert_array_equal(model.predict(images), wanted)
    np.testing.assert_array_equal(model.predict(path), wanted)
    np.testing.assert_array_equal(model.predict(str(path)), wanted)
    assert model.predict(path, size="model").shape == (6, *model.size)


@pytest.mark.parametrize(
    ("frames", "said"),
    [
        (None, "not NoneType"),
        (iter([]), "not list_iterator"),
        ([], "not list"),
        (["a.png", "b.png"], "not <U5"),
        ([np.zeros((4, 6, 3), np.uint8), np.zeros((4, 5, 3), np.uint8)], "of one size or a path"),
        (np.zeros((2, 4, 6, 3)), "not float64"),
        (np.zeros((4, 6, 3), np.uint8), r"not uint8 \(4, 6, 3\)"),
        ("no such clip.mp4", "no such file"),
    ],
)
def test_predict_refuses_everything_else_in_one_line(frames, said):
    with pytest.raises(ValueError, match=said) as error:
        predictor().predict(frames)
    assert "\n" not in str(error.value)
