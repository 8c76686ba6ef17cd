# Thin: every target makes the environment if need be, and calls one command in it.
PROFILE ?= demo
CLUSTER ?=
COVERAGE ?=
VENV ?= .venv
BIN := $(VENV)/$(if $(filter Windows_NT,$(OS)),Scripts,bin)
USABLE := -c "import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))" 2>/dev/null
PYTHON ?= $(firstword $(foreach python,python3 python3.13 python3.12 python3.11 python,$(shell $(python) $(USABLE) && echo $(python))))

INSTALL := $(BIN)/python -m pip install -qq --disable-pip-version-check
EXPORT := uv export --quiet --frozen --no-annotate --no-emit-project --output-file

.PHONY: help report test test-long lint lab clean lock licences audit environment

help:  ## this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "make %-9s %s\n", $$1, $$2}' Makefile

report: environment  ## run a study and export its report: PROFILE=demo (default), quick or paper; CLUSTER=slurm: on a cluster
	@$(BIN)/python -m thaw report "$(PROFILE)" $(if $(CLUSTER),--cluster "$(CLUSTER)")

test: $(VENV)/installed-test  ## the test suite; COVERAGE=--cov: with its coverage, a sixth slower
	@$(BIN)/python -m pytest $(COVERAGE)

test-long: $(VENV)/installed-test  ## what takes two hours: studies on folds killed thirty times, on nodes of SLURM, and thousands of heads on folds
	@$(BIN)/python -m pytest -m long -n 0

lint: $(VENV)/installed-test  ## check style, types and spelling, as before each commit (pre-commit install)
	@$(BIN)/ruff check --quiet --output-format concise
	@$(BIN)/ruff format --quiet --check
	@$(BIN)/mypy
	@$(BIN)/codespell

lab: $(VENV)/installed-lab  ## JupyterLab on the notebooks
	@$(BIN)/jupyter lab --notebook-dir=. notebooks/experiment.ipynb

clean:  ## remove the environment and the outputs of demo, quick and JupyterLab (thaw clean: the cache)
	rm -rf $(VENV) .snakemake .*_cache .hypothesis .coverage outputs/demo outputs/quick outputs/lab

# Each lock is complete: what the report needs, and what the extra adds. "test" has all extras. So pip looks for nothing
# more (--no-deps): of a package named with an extra it would take the newest version, whose hash no lock has.
lock:  ## pin the newest versions that pyproject.toml allows (needs uv)
	uv lock --quiet --upgrade
	$(EXPORT) requirements.lock > /dev/null
	$(EXPORT) requirements-cluster.lock --extra cluster > /dev/null
	$(EXPORT) requirements-lab.lock --extra lab > /dev/null
	$(EXPORT) requirements-test.lock --all-extras --no-extra peers > /dev/null
	rm uv.lock

licences: $(VENV)/installed-test  ## write docs/licences.md anew, after "make lock"
	@$(BIN)/python tests/licences.py

# It asks PyPI for each locked package, and is no part of the environment.
audit:  ## look for known vulnerabilities in what is locked (needs uv and the internet)
	@uvx pip-audit --disable-pip --require-hashes --requirement requirements-test.lock

environment: $(VENV)/installed $(if $(CLUSTER),$(VENV)/installed-cluster)  ## the environment alone

$(VENV)/locked: requirements.lock
	@$(if $(PYTHON),,echo "Thaw needs Python 3.11, 3.12 or 3.13 (TensorFlow has wheels for these): install one, or name it with PYTHON=." >&2; exit 1)
	@echo "Making the environment in $(VENV): once, some minutes."
	@$(PYTHON) -m venv --clear $(VENV)
	@$(INSTALL) --no-deps --require-hashes -r $<
	@touch $@

$(VENV)/installed: $(VENV)/locked pyproject.toml
	@$(INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@

# An extra is added to the environment that is there.
$(VENV)/installed-%: requirements-%.lock $(VENV)/installed
	@echo "Adding to the environment in $(VENV): $*."
	@$(INSTALL) --no-deps --require-hashes -r $<
	@touch $@
