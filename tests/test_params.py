"""params.yaml -> frozen models; whatever is wrong is told in one line that names the key."""

from copy import deepcopy
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from salema import params
from salema.files import SalemaError
from salema.model import placements
from salema.params import Placement, from_dict

FILE = Path(__file__).parent.parent / "params.yaml"
RAW = yaml.safe_load(FILE.read_text(encoding="utf-8"))
PROFILES = list(RAW["profiles"])


STARTER = FILE.with_name("starter.yaml")


def changed(key, value, raw=RAW):
    """The real file with one key set; `...` takes it away."""
    raw = deepcopy(raw)
    *above, last = key.split("/")
    block = raw
    for step in above:
        block = block[step]
    if value is ...:
        del block[last]
    else:
        block[last] = value
    return raw


def told(raw):
    with pytest.raises(SalemaError) as raised:
        from_dict(raw)
    line = str(raised.value)
    assert "\n" not in line and "params.yaml" in line and line.endswith(")")
    return line


# ---------------------------------------------------------------- the real file


@pytest.mark.parametrize("profile", PROFILES)
def test_every_profile_of_the_real_file_is_valid(profile):
    settings = from_dict(changed("profile", profile))
    assert settings.profile == profile
    assert settings.run_folder("ema30") == Path("runs", profile, "ema30")
    assert settings.report_folder == Path("reports", profile)
    assert settings.data.evaluate and settings.data.tune and settings.data.finetune


def test_the_default_profile_is_the_sample():
    assert params.read(FILE).profile == "sample"


def test_the_real_file_has_every_row_of_the_design_in_its_order():
    assert list(RAW["runs"]) == [
        "static", "static-metrics", "port", "static-video", "ema30", "ema30-dropout",
        "ema30-residual", "ema30-learned", "ema30-released", "ema7", "ema54", "ema61", "ema7-54",
        "clstm30", "clstm30-residual", "clstm30-thaw", "clstm56", "videosalgan",
        "videosalgan-conv", "ema30-plain", "ema54-plain", "ema61-plain", "ema30-on-video",
        "ema30-hollywood2", "ema30-ucf",
    ]  # fmt: skip


def test_every_row_is_the_placement_of_its_name():
    others = {"ema30-released", "clstm30-thaw", "ema30-on-video", "ema30-hollywood2", "ema30-ucf"}
    for name, placement in params.read(FILE).placements.items():
        if name not in others:
            assert placements.named(name).same_network(placement), name


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("static", {"recurrence": "none"}),
        ("ema0", {"recurrence": "ema", "after": [0], "alpha": 0.1, "rectified": True}),
        ("ema7-residual", {"recurrence": "ema", "after": [7], "alpha": 0.1, "residual": True}),
        ("ema7-54", {"recurrence": "ema", "after": [7, 54], "alpha": 0.3, "rectified": True}),
        ("ema61-residual", {"recurrence": "ema", "after": [61], "alpha": 0.1, "residual": True}),
        ("clstm30", {"recurrence": "convlstm", "after": [29]}),
    ],
)
def test_a_name_gives_a_placement_by_rule(name, settings):
    assert placements.named(name) == Placement(**settings)


def test_the_well_known_names_are_all_placements():
    assert len({placements.named(name).model_dump_json() for name in placements.NAMES}) == 14


@pytest.mark.parametrize("name", ["ema3O", "ema62", "ema54-7", "ema30-30", "ema30-odd", "", "ema"])
def test_a_name_without_a_placement_is_told_with_the_nearest(name):
    with pytest.raises(SalemaError, match=f"unknown placement '{name}'"):
        placements.named(name)
    with pytest.raises(SalemaError, match=r"\(did you mean clstm30\?\)"):
        placements.named("clstm3")


def test_a_profile_gives_a_row_a_learning_rate_of_its_own():
    rows = params.read(FILE, "open").placements
    rates = {name: row.fresh_learning_rate for name, row in rows.items() if row.fresh_learning_rate}
    assert rates["clstm30"] == rates["clstm30-residual"] == rates["clstm30-thaw"] == 3e-4
    assert (rates["clstm56"], rates["videosalgan"], len(rates)) == (1e-3, 3e-3, 6)
    assert params.read(FILE, "sample").finetune.fresh_learning_rate == 3e-3  # of all rows


