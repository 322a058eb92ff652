import re
import subprocess
import sys
from pathlib import Path

import pytest

from salema.files import SalemaError
from salema.model import weights
from salema.model.network import SaliencyModel
from salema.model.placements import named
from salema.params import Model
from salema.tools import doctor


@pytest.fixture
def starter(tmp_path, monkeypatch):
    """Tiny starter weights in the place of the installed ones."""
    path = tmp_path / "model" / "starter.safetensors"
    network = SaliencyModel(Model(size=[32, 48], width=0.125), named("ema30"))
    weights.save(network, path, weights.Card())
    monkeypatch.setattr(weights, "STARTER", path)
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
        assert len(lines) == 1 + len(doctor.NEEDED | doctor.OTHERS) == 7
        assert all(line[:2] in ("ok", "no", "--") for line in lines)
        assert last.startswith("predict works" if status == 0 else "predict will not work")
        return status, {line[4:11].strip(): (line[:2], line[13:]) for line in lines}

    return run


def missing(name):
    return ModuleNotFoundError(f"No module named '{name}'", name=name)


def lacking(monkeypatch, name, error):
    """Importing `name` fails with `error` from now on."""
    true = doctor.import_module

    def fake(wanted, *rest):
        if wanted == name:
            raise error
        return true(wanted, *rest)

    monkeypatch.setattr(doctor, "import_module", fake)


def test_a_healthy_machine_gets_status_0_and_figures(told, starter, monkeypatch):
    monkeypatch.setenv("SALEMA_DATA", str(starter.parent.parent / "data"))
    (starter.parent.parent / "data" / "DHF1K").mkdir(parents=True)
    (starter.parent.parent / ".salema").mkdir()
    (starter.parent.parent / ".salema" / "frames").write_bytes(bytes(30_000_000))
    status, lines = told()
    assert status == 0
    for name in ("Python", "torch", "video", "OpenCV", "weights", "data"):
        assert lines[name][0] == "ok", lines[name]
    assert "H.264 and FFV1" in lines["video"][1]
    assert re.search(r" in (bf16|fp32)\b", lines["torch"][1])
    assert "holds DHF1K; 0.03 GB in .salema/" in lines["data"][1]
    assert re.search(r"sha256 [0-9a-f]{12}, [\d.]+ frames a second$", lines["weights"][1])


def test_without_weights_nothing_can_be_predicted(told, starter):
    starter.unlink()
    status, lines = told()
    assert status == 1
    assert lines["weights"][0] == "no" and "--weights" in lines["weights"][1]


def test_weights_that_are_broken_are_told_and_do_not_stop_the_report(told, starter):
    starter.write_bytes(starter.read_bytes()[:1000])
    status, lines = told()
    assert status == 1
    mark, text = lines["weights"]
    assert mark == "no" and "broken weights file" in text and "-> download" in text


@pytest.mark.parametrize(
    ("module", "error", "line", "fix"),
    [
        ("torch", missing("torch"), "torch", "pip install torch"),
        ("av", missing("av"), "video", "pip install av"),
        ("av", ImportError("libxcb.so.1: cannot open shared object file"), "video", "reinstall"),
        ("cv2", missing("cv2"), "OpenCV", "pip install opencv-python-headless"),
        ("cv2", ImportError("libGL.so.1: cannot open shared object file"), "OpenCV", "headless"),
    ],
)
def test_what_prediction_needs_and_lacks_is_marked_no(
    told, monkeypatch, module, error, line, fix
):  # fmt: skip
    lacking(monkeypatch, module, error)
    status, lines = told()
    assert status == 1
    mark, text = lines[line]
    assert mark == "no" and fix in text.partition(" -> ")[2]


def test_torchvision_of_another_build_is_explained_and_hurts_no_prediction(told, monkeypatch):
    error = RuntimeError("operator torchvision::nms does not exist")
    lacking(monkeypatch, "torchvision.ops", error)
    status, lines = told()
    assert status == 0
    mark, text = lines["study"]
    assert mark == "--" and "torch " in text and "do not fit" in text and "from one index" in text


def test_what_only_the_study_needs_and_lacks_is_told(told, monkeypatch):
    lacking(monkeypatch, "torchvision.ops", missing("torchvision"))
    status, lines = told()
    assert status == 0 and "pip install torchvision" in lines["study"][1]
    monkeypatch.setattr(doctor, "import_module", lambda name: sys.modules.get(name))
    monkeypatch.setattr(doctor, "_versions", dict)
    with pytest.raises(SalemaError, match=r"DVC is not installed \(pip install"):
        doctor._study()
    monkeypatch.setattr(doctor, "_versions", lambda: {"dvc": "3.60"})
    monkeypatch.setattr(doctor.shutil, "which", lambda name: None)
    with pytest.raises(SalemaError, match="git is not installed"):
        doctor._study()


def test_an_encoder_that_is_missing_hurts_no_prediction(told, monkeypatch):
    import av

    def none(name, mode):
        raise av.error.EncoderNotFoundError(1, "Encoder not found")

    class Fake:
        error, CodecContext = av.error, type("CodecContext", (), {"create": staticmethod(none)})

    true = doctor.import_module
    fake = {"av": Fake}
    monkeypatch.setattr(doctor, "import_module", lambda name: fake.get(name) or true(name))
    status, lines = told()
    mark, text = lines["video"]
    assert status == 0 and mark == "--" and "no encoder libx264" in text


def test_an_unused_gpu_is_told_with_the_fix(told, monkeypatch):
    monkeypatch.setattr(doctor.shutil, "which", lambda name: name)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    status, lines = told()
    mark, text = lines["torch"]
    assert status == 0 and mark == "--" and "does not see the NVIDIA GPU -> " in text


def test_two_opencvs_at_once_are_told(monkeypatch):
    two = dict.fromkeys(["opencv-python", "opencv-python-headless"], "4.9")
    monkeypatch.setattr(doctor, "_versions", lambda: two)
    with pytest.raises(SalemaError, match="opencv-python and opencv-python-headless") as raised:
        doctor._opencv()
    assert "pip uninstall opencv-python opencv-python-headless, then" in str(raised.value)


def test_a_data_folder_that_is_not_one_is_told(told, monkeypatch, tmp_path):
    monkeypatch.setenv("SALEMA_DATA", str(tmp_path / "nowhere"))
    assert "no data set in" in told()[1]["data"][1]
    monkeypatch.setenv("SALEMA_DATA", str(tmp_path))
    assert "no data set in" in told()[1]["data"][1]
    monkeypatch.delenv("SALEMA_DATA")
    assert "SALEMA_DATA is not set" in told()[1]["data"][1]


def test_the_report_needs_no_package_at_all():
    code = (
        "import sys\n"
        "for name in ('torch', 'av', 'cv2', 'numpy'): sys.modules[name] = None\n"
        "from salema.tools import doctor\n"
        "sys.exit(doctor.report())"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60,
                         cwd=Path(__file__).parents[2])  # fmt: skip
    assert ran.returncode == 1 and ran.stderr == ""
    assert "no  torch    torch is not installed -> pip install torch" in ran.stdout
