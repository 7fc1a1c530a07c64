# Every target sets up what it needs, once: the second call starts at once.
#
#   make demo                         set up, then train, validate, predict, relax on embedded data
#   make test                         set up, then run the tests
#   make lint                         set up, then ruff and mypy
#   make benchmark                    set up, then measure steps and predictions (takes long on a CPU)
#   make setup PYG_WHEELS=<url|dir>   torch-scatter/-sparse from prebuilt wheels (needed for a GPU)
#
# Variables: PYTHON  PYG_WHEELS  TORCH_SPEC  EXTRAS  DEMO_ARGS  TEST_ARGS  TEST_WORKERS
#            BENCHMARK_ARGS

SHELL := /bin/bash
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
DONE := $(VENV)/.setup-done

# The interpreter for the environment. Empty: the first usable one (see $(DONE)/venv).
PYTHON ?=
# Torch comes first: the PyG extensions compile against it and the project must not replace it.
TORCH_SPEC ?= torch~=2.4.0
# Where prebuilt wheels of torch-scatter and torch-sparse lie (pip's -f). Empty: build from source.
PYG_WHEELS ?=
EXTRAS ?= dev
DEMO_ARGS ?=
TEST_ARGS ?=
BENCHMARK_ARGS ?=
TEST_WORKERS ?= 2

# An active conda or virtual environment, or a user's PYTHONPATH, has no say here.
unexport PYTHONPATH PYTHONHOME VIRTUAL_ENV
export PIP_DISABLE_PIP_VERSION_CHECK := 1

CONSTRAINTS := $(DONE)/constraints.txt
PIP = $(BIN)/python -m pip install --constraint $(CONSTRAINTS)
STEP = @printf '[%s/4] %s\n'
# What runs in the background has a process group of its own ($(GROUP)): an interrupted recipe
# takes the compilers that it started with it.
GROUP = $(BIN)/python -c 'import os, sys; os.setsid(); os.execvp(sys.argv[1], sys.argv[1:])'
TIMED = set -e; started=$$SECONDS; jobs=; \
	trap 'for job in $$jobs; do kill -- -$$job 2>/dev/null || :; done; echo "      $$((SECONDS - started)) s"' EXIT;
# A line every 30 s while a quiet command runs.
HEARTBEAT = $(GROUP) bash -c 'while sleep 30; do echo "      ... $$SECONDS s"; done' & jobs=$$!;

# An environment does not survive a move or a copy: its scripts name the interpreter by its path.
SET_UP_IN := $(shell cat $(DONE)/project 2>/dev/null)
ifneq ($(filter-out $(CURDIR),$(SET_UP_IN)),)
ifeq ($(filter clean distclean help,$(MAKECMDGOALS)),)
$(error $(VENV) was set up in $(SET_UP_IN); remove it with make distclean)
endif
endif

.PHONY: help setup demo test benchmark lint clean distclean

help:
	@echo 'make demo       train, validate, predict and relax on embedded data (DEMO_ARGS=...)'
	@echo 'make test       run the tests (TEST_ARGS=..., TEST_WORKERS=$(TEST_WORKERS))'
	@echo 'make benchmark  training steps and predictions beside stock fairchem (BENCHMARK_ARGS=--help)'
	@echo 'make setup      only the environment in $(VENV) (PYTHON=..., PYG_WHEELS=..., EXTRAS=$(EXTRAS))'
	@echo 'make lint       ruff (mistakes, layout) and mypy (types)'
	@echo 'make clean      remove caches; make distclean removes $(VENV) too'

setup: $(DONE)/project
	@echo 'put fairchem and dens-ocp on your PATH:  source $(VENV)/bin/activate'

demo: $(DONE)/project
	$(BIN)/dens-ocp demo $(DEMO_ARGS)

# One thread per worker: with two, torch and the workers fight over the cores.
test: $(DONE)/project
	PATH="$(CURDIR)/$(BIN):$$PATH" OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(TEST_WORKERS) $(TEST_ARGS)

benchmark: $(DONE)/project
	$(BIN)/python -W ignore -m benchmarks $(BENCHMARK_ARGS)

lint: $(DONE)/project
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy

clean:
	rm -rf .pytest_cache .ruff_cache .mypy_cache build dist
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean
	rm -rf $(VENV)

# ---- set-up: a stamp is written only after its step has been seen to work --------------------

# The first Python of 3.10-3.12 that starts (shims may not), can make an environment and, when
# extensions are to be compiled, brings the headers.
FIND_PYTHON = \
	probe='import sys, os, venv, ensurepip, sysconfig as s; \
	header = os.path.exists(os.path.join(s.get_path("include"), "Python.h")); \
	sys.exit(not ((3, 10) <= sys.version_info[:2] < (3, 13) and (header or len(sys.argv) > 1)))'; \
	for python in $(if $(PYTHON),"$(PYTHON)",$$(type -ap python3.11 python3.12 python3.10 python3)); do \
		if "$$python" -c "$$probe" $(if $(PYG_WHEELS),wheels) >/dev/null 2>&1; then found="$$python"; break; fi; \
	done

