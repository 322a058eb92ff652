import json
import re
from pathlib import Path

import av
import browser
import cv2
import numpy as np
import pytest
import trees
from test_predictor import predictor, scene
from test_read import film, noise
from test_sources import tree

from salema.files import SalemaError
from salema.media import read, write
from salema.media.overlay import blend, color_table, overlay
from salema.media.read import Frame
from salema.predict.predictor import Predictor
from salema.predict.sources import Output
from salema.tools import view

SIZE = (72, 96)  # of the films


@pytest.fixture(scope="module")
def model():
    return predictor()


def block(count):
    """A bright block that goes from left to right over a texture, and grows."""
    frames = [frame // 2 for frame in scene(1, size=SIZE) * count]
    for index, frame in enumerate(frames):
        side = 12 + index
        left = index * (SIZE[1] - side) // max(count - 1, 1)
        frame[20 : 20 + side, left : left + side] = (255, 240, 30)
    return frames


class Brightness(Predictor):
    """Its maps are high where the picture is bright, so that the figures are known."""

    def step(self, frames):
        bright = (frames[..., 0] > 180).astype(np.float32)
        return np.stack([cv2.GaussianBlur(frame, (0, 0), 2) for frame in bright])


# ---------------------------------------------------------------------- figures


def test_entropy_in_bits_by_hand():
    one, half, even = np.zeros((3, 4, 8), np.float32)
    one[2, 3] = 0.7
    half[0, 0] = half[3, 7] = 0.2
    even[:] = 0.1
    assert view.entropy(one) == 0
    assert view.entropy(half) == pytest.approx(1)
    assert view.entropy(even) == pytest.approx(5)  # 32 pixels
    uneven = np.zeros((4, 8), np.float32)
    uneven[0, :3] = 2, 1, 1
    assert view.entropy(uneven) == pytest.approx(1.5)  # 1/2, 1/4, 1/4


def test_entropy_does_not_depend_on_the_scale_and_a_blank_map_is_an_even_spread():
    saliency = np.random.default_rng(0).random((20, 30), np.float32)
    assert view.entropy(saliency) == pytest.approx(view.entropy(saliency * 1e-6), abs=1e-4)
    assert view.entropy(np.zeros((4, 8), np.float32)) == 5


def test_centre_of_gravity_by_hand():
    saliency = np.zeros((10, 20), np.float32)
    saliency[0, 0] = 1
    assert view.centre(saliency) == pytest.approx((0.5 / 20, 0.5 / 10))
    saliency[9, 19] = 1
    assert view.centre(saliency) == pytest.approx((0.5, 0.5))
    saliency[9, 19] = 3
    assert view.centre(saliency) == pytest.approx(((0.5 + 3 * 19.5) / 80, (0.5 + 3 * 9.5) / 40))
    assert view.centre(np.zeros((4, 8), np.float32)) == (0.5, 0.5)


@pytest.mark.parametrize("count", [1, 5, 12, 13, 95, 97, 1000])
def test_a_contact_sheet_is_even_whatever_the_length(count):
    sheet = view._Sheet()
    for index in range(count):
        sheet.add(np.zeros((4, 4, 3), np.uint8), float(index))
        assert len(sheet.kept) <= 8 * view.THUMBNAILS
    moments = [moment for moment, _ in sheet.chosen()]
    assert len(moments) == min(count, view.THUMBNAILS)
    if count > 1:
        steps = np.diff(moments)
        assert moments[0] == 0 and moments[-1] >= 0.97 * (count - 1)
        assert steps.min() >= 1 and np.ptp(steps) <= max(1, 0.03 * count)


# ---------------------------------------------------------------------- the page


def data_of(page):
    text = re.search(r'<script id="data"[^>]*>(.*?)</script>', page.read_text("utf-8"))[1]
    return json.loads(text)


def film_of(page, folder):
    """The film of a page, as its three panes: (T, 3, H, W, 3)."""
    import base64

    text = re.search(r'<script id="film"[^>]*>(.*?)</script>', page.read_text("utf-8"))[1]
    (folder / "film.mp4").write_bytes(base64.b64decode(text, validate=True))
    frames = np.stack([frame.image for frame in read.open(folder / "film.mp4")])
    return frames.reshape(len(frames), 3, -1, *frames.shape[2:])


def test_the_film_holds_source_map_and_overlay_below_each_other(tmp_path, model):
    frames = block(6)
    source = film(tmp_path / "clip.mkv", frames, "ffv1", "bgr0")
    assert view.page(model, str(source), tmp_path / "p.html", Output(colormap="bone")) is None
    seen = film_of(tmp_path / "p.html", tmp_path).astype(int)
    assert seen.shape == (6, 3, *SIZE, 3)
    lut = color_table("bone")
    for panes, frame, saliency in zip(seen, frames, model.stream(frames, "model"), strict=True):
        stretched = cv2.resize(write.min_max(saliency), SIZE[::-1])
        colored = lut[write.to_byte(stretched)]
        expected = (frame, colored, blend(frame, stretched, lut, 0.7))
        for pane, image in zip(panes, expected, strict=True):
            assert np.abs(pane - image).mean() < 5  # H.264


def test_figures_are_those_of_the_maps(tmp_path, model):
    frames, times = block(5), [0, 0.04, 0.3, 0.34, 1.0]
    source = film(tmp_path / "clip.mkv", frames, times=times)
    view.page(model, str(source), tmp_path / "p.html", Output())
    told = data_of(tmp_path / "p.html")
    assert told["times"] == pytest.approx(times, abs=2e-3)
    maps = [write.min_max(saliency) for _, saliency in model.maps(read.open(source))]
    assert told["entropy"] == pytest.approx([view.entropy(m) for m in maps], abs=1e-3)
    assert told["x"] == pytest.approx([100 * view.centre(m)[0] for m in maps], abs=0.06)
    assert told["y"] == pytest.approx([100 * view.centre(m)[1] for m in maps], abs=0.06)
    assert told["seconds"] == pytest.approx(1.0 + 1 / read.open(source).fps, abs=1e-3)


def test_curves_of_long_videos_have_a_bounded_number_of_points():
    panes = view._Panes(read.Source("x", (4, 4), iter, fps=10.0), None, 0)
    panes.times = [index / 10 for index in range(4000)]
    panes.values = [(float(index), 1.0, 2.0) for index in range(4000)]
    times, values = panes.curves()
    assert len(times) <= view.POINTS
    np.testing.assert_allclose(times[:2], [0, 0.3])
    np.testing.assert_allclose(values[0], [1, 1, 2])  # the mean of 0, 1, 2
    np.testing.assert_allclose(values[-1, 0], 3999)


def test_large_and_odd_sources_are_shrunk_to_even_panes():
    def panes(height, width):
        return view._Panes(read.Source("x", (height, width), iter), None, 0).size

    assert panes(1080, 1920) == (360, 640)
    assert panes(1920, 1080) == (640, 360)
    assert panes(33, 47) == (32, 48)
    assert panes(1, 1) == (2, 2)
    assert panes(10, 4000) == (2, 640)


def test_the_page_asks_nothing_of_the_network_and_hostile_names_do_nothing(tmp_path, model):
    name = "<script>alert(1)</script> & {{film}} {{data}}"
    folder = tmp_path / name.replace("/", "\u2044")
    for index, frame in enumerate(block(2)):
        trees.array(folder / f"{index}.png", frame)
    view.page(model, str(folder), tmp_path / "p.html", Output())
    text = (tmp_path / "p.html").read_text("utf-8")
    assert "alert(1)" in text and "<script>alert" not in text
    assert "{{film}} {{data}}" in text  # as they were given, and nowhere else
    assert text.replace("{{film}} {{data}}", "").count("{{") == 0
    assert not re.search(r"""(src|href)=["'](?!data:)|https?://|@import|url\(""", text)
    assert "default-src 'none'" in text


@pytest.mark.parametrize(
    ("placement", "told"),
    [
        ("static", "no memory,"),
        ("ema7-54", "EMA after layer 7 and 54,"),
        ("videosalgan-conv", "convolution after layer 61,"),
    ],
)
def test_the_page_names_the_recurrence(tmp_path, placement, told):
    source = film(tmp_path / "clip.mp4", block(2))
    view.page(predictor(placement, size=(32, 48)), str(source), tmp_path / "p.html", Output())
    assert told in (tmp_path / "p.html").read_text("utf-8")


def test_a_page_that_exists_is_refused_and_a_camera_too(tmp_path, model):
    source = str(film(tmp_path / "clip.mp4", block(2)))
    (tmp_path / "p.html").write_text("mine")
    with pytest.raises(SalemaError, match=r"p\.html exists"):
        view.page(model, source, tmp_path / "p.html", Output())
    assert (tmp_path / "p.html").read_text() == "mine"
    view.page(model, source, tmp_path / "p.html", Output(overwrite=True))
    assert (tmp_path / "p.html").read_text("utf-8").startswith("<!doctype html>")
    with pytest.raises(SalemaError, match="no page of a camera"):
        view.page(model, "camera:0", tmp_path / "c.html", Output())


def test_an_interruption_leaves_nothing(tmp_path, model, monkeypatch):
    source = film(tmp_path / "clip.mp4", block(9))
    true = Predictor.step

    def interrupted(self, frames):
        if self.state is not None:
            raise KeyboardInterrupt
        return true(self, frames)

    monkeypatch.setattr(Predictor, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        view.page(model, str(source), tmp_path / "out" / "p.html", Output())
    assert tree(tmp_path) == ["clip.mp4"]


def test_a_truncated_video_gets_a_page_that_says_so(tmp_path, model):
    path = film(tmp_path / "cut.avi", noise(12), "mjpeg", "yuvj420p")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    stopped = view.page(model, str(path), tmp_path / "p.html", Output())
    assert "cut short" in stopped
    assert f"Ended early: {stopped}." in (tmp_path / "p.html").read_text("utf-8")


# ---------------------------------------------------------------------- in a browser

chromium = pytest.mark.skipif(browser.find() is None, reason="no Chromium (apt install chromium)")


@pytest.fixture(scope="module")
def tab():
    with browser.Browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def moving(tmp_path_factory, model):
    """The page of a film of two seconds."""
    folder = tmp_path_factory.mktemp("page")
    source = film(folder / "clip.mp4", block(24), rate=12)
    bright = Brightness(model.network, "cpu", "fp32")
    view.page(bright, str(source), folder / "moving page.html", Output())
    return folder / "moving page.html"


def picture(tab, selector="#stage canvas"):
    image = cv2.imdecode(np.frombuffer(tab.screenshot(selector), np.uint8), cv2.IMREAD_COLOR_RGB)
    return image.astype(int)


def opened(tab, page, **options):
    tab.complaints.clear()
    tab.requests.clear()
    tab.open(page, **options)
    tab.until("data.still ? media.complete : video.readyState >= 2 && !video.seeking")


def to(tab, seconds):
    tab.run(f"(go({seconds}), 0)")
    tab.until("!video.seeking && video.readyState >= 2")
    tab.run("new Promise(requestAnimationFrame)")


@chromium
def test_the_page_loads_from_disk_without_complaint_and_without_the_network(tab, moving):
    opened(tab, moving)
    assert tab.complaints == []
    assert {url.partition(":")[0] for url in tab.requests} <= {"file", "data", "blob"}
    assert sum(url.startswith("file:") for url in tab.requests) == 1
    assert tab.run("video.duration") == pytest.approx(2.0, abs=0.05)
    assert tab.run("document.querySelectorAll('#sheet img').length") == 12
    shown = tab.run("[...document.images].every((image) => image.complete && image.naturalWidth)")
    assert shown


@chromium
def test_the_film_plays_and_the_cursor_and_the_figures_follow(tab, moving):
    opened(tab, moving)
    tab.run("(play.click(), 0)")
    tab.until("video.currentTime > 0.3")
    assert tab.run("play.textContent") == "Pause"
    tab.run("(play.click(), 0)")
    tab.until("video.paused")
    to(tab, 0.01)
    first = tab.run("[get('entropy').value, get('x').value, get('clock').value]")
    to(tab, 1.5)
    assert tab.run("Number(cursors[0].getAttribute('x1'))") == pytest.approx(750, abs=10)
    assert tab.run("Number(seek.value)") == pytest.approx(1.5, abs=0.05)
    later = tab.run("[get('entropy').value, get('x').value, get('clock').value]")
    assert first[0] != later[0] and first[2] == "0:00.0 / 0:02.0" and later[2][:6] == "0:01.5"
    assert first[1] == "x 6 %" and int(later[1][2:4]) > 60  # the block went to the right
    told, index = data_of(moving), 18
    assert later[0] == f"{told['entropy'][index]:.2f} bits"
    assert later[1] == f"x {told['x'][index]:.0f} %"
    assert tab.complaints == []


@chromium
def test_time_is_moved_by_slider_curve_and_contact_sheet(tab, moving):
    opened(tab, moving)
    tab.run("(seek.value = 0.5, seek.dispatchEvent(new Event('input')), 0)")
    assert tab.run("video.currentTime") == pytest.approx(0.5, abs=0.05)
    tab.run("(() => { const box = document.querySelector('.plot').getBoundingClientRect();"
            "document.querySelector('.plot').dispatchEvent(new MouseEvent('click',"
            "{clientX: box.left + 0.75 * box.width})); })()")  # fmt: skip
    assert tab.run("video.currentTime") == pytest.approx(1.5, abs=0.05)
    tab.run("(document.querySelectorAll('#sheet button')[6].click(), 0)")
    expected = float(tab.run("document.querySelectorAll('#sheet button')[6].value"))
    assert tab.run("video.currentTime") == pytest.approx(expected, abs=0.01) and expected > 0.5


@chromium
def test_the_slider_and_the_switch_change_what_is_seen(tab, moving):
    opened(tab, moving)
    to(tab, 1.0)
    panes = film_of(moving, moving.parent)[12].astype(int)  # source, map, overlay

    def seen(wipe, pane, columns):
        """Which of the panes is in these columns: the nearest of the three."""
        tab.run(f"(document.getElementsByName('pane')[{2 - pane}].click(), wipe.value = {wipe},"
                "wipe.dispatchEvent(new Event('input')), 0)")  # fmt: skip
        tab.run("new Promise(requestAnimationFrame)")
        image = cv2.resize(
            picture(tab).astype(np.float32), SIZE[::-1], interpolation=cv2.INTER_AREA
        )
        # The labels stand at the top, the line at the border.
        apart = [np.abs(image - pane)[20:, columns].mean() for pane in panes]
        assert min(apart) < 15 and sorted(apart)[1] > 1.5 * min(apart)
        return int(np.argmin(apart))

    left, right, whole = slice(2, 44), slice(52, 94), slice(4, 92)
    assert seen(100, 2, whole) == seen(100, 1, whole) == 0
    assert seen(0, 2, whole) == 2
    assert seen(0, 1, whole) == 1
    assert (seen(50, 1, left), seen(50, 1, right)) == (0, 1)
    assert (seen(50, 2, left), seen(50, 2, right)) == (0, 2)
    tab.run("(document.getElementsByName('pane')[1].click(), 0)")
    assert tab.run("[get('shown').textContent, get('other').textContent]") == ["map", "map"]


@chromium
def test_dragging_over_the_picture_moves_the_line(tab, moving):
    opened(tab, moving)
    box = tab.run("(({x, y, width, height}) => [x, y, width, height])"
                  "(stage.getBoundingClientRect())")  # fmt: skip
    x, y = box[0] + 0.8 * box[2], box[1] + 0.5 * box[3]
    for kind in ("mousePressed", "mouseReleased"):
        tab.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)
    assert tab.run("Number(wipe.value)") == pytest.approx(80, abs=1)


@chromium
@pytest.mark.parametrize("width", [360, 1200])
@pytest.mark.parametrize("dark", [False, True])
def test_the_page_fits_phone_and_desk_in_light_and_dark(tab, moving, width, dark):
    opened(tab, moving, width=width, dark=dark)
    assert tab.run("document.documentElement.scrollWidth") <= width
    beyond = tab.run(
        "[...document.querySelectorAll('main *')].filter((element) => "
        f"element.getBoundingClientRect().right > {width} + 1).map((element) => element.tagName)"
    )
    assert beyond == []
    paper = tab.run("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
    assert (max(paper) < 60) if dark else (min(paper) > 200)
    nameless = tab.run(
        "[...document.querySelectorAll('input, button, svg, canvas, img')].filter((e) => !("
        "e.ariaLabel || e.alt || e.textContent.trim() || e.labels?.[0]?.textContent))"
        ".map((e) => e.id || e.tagName)"
    )
    assert nameless == []


@chromium
def test_a_single_image_gets_a_picture_in_place_of_the_player(tab, tmp_path, model):
    image = trees.array(tmp_path / "photo.png", block(2)[1])
    view.page(model, str(image), tmp_path / "p.html", Output())
    opened(tab, tmp_path / "p.html")
    assert tab.complaints == []
    assert not tab.run("play.checkVisibility()") and tab.run("wipe.checkVisibility()")
    tab.run("(wipe.value = 100, wipe.dispatchEvent(new Event('input')),"
            "new Promise(requestAnimationFrame))")  # fmt: skip
    seen = cv2.resize(picture(tab).astype(np.float32), SIZE[::-1], interpolation=cv2.INTER_AREA)
    assert np.abs(seen - block(2)[1])[20:, 4:92].mean() < 8
    assert "bits" in tab.run("get('entropy').value")


@chromium
def test_a_folder_of_frames_is_a_film_of_25_a_second(tab, tmp_path, model):
    for index, frame in enumerate(block(10)):
        trees.array(tmp_path / "frames" / f"{index}.png", frame)
    view.page(model, str(tmp_path / "frames"), tmp_path / "p.html", Output())
    opened(tab, tmp_path / "p.html")
    assert tab.complaints == []
    assert tab.run("video.duration") == pytest.approx(0.4, abs=0.02)


@chromium
def test_the_overlay_that_predict_writes_plays_in_a_browser(tab, tmp_path):
    frames = block(24)
    saliency = np.zeros(SIZE, np.float32)
    saliency[:, 48:] = 1
    with overlay(tmp_path / "over.mp4", SIZE, 24) as put:
        for frame in frames:
            put(saliency, Frame(frame, ""))
    (tmp_path / "p.html").write_text('<video id="video" muted src="over.mp4"></video>')
    tab.complaints.clear()
    tab.open(tmp_path / "p.html")
    tab.until("video.readyState >= 2")
    assert tab.run("[video.videoWidth, video.videoHeight]") == [SIZE[1], SIZE[0]]
    assert tab.run("video.duration") == pytest.approx(1.0, abs=0.05)
    tab.run("video.play().then(() => 0)")
    tab.until("video.currentTime > 0.2")
    assert tab.run("video.error") is None and tab.complaints == []
    assert Path(tmp_path / "over.mp4").read_bytes().find(b"moov") < 64  # starts before it is loaded
    with av.open(str(tmp_path / "over.mp4")) as container:
        assert container.streams.video[0].codec_context.name == "h264"