@pytest.mark.parametrize("profile", PROFILES)
def test_every_profile_has_the_keys_that_dvc_tracks(profile):
    tracked = {"data", "model", "tune", "finetune", "placements", "continued"}
    tracked |= {"predict", "evaluate", "crossvalidate"}
    assert set(RAW["profiles"][profile]) == tracked


def test_the_starter_weights_are_two_profiles_of_a_file_that_defines_nothing_else():
    small = params.read(STARTER, "starter-small")
    large = params.read(STARTER)
    assert (small.profile, large.profile) == ("starter-small", "starter")
    assert small.runs == large.runs == ["static"] and not small.placements
    assert large.tune["static"].init == "runs/starter-small/static/weights.safetensors"
    assert (small.model.size, large.model.size) == ([192, 256], [224, 320])
    assert small.tune["static"].loss == large.tune["static"].loss == "metrics"


def test_the_paper_profile_holds_the_authors_recipe():
    settings = from_dict(changed("profile", "paper"))
    assert (settings.model.size, settings.model.width, settings.model.std) == ([192, 256], 1, 1)
    assert settings.model.encoder == "imagenet"
    tuned, tuning = settings.tune["static"], settings.finetune
    assert (tuned.optimizer, tuned.learning_rate) == ("sgd-nesterov", 1e-2)
    assert (tuned.weight_decay, tuned.init, tuned.keep) == (1e-5, "port", "best")
    assert (tuned.epochs, tuned.batch, tuned.pool, tuned.train) == (27, 15, 4, "decoder")
    assert (tuned.schedule, tuned.augment) == ("plateau", "salbce")
    assert (tuning.optimizer, tuning.learning_rate, tuning.weight_decay) == ("adam", 1e-6, 1e-4)
    assert (tuning.epochs, tuning.batch, tuning.bptt_frames) == (7, 1, 10)
    assert (tuning.clip_norm, tuning.alpha_learning_rate) == (10.0, 0.1)
    assert tuning.loss == "bce" and tuning.frames_per_clip is None
    port = settings.tune["port"]
    assert (port.loss, port.train, port.epochs, port.batch) == ("bce-adversarial", "upper", 90, 32)
    assert (port.optimizer, port.learning_rate, port.init) == ("adagrad", 3e-4, None)
    assert settings.tune["static-metrics"].init == "port"
    assert not tuning.shuffle and settings.data.continued == ["Hollywood-2", "UCF-sports"]
    assert settings.predict.precision == "fp32"


def test_the_paper_profile_holds_the_released_recipe_from_set_to_set():
    rows = from_dict(changed("profile", "paper")).placements
    names = ("ema30-released", "ema30-hollywood2", "ema30-ucf")
    released, second, third = (rows[name] for name in names)
    assert (released.learned, released.alpha, released.dropout) == (True, 0.56, "always")
    assert all(row.learning_rate == 1e-7 for row in (released, second, third))
    assert (released.start, released.data, released.epochs) == ("static", None, None)
    assert (second.start, second.data, second.epochs) == (names[0], "Hollywood-2", 3)
    assert (third.start, third.data, third.epochs) == (names[1], "UCF-sports", 2)
    assert second.same_network(released) and third.same_network(released)
    assert rows["ema30-on-video"].start == "static-video"
    assert rows["clstm30-thaw"].thaw == [57, 52, 47, 0]
    for name in ("videosalgan", "videosalgan-conv"):
        row = rows[name]
        assert (row.optimizer, row.learning_rate, row.epochs) == ("sgd", 1e-5, 10)


@pytest.mark.parametrize("profile", ["sample", "open"])
def test_the_other_profiles_keep_adam_start_fresh_and_have_rates_that_move(profile):
    settings = params.read(FILE, profile)
    assert all(tuned.init is None for tuned in settings.tune.values())
    for name, row in settings.placements.items():
        assert row.optimizer in (None, "adam"), name
        trained = row.data is None or row.data in settings.data.continued
        if row.static == "tuned" and trained:
            assert row.learning_rate in (None, settings.finetune.learning_rate), name


