# Needs only Python >= 3.11, make and pip. Every target shares one .venv, built once and again only when pyproject.toml changes.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO_OUT ?= out/demo

.DEFAULT_GOAL := help
.PHONY: help install demo test test-slow faults lint protos clean

help:  ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

$(STAMP): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "userfm needs Python 3.11 or newer: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-input --editable '.[demo,test,dev]'
	@touch $@

install: $(STAMP)  ## Create .venv and install everything into it

demo: $(STAMP)  ## The whole pipeline on Complete Journey, into out/demo
	$(BIN)/userfm demo --out $(DEMO_OUT)

test: $(STAMP)  ## Fast tests; they need nothing but this repository
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m 'not slow and not faults'

test-slow: $(STAMP)  ## Tests that need minutes
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow

faults: $(STAMP)  ## Real crashes, full disks, torn files (some need Debian packages, see CONTRIBUTING.md)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m faults

lint: $(STAMP)  ## Style and strict types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

protos: $(STAMP)  ## Generate userfm/v1 from protos/
	$(BIN)/python -m grpc_tools.protoc --proto_path=protos --python_out=. --pyi_out=. --grpc_python_out=. $(wildcard protos/userfm/v1/*.proto)

clean:  ## Remove .venv and everything built
	rm -rf $(VENV) out dist build .pytest_cache .mypy_cache .ruff_cache
