# `make demo` and `make test` set up all they need on a machine with Python 3.11 and pip.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
# torch comes first and exact: with any other range pip takes gigabytes of CUDA packages.
TORCH := torch==2.13.0

.PHONY: demo test lint types docs clean

$(VENV)/.installed: setup.py pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(TORCH)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[fork,test]'
	touch $@

demo: $(VENV)/.installed
	$(BIN)/python tools/demo.py --work-dir demo_output

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check mm_tuning_plugin tests tools

types: $(VENV)/.installed
	$(BIN)/mypy

test: lint types
	$(BIN)/python -m pytest tests

docs: $(VENV)/.installed
	$(BIN)/python -m mm_tuning_plugin.cli.options_doc docs/options.md

clean:
	rm -rf $(VENV) demo_output
