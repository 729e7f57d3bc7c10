# `make demo` and `make test` set up all they need on a machine with Python 3.11 and pip.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
# torch comes first and exact: with any other range pip takes gigabytes of CUDA packages.
TORCH := torch==2.13.0
PIP_INSTALL := python -m pip install --quiet --disable-pip-version-check
# Backbones that tests take through both stages. Without what they require: torchvision, which tests
# stub, and what else their networks import is there or named here.
FURTHER := timm==1.0.31 einops==0.8.2 mat4py==0.6.0 model-index==0.1.11 ordered-set==4.1.0 \
    markdown==3.11.3 click==8.5.1
# Runs on Python 3.9 and later: vermin reads syntax and calls, as no test on 3.11 can.
PYTHON_39 := mm_tuning_plugin tools setup.py
# Two processes, each with whole files, so that what a file's tests share is made once. Which
# tests: make test PYTEST_ARGS='tests/engine -x'.
PYTEST := python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder
PYTEST_ARGS ?= tests

# The original mmengine, mmcv and mmsegmentation own the same import names as the fork: an
# environment of their own.
ORIGINAL_VENV := .venv-original
ORIGINAL_BIN := $(ORIGINAL_VENV)/bin
STUB := tests/original/mmcv_ext_stub.py

.PHONY: demo test test-original walk lint types docs site clean

$(VENV)/.installed: setup.py pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/$(PIP_INSTALL) $(TORCH)
	$(BIN)/$(PIP_INSTALL) $(TORCH) -e '.[fork,test]'
	$(BIN)/$(PIP_INSTALL) --no-deps onedl-mmpretrain==1.3.6 $(FURTHER)
	touch $@

# mmcv-lite, because a build of mmcv's ops takes a compiler and a quarter of an hour. The original
# mmseg does not import without them, so a stub of mmcv._ext is laid into this environment, for
# every process that runs there; what calls an op fails. Nothing of this package needs one.
$(ORIGINAL_VENV)/.installed: setup.py pyproject.toml $(STUB)
	$(PYTHON) -m venv $(ORIGINAL_VENV)
	$(ORIGINAL_BIN)/$(PIP_INSTALL) $(TORCH)
	$(ORIGINAL_BIN)/$(PIP_INSTALL) $(TORCH) -e '.[original-lite,test]'
	$(ORIGINAL_BIN)/$(PIP_INSTALL) --no-deps mmpretrain==1.2.0 $(FURTHER) \
		importlib-metadata==8.9.0 zipp==4.1.2
	cp $(STUB) "$$($(ORIGINAL_BIN)/python -c 'import mmcv; print(mmcv.__path__[0])')/_ext.py"
	touch $@

demo: $(VENV)/.installed
	$(BIN)/python tools/demo.py --work-dir demo_output

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check mm_tuning_plugin tests tools
	$(BIN)/vermin --quiet --no-tips --exclude long --target=3.9- --violations $(PYTHON_39)

types: $(VENV)/.installed
	$(BIN)/mypy

# The examples in docstrings are tests, too.
EXAMPLES := mm_tuning_plugin/functional mm_tuning_plugin/losses mm_tuning_plugin/nodes \
    mm_tuning_plugin/recipes mm_tuning_plugin/structures.py

test: lint types
	$(BIN)/python -m pytest --doctest-modules $(EXAMPLES)
	$(BIN)/$(PYTEST) -m 'not walk' $(PYTEST_ARGS)

test-original: $(ORIGINAL_VENV)/.installed
	$(ORIGINAL_BIN)/$(PYTEST) -m 'not walk' $(PYTEST_ARGS)

# What `make test` leaves out: every other network like one that it runs.
walk: $(VENV)/.installed
	$(BIN)/$(PYTEST) -m walk tests

docs: $(VENV)/.installed
	$(BIN)/python tools/docs/options_page.py docs/options.md
	$(BIN)/python tools/docs/backbones_page.py docs/backbones.md tests/backbones
	$(BIN)/python tools/docs/pictures.py docs/pictures

site: $(VENV)/.installed
	$(BIN)/mkdocs build --strict

clean:
	rm -rf $(VENV) $(ORIGINAL_VENV) demo_output
