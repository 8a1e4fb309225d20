# The only commands anyone types. `make` alone lists them.
.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
UV_VERSION := 0.13.8
# More than there are cores: much of a test is waiting for processes to start and to notice things.
TEST_WORKERS ?= 3

help: ## list the commands
	@sed -n 's/^\([a-z][a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

demo: .venv/synced ## bring the whole suite up, grade real homework, show the result
	$(BIN)/python -m cinnabar_local demo

up: .venv/synced ## bring the suite up and keep it running
	$(BIN)/python -m cinnabar_local up

down: .venv/synced ## stop a running suite
	$(BIN)/python -m cinnabar_local down

test: .venv/tested ## everything that must hold before a change lands
	@mkdir -p build; nice $(MAKE) --no-print-directory lint >build/lint.txt 2>&1 & lint=$$!; \
	$(BIN)/pytest -n $(TEST_WORKERS); tests=$$?; \
	wait $$lint || { cat build/lint.txt; exit 1; }; \
	exit $$tests

unit: .venv/tested ## the tests that need no server
	$(BIN)/pytest tests/unit

e2e: .venv/tested ## the whole suite through Envoy
	$(BIN)/pytest tests/tour tests/e2e tests/chaos

chaos: .venv/tested ## the chaos campaign, in its long form (CHAOS_SECONDS, CHAOS_SEED)
	CHAOS_SECONDS=$${CHAOS_SECONDS:-300} $(BIN)/pytest tests/chaos -s

bench: .venv/tested ## measure; `make bench ONLY=name,name` for some
	$(BIN)/python -m bench $(if $(ONLY),--only $(ONLY))

lint: .venv/tested ## formats, types, contracts, protos
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/basedpyright
	$(BIN)/lint-imports
	$(BIN)/python libs/protos/generate.py --check
	$(BIN)/python libs/protos/compatible.py

protos: .venv/synced ## generate code from the protos
	$(BIN)/python libs/protos/generate.py
	$(BIN)/buf format -w protos

format: .venv/synced ## format and mend what can be mended
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean: ## remove everything that is made
	rm -rf .venv .build build .local

.venv/synced: uv.lock pyproject.toml $(wildcard libs/*/pyproject.toml services/*/pyproject.toml deploy/local/pyproject.toml)
	test -x $(BIN)/uv || { $(PYTHON) -m venv .venv && $(BIN)/pip install -q --disable-pip-version-check uv==$(UV_VERSION); }
	$(BIN)/uv sync --frozen --quiet --no-group servers
	@touch $@

.venv/tested: .venv/synced
	$(BIN)/uv sync --frozen --quiet
	@touch $@

.PHONY: help demo up down test unit e2e chaos bench lint protos format clean
