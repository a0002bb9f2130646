# `make demo` and `make test` need Python 3.11 or newer and make: everything else is installed into .venv.
.POSIX:

PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
	command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& { echo $$p; break; }; done)
BIN := .venv/bin
READY := .venv/.ready
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-header pyproject.toml

.PHONY: help setup demo test chaos bench check format lock clean

help:
	@echo "make demo    watch recommendations follow what users do (installs what it needs)"
	@echo "make test    prove it, on a real Kafka broker"
	@echo "make chaos   let faults of all kinds strike under traffic: EVENTS=1000000 FAULTS=100 SEED=1"
	@echo "make bench   measure it beside ordinary solutions, in twenty minutes: ARGS=\"--quick --only a,b\""
	@echo "make check   lint and types alone"
	@echo "make format  format the code"
	@echo "make lock    resolve the pinned dependencies anew"
	@echo "make clean   remove .venv and what it was used for"

setup: $(READY)

$(READY): requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "penchant needs Python 3.11 or newer on the path (or: make PYTHON=...)" >&2; exit 1; }
	@echo "Installing into .venv: some gigabytes the first time, most of it torch ..."
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==0.13.9
	@$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --require-hashes -r requirements.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $(READY)

demo: $(READY)
	@$(BIN)/penchant demo $(ARGS)

# Tests wait more than they compute: two at a time, each with a broker of its own.
test: check
	@$(BIN)/pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder $(ARGS)

EVENTS = 1000000
FAULTS = 100
SEED = 1

chaos: $(READY)
	@$(BIN)/python -m tests.chaos --events $(EVENTS) --faults $(FAULTS) --seed $(SEED)

bench: $(READY)
	@$(BIN)/python -m tests.bench $(ARGS)

check: $(READY)
	@$(BIN)/ruff format --check
	@$(BIN)/ruff check
	@$(BIN)/mypy

format: $(READY)
	@$(BIN)/ruff format
	@$(BIN)/ruff check --fix

lock: $(READY)
	@$(COMPILE) --all-extras --group dev -o requirements.lock
	@$(COMPILE) --extra encoders --extra parquet -o deploy/requirements.lock

clean:
	rm -rf .venv .penchant dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
