# Every target makes the environment it needs in .venv, with plain venv and pip, and remakes it when
# pyproject.toml or the constraints change. Needed beforehand: make and Python 3.11 or newer.
SHELL := /bin/bash
VENV ?= .venv
# An environment keeps its Python; a new one gets the newest that is supported (.ci/find_python), or make PYTHON=...
ifndef PYTHON
PYTHON := $(shell $(VENV)/bin/python -c 'import sys; print(sys._base_executable)' 2>/dev/null || .ci/find_python)
endif
# the versions that are tested with it
CONSTRAINTS := $(shell $(PYTHON) -c 'import sys; print("constraints-py313.txt" if sys.version_info >= (3, 13) else "constraints.txt")' \
  2>/dev/null || echo constraints.txt)
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
# pip 25.1 is the first that installs dependency groups
PIP_MINIMUM := 25.1
DOCS_OUT ?= docs/_build/html

# One thread per process: two threads on two busy cores made the same fit 20 times slower.
export OMP_NUM_THREADS ?= 1
# numba, which scanpy counts with, sets the threads of torch to its own number.
export NUMBA_NUM_THREADS ?= $(OMP_NUM_THREADS)

.DEFAULT_GOAL := help
.PHONY: FORCE help env test fuzz demo docs lint format types bench build clean clean-env

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12

$(VENV)/.python: FORCE  # the Python of the environment: with another one it is made anew
	@if [ -z "$(PYTHON)" ]; then echo "No Python found: install Python 3.11 or newer, or name one with make PYTHON=/path/to/python." >&2; exit 1; fi
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "$(PYTHON) is $$($(PYTHON) --version 2>&1), but Python 3.11 or newer is needed: name one with make PYTHON=/path/to/python3.11." >&2; exit 1; }
	@new="$$($(PYTHON) --version)"; \
	if [ -e $(BIN)/python ] && [ "$$($(BIN)/python --version 2>/dev/null)" != "$$new" ]; then rm -rf $(VENV); fi; \
	if [ "$$(cat $@ 2>/dev/null)" != "$$new" ]; then mkdir -p $(VENV) && echo "$$new" > $@; fi

$(VENV)/.installed: pyproject.toml $(CONSTRAINTS) $(VENV)/.python
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --upgrade -c $(CONSTRAINTS) "pip>=$(PIP_MINIMUM)"
	$(PIP) install --quiet -c $(CONSTRAINTS) --editable .
	@touch $@

# one stamp per dependency group of pyproject.toml: make demo need not wait for Sphinx
$(VENV)/.installed-%: $(VENV)/.installed
	$(PIP) install --quiet -c $(CONSTRAINTS) --group $*
	@touch $@

env: $(VENV)/.installed-dev  ## everything a developer needs, in .venv

test: $(VENV)/.installed-test  ## the test suite; PYTEST_ARGS="tests/nn -x" narrows it
	$(BIN)/python -m pytest -n 2 --dist loadfile $(PYTEST_ARGS)

fuzz: $(VENV)/.installed-test  ## random data against plain copies; EXAMPLES=5000 is about a quarter of an hour of a processor
	SCSET_TOOLS_FUZZ_EXAMPLES=$(or $(EXAMPLES),5000) $(BIN)/python -m pytest tests/fuzz -q

demo: $(VENV)/.installed  ## the demo, or your cohort: COHORT=file.h5ad SAMPLE_KEY=... LABEL_KEY=... [USE_REP=...] [GROUPS_KEY=...]
	$(BIN)/python demo/demo.py --out demo/output \
	  $(if $(COHORT),--cohort "$(COHORT)") $(if $(SAMPLE_KEY),--sample-key "$(SAMPLE_KEY)") \
	  $(if $(LABEL_KEY),--label-key "$(LABEL_KEY)") $(if $(USE_REP),--use-rep "$(USE_REP)") \
	  $(if $(GROUPS_KEY),--groups-key "$(GROUPS_KEY)")

docs: $(VENV)/.installed-doc  ## the documentation with its tutorials run, warnings as errors; SCSET_TOOLS_DOCS_EXECUTE=off leaves them out
	$(BIN)/python -m sphinx -W --keep-going -j 2 -b html -d docs/_build/doctrees docs $(DOCS_OUT)

lint: $(VENV)/.installed-lint  ## ruff: rules and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.installed-lint  ## ruff: mend what can be mended
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(VENV)/.installed-lint $(VENV)/.installed-test  ## mypy on src, with the optional packages there to be looked at
	$(BIN)/mypy

bench: $(VENV)/.installed-bench  ## every script of benchmarks/, one after the other
	@set -e; for script in benchmarks/[!_]*.py; do echo "== $$script"; $(BIN)/python "$$script"; done

build: $(VENV)/.installed-dev  ## sdist and wheel in dist/, checked
	$(BIN)/python -m build
	$(BIN)/python -m twine check --strict dist/*

clean:  ## remove what was built, keep the environment
	rm -rf build dist docs/_build docs/api/generated demo/output .mypy_cache .pytest_cache .ruff_cache .hypothesis

clean-env:  ## remove the environment
	rm -rf $(VENV)
