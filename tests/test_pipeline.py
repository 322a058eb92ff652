"""dvc.yaml against the code, and the whole study in miniature."""

from pathlib import Path

import pytest
import yaml

from imports import dependency, reached

ROOT = Path(__file__).parent.parent
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
MODULES = {"index": "index", "tune": "train", "finetune": "train", "predict": "predict",
           "evaluate": "evaluate", "baseline": "evaluate", "report": "report"}  # fmt: skip


@pytest.mark.parametrize("stage", MODULES)
def test_a_stage_depends_on_every_module_that_it_imports(stage):
    body = STAGES[stage].get("do", STAGES[stage])
    listed = {path for path in body["deps"] if path.startswith("salema/")}
    assert listed == {dependency(name) for name in reached(MODULES[stage])}


def test_every_stage_is_checked():
    assert set(STAGES) == set(MODULES)
