# Every target sets up what it needs, once: the second call starts at once.
#
#   make demo                   set up, then train, validate, predict, relax on embedded data
#   make test                   set up, then run the tests
#   make test-current           the core of them with current releases, in .venv-current
#   make lint                   set up, then ruff and mypy
#   make docs                   set up, then build the documentation site in docs/_build/html
#   make benchmark              set up, then measure steps and predictions (takes long on a CPU)
#   make setup TORCH=2.13.0     another torch, with current releases of everything else
#
# Variables: PYTHON  TORCH  VENV  EXTRAS  DEMO_ARGS  TEST_ARGS  TEST_WORKERS  BENCHMARK_ARGS

SHELL := /bin/bash
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
DONE := $(VENV)/.setup-done

# The interpreter for the environment. Empty: the first usable one (see $(DONE)/venv).
PYTHON ?=
# Empty: what pip takes, which is torch 2.4 and NumPy 1.26, because fairchem-core 1.10.0 asks for
# them. Else the version of torch (2.13.0 or '>=2.10,<2.11'); NumPy and the rest are the newest then.
TORCH ?=
CURRENT := 2.13.0
EXTRAS ?= dev
DEMO_ARGS ?=
TEST_ARGS ?=
BENCHMARK_ARGS ?=
TEST_WORKERS ?= 2

# An active conda or virtual environment, or a user's PYTHONPATH, has no say here.
unexport PYTHONPATH PYTHONHOME VIRTUAL_ENV PYTHONDONTWRITEBYTECODE
export PIP_DISABLE_PIP_VERSION_CHECK := 1

PIP = $(BIN)/python -m pip install
STEP = @printf '[%s/2] %s\n'
TIMED = set -e; started=$$SECONDS; trap 'echo "      $$((SECONDS - started)) s"' EXIT;

# An environment does not survive a move or a copy: its scripts name the interpreter by its path.
SET_UP_IN := $(shell cat $(DONE)/project 2>/dev/null)
ifneq ($(filter-out $(CURDIR),$(SET_UP_IN)),)
ifeq ($(filter clean distclean help,$(MAKECMDGOALS)),)
$(error $(VENV) was set up in $(SET_UP_IN); remove it with make distclean)
endif
endif

# What is tested with current releases too: method, models, training, and the whole program, without
# the tests that take long.
CORE := -m "not slow" tests/dens tests/gaps tests/models tests/training tests/scenarios/test_training.py

.PHONY: help setup setup-current demo test test-current docs benchmark lint clean distclean

help:
	@echo 'make demo       train, validate, predict and relax on embedded data (DEMO_ARGS=...)'
	@echo 'make test       run the tests (TEST_ARGS=..., TEST_WORKERS=$(TEST_WORKERS))'
	@echo 'make test-current  the core of the tests with torch $(CURRENT) and current releases'
	@echo 'make docs       build the documentation site in docs/_build/html'
	@echo 'make benchmark  training steps and predictions beside stock fairchem (BENCHMARK_ARGS=--help)'
	@echo 'make setup      only the environment in $(VENV) (PYTHON=..., TORCH=..., EXTRAS=$(EXTRAS))'
	@echo 'make lint       ruff (mistakes, layout) and mypy (types)'
	@echo 'make clean      remove caches; make distclean removes the environments too'

setup: $(DONE)/project
	@echo 'put fairchem and dens-ocp on your PATH:  source $(VENV)/bin/activate'

demo: $(DONE)/project
	$(BIN)/dens-ocp demo $(DEMO_ARGS)

# One thread per worker: with two, torch and the workers fight over the cores. Tests of a file stay
# together (worksteal), so that what they share is made once.
test: $(DONE)/project
	PATH="$(CURDIR)/$(BIN):$$PATH" OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(TEST_WORKERS) --dist worksteal $(TEST_ARGS)

WITH_CURRENT = TORCH='$(or $(TORCH),$(CURRENT))' VENV=.venv-current

setup-current:
	@$(MAKE) --no-print-directory setup $(WITH_CURRENT)

test-current:
	$(MAKE) --no-print-directory test $(WITH_CURRENT) TEST_ARGS='$(or $(TEST_ARGS),$(CORE))'

docs: $(DONE)/project
	$(BIN)/python -W ignore -m sphinx --fail-on-warning --keep-going -q -b html docs docs/_build/html
	@echo 'open docs/_build/html/index.html'

benchmark: $(DONE)/project
	$(BIN)/python -W ignore -m benchmarks $(BENCHMARK_ARGS)

lint: $(DONE)/project
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy

clean:
	rm -rf .pytest_cache .ruff_cache .mypy_cache build dist docs/_build
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean
	rm -rf $(VENV) .venv-current

# ---- set-up: a stamp is written only after its step has been seen to work --------------------

# The first Python of 3.10-3.12 (3.13 with TORCH) that starts (shims may not) and can make an
# environment.
FIND_PYTHON = \
	probe='import sys, venv, ensurepip; \
	sys.exit(not (3, 10) <= sys.version_info[:2] < (3, $(if $(TORCH),14,13)))'; \
	for python in $(if $(PYTHON),"$(PYTHON)",$$(type -ap python3.11 python3.12 python3.10 $(if $(TORCH),python3.13) python3)); do \
		if "$$python" -c "$$probe" >/dev/null 2>&1; then found="$$python"; break; fi; \
	done

$(DONE)/venv:
	$(STEP) 1 'making the environment $(VENV)'
	@$(TIMED) found=; $(FIND_PYTHON); \
	if [ -z "$$found" ]; then \
		echo "no usable Python$(if $(PYTHON), at PYTHON=$(PYTHON)): 3.10, 3.11 or 3.12 with the venv module is needed" >&2; \
		echo "(Debian: python3-venv; 3.13 with TORCH=2.13.0). Name one: make setup PYTHON=/path/to/python3.11" >&2; \
		exit 1; \
	fi; \
	if [ ! -x $(BIN)/python ]; then rm -rf $(VENV); fi; \
	echo "      $$("$$found" --version) at $$found"; \
	"$$found" -m venv $(VENV); \
	mkdir -p $(DONE); touch $@

# fairchem-core's own metadata asks for torch 2.4, NumPy 1 and Python below 3.13. With TORCH it comes
# without its requirements, which are in requirements/current.txt with ours.
$(DONE)/project: pyproject.toml $(wildcard requirements/*.txt) | $(DONE)/venv
	$(STEP) 2 'installing torch, fairchem-core and the project (up to 3 GB to download on Linux)'
ifeq ($(TORCH),)
	@$(TIMED) $(PIP) -c requirements/tested.txt -e '.$(if $(EXTRAS),[$(EXTRAS)])'
else
	@$(TIMED) $(PIP) 'torch$(if $(filter <% >% =% ~%,$(TORCH)),,==)$(TORCH)'; \
	$(BIN)/python -c 'import torch; print("torch==" + torch.__version__)' > $(DONE)/torch.txt; \
	$(PIP) -r requirements/current.txt $(if $(EXTRAS),-r requirements/dev.txt) -c $(DONE)/torch.txt; \
	$(PIP) --no-deps --ignore-requires-python fairchem-core==1.10.0; \
	$(PIP) --no-deps -e .
endif
	@$(BIN)/python -W ignore -c 'import dens_ocp, torch, fairchem.core; print("      dens-ocp", dens_ocp.__version__, "with torch", torch.__version__, "CUDA", torch.version.cuda)'
	@echo '$(CURDIR)' > $@

.DELETE_ON_ERROR:
