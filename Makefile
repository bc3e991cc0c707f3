# Two commands matter: `make demo` and `make test`. Everything is installed into .venv, nothing outside this folder.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
INPUTS := pyproject.toml constraints.txt packages/rushes-small/pyproject.toml

.PHONY: demo test lint benchmarks clean
.DELETE_ON_ERROR:

demo: $(VENV)/.demo
	$(BIN)/python examples/demo.py

test: $(VENV)/.dev
	$(BIN)/python -m pytest -n 2 --dist worksteal

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports

benchmarks: $(VENV)/.dev
	for file in benchmarks/*.py; do echo "== $$file"; $(BIN)/python $$file || exit 1; done

$(VENV)/.demo: $(INPUTS)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e packages/rushes-small -e ".[demo,serve]"
	touch $@

$(VENV)/.dev: $(VENV)/.demo
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e packages/rushes-small -e ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) demo
