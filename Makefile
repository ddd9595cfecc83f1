PYTHON ?= python3
BIN := .venv/bin
REQUIREMENTS := requirements$(if $(GPU),-gpu).txt
export PATH := $(CURDIR)/$(BIN):$(PATH)

.DEFAULT_GOAL := help
.PHONY: help repro test lint format requirements data plots bench

help:  ## list the targets; `ctscan --help` lists the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16

repro: $(BIN)/run-ready  ## set up, get the embedded sample, run the pipeline, print the results (GPU=1: tensorflow with CUDA)
	@dvc pull -q -r sample sample
	@dvc repro
	@ctscan environment
	@ctscan results

data: $(BIN)/run-ready  ## get the study's dataset (`ctscan data --archive PATH` takes a zip, tar or folder that you have)
	@ctscan data

plots: $(BIN)/run-ready  ## write results and plots as one page that opens with no network
	@ctscan plots

test: $(BIN)/dev-ready  ## run all tests but those of all engines and of the benchmarks (`pytest -m comparison`)
	@dvc pull -q -r sample sample
	@pytest -q -n 2 --dist worksteal -m 'not comparison'

lint: $(BIN)/dev-ready  ## check style and types
	@ruff check .
	@ruff format --check .
	@mypy

format: $(BIN)/dev-ready  ## format the code
	@ruff check --fix --quiet .
	@ruff format .

bench: $(BIN)/run-ready  ## time plain Keras against this repository's way (hours); GROWTH=1: 1,000 to 100,000 images
	@python benchmarks/$(if $(GROWTH),growth,run).py

requirements: $(BIN)/dev-ready  ## pin the dependencies of pyproject.toml anew
	@for file in "requirements.txt --extra cpu" "requirements-gpu.txt --extra gpu" \
	             "requirements-dev.txt --extra cpu --extra dev"; do \
	  set -- $$file; name=$$1; shift; \
	  uv pip compile --quiet --universal --python-version 3.11 --fork-strategy fewest --generate-hashes \
	    --no-annotate --no-header --no-emit-index-url "$$@" pyproject.toml --output-file $$name || exit 1; \
	done

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo "$(PYTHON) is not Python 3.11 to 3.13; name one that is: make PYTHON=python3.12 ..."; exit 1; }
	@$(PYTHON) -m venv .venv

# The project itself is installed without an index: its build backend is among the requirements.
INSTALL = pip install --quiet --disable-pip-version-check
INSTALL_PROJECT = $(INSTALL) --no-deps --no-build-isolation --editable .

$(BIN)/run-ready: $(REQUIREMENTS) pyproject.toml | $(BIN)/python
	@$(INSTALL) --require-hashes -r $(REQUIREMENTS)
	@$(INSTALL_PROJECT)
	@touch $@

$(BIN)/dev-ready: requirements-dev.txt pyproject.toml | $(BIN)/python
	@$(INSTALL) --require-hashes -r requirements-dev.txt
	@$(INSTALL_PROJECT)
	@touch $(BIN)/run-ready $@
