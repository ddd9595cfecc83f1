PYTHON ?= python3
BIN := .venv/bin
REQUIREMENTS := requirements$(if $(GPU),-gpu).txt
export PATH := $(CURDIR)/$(BIN):$(PATH)

.DEFAULT_GOAL := help
.PHONY: help repro results plots report data test lint format lock-check requirements weights repeats sweep verify bench

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16

repro: $(BIN)/run-ready  ## set up, get the embedded sample, run the pipeline, print the results (GPU=1: tensorflow with CUDA)
	@dvc pull -q -r sample sample
	@dvc repro
	@python -m ctscan.experiments.record_environment
	@python -m ctscan.experiments.results

results: $(BIN)/run-ready  ## print the table of the last run
	@python -m ctscan.experiments.results

plots: $(BIN)/run-ready  ## write results and plots as one page that opens with no network; REVS="HEAD exp" compares
	@python -m ctscan.experiments.page $(REVS)

report: $(BIN)/run-ready  ## the same as Markdown and PNG, for a pull request; REVS="main HEAD" compares
	@python -m ctscan.experiments.report $(REVS)

repeats: $(BIN)/run-ready  ## the same with 5 splits of other seeds, after repro: mean and spread (ARGS="--strategy blocked --seeds 10")
	@python -m ctscan.experiments.repeats $(ARGS)

sweep: $(BIN)/run-ready  ## try values, rank them on validation: GRID="lr=1e-4,1e-3 head.units=512,1024" ARGS="--until finetune"
	@python -m ctscan.experiments.sweep $(GRID) $(ARGS)

data: $(BIN)/run-ready  ## get the study's dataset; ARCHIVE=path takes a zip, tar or folder you have, PIN=1 pins what it holds
	@python -m ctscan.download.fetch_data $(if $(ARCHIVE),--archive "$(ARCHIVE)") $(if $(PIN),--pin)

weights: $(BIN)/run-ready  ## get the ImageNet weights of the backbone in params.yaml ahead of a run
	@python -m ctscan.download.weights

test: $(BIN)/dev-ready  ## run all tests
	@dvc pull -q -r sample sample
	@pytest -q -n 2 --dist worksteal

lint: $(BIN)/dev-ready  ## check style and types
	@ruff check .
	@ruff format --check .
	@mypy

format: $(BIN)/dev-ready  ## format the code
	@ruff check --fix --quiet .
	@ruff format .

lock-check: $(BIN)/run-ready  ## is dvc.lock in step with code, params, metrics and plots? needs no data
	@python -m ctscan.experiments.check_lock

verify: $(BIN)/run-ready  ## run the committed pipeline again in a scratch clone: the same bytes?
	@python -m ctscan.experiments.verify

bench: $(BIN)/run-ready  ## time plain Keras against this repository's way (hours); BENCH="--growth ..." passes options
	@python benchmarks/run.py $(BENCH)

requirements: $(BIN)/dev-ready  ## pin the dependencies of pyproject.toml anew
	@for file in "requirements.txt --extra cpu" "requirements-gpu.txt --extra gpu" \
	             "requirements-dev.txt --extra cpu --extra dev"; do \
	  set -- $$file; name=$$1; shift; \
	  uv pip compile --quiet --universal --python-version 3.10 --fork-strategy fewest --generate-hashes \
	    --no-annotate --no-header --no-emit-index-url "$$@" pyproject.toml --output-file $$name || exit 1; \
	done

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo "$(PYTHON) is not Python 3.10 to 3.13; name one that is: make PYTHON=python3.12 ..."; exit 1; }
	@$(PYTHON) -m venv .venv
	@python -c 'import pathlib, sysconfig; \
	  pathlib.Path(sysconfig.get_path("purelib"), "ctscan.pth").write_text(str(pathlib.Path("src").resolve()))'

$(BIN)/run-ready: $(REQUIREMENTS) | $(BIN)/python
	@pip install --quiet --disable-pip-version-check --require-hashes -r $(REQUIREMENTS)
	@touch $@

$(BIN)/dev-ready: requirements-dev.txt | $(BIN)/python
	@pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.txt
	@touch $(BIN)/run-ready $@
