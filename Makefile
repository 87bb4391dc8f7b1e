# make demo   the whole story on the built-in model
# make test   lint, types, layers, then every test (what CI runs)
# Both make the virtual environment .venv on their first run.

PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo test check lint types layers docs wheel clean

help:
	@sed -n '1,/^$$/s/^# //p' Makefile

demo: .venv/for-use
	$(BIN)/scarprune demo

# A process for each core, each with one thread, takes one file of tests after the other.
test check: lint types layers
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile

lint: .venv/for-tests
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: .venv/for-tests
	$(BIN)/mypy
	$(BIN)/mypy --config-file benchmarks/mypy.ini

layers: .venv/for-tests
	$(BIN)/lint-imports

docs: .venv/for-tests
	$(BIN)/python docs/make_cli.py
	$(BIN)/python docs/make_scaling.py

wheel: .venv/for-tests
	$(BIN)/python -m build --wheel

clean:
	rm -rf .venv build dist scarprune-demo src/*.egg-info

.venv/bin/python:
	@test -n "$(PYTHON)" || { echo "scarprune needs Python 3.11 or newer; none was found on PATH."; exit 1; }
	$(PYTHON) -m venv .venv

.venv/for-use: pyproject.toml constraints.txt | .venv/bin/python
	$(INSTALL) -e .
	@touch $@

.venv/for-tests: pyproject.toml constraints.txt | .venv/bin/python
	$(INSTALL) -e ".[dev]"
	@touch $@ .venv/for-use
