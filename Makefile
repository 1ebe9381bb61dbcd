# Everything is installed into .venv; nothing outside this folder is touched.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# The versions that the tests are run with. The project itself declares ranges.
TORCH := torch==2.13.0
TORCHVISION := torchvision==0.28.0
# RAFT needs torchvision's Python code only, not the gigabytes that it asks for; and it stands aside,
# because transformers would take it for a whole one.
RAFT := $(VENV)/raft

# A Blender with windows, and the root folder of the system that has it, if that is another one.
BLENDER := blender
BLENDER_ROOT :=

# The sample clip, restyled on the processor: a few minutes.
DEMO := fresco-bridge-demo

.PHONY: demo blender test test-long test-hosts test-gui lint install benchmarks clean

demo: $(VENV)/installed
	$(BIN)/fresco-bridge demo --output $(DEMO) --overwrite

# Blender's extension: dist/fresco_bridge-VERSION.zip.
blender: $(VENV)/installed
	$(BIN)/python -m host_plugins.blender.build

# The tests inside Blender are skipped where it cannot be had.
test: lint
	-$(BIN)/python -m tests.hosts.environments 4.5
	$(BIN)/python -m pytest
	PYTHONPATH=$(RAFT) $(BIN)/python -m pytest tests/fresco/test_flow.py

# What is too long for every change: the property tests with many more examples, and networks of
# Stable Diffusion's size (minutes, and 15 GB of memory), fifty kills, fuzzing guided by coverage.
test-long: install
	$(BIN)/pip install --quiet --editable ".[fuzz,training]"
	FRESCO_BRIDGE_LONG=1 HYPOTHESIS_PROFILE=long $(BIN)/python -m pytest

# The extension's tests in every Blender that it is for.
test-hosts: install
	$(BIN)/python -m tests.hosts.every

# The extension as a user sees it; pictures go to build/pictures.
test-gui: install
	$(BIN)/python -m tests.hosts.gui --blender "$(BLENDER)" --root "$(BLENDER_ROOT)"

lint: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/vermin --no-tips --target=3.10- --violations --exclude long fresco bridge_server host_plugins ui

benchmarks: install
	$(BIN)/python -m tests.benchmarks.method
	$(BIN)/python -m tests.benchmarks.memory
	$(BIN)/python -m tests.benchmarks.loading
	$(BIN)/python -m tests.benchmarks.propagation
	$(BIN)/python -m tests.benchmarks.media
	$(BIN)/python -m tests.benchmarks.server

install: $(VENV)/tested

# What a user has.
$(VENV)/installed: pyproject.toml Makefile
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet "$(TORCH)"
	$(BIN)/pip install --quiet --editable .
	touch $@

# What the tests need beside.
$(VENV)/tested: $(VENV)/installed
	$(BIN)/pip install --quiet --editable ".[dev]"
	$(BIN)/pip install --quiet --no-deps --upgrade --target $(RAFT) "$(TORCHVISION)"
	touch $@

clean:
	rm -rf $(VENV)