# ---------------------------------------------------------------- the merge


def test_a_profile_is_merged_over_the_rest_key_by_key():
    raw = changed("profiles/sample/placements", {"ema30": {"alpha": 0.2}})
    settings = from_dict(raw)
    assert settings.placements["ema30"].alpha == 0.2
    assert settings.placements["ema30"].after == [30]
    assert settings.placements["ema7"].alpha == 0.1
    assert settings.tune["static"].loss == "bce"  # from above
    profile = raw["profiles"]["sample"]
    assert settings.tune["static"].epochs == profile["tune"]["static"]["epochs"]
    assert settings.placements["ema30-ucf"] == settings.continued["ema30-ucf"]
    assert settings.placements["ema30-ucf"].epochs == 1  # the profile's


def test_the_merge_leaves_the_raw_dictionary_alone():
    raw = deepcopy(RAW)
    from_dict(raw)
    assert raw == RAW


def test_a_named_profile_takes_the_place_of_the_files_own():
    assert from_dict(RAW, profile="paper") == from_dict(changed("profile", "paper"))
    with pytest.raises(SalemaError, match=r"unknown profile 'papre' in params.yaml \(choose one"):
        from_dict(RAW, profile="papre")


def test_settings_are_frozen():
    settings = params.read(FILE)
    with pytest.raises(ValidationError, match="frozen"):
        settings.seed = 2


def test_the_root_is_the_one_of_the_file_then_the_environments(monkeypatch):
    monkeypatch.setenv("SALEMA_DATA", "/elsewhere")
    assert params.read(FILE).root == Path("data/sample")
    settings = from_dict(changed("profile", "open"))
    assert settings.root == Path("/elsewhere")


def test_without_a_root_the_line_names_profile_and_sets(monkeypatch):
    monkeypatch.delenv("SALEMA_DATA", raising=False)
    settings = from_dict(changed("profile", "paper"))
    with pytest.raises(SalemaError, match=r"profile paper needs SALICON, DHF1K.*SALEMA_DATA"):
        _ = settings.root


# ---------------------------------------------------------------- misspelt


@pytest.mark.parametrize(
    ("key", "named", "nearest"),
    [
        ("sed", "sed", "seed"),
        ("model/widht", "model.widht", "width"),
        ("finetune/bptt_frame", "finetune.bptt_frame", "bptt_frames"),
        ("tune/static/polo", "tune.static.polo", "pool"),
        ("placements/ema30/alhpa", "placements.ema30.alhpa", "alpha"),
        ("continued/ema30-ucf/strat", "continued.ema30-ucf.strat", "start"),
        ("profiles/sample/model/brunches", "model.brunches", "branches"),
        ("profiles/sample/finetune/epoch", "finetune.epoch", "epochs"),
        ("evaluate/protocol", "evaluate.protocol", "protocols"),
    ],
)
def test_a_misspelt_key_is_told_with_the_nearest_valid_one(key, named, nearest):
    line = told(changed(key, 1))
    assert f"unknown key {named} in" in line and f"did you mean {nearest}?" in line


def test_a_key_that_resembles_none_is_to_be_removed():
    assert "unknown key model.zzz" in (line := told(changed("model/zzz", 1)))
    assert "remove it" in line


@pytest.mark.parametrize(
    "key", ["seed", "model", "profiles/sample/finetune/epochs", "profiles/sample/tune", "runs"]
)
def test_a_missing_key_is_told(key):
    named = key.removeprefix("profiles/sample/").replace("/", ".")
    raw = changed(key, ...)
    if key == "model":
        del raw["profiles"]["sample"]["model"]
    assert f"missing key {named}" in told(raw)  # or the first key below it


def test_a_file_needs_only_the_stages_that_it_runs():
    raw = deepcopy(RAW)
    for key in ("placements", "continued", "finetune", "predict", "evaluate"):
        del raw[key], raw["profiles"]["sample"][key]
    del raw["baselines"]
    raw["runs"] = list(raw["tune"])
    settings = from_dict(raw)
    assert settings.placements == {} and settings.finetune is None and settings.baselines == []
    raw["placements"] = {"static-video": {"recurrence": "none"}}
    raw["runs"].append("static-video")
    assert "missing key finetune" in told(raw)


