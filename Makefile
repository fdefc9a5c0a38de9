# Everything here makes .venv first where it is not there. `make help` lists the targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help install quickstart test test-faults test-compat fuzz check format clean

help: ## this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  make %-12s %s\n", $$1, $$2 }'

install: $(VENV)/installed ## the virtual environment, with everything that the other targets need

$(VENV)/installed: setup.cfg constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt torch
	$(BIN)/python -m pip install --quiet -c constraints.txt --editable ".[fast,quickstart,test]"
	@command -v chromium > /dev/null || command -v google-chrome > /dev/null || echo "The tests need Chromium too: apt-get install chromium"
	@touch $@

quickstart: $(VENV)/installed ## from 16 minutes of unlabelled lectures to a measured student in runs/quickstart
	$(BIN)/k2d run recipes/quickstart/quickstart.yaml

test: $(VENV)/installed ## the tests; no network is needed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

SECONDS ?= 3600
SEED ?= 0
fuzz: $(VENV)/installed ## broken input without end, for an hour; SECONDS=60 SEED=1 for less and other
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.fuzz --seconds $(SECONDS) --seed $(SEED)

test-faults: $(VENV)/installed ## kills, full disks and dirt: all of it, some 20 minutes; `make test` has a little
	OMP_NUM_THREADS=1 K2D_FAULT_TRIALS=20 $(BIN)/python -m pytest tests/faults

test-compat: $(VENV)/installed ## one student in older transformers, faster-whisper and whisper.cpp; fetches gigabytes
	$(BIN)/python -m tests.compat --record k2d_hf/publishing/opened_with.json

check: $(VENV)/installed ## lint, format and types
	$(BIN)/ruff check k2d_hf tests benchmarks metrics recipes
	$(BIN)/ruff format --check k2d_hf tests benchmarks metrics recipes
	$(BIN)/mypy

format: $(VENV)/installed ## put the code into the project's format
	$(BIN)/ruff check --fix k2d_hf tests benchmarks metrics recipes
	$(BIN)/ruff format k2d_hf tests benchmarks metrics recipes

clean: ## remove the virtual environment and caches; runs stay
	rm -rf $(VENV) .venv-compat build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
