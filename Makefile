# Two commands do all the set-up: `make demo` and `make test`. See README.md.
SHELL := bash
PYTHON ?= python3
VENV ?= .venv
PORT ?= 3000
WORKERS ?= 3
BIN := $(VENV)/bin
export DAGSTER_HOME ?= $(CURDIR)/.dagster
export SKYSCRIPT_DATA ?= $(CURDIR)/data

.PHONY: help install demo ui test test-online lint size status clean

help:  ## Show these lines
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

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

# A file's tests stay together, the longest files first. Processes take up to 3 GB each; some tests wait, so that two
# cores have work for three.
test: install  ## Run every test with coverage of the library
	$(BIN)/python -m pytest --numprocesses=$(WORKERS) --dist=loadfile --no-loadscope-reorder --cov=skyscript_assets --cov-report=term:skip-covered --cov-fail-under=85

test-online: install  ## Read one window of each service that the profile skyscript names; needs the internet
	$(BIN)/python -m pytest -m online -rs --tb=line tests/online

lint: install  ## Check lint, formatting, types and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache --no-logo

size:  ## Print the lines of product, by folder, of benchmarks, tests and documentation
	@git ls-files -z '*.py' '*.md' | xargs -0 wc -l | awk '\
	    $$2 == "total" { next } \
	    { n = split($$2, part, "/"); name = $$2 ~ /\.md$$/ ? "documentation" : part[1] } \
	    { if (name == "skyscript_assets") name = "product"; lines[name] += $$1 } \
	    name == "product" { room = part[2] == "lib" && n > 3 ? "lib/" part[3] : n > 2 ? part[2] : "."; lines[name " " room] += $$1 } \
	    END { for (name in lines) printf "%7d  %s\n", lines[name], name }' | sort -k 2

clean:  ## Remove the demo's data and its run history
	rm -rf data .dagster
