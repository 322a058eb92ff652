import subprocess
import sys
from pathlib import Path

import pytest

import salema
from salema.model import weights
from salema.params import Model
from salema.tools import doctor


@pytest.fixture
def starter(tmp_path, monkeypatch):
    """Tiny starter weights in the place of the installed ones."""
    path = tmp_path / "model" / "starter.safetensors"
    model = weights.build("ema30", config=Model(size=[32, 48], width=0.125))
    weights.save(model, path, weights.Card())
    monkeypatch.setattr(weights, "STARTER", path)
    monkeypatch.setattr(salema, "__file__", str(tmp_path / "__init__.py"))
    monkeypatch.chdir(tmp_path)
    return path


@pytest.fixture
def told(capsys, starter):
    """What the report says: its status, and name -> (mark, text)."""

    def run():
        status = doctor.report()
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        *lines, last = out.splitlines()
        assert len(lines) == len(doctor.CHECKS)
        assert all(line[:2] in ("ok", "no", "--") for line in lines)
        assert last.startswith("predict works" if status == 0 else "predict will not work")
        return status, {line[4:16].strip(): (line[:2], line[18:]) for line in lines}

    return run


def lacking(monkeypatch, name, error):
    """Importing `name` fails with `error` from now on."""
    true = doctor.importlib.import_module

    def fake(wanted, *rest):
        if wanted == name:
            raise error
        return true(wanted, *rest)

    monkeypatch.setattr(doctor.importlib, "import_module", fake)


def test_a_healthy_machine_gets_status_0_and_figures(told, starter, monkeypatch):
    monkeypatch.setenv("SALEMA_DATA", str(starter.parent.parent / "data"))
    (starter.parent.parent / "data" / "DHF1K").mkdir(parents=True)
    (starter.parent.parent / ".salema").mkdir()
    (starter.parent.parent / ".salema" / "frames").write_bytes(bytes(30_000_000))
    status, lines = told()
    assert status == 0
    for name in ("Python", "torch", "precision", "PyAV", "H.264", "FFV1", "OpenCV", "a prediction"):
        assert lines[name][0] == "ok", lines[name]
    assert "frames a second" in lines["a prediction"][1]
    assert lines["precision"][1].startswith(("bf16", "fp32"))
    assert lines["SALEMA_DATA"][1].endswith("holds DHF1K")
    assert lines["scratch"][1].startswith("0.03 GB")
    assert len(lines["weights"][1].rpartition("sha256 ")[2]) == 12


def test_without_weights_nothing_can_be_predicted(told, starter):
    starter.unlink()
    status, lines = told()
    assert status == 1
    assert lines["weights"][0] == "no" and "--weights" in lines["weights"][1]


def test_weights_that_are_broken_are_told_and_do_not_stop_the_report(told, starter):
    starter.write_bytes(starter.read_bytes()[:1000])
    status, lines = told()
    assert status == 1
    mark, text = lines["a prediction"]
    assert mark == "no" and "broken weights file" in text and "-> download" in text


@pytest.mark.parametrize(
    ("module", "error", "line", "mend"),
    [
        ("torch", ModuleNotFoundError("No module named 'torch'"), "torch", "pip install torch"),
        ("av", ModuleNotFoundError("No module named 'av'"), "PyAV", "pip install av"),
        ("av", ImportError("libxcb.so.1: cannot open shared object file"), "PyAV", "reinstall"),
        ("cv2", ImportError("libGL.so.1: cannot open shared object file"), "OpenCV", "headless"),
    ],
)
def test_what_prediction_needs_and_lacks_is_marked_no(
    told, monkeypatch, module, error, line, mend
):  # fmt: skip
    lacking(monkeypatch, module, error)
    status, lines = told()
    assert status == 1
    mark, text = lines[line]
    assert mark == "no" and mend in text.partition(" -> ")[2]


def test_torchvision_of_another_build_is_explained_and_hurts_no_prediction(told, monkeypatch):
    class Vision:
        __version__ = "1.0"

    monkeypatch.setitem(sys.modules, "torchvision", Vision())
    lacking(
        monkeypatch, "torchvision.ops", RuntimeError("operator torchvision::nms does not exist")
    )
    status, lines = told()
    assert status == 0
    mark, text = lines["torchvision"]
    assert mark == "--" and "does not fit torch" in text and "both builds" in text


def test_an_encoder_that_is_missing_is_told(told, monkeypatch):
    import av

    def none(name, mode):
        raise av.error.EncoderNotFoundError(1, "Encoder not found")

    monkeypatch.setattr(av.CodecContext, "create", none, raising=False)
    monkeypatch.setattr(doctor, "_module", lambda *_: av)
    with pytest.raises(doctor.Wrong, match="no encoder libx264"):
        doctor._encoder("libx264", "yuv420p")()


def test_two_opencvs_at_once_are_told(monkeypatch):
    monkeypatch.setattr(doctor, "_version", lambda name: "4.9" if "contrib" not in name else None)
    with pytest.raises(doctor.Wrong, match="opencv-python, opencv-python-headless") as raised:
        doctor._opencv()
    assert "uninstall" in raised.value.mend


def test_a_data_folder_that_is_not_one_is_told(told, monkeypatch, tmp_path):
    monkeypatch.setenv("SALEMA_DATA", str(tmp_path / "nowhere"))
    assert "is no folder" in told()[1]["SALEMA_DATA"][1]
    monkeypatch.setenv("SALEMA_DATA", str(tmp_path))
    assert "no data set in" in told()[1]["SALEMA_DATA"][1]


def test_the_report_needs_no_package_at_all():
    code = (
        "import sys\n"
        "for name in ('torch', 'av', 'cv2', 'numpy'): sys.modules[name] = None\n"
        "from salema import doctor\n"
        "sys.exit(doctor.report())"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60,
                         cwd=Path(__file__).parents[2])  # fmt: skip
    assert ran.returncode == 1 and ran.stderr == ""
    assert "no  torch         not installed -> pip install torch" in ran.stdout