# The extensions are compiled after gigabytes of torch: what that needs is looked for before.
NEEDS_COMPILER = \
	set -- $${CXX:-c++}; \
	if ! command -v "$$1" >/dev/null; then \
		echo "no C++ compiler: $$1 is not there; torch-scatter and torch-sparse are compiled with it" >&2; \
		echo "(Debian: apt-get install g++). With wheels of both none is needed: make setup PYG_WHEELS=<url|dir>" >&2; \
		exit 1; \
	fi;

$(DONE)/venv:
	$(STEP) 1 'making the environment $(VENV)'
	@$(TIMED) $(if $(PYG_WHEELS),,$(NEEDS_COMPILER)) found=; $(FIND_PYTHON); \
	if [ -z "$$found" ]; then \
		echo "no usable Python$(if $(PYTHON), at PYTHON=$(PYTHON)): 3.10, 3.11 or 3.12 with the venv module and" >&2; \
		echo "Python.h is needed (Debian: python3-venv python3-dev). Name one: make setup PYTHON=/path/to/python3.11" >&2; \
		exit 1; \
	fi; \
	if [ ! -x $(BIN)/python ]; then rm -rf $(VENV); fi; \
	echo "      $$("$$found" --version) at $$found"; \
	"$$found" -m venv $(VENV); \
	mkdir -p $(DONE); touch $@

# The project's own requirements, one a line, so that no step pulls in what a later one must undo.
$(CONSTRAINTS): pyproject.toml | $(DONE)/venv
	@sed -n '/^dependencies = \[/,/^\]/s/^ *"\([^"]*\)".*/\1/p' pyproject.toml > $@.part
	@mv $@.part $@

$(DONE)/torch: $(DONE)/venv | $(CONSTRAINTS)
	$(STEP) 2 'installing $(TORCH_SPEC) (up to 3 GB to download on Linux)'
	@$(TIMED) $(PIP) '$(TORCH_SPEC)' numpy setuptools wheel; \
	$(BIN)/python -c 'import torch; print("      torch", torch.__version__, "CUDA", torch.version.cuda)'; \
	touch $@

# --no-deps: their one requirement, SciPy, comes with the project. Two processes: each of the
# packages compiles its files one after the other. -g0: debug information, which setup.py strips
# anyway, is a third of the compiler's work.
$(DONE)/pyg: $(DONE)/torch | $(CONSTRAINTS)
	$(STEP) 3 '$(if $(PYG_WHEELS),installing torch-scatter and torch-sparse from $(PYG_WHEELS),building torch-scatter and torch-sparse from source: 11 minutes of processor time, on 2 cores)'
	@$(TIMED) $(HEARTBEAT) \
	if [ -z '$(PYG_WHEELS)' ] && ! $(BIN)/python -c 'import torch_scatter, torch_sparse' 2>/dev/null; then \
		$(NEEDS_COMPILER) \
		rm -rf $(DONE)/wheels; mkdir -p $(DONE)/wheels; builds=; \
		for name in torch-scatter torch-sparse; do \
			CFLAGS="$$CFLAGS -g0" CXXFLAGS="$$CXXFLAGS -g0" $(GROUP) $(BIN)/python -m pip wheel --quiet --no-deps --no-build-isolation --constraint $(CONSTRAINTS) \
				--wheel-dir $(DONE)/wheels $$name & jobs="$$jobs $$!"; builds="$$builds $$!"; \
		done; \
		for build in $$builds; do wait $$build; done; \
		$(PIP) --no-deps $(DONE)/wheels/*.whl; rm -rf $(DONE)/wheels; \
	elif [ -n '$(PYG_WHEELS)' ]; then \
		$(PIP) --no-deps --only-binary :all: -f '$(PYG_WHEELS)' torch-scatter torch-sparse; \
	fi; \
	$(BIN)/python -c 'import torch_scatter; print("      torch-scatter", torch_scatter.__version__)'; \
	touch $@

$(DONE)/project: $(DONE)/pyg $(CONSTRAINTS)
	$(STEP) 4 'installing the project and what it needs'
	@$(TIMED) $(PIP) $(if $(PYG_WHEELS),-f '$(PYG_WHEELS)') -e '.$(if $(EXTRAS),[$(EXTRAS)])'; \
	$(BIN)/python -W ignore -c 'import torch_sparse, fairchem.core, dens_ocp; print("      dens-ocp", dens_ocp.__version__)'; \
	echo '$(CURDIR)' > $@

.DELETE_ON_ERROR:
