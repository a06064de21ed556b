# One environment, .venv, made from pyproject.toml and reused by every target. `make help` lists the targets.
# PYTHON chooses the interpreter that makes it; PYTEST_ARGS goes to pytest (`make test PYTEST_ARGS="-k series"`).

PYTHON ?= $(shell command -v python3.11 || command -v python3)
PYTEST_ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# One thread of arithmetic per test process: as many processes as cores, and the same sums on every machine.
PYTEST := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadscope

.DEFAULT_GOAL := help
.PHONY: help demo test spark check lint fast format clean

help: ## List the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /|/' | awk -F'|' '{printf "  make %-8s %s\n", $$1, $$2}'

demo: $(STAMP) ## Federate a forecaster over four holders of a synthetic world and write its report
	$(BIN)/migrafed demo

test: $(STAMP) ## Run the whole test suite, slow tests included
	$(PYTEST) $(PYTEST_ARGS)

spark: $(VENV)/.spark ## Install the extra `spark` and run the tests that need it (Java 17 or later)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m spark $(PYTEST_ARGS)

fast: $(STAMP) ## Run the tests that take less than two seconds each
	$(PYTEST) -m "not slow" $(PYTEST_ARGS)

lint: $(STAMP) ## Run ruff, pyright and import-linter
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

check: lint test ## The gate: lint, then the whole test suite

format: $(STAMP) ## Format the code and apply safe fixes
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

clean: ## Remove the environment, caches and build products; runs stay
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamp is written last, so that an installation that broke off is done again.
$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
		|| { echo "migrafed needs Python 3.11 or later; found '$(PYTHON)'. Give one: make <target> PYTHON=/path/to/python3.11" >&2; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) \
		|| { echo "no virtual environment could be made; on Debian: apt-get install python3-venv" >&2; rm -rf $(VENV); exit 2; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $(STAMP)

$(VENV)/.spark: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[spark]'
	@touch $@
