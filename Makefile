# Each target sets up what it needs: `make demo` and `make test` work on a fresh machine with Python >= 3.10, make
# and git.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# The oldest supported Python, if pyenv has it.
OLDEST ?= $(firstword $(wildcard $(HOME)/.pyenv/versions/3.10.*/bin/python3) $(PYTHON))
ROUNDS ?= 5

.DEFAULT_GOAL := help

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

demo: $(READY)  ## show the main job on this computer, in under a minute
	$(BIN)/vision-ingest demo

test: $(READY)  ## the tests for every change, in under two minutes, with branch coverage
	rm -f .coverage .coverage.*
	$(BIN)/coverage run -m pytest -n 2 -m "not slow and not daemon" --timeout 120
	$(BIN)/coverage combine -q
	$(BIN)/coverage report --fail-under 90

check: $(READY)  ## check style, types and layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test-daemon: $(READY)  ## tests of the whole daemon as a process
	$(BIN)/python -m pytest -m "daemon and not slow" -n 2 --timeout 300

test-slow: $(READY)  ## long tests; prints their measurements at the end
	$(BIN)/python -m pytest -m slow -v -n 2 --dist loadgroup --timeout 900 tests/unit tests/integration

test-lowest: $(READY)  ## unit tests with the oldest supported Python and libraries
	$(OLDEST) --version
	$(OLDEST) -m venv --clear build/lowest
	build/lowest/bin/pip install -q -r requirements/lowest.txt -r requirements/lowest-tools.txt
	build/lowest/bin/pip install -q --no-deps --no-build-isolation -e .
	build/lowest/bin/python -m pytest -q -n 2 -m "not slow" --timeout 120 tests/unit

bench: $(READY)  ## benchmarks against curl and a shell script, in under ten minutes (ROUNDS=5)
	.ci/install-tools
	$(BIN)/python -m tests.benchmarks --rounds $(ROUNDS)

test-system: $(READY)  ## test the package in Debian 12 and 13 machines (as root; needs debootstrap, systemd-nspawn, lintian)
	$(BIN)/python -m pytest -m slow -v -n 2 --timeout 1200 tests/system

deb: $(READY)  ## build dist/vision-ingest_VERSION_all.deb (needs dpkg-deb)
	$(BIN)/python packaging/build-deb

lock: $(READY)  ## update the locked dependencies of development and of the package
	$(BIN)/pip install -q uv
	$(BIN)/uv pip compile --universal --python-version 3.10 --generate-hashes --no-emit-index-url --no-header \
		--extra simulator --extra fast pyproject.toml requirements/dev.in -o requirements/dev.txt
	$(BIN)/uv pip compile --python-version 3.10 --generate-hashes --no-emit-index-url --no-header \
		pyproject.toml -o requirements/package.txt

reference: $(READY)  ## write the commented configuration and the documentation's table of its keys
	$(BIN)/python packaging/reference.py

clean:  ## remove everything that is generated
	rm -rf $(VENV) build dist .coverage .coverage.* .mypy_cache .pytest_cache .ruff_cache .import_linter_cache

$(READY): requirements/dev.txt pyproject.toml packaging/make-venv
	PYTHON=$(PYTHON) packaging/make-venv $(VENV)
	$(BIN)/pip install -q --require-hashes -r requirements/dev.txt
	$(BIN)/pip install -q --no-deps --no-build-isolation -e .
	touch $@

.PHONY: help demo test check test-daemon test-slow test-system test-lowest bench deb lock reference clean
