# Two commands do all the set-up: `make demo` and `make test`. See README.md.
SHELL := bash
PYTHON ?= python3
VENV ?= .venv
PORT ?= 3000
BIN := $(VENV)/bin
export DAGSTER_HOME ?= $(CURDIR)/.dagster
export SKYSCRIPT_DATA ?= $(CURDIR)/data

.PHONY: help install demo ui test lint status clean

help:  ## Show these lines
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed: make PYTHON=python3.11 ...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[demo,dev]'
	touch $@

install: $(VENV)/.installed  ## Make the virtual environment

demo: install  ## Run the whole pipeline on the embedded default and show the scoreboard
	$(BIN)/skyscript demo

status: install  ## Show what is current, stale or missing
	$(BIN)/skyscript status

ui: install  ## Serve the Dagster UI on http://127.0.0.1:$(PORT)
	@mkdir -p $(DAGSTER_HOME) && cp dagster.yaml $(DAGSTER_HOME)/dagster.yaml
	$(BIN)/dagster dev --workspace workspace.yaml --host 127.0.0.1 --port $(PORT)

test: install  ## Run every test with coverage of the library
	$(BIN)/python -m pytest --cov=skyscript_assets --cov-report=term:skip-covered --cov-fail-under=85

lint: install  ## Check lint, formatting and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:  ## Remove the demo's data and its run history
	rm -rf data .dagster
