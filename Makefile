# Everything here makes .venv first where it is not there. `make help` lists the targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# Where torch comes from. For Linux the package index has a CUDA build, gigabytes that serve an NVIDIA driver alone; where
# none is at work, torch's own index of CPU builds comes first, if it answers within seconds. TORCH_INDEX=URL names
# another of torch's indexes; TORCH_INDEX= leaves the choice to pip.
CPU_INDEX := https://download.pytorch.org/whl/cpu
TORCH_INDEX ?= $(if $(filter Linux,$(shell uname -s)),$(shell nvidia-smi -L > /dev/null 2>&1 || echo $(CPU_INDEX)))
PATIENCE := 5
ASK := import signal, sys, urllib.request as web; signal.alarm(2 * $(PATIENCE)); web.urlopen(sys.argv[1], timeout=$(PATIENCE)); print("yes")
answers = $(shell $(PYTHON) -c '$(ASK)' '$(TORCH_INDEX)/torch/' 2> /dev/null)
pip_chooses = what pip chooses, on Linux x86-64 a CUDA build: 2.7 GB to fetch where no wheel is at hand
from_index = $(if $(filter $(CPU_INDEX),$(TORCH_INDEX)),the CPU build: 0.2 GB to fetch,the newest build) from $(TORCH_INDEX)
no_answer = $(if $(filter file,$(origin TORCH_INDEX)),$(TORCH_INDEX) does not answer; $(pip_chooses),$(error \
	TORCH_INDEX=$(TORCH_INDEX) does not answer; try again, or `make install TORCH_INDEX=` for $(pip_chooses)))
torch_index = $(and $(TORCH_INDEX),$(answers),--extra-index-url $(TORCH_INDEX))
torch_said = $(if $(TORCH_INDEX),$(if $(torch_from),$(from_index),$(no_answer)),$(pip_chooses))

.DEFAULT_GOAL := help
.PHONY: help install quickstart test test-slow test-faults test-changed test-compat fuzz docs check format clean

help: ## this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  make %-12s %s\n", $$1, $$2 }'

install: $(VENV)/installed ## the virtual environment, with everything that the other targets need

$(VENV)/installed: setup.cfg constraints.txt
	$(eval torch_from := $(torch_index))
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	@echo "torch: $(torch_said)"
	$(BIN)/python -m pip install -c constraints.txt torch $(torch_from)
	@echo "all else: 0.5 GB to fetch"
	$(BIN)/python -m pip install --quiet -c constraints.txt --editable ".[fast,quickstart,test]"
	@command -v chromium > /dev/null || command -v google-chrome > /dev/null || echo "The tests need Chromium too: apt-get install chromium"
	@touch $@

quickstart: $(VENV)/installed ## from 16 minutes of unlabelled lectures to a measured student in runs/quickstart
	$(BIN)/k2d run recipes/quickstart/quickstart.yaml

PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder
test: $(VENV)/installed ## the tests, in minutes; no network is needed
	$(PYTEST) -m "not slow"

test-slow: $(VENV)/installed ## the other tests: clusters, stops and kills, full disks, changed settings, benchmarks
	$(PYTEST) -m slow

SECONDS ?= 3600
SEED ?= 0
fuzz: $(VENV)/installed ## broken input without end, for an hour; SECONDS=60 SEED=1 for less and other
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.fuzz --seconds $(SECONDS) --seed $(SEED)

test-faults: $(VENV)/installed ## kills, full disks and dirt: all of it, some 20 minutes; `make test-slow` has a little
	OMP_NUM_THREADS=1 K2D_FAULT_TRIALS=20 $(BIN)/python -m pytest tests/faults

test-changed: $(VENV)/installed ## each setting changed after a run, against a fresh run: all of them, some 20 minutes
	OMP_NUM_THREADS=1 K2D_CHANGED=all $(BIN)/python -m pytest tests/changed

test-compat: $(VENV)/installed ## one student in older transformers, faster-whisper and whisper.cpp; fetches gigabytes
	$(BIN)/python -m tests.compat --record k2d_hf/publishing/opened_with.json

DOCS := .venv-docs
EXTRA := import configparser as c; f = c.ConfigParser(); f.read("setup.cfg"); print(*map(repr, f["options.extras_require"]["docs"].split()))
$(DOCS)/installed: setup.cfg constraints.txt
	$(PYTHON) -m venv $(DOCS)
	$(DOCS)/bin/python -m pip install --quiet -c constraints.txt $(shell $(PYTHON) -c '$(EXTRA)')
	@touch $@

docs: $(VENV)/installed $(DOCS)/installed ## the documentation, as pages in site/; fails at a warning or a dead link
	$(BIN)/python -m docs_tools.tables
	PYTHONPATH=docs_tools $(DOCS)/bin/zensical build --clean --strict
	$(BIN)/python -m docs_tools.check site

check: $(VENV)/installed ## lint, format and types
	$(BIN)/ruff check k2d_hf tests benchmarks metrics recipes docs_tools
	$(BIN)/ruff format --check k2d_hf tests benchmarks metrics recipes docs_tools
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: $(VENV)/installed ## put the code into the project's format
	$(BIN)/ruff check --fix k2d_hf tests benchmarks metrics recipes docs_tools
	$(BIN)/ruff format k2d_hf tests benchmarks metrics recipes docs_tools

clean: ## remove the virtual environment and caches; runs stay
	rm -rf $(VENV) .venv-compat $(DOCS) .cache site build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
