# One entry for everything. Every verb sets itself up: a virtual environment, the package built and installed in it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
JOBS ?= $(shell nproc)
# CI sets this: a warning of the compiler is an error there, and not on a user's machine.
WERROR ?=
SOURCES := $(shell find core src -type f -not -name '*.so' -not -path '*/__pycache__/*') CMakeLists.txt pyproject.toml

.PHONY: help demo test test-model firmware-test lint format bench docs clean
help:
	@echo "make demo        pull SmolLM2-135M, compress it to 8, 4 and 3 bits, measure, and ask it a question"
	@echo "make test        every test"
	@echo "make firmware-test  exported C on every chip that QEMU plays, counted; says what to install for it"
	@echo "make lint        ruff, mypy, clang-format"
	@echo "make format      let ruff and clang-format rewrite the sources"
	@echo "make bench       speed beside llama.cpp, when it is installed"
	@echo "make docs        regenerate the generated parts of docs/ and the README"
	@echo "make clean       remove the virtual environment, builds and the demo"

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

# Built and installed; again whenever a source is newer.
$(VENV)/installed: $(BIN)/python constraints.txt $(SOURCES)
	CMAKE_BUILD_PARALLEL_LEVEL=$(JOBS) $(BIN)/python -m pip install --quiet -c constraints.txt $(WERROR) .
	@touch $@

# torch first and by its exact version: it is the oracle of the tests, and the plain name would pull gigabytes.
$(VENV)/tested: $(VENV)/installed
	$(BIN)/python -m pip install --quiet -c constraints.txt torch==2.13.0
	$(BIN)/python -m pip install --quiet -c constraints.txt --group dev
	@touch $@

demo: $(VENV)/installed
	$(BIN)/python tools/demo.py

# The real model, for the tests that want it; without a network those are skipped by name.
test: $(VENV)/tested
	-$(BIN)/scrimp pull smollm2-135m
	$(BIN)/python -m pytest -q -n $(JOBS)

# Installs no compiler and no QEMU: it says which packages are missing, and skips what needs them.
firmware-test: $(VENV)/tested
	@$(BIN)/python -c "from scrimp.export.firmware.simulate import advice; print(advice())"
	SCRIMP_ALL_CHIPS=1 $(BIN)/python -m pytest -q tests/export tests/cli/test_export_verb.py

lint: $(VENV)/tested
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	find core -name '*.h' -o -name '*.cpp' -o -name '*.inl' | xargs $(BIN)/clang-format --dry-run --Werror

format: $(VENV)/tested
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .
	find core -name '*.h' -o -name '*.cpp' -o -name '*.inl' | xargs $(BIN)/clang-format -i

bench: $(VENV)/installed
	$(BIN)/python bench/beside_llamacpp.py

docs: $(VENV)/installed
	$(BIN)/python tools/generate_docs.py

clean:
	rm -rf $(VENV) build demo