def test_without_profiles_the_line_says_so():
    assert "missing key profiles" in told(changed("profiles", ...))
    for raw in (None, [], "text", 3):
        assert "missing key profiles" in told(raw)


def test_an_unknown_profile_is_told_with_those_there_are():
    line = told(changed("profile", "papre"))
    assert "unknown profile 'papre'" in line and "paper" in line and "sample" in line
    for odd in (None, 3, ["sample"], {}):
        assert "unknown profile" in told(changed("profile", odd))


def test_an_unknown_placement_or_run_is_told_with_the_nearest():
    names = params.read(FILE).placements
    with pytest.raises(SalemaError, match=r"unknown placement 'clstm3' \(did you mean clstm30\?\)"):
        params.choose("clstm3", names, "placement")
    with pytest.raises(SalemaError, match=r"unknown placement 'zzz' \(choose one of static-video"):
        params.choose("zzz", names, "placement")
    assert params.choose("ema7-54", names, "placement") == "ema7-54"


# ---------------------------------------------------------------- wrong values


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [
        ("seed", "one", "'one' of seed"),
        ("seed", 1.5, "1.5 of seed"),
        ("profiles/sample/model/size", 192, "192 of model.size"),
        ("profiles/sample/model/size", [192], "model.size"),
        ("profiles/sample/model/size", [100, 128], "multiples of 16"),
        ("profiles/sample/model/width", 0, "0 of model.width"),
        ("profiles/sample/model/width", True, "True of model.width"),
        ("profiles/sample/model/branches", "False", "'False' of model.branches"),
        ("model/encoder", "imagnet", "'imagnet' of model.encoder"),
        ("finetune/bptt_frames", 0, "0 of finetune.bptt_frames"),
        ("finetune/loss", "bce-adversarial", "finetune.loss"),
        ("profiles/sample/finetune", None, "key finetune"),
        ("placements/ema30", "ema", "'ema' of placements.ema30"),
        ("placements/ema30/after", 30, "30 of placements.ema30.after"),
        ("placements/ema30/after", [62], "62 of placements.ema30.after.0"),
        ("placements/ema30/alpha", 0, "0 of placements.ema30.alpha"),
        ("placements/ema30/alpha", -0.1, "-0.1 of placements.ema30.alpha"),
        ("placements/ema30/alpha", 1.01, "1.01 of placements.ema30.alpha"),
        ("placements/ema30/alpha", float("nan"), "nan of placements.ema30.alpha"),
        ("placements/ema30/dropout", True, "True of placements.ema30.dropout"),
        ("placements/ema30/recurrence", "gru", "'gru' of placements.ema30.recurrence"),
        ("profiles/sample/finetune/learning_rate", float("nan"), "finetune.learning_rate"),
        ("profiles/sample/finetune/learning_rate", float("inf"), "finetune.learning_rate"),
        ("evaluate/protocols", ["exakt"], "'exakt' of evaluate.protocols.0"),
        ("evaluate/protocols", [], "evaluate.protocols"),
        ("profiles/sample/data/tune", ["SALICN"], "'SALICN' of data.tune.0"),
        ("profiles/sample/data/evaluate", {"DHF1k": "val"}, "data.evaluate.DHF1k"),
        ("profiles/sample/data/evaluate", {"DHF1K": "vla"}, "'vla' of data.evaluate.DHF1K"),
        ("baselines", ["chanse"], "'chanse' of baselines.0"),
        ("guards/checkpoint_minutes", 0, "0 of guards.checkpoint_minutes"),
        ("guards/skip_fraction", 1.5, "1.5 of guards.skip_fraction"),
        ("seed", -1, "-1 of seed"),
        ("seed", 2**32, "of seed"),
        ("profiles/sample/model/size", [8192, 8192], "at most 2097152 pixels"),
        ("placements/ema7; touch X", RAW["placements"]["ema30"], "ema7; touch X"),
        ("runs", [*RAW["runs"], "$(touch X)"], "$(touch X)"),
        ("profiles/sample", [], "profiles.sample"),
        ("profiles/sample", None, "profiles.sample"),
        ("profiles/sample", "much", "profiles.sample"),
    ],
)
def test_a_wrong_value_is_told_with_its_key(key, value, named):
    assert named in told(changed(key, value))


