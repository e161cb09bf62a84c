# Each target also works without make: the lines below are plain `python -m …` commands.
PYTHON ?= python3
JOBS ?= 2
PY := .venv/bin/python

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-fast bench lab game screenshots lint format lock clean

help:  ## show what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: .venv/.stamp  ## make .venv with the versions of requirements.lock

.venv/.stamp: requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "ldm_kit needs Python 3.11 or newer: make setup PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	$(PY) -m pip install --progress-bar off -r requirements.lock
	$(PY) -m pip install --no-deps --no-build-isolation -e .
	@touch $@

demo: .venv/.stamp  ## run the notebooks on the bundled model; the report is outputs/demo/index.html
	$(PY) -m ldm_kit.demo

# One thread a process: two processes that each spin two threads on two cores slow each other down.
# A process that is ended because a test hung is begun anew once; left to itself, xdist would run that test eight times.
test: .venv/.stamp  ## run all tests
	OMP_NUM_THREADS=1 $(PY) -m pytest -n $(JOBS) --dist loadscope --max-worker-restart 1 -m "not network"

test-fast: .venv/.stamp  ## run the tests that take a minute
	OMP_NUM_THREADS=1 $(PY) -m pytest -n $(JOBS) --dist loadscope --max-worker-restart 1 -m "not network and not slow and not browser"

bench: .venv/.stamp  ## time measures and extraction; what was measured: tests/benchmarks/README.md
	$(PY) -m tests.benchmarks.measures
	$(PY) -m tests.benchmarks.extraction

# JupyterLab would look for news, for newer versions of itself and for extensions.
LAB_FLAGS := --LabApp.news_url=None --LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate \
  --LabApp.extension_manager=readonly
lab: .venv/.stamp  ## open JupyterLab on the first notebook; it asks nobody on the network
	$(PY) -m jupyterlab $(LAB_FLAGS) notebooks/00_start_here.ipynb

# `make game IP=0.0.0.0` lets a class in.
IP ?= 127.0.0.1
PORT ?= 8866
game: .venv/.stamp  ## serve the odd-one-out game
	$(PY) -m ldm_kit.game --ip $(IP) --port $(PORT)

screenshots: .venv/.stamp  ## make the pictures of notebooks/images anew, in a Chromium
	$(PY) -m tests.browser.screenshots

lint: .venv/.stamp  ## check style and types
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

format: .venv/.stamp  ## put the code into shape
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

# nvidia-*, triton and cuda-* are left out: torch itself names the ones that fit, on machines that need them.
lock: .venv/.stamp  ## write requirements.lock anew from pyproject.toml, keeping the pins that still fit
	$(PY) -m pip install --quiet uv
	cp requirements.lock requirements.lock.partial
	$(PY) -m uv pip compile --quiet --universal --python-version 3.11 --all-extras --no-header --no-annotate \
	  -o requirements.lock.partial pyproject.toml > /dev/null
	(echo '# The versions that were tested together. Made by `make lock`; install with pip.' && \
	 grep -vE '^(#|nvidia-|triton|cuda-)' requirements.lock.partial) > requirements.lock
	rm requirements.lock.partial

clean:  ## delete .venv and caches; outputs/ is left alone
	rm -rf .venv build *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find ldm_kit tests -name __pycache__ -prune -exec rm -rf {} +
