# Each target sets up .venv by itself, then does its job.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test lint clean

demo: $(VENV)/.demo
	$(BIN)/r3d-fast demo

test: $(VENV)/.test
	$(BIN)/python -m pytest

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip

$(VENV)/.demo: $(BIN)/python setup.cfg
	$(BIN)/pip install --quiet '.[cpu,plots]'
	touch $@

# Editable, so that what is tested is what is in the folder.
$(VENV)/.test: $(BIN)/python setup.cfg
	$(BIN)/pip install --quiet --editable '.[cpu,test]'
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info demo