@pytest.mark.parametrize(
    ("key", "value", "fix"),
    [
        ("profiles/sample/data/tune", ["SALICN"], "did you mean SALICON?"),
        ("profiles/sample/data/evaluate", {"DHF1k": "val"}, "did you mean DHF1K?"),
        ("evaluate/protocols", ["matlab"], "choose one of exact, dhf1k, salema2019, hevc33-peer"),
        ("placements/ema30/dropout", True, "choose one of none, train, always"),
    ],
)
def test_a_value_that_must_be_one_of_some_is_told_with_the_nearest(key, value, fix):
    assert fix in told(changed(key, value))


@pytest.mark.parametrize("key", ["learning_rate", "weight_decay"])
def test_a_number_that_yaml_reads_as_text_gets_a_hint(key):
    value = yaml.safe_load("1e-7")
    assert value == "1e-7"  # the trap itself
    line = told(changed(f"profiles/sample/finetune/{key}", value))
    assert f"'1e-7' of finetune.{key}" in line and "write 1.0e-7" in line


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"recurrence": "none", "after": [30]}, "`after`"),
        ({"recurrence": "ema", "alpha": 0.1}, "`after`"),
        ({"recurrence": "ema", "after": [54, 7], "alpha": 0.1}, "ascending order"),
        ({"recurrence": "ema", "after": [7, 7], "alpha": 0.1}, "ascending order"),
        ({"recurrence": "ema", "after": [30]}, "`alpha`"),
        ({"recurrence": "convlstm", "after": [29], "alpha": 0.1}, "`alpha`"),
        ({"recurrence": "convlstm", "after": [29], "learned": True}, "`learned`"),
        ({"recurrence": "ema", "after": [61], "alpha": 0.1, "hidden": 4}, "`hidden`"),
        ({"recurrence": "ema", "after": [61], "alpha": 0.1, "short_side": 64}, "`short_side`"),
        ({"recurrence": "convlstm", "after": [29], "short_side": 64}, "`short_side`"),
        ({"recurrence": "conv"}, "`after`"),
        ({"recurrence": "convlstm", "after": [7], "rectified": True}, "`rectified`"),
        (
            {"recurrence": "ema", "after": [7], "alpha": 0.1, "rectified": True, "residual": True},
            "`rectified`",
        ),
        ({"recurrence": "ema", "after": [30], "alpha": 1.0, "learned": True}, "`learned`"),
        ({"recurrence": "none", "thaw": [57]}, "`thaw` needs something new"),
        ({"recurrence": "ema", "after": [30], "alpha": 0.1, "thaw": [0]}, "`thaw` needs something"),
        ({"recurrence": "convlstm", "after": [29], "thaw": [0, 57]}, "`thaw` must be descending"),
        ({"recurrence": "convlstm", "after": [29], "thaw": [5], "static": "frozen"}, "tuned"),
    ],
)
def test_a_placement_that_contradicts_itself_is_told(settings, reason):
    with pytest.raises(ValidationError, match=reason):
        Placement(**settings)
    line = told(changed("placements/ema30", settings))
    assert "bad value of placements.ema30" in line and reason in line


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [
        ("runs", [run for run in RAW["runs"] if run != "ema7"], "ema7"),
        ("runs", [*RAW["runs"], "ema99"], "ema99"),
        ("runs", [*RAW["runs"], "ema30"], "ema30"),
        ("placements/ema8", {"recurrence": "ema", "after": [8], "alpha": 0.1}, "ema8"),
        ("placements/static", {"recurrence": "none"}, "static"),
    ],
)
def test_runs_out_of_step_with_tune_and_placements_name_what_is_odd(key, value, named):
    line = told(changed(key, value))
    assert "`runs`" in line and f"'{named}'" in line


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("placements/ema30/start", "port", "belong to rows of continued; see ['ema30']"),
        ("placements/ema30/data", "UCF-sports", "belong to rows of continued; see ['ema30']"),
        ("continued/ema30-ucf/start", "ema31", "must be a row above it, not 'ema31'"),
        ("continued/ema30-ucf/start", "ema30-ucf", "must be a row above it"),
        ("continued/ema30-hollywood2/start", "ema30-ucf", "must be a row above it"),
        ("continued/ema30-ucf/start", ..., "`start` of ema30-ucf must be"),
        ("tune/static/init", "static", "`init` must be another run; see ['static']"),
    ],
)
def test_a_run_starts_from_a_row_above_it(key, value, reason):
    line = told(changed(key, value))
    assert reason in line and "bad value in" in line


