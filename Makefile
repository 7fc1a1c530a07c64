# Every target first sets up what it needs; this is done only once.
#
#   make demo                   set up, then train, validate, predict and relax on a small data set
#   make test                   set up, then run the tests
#   make test-current           run the core tests with current releases, in .venv-current
#   make lint                   set up, then ruff and mypy
#   make docs                   set up, then build the documentation site in docs/_build/html
#   make benchmark              set up, then measure training steps and predictions (slow on a CPU)
#   make setup TORCH=2.13.0     set up with another torch and current releases of everything else
#
# Variables: PYTHON  TORCH  VENV  EXTRAS  DEMO_ARGS  TEST_ARGS  TEST_WORKERS  BENCHMARK_ARGS

SHELL := /bin/bash
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
DONE := $(VENV)/.setup-done

# The interpreter for the environment. Empty: the first usable one (see $(DONE)/venv).
PYTHON ?=
# Empty: what pip chooses, which is torch 2.4 and NumPy 1.26, because fairchem-core 1.10.0 requires
# them. Otherwise a version of torch (2.13.0 or '>=2.10,<2.11'), with the newest NumPy and others.
TORCH ?=
CURRENT := 2.13.0
EXTRAS ?= dev
DEMO_ARGS ?=
TEST_ARGS ?=
BENCHMARK_ARGS ?=
TEST_WORKERS ?= 2

# An active conda or virtual environment and the user's PYTHONPATH are ignored.
unexport PYTHONPATH PYTHONHOME VIRTUAL_ENV PYTHONDONTWRITEBYTECODE
export PIP_DISABLE_PIP_VERSION_CHECK := 1

PIP = $(BIN)/python -m pip install
STEP = @printf '[%s/2] %s\n'
TIMED = set -e; started=$$SECONDS; trap 'echo "      $$((SECONDS - started)) s"' EXIT;

# An environment cannot be moved or copied, because its scripts contain the path of the interpreter.
SET_UP_IN := $(shell cat $(DONE)/project 2>/dev/null)
ifneq ($(filter-out $(CURDIR),$(SET_UP_IN)),)
ifeq ($(filter clean distclean help,$(MAKECMDGOALS)),)
$(error $(VENV) was set up in $(SET_UP_IN); remove it with make distclean)
endif
endif

# The tests that are also run with current releases: method, models, training and the whole program,
# without slow tests.
CORE := -m "not slow" tests/dens tests/gaps tests/models tests/training tests/scenarios/test_training.py

.PHONY: help setup setup-current demo test test-current docs benchmark lint clean distclean

help:
	@echo 'make demo       train, validate, predict and relax on a small data set (DEMO_ARGS=...)'
	@echo 'make test       run the tests (TEST_ARGS=..., TEST_WORKERS=$(TEST_WORKERS))'
	@echo 'make test-current  run the core tests with torch $(CURRENT) and current releases'
	@echo 'make docs       build the documentation site in docs/_build/html'
	@echo 'make benchmark  compare the speed with stock fairchem (BENCHMARK_ARGS=--help)'
	@echo 'make setup      only make the environment in $(VENV) (PYTHON=..., TORCH=..., EXTRAS=$(EXTRAS))'
	@echo 'make lint       check the code with ruff (mistakes, layout) and mypy (types)'
	@echo 'make clean      remove caches; make distclean removes the environments too'

setup: $(DONE)/project
	@echo 'to put fairchem and dens-ocp on your PATH, run:  source $(VENV)/bin/activate'

demo: $(DONE)/project
	$(BIN)/dens-ocp demo $(DEMO_ARGS)

# One thread per worker: with two, torch and the workers compete for the cores. Tests of a file stay
# together (worksteal), so that what they share is made once.
test: $(DONE)/project
	PATH="$(CURDIR)/$(BIN):$$PATH" OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(TEST_WORKERS) --dist worksteal $(TEST_ARGS)

WITH_CURRENT = TORCH='$(or $(TORCH),$(CURRENT))' VENV=.venv-current

setup-current:
	@$(MAKE) --no-print-directory setup $(WITH_CURRENT)

test-current:
	$(MAKE) --no-print-directory test $(WITH_CURRENT) TEST_ARGS='$(or $(TEST_ARGS),$(CORE))'

docs: $(DONE)/project
	$(BIN)/python -W ignore -m sphinx --fail-on-warning --keep-going --fresh-env -q -b html docs docs/_build/html
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

# ---- set-up: the stamp of a step is written only after the step has succeeded ----------------

# The first Python from 3.10 to 3.12 (3.13 with TORCH) that starts (shims may not) and can make an
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
		echo "no usable Python$(if $(PYTHON), at PYTHON=$(PYTHON)): install 3.10, 3.11 or 3.12 with the venv module" >&2; \
		echo "(Debian: python3-venv; 3.13 with TORCH=2.13.0), or give one: make setup PYTHON=/path/to/python3.11" >&2; \
		exit 1; \
	fi; \
	if [ ! -x $(BIN)/python ]; then rm -rf $(VENV); fi; \
	echo "      $$("$$found" --version) at $$found"; \
	"$$found" -m venv $(VENV); \
	mkdir -p $(DONE); touch $@

# The metadata of fairchem-core requires torch 2.4, NumPy 1 and Python below 3.13. With TORCH it is
# installed without its requirements; requirements/current.txt has them together with ours.
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
