"""The repository agrees with itself: README, Makefile, packaging, notebooks, what git tracks."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import salema
from salema.__main__ import _parser

ROOT = Path(__file__).parent.parent
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for pattern in ("README.md", "CONTRIBUTING.md", "docs/**/*.md", "salema/model/README.md",
                    "notebooks/README.md", "reports/*/README.md")
    for path in sorted(ROOT.glob(pattern))
}  # fmt: skip
README = PAGES["README.md"]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
NOTEBOOKS = sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))
TARGETS = ("study", "test", "fuzz", "lint", "bench", "lab", "sample", "starter")


# ---------------------------------------------------------------------- README and docs


def tree():
    """Path -> what the README says of it, from the block below `The tree`."""
    block = README.split("## The tree")[1].split("```")[1]
    rows = (re.match(r"(\S+)\s+(.*)", line) for line in block.strip().splitlines())
    return {row[1]: row[2] for row in rows}


def named():
    """(page, path) of every path of this repository that a page links to or quotes."""
    top = {path.name for path in ROOT.iterdir()} - {"runs", ".salema"}
    for page, text in PAGES.items():
        links = re.findall(r"\]\(([^)#]+)[^)]*\)", text)
        for link in (link for link in links if "//" not in link):
            yield page, (Path(page).parent / link).as_posix()
        quoted = re.findall(r"`([\w./-]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
        for name in (name for name in quoted if "." in name.strip("./") or "/" in name):
            if name.split("/")[0] in top and name != "reports/local":
                yield page, name


def test_the_readme_names_enough_paths_to_find_ones_way():
    assert {"salema/", "params.yaml", "dvc.yaml", "notebooks/", "docs/", "tests/"} <= set(tree())
    linked = {path for page, path in named() if page == "README.md"}
    assert {page for page in PAGES if re.match(r"docs/\w+\.md", page)} <= linked


@pytest.mark.parametrize(("page", "path"), sorted({*named(), *(("README.md", p) for p in tree())}))
def test_every_path_that_a_page_names_exists(page, path):
    assert (ROOT / path).exists()
    assert (ROOT / path).is_dir() or not path.endswith("/")


def test_every_folder_that_git_tracks_is_in_the_readmes_tree():
    folders = {path.split("/")[0] for path in tracked() if "/" in path and path[0] != "."}
    assert folders - {"data"} <= {path.rstrip("/") for path in tree()}


def test_the_readmes_tree_has_the_packages_in_reading_order():
    packages = re.findall(r"^ {4}(\w+) {2,}", salema.__doc__, flags=re.MULTILINE)
    listed = [re.fullmatch(r"salema/(\w+)(?:/|\.py)", path) for path in tree()]
    assert [match[1] for match in listed if match] == packages


def test_every_command_and_option_that_a_page_shows_is_one():
    (commands,) = [a.choices for a in _parser()._actions if isinstance(a.choices, dict)]
    text = "\n".join(PAGES.values())
    shown = set(re.findall(r"(?:^ *|`|&& )salema ([a-z]+)", text, flags=re.MULTILINE))
    assert {"predict", "evaluate", "convert", "index", "view", "doctor"} <= shown <= set(commands)
    parsers = [p for command in commands.values() for p in (command, *command.modes.values())]
    parsers.append(_parser())
    known = {word for parser in parsers for word in parser._option_string_actions}
    ours = re.sub(r".*(torchrun|SBATCH|benchmarks\.plan).*", "", text)  # not of other programs
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", ours)) <= known
    makes = set(re.findall(r"(?:^|`|&& |DATA=\S+ )make ([a-z]+)", text, flags=re.MULTILINE))
    assert {"study", "test"} <= makes <= set(TARGETS)


def test_every_test_to_copy_exists_in_the_file_that_is_named_with_it():
    rows = re.findall(
        r"\| `(tests/\S+\.py)`: (.*) \|$", PAGES["CONTRIBUTING.md"], flags=re.MULTILINE
    )
    assert len(rows) >= 4
    for path, names in rows:
        text = (ROOT / path).read_text(encoding="utf-8")
        for name in re.findall(r"`(test_\w+)`", names):
            assert f"def {name}(" in text, f"{path}: {name}"


def test_the_clip_that_comes_along_is_small_and_its_licence_lies_beside_it():
    about = (ROOT / "salema/tools/bigbuckbunny.md").read_text(encoding="utf-8")
    assert (ROOT / "salema/tools/bigbuckbunny.mp4").stat().st_size <= 400_000
    for text in (about, README):
        assert "Blender Foundation" in text and "creativecommons.org/licenses/by/3.0" in text


def test_every_notebook_to_try_things_in_is_in_their_readme():
    listed = re.findall(r"\(explore/(\w+)\.ipynb\)", PAGES["notebooks/README.md"])
    assert sorted(listed) == sorted(p.stem for p in (ROOT / "notebooks/explore").glob("*.ipynb"))


def test_every_picture_of_the_docs_is_small_and_has_its_licence_with_it():
    table = PAGES["docs/figures/README.md"]
    pictures = [
        path for path in (ROOT / "docs/figures").iterdir() if path.suffix in (".jpg", ".png")
    ]
    assert pictures
    for picture in pictures:
        (row,) = (line for line in table.splitlines() if f"`{picture.name}`" in line)
        assert "CC BY" in row and picture.stat().st_size <= 300_000


# ---------------------------------------------------------------------- make


@pytest.mark.parametrize("target", TARGETS)
def test_make_has_the_target_says_what_it_does_and_installs_what_it_needs(target):
    assert re.search(rf"^{target}: \$\(STAMP\)  ## \w+", MAKEFILE, flags=re.MULTILINE)
    assert target in re.search(r"^\.PHONY: (.*)$", MAKEFILE, flags=re.MULTILINE)[1].split()


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_make_help_lists_every_target():
    ran = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    listed = {line.split()[0]: line.split()[1:] for line in ran.stdout.splitlines()}
    phony = re.search(r"^\.PHONY: (.*)$", MAKEFILE, flags=re.MULTILINE)[1].split()
    assert set(listed) == set(phony) == {*TARGETS, "help"} and all(listed.values())


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_make_study_takes_a_profile_and_sets_only_its_line_of_params(tmp_path):
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    python, path = tmp_path / ".venv/bin/python", tmp_path / "params.yaml"
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/sh\necho python $2\n")
    python.chmod(0o755)
    (tmp_path / ".venv/installed").touch()
    params = (ROOT / "params.yaml").read_text(encoding="utf-8")
    before = params.replace("\nprofile: sample\n", "\nprofile: sample  # a comment\n")
    after = params.replace("\nprofile: sample\n", "\nprofile: open  # a comment\n")
    path.write_text(before, encoding="utf-8")
    files = set(tmp_path.iterdir())

    def study(profile):
        words = ["make", "study", f"PROFILE={profile}"]
        ran = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
        return ran, path.read_text(encoding="utf-8")

    for profile, text, said in [("", before, ""), ("open", after, "open"), ("open", after, "")]:
        ran, found = study(profile)
        line = f"params.yaml: profile {said}\n" if said else ""
        line += "python pip\n" if profile else ""  # the encoder of the arms
        assert ran.returncode == 0 and found == text
        assert ran.stdout.startswith(f"{line}python dvc")
    for wrong in ("opne", "ema30", "seed"):
        ran, found = study(wrong)
        assert ran.returncode == 2 and found == after and "python" not in ran.stdout
        assert f"unknown profile {wrong} (see profiles in params.yaml)" in ran.stderr
    assert set(tmp_path.iterdir()) == files


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_make_lab_passes_options_on_and_may_run_as_root_in_a_container():
    words = ["make", "-n", "lab", "ARGS=--no-browser --port 8890"]
    ran = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    line = ran.stdout.splitlines()[-1]
    assert line.endswith(" --no-browser --port 8890 notebooks") and "--allow-root" in line


def test_the_starter_weights_are_made_from_the_profiles_of_their_file():
    profiles = yaml.safe_load((ROOT / "starter.yaml").read_text(encoding="utf-8"))["profiles"]
    made = re.findall(r"salema --params starter\.yaml --profile (\S+) tune static", MAKEFILE)
    assert made == list(profiles)


def test_the_gate_and_the_workflow_run_the_readmes_two_commands():
    for path in (".ci/run", ".github/workflows/ci.yml"):
        text = (ROOT / path).read_text(encoding="utf-8")
        assert "make test" in text and "make study" in text


def test_the_workflow_may_only_read_the_repository():
    text = (ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8")
    assert yaml.safe_load(text)["permissions"] == {"contents": "read"}


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
@pytest.mark.parametrize("found", ["", "schema: '2.0'\nstages:\n  a: [", "schema: '2.0'\n", None])
def test_make_study_restores_a_lock_file_that_a_kill_broke_off(tmp_path, found):
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    python, lock = tmp_path / ".venv/bin/python", tmp_path / "dvc.lock"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\ncase "$1" in -m) ;; *) exec {sys.executable} "$@" ;; esac\n')
    python.chmod(0o755)
    (tmp_path / ".venv/installed").touch()
    lock.write_text("schema: '2.0'\nstages: {}\n")
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org"]
    for words in (["init", "-q"], ["add", "dvc.lock"], ["commit", "-qm", "x"]):
        subprocess.run([*git, *words], cwd=tmp_path, check=True)
    good = lock.read_text()
    lock.write_text(good if found is None else found)
    ran = subprocess.run(["make", "study"], cwd=tmp_path, capture_output=True, text=True)
    assert lock.read_text() == good
    assert ("dvc.lock was broken off" in ran.stdout) == (found is not None)


def test_an_old_python_is_told_so_in_one_line():
    oldest = PROJECT["project"]["requires-python"].removeprefix(">=")
    assert f"salema needs Python {oldest} or newer" in MAKEFILE
    assert f"({', '.join(oldest.split('.'))})" in MAKEFILE  # what it compares with
    assert f"Python {oldest}" in README


# ---------------------------------------------------------------------- packaging


def requirements():
    """Everything that pyproject.toml names, extras but Ray too, but not the package itself."""
    project = PROJECT["project"]
    extras = [lines for name, lines in project["optional-dependencies"].items() if name != "ray"]
    found = [Requirement(line) for lines in [project["dependencies"], *extras] for line in lines]
    return [requirement for requirement in found if requirement.name != project["name"]]


def lock():
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def test_every_line_of_the_lock_pins_one_version_without_a_local_part():
    for line in lock():
        assert re.fullmatch(r"[\w.-]+==[\w.]+", line), line
    assert len({canonicalize_name(line.split("==")[0]) for line in lock()}) == len(lock())


@pytest.mark.parametrize("requirement", requirements(), ids=str)
def test_the_lock_pins_everything_that_the_project_names(requirement):
    pins = {canonicalize_name(name): pin for name, pin in (line.split("==") for line in lock())}
    assert requirement.specifier.contains(Version(pins[canonicalize_name(requirement.name)]))


def test_torch_is_pinned_to_the_version_that_exists_for_every_platform():
    assert "torch==2.13.0" in lock()


def test_the_conda_environment_takes_everything_from_the_project():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    python, pip, inner = environment["dependencies"]
    assert python == f"python{PROJECT['project']['requires-python']}" and pip == "pip"
    (line,) = inner["pip"]
    extras = re.fullmatch(r"-e \.(?:\[([\w,]+)\])?", line)[1] or ""
    assert set(filter(None, extras.split(","))) <= set(PROJECT["project"]["optional-dependencies"])
    assert environment["name"] == PROJECT["project"]["name"]


def test_extras_name_extras_that_exist():
    extras = PROJECT["project"]["optional-dependencies"]
    for requirement in (Requirement(line) for lines in extras.values() for line in lines):
        if requirement.name == "salema":
            assert requirement.extras <= set(extras)


def test_what_is_installed_is_all_of_the_package():
    settings = PROJECT["tool"]["setuptools"]
    folders = {path.parent for path in (ROOT / "salema").rglob("__init__.py")}
    packages = {".".join(folder.relative_to(ROOT).parts) for folder in folders}
    assert set(settings["packages"]) == packages
    shipped = {ROOT / name.replace(".", "/") / pattern
               for name, patterns in settings["package-data"].items()
               for pattern in patterns}  # fmt: skip
    found = {path for pattern in shipped for path in pattern.parent.glob(pattern.name)}
    others = {ROOT / path for path in tracked() if path.startswith("salema/")}
    assert found == {path for path in others if path.suffix != ".py"}


def test_the_version_is_the_same_everywhere():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert salema.__version__ == PROJECT["project"]["version"] == str(citation["version"])


# ---------------------------------------------------------------------- notebooks


def test_every_notebook_is_a_stage_and_is_in_the_readme():
    assert re.findall(r"\d\d_\w+", tree()["notebooks/"]) == NOTEBOOKS
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    listed = list(stages["report"]["foreach"])
    for stage in ("ablation", "arms"):
        listed += re.findall(r"report (\S+)", stages[stage]["cmd"])
    assert sorted(listed) == NOTEBOOKS


# ---------------------------------------------------------------------- what git tracks


def tracked():
    """The files that git tracks or would."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a clone")
    words = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    return [path for path in listed.stdout.splitlines() if (ROOT / path).is_file()]


