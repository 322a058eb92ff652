"""A changed parameter starts exactly those trainings again that it is for."""

import copy
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml

from salema import data, params
from salema.files import SalemaError
from salema.model import weights
from salema.train import job, loop

ROOT = Path(__file__).parents[2]
RAW = yaml.safe_load((ROOT / "params.yaml").read_text())
RAW["profile"] = "paper"
PAPER = RAW["profiles"]["paper"]
METHOD = ("data", "model", "tune", "finetune", "placements", "continued", "predict", "evaluate")
OTHER = {  # another valid value of a word
    "bce": "metrics", "metrics": "bce", "bce-adversarial": "bce", "salbce": "flip", "none": "flip",
    "decoder": "all", "upper": "all", "all": "decoder", "adam": "adamw", "sgd": "adam",
    "sgd-nesterov": "sgd", "adamw": "adam", "adagrad": "adam", "plateau": "constant",
    "constant": "one-cycle", "best": "last", "fp32": "bf16", "auto": "bf16", "random": "imagenet",
    "imagenet": "random", "port": "elsewhere", "always": "train", "convlstm": "conv",
    "conv": "convlstm", "frozen": "tuned", "plain": "tuned", "static-video": "ema30",
    "ema30-released": "ema30-learned", "ema30-hollywood2": "ema30-released",
    "Hollywood-2": "UCF-sports", "UCF-sports": "Hollywood-2", "val": "train", "test": "train",
    "exact": "dhf1k", "chance": "human", "ema": "none",
}  # fmt: skip


def other(value):
    """Another value of the same kind."""
    match value:
        case bool():
            return not value
        case int():
            return value + 16  # a side of the input, too
        case float():
            return value / 2 + 1e-9
        case str():
            return OTHER[value]
        case None:
            return "elsewhere"
        case []:
            return ["UCF-sports"]
        case [str(first), *rest]:
            return rest or [{"SALICON": "OSIE", "DHF1K": "HEVC33"}.get(first, "human")]
        case [192, 256]:
            return [208, 256]
        case [*layers, last]:
            return [*layers, last + 1] if not layers or last else layers
    raise AssertionError(value)


def leaves(block, *path):
    """The path of each value below a block."""
    if not isinstance(block, dict):
        yield path
        return
    for key, value in block.items():
        yield from leaves(value, *path, key)


def place(raw, path, new=None):
    """The value at a path, replaced where `new` is given."""
    *above, last = path
    for key in above:
        raw = raw[key]
    if new is not None:
        raw[last] = new
    return raw[last]


@pytest.fixture
def keys(tmp_path, monkeypatch):
    """The key of each training of a params file, without training."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SALEMA_DATA", str(tmp_path))
    names = (*RAW["runs"], "elsewhere")
    for name in names:
        path = tmp_path / "runs/paper" / name / "weights.safetensors"
        path.parent.mkdir(parents=True)
        path.write_text(name)
    (tmp_path / "elsewhere").write_text("elsewhere")
    found = {}

    def network(given):
        placement = params.Placement(recurrence="none")
        layers = torch.nn.Sequential()
        return SimpleNamespace(config=given.model, placement=placement, layers=layers)

    def clips_of(_, sets):
        return [data.Clip("1", name, "train", ("1",), Path()) for name in sets], []

    monkeypatch.setattr(job, "CODE", ())
    monkeypatch.setattr(loop, "clips_of", clips_of)
    monkeypatch.setattr(loop, "new_static", network)
    monkeypatch.setattr(loop, "_read", lambda path, given, run: (network(given), weights.Card()))
    monkeypatch.setattr(loop, "with_placement", lambda start, placement: start)
    monkeypatch.setattr(loop, "freeze", lambda *_: None)
    monkeypatch.setattr(loop, "write", lambda *_: None)
    monkeypatch.setattr(loop, "train", lambda _, made: found.update({made.run: made.key()}))
    monkeypatch.setattr(data.FrameCache, "identity", staticmethod(lambda clip: clip.dataset))

    def of(raw):
        given = params.from_dict(raw)
        found.clear()
        for run in given.tune:
            loop.tune(given, run)
        for run in given.placements:
            loop.finetune(given, run)
        return dict(found)

    return of


def wanted(path, known):
    """The trainings that a key of the profile or of the method is for."""
    tuned = set(RAW["tune"])
    placed = set(known) - tuned
    rows = RAW["placements"] | RAW["continued"]
    match path:
        case [*_, "epochs"]:
            return set()  # a longer training resumes the shorter one
        case ["seed"] | ["model", _]:
            return set(known)
        case ["data", "tune"]:
            return tuned
        case ["data", "finetune"]:
            return {run for run in placed if "data" not in rows[run]}
        case ["data", "continued"]:
            return {"ema30-hollywood2"}  # the set that `other` takes away
        case ["tune" | "placements" | "continued", run, key]:
            return {run} if run in known or key == "static" else set()  # plain: not trained
        case ["finetune", key]:
            return {run for run in placed if key not in rows[run]}
    return set()  # how maps are predicted and scored, and where the data are


def test_a_changed_key_of_paper_changes_exactly_the_trainings_that_it_is_for(keys):
    known = keys(RAW)
    plain = {run for run in RAW["runs"] if "plain" in run or run == "ema30-on-video"}
    assert set(known) == set(RAW["runs"]) - plain and len(set(known.values())) == len(known)
    paths = [("profiles", "paper", *path) for path in leaves(PAPER)]
    paths += [path for name in ("seed", *METHOD) for path in leaves(RAW[name], name)]
    refused, seen = set(), 0
    merged = params.from_dict(RAW)
    for path in paths:
        raw = copy.deepcopy(RAW)
        place(raw, path, other(place(raw, path)))
        try:
            if params.from_dict(raw) == merged:
                continue  # the profile has its own value
        except SalemaError:
            refused.add(path)
            continue
        after = keys(raw)
        changed = {run for run in known | after if known.get(run) != after.get(run)}
        short = [step for step in path if step not in ("profiles", "paper")]
        assert changed == wanted(short, known), path
        seen += 1
    # What makes no valid placement alone: an ema or none must have its alpha and its layer, and a
    # memory of a given size is behind layer 61.
    for *_, key in refused:
        assert key in {"recurrence", "after", "short_side", "hidden", "alpha", "learned"}, refused
    assert seen > 100 and len(refused) < 25


def test_the_code_of_training_is_part_of_every_key(keys, monkeypatch):
    before = keys(RAW)
    monkeypatch.setattr(job, "CODE", ("files.py",))
    after = keys(RAW)
    assert all(before[run] != after[run] for run in before)
