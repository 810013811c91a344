.DEFAULT_GOAL := help
.PHONY: help setup demo test check bench lock clean

BIN := .venv/bin
LOCK := $(BIN)/uv --no-config pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --no-emit-package fleetline --custom-compile-command 'make lock'

help: ## Show this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 14

setup: ## Find or install all that the demo and the tests need
	@deploy/setup.sh

demo: ## Start a small fleet on this machine and show it at work
	@deploy/setup.sh demo
	@$(BIN)/fleet demo $(ARGS)

test: ## Run the tests against the real parts (ARGS="-k word" narrows them)
	@deploy/setup.sh test
	$(BIN)/pytest $(ARGS)

check: ## Format, lint, types, import directions, drift of docs/api
	@deploy/setup.sh test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/fleet schemas export --check

bench: ## Measure, each number beside its baseline
	@deploy/setup.sh test
	$(BIN)/python -m benchmarks $(ARGS)

lock: ## Resolve requirements/*.lock anew (UPGRADE=--upgrade takes the newest versions)
	$(LOCK) $(UPGRADE) pyproject.toml --extra dev -o requirements/dev.lock
	$(LOCK) $(UPGRADE) pyproject.toml --extra cloud -c requirements/dev.lock -o requirements/cloud.lock
	$(LOCK) $(UPGRADE) pyproject.toml --extra device -c requirements/dev.lock -o requirements/device.lock

clean: ## Remove caches and build output (the environment in .venv stays)
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache *.egg-info
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
