# make install | demo | test | test-all | docs | format. Needs Python 3.10+, make and git; everything else goes into .venv.
PYTHON ?= python3
BIN := .venv/bin
ifeq ($(OS),Windows_NT)
BIN := .venv/Scripts
endif

.PHONY: install demo test test-all check docs format clean

install: .venv/.installed

.venv/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed")'
	$(PYTHON) -m venv .venv

.venv/.installed: requirements.txt | .venv/bin/python
	$(BIN)/python -m pip install --disable-pip-version-check -r requirements.txt
	@touch $@

.venv/.installed-dev: requirements-dev.txt .venv/.installed
	$(BIN)/python -m pip install --disable-pip-version-check -r requirements-dev.txt
	@touch $@

# Trains GTC and LightGCN on the embedded data set and compares them.
demo: .venv/.installed
	$(BIN)/python src/main.py -m GTC LightGCN -d demo

check: .venv/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: check
	$(BIN)/python -m pytest -n auto

# Those too that take long and are of use but not for each commit.
test-all: check
	$(BIN)/python -m pytest -n auto -m "slow or not slow"

.venv/.installed-docs: requirements-docs.txt .venv/.installed
	$(BIN)/python -m pip install --disable-pip-version-check -r requirements-docs.txt
	@touch $@

# The site, into site/; a broken link is an error.
docs: .venv/.installed-docs
	$(BIN)/python docs/write_keys.py
	$(BIN)/python -m mkdocs build --strict

format: .venv/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv .cache .mypy_cache .ruff_cache .pytest_cache site