def texts():
    """Path -> text of every tracked text, without the pictures that pages hold."""
    for path in tracked():
        if path.startswith("data/sample/"):
            continue
        data = (ROOT / path).read_bytes()
        if b"\0" not in data[:8192]:
            yield path, re.sub(r"[A-Za-z0-9+/=]{200,}", "", data.decode("utf-8"))


def test_no_text_holds_a_path_of_somebodys_machine():
    path = re.compile(r"(?<![\w.<{])/(home|root|tmp|Users|mnt|var/folders)/\w+")
    found = {(name, match[0]) for name, text in texts() for match in path.finditer(text)}
    assert not found


def test_no_text_names_the_host_of_a_package_registry():
    host = re.compile(r"\b(pypi|pythonhosted|anaconda|npmjs|download\.pytorch)\.(org|com)\b")
    option = re.compile(r"--(extra-)?index-url|--find-links")
    found = {
        (name, match[0])
        for name, text in texts()
        for pattern in (host, option)
        for match in pattern.finditer(text)
        if name != "tests/test_repository.py"
    }
    assert not found


def test_nothing_large_is_tracked_but_the_starter_weights():
    large = {path for path in tracked() if (ROOT / path).stat().st_size > 1_000_000}
    allowed = {path for path in large if path.startswith(("salema/model/", "reports/"))}
    assert large == allowed
