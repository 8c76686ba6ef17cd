# Thin: every target makes the environment if need be, and calls one command in it.
PROFILE ?= demo
CLUSTER ?=
VENV ?= .venv
BIN := $(VENV)/$(if $(filter Windows_NT,$(OS)),Scripts,bin)
USABLE := -c "import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))" 2>/dev/null
PYTHON ?= $(firstword $(foreach python,python3 python3.13 python3.12 python3.11 python,$(shell $(python) $(USABLE) && echo $(python))))

.PHONY: help report test test-long lab clean lock environment

help:  ## this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "make %-9s %s\n", $$1, $$2}' Makefile

report: environment  ## run a study and export its report: PROFILE=demo (default), quick or paper; CLUSTER=slurm: on a cluster
	@$(BIN)/python -m thaw report "$(PROFILE)" $(if $(CLUSTER),--cluster "$(CLUSTER)")

test: environment  ## the test suite
	@$(BIN)/python -m pytest

test-long: environment  ## what takes an hour: a demo study killed thirty times, and on two nodes of SLURM against one
	@$(BIN)/python -m pytest -m long -n 0

lab: environment  ## JupyterLab on the notebooks
	@$(BIN)/jupyter lab --notebook-dir=. notebooks/experiment.ipynb

clean:  ## remove the environment and the outputs of demo, quick and JupyterLab
	rm -rf $(VENV) .snakemake .pytest_cache .hypothesis outputs/demo outputs/quick outputs/lab

lock:  ## pin the newest versions that pyproject.toml allows (needs uv)
	uv export --quiet --all-extras --no-hashes --no-annotate --no-emit-project --upgrade --output-file requirements.lock > /dev/null
	rm uv.lock

environment: $(VENV)/installed

$(VENV)/installed: requirements.lock pyproject.toml
	@$(if $(PYTHON),,echo "Thaw needs Python 3.11, 3.12 or 3.13 (TensorFlow has wheels for these): install one, or name it with PYTHON=." >&2; exit 1)
	@echo "Making the environment in $(VENV): once, some minutes."
	@$(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -r requirements.lock
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@