def test_weights_files_of_earlier_versions_say_that_nothing_thaws():
    assert Placement(recurrence="none", thaw=False).thaw == []
    with pytest.raises(ValidationError, match="thaw"):
        Placement(recurrence="convlstm", after=[29], thaw=True)


def test_half_sized_epochs_do_not_fit_the_discriminator():
    line = told(changed("profiles/sample/tune/port/half_epochs", 2))
    assert "tune.port" in line and "half_epochs" in line


# ---------------------------------------------------------------- files


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"seed: [1\nprofile: x", "not YAML"),
        (b"seed: 1\n\tmodel: 2", "see line 2"),
        (b"\xff\xfe\x00seed", "not YAML"),
        (b"", "missing key profiles"),
    ],
)
def test_a_file_that_is_not_yaml_is_told(tmp_path, content, reason):
    path = tmp_path / "params.yaml"
    path.write_bytes(content)
    with pytest.raises(SalemaError, match=reason) as raised:
        params.read(path)
    assert str(path) in str(raised.value) and "\n" not in str(raised.value)


def test_a_missing_file_and_a_folder_are_told(tmp_path):
    with pytest.raises(SalemaError, match="no such file"):
        params.read(tmp_path / "params.yaml")
    with pytest.raises(SalemaError, match="cannot read"):
        params.read(tmp_path)


@pytest.mark.parametrize(
    "name", ["../../x", "a b", "a;b", "$(x)", "-rf", "", "x\n", "a/b", "é", "."]
)
def test_a_profile_whose_name_is_no_plain_word_is_refused(name):
    raw = changed("profile", name)
    raw["profiles"][name] = raw["profiles"]["sample"]
    assert "profile" in told(raw)


BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 10)}]\n"
    for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)
MERGES = "a: &a {x: 1}\n" + "".join(
    f"{b}: &{b} {{<<: [{', '.join([f'*{a}'] * 10)}]}}\n"
    for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    "text",
    [BOMB, MERGES, "[" * 5000, "a: &a [*a]", "? {a: 1}\n: 2", "x: " + "y" * 200_000,
     "!!python/object/apply:os.system [ls]", "? [1]\n: 2", "a: !!timestamp 99-99", "{<<: 1}",
     "a: 2001-99-99", "a: !!binary ]", "a: !!int x", "a: !!float x", "1: 2"],
)  # fmt: skip
def test_hostile_yaml_is_one_line_at_once(tmp_path, text):
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(SalemaError) as raised:
        params.read(path)
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 1000


def test_a_device_without_an_end_is_no_params_file():
    with pytest.raises(SalemaError, match="/dev/zero"):
        params.read("/dev/zero")


def test_aliases_and_merges_of_a_usual_size_are_read(tmp_path):
    path = tmp_path / "params.yaml"
    raw = FILE.read_text(encoding="utf-8")
    path.write_text(f"{raw}\n  copy: &copy\n    data: {{}}\n  more:\n    <<: *copy\n")
    assert params.read(path) == params.read(FILE)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"primary": ["ema30 > static-video"]}, "`primary` needs `<row> - <row>`"),
        ({"static": None}, "with `seeds`, it needs images, clips, static"),
        ({"finetune": None}, "finetune for rows"),
    ],
)  # fmt: skip
def test_a_wrong_block_of_the_arms_is_one_line(change, said):
    raw = deepcopy(RAW)
    block = raw["profiles"]["sample"]["crossvalidate"]
    for key, value in change.items():
        block[key] = value
    with pytest.raises(SalemaError) as error:
        from_dict(raw)
    assert said in str(error.value) and "\n" not in str(error.value)
