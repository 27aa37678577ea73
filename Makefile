# Two commands on a fresh machine with Python 3.11, git and make: `make demo`, `make test`.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
LLMCTL := $(BIN)/llmctl

QUESTION := How long does delivery take?

# The demo records in git, so git must know a name. One that you have set is used.
DEMO_IDENTITY = $(shell git var GIT_AUTHOR_IDENT >/dev/null 2>&1 && git var GIT_COMMITTER_IDENT >/dev/null 2>&1 || echo \
	GIT_AUTHOR_NAME=demo GIT_AUTHOR_EMAIL=demo@example.invalid \
	GIT_COMMITTER_NAME=demo GIT_COMMITTER_EMAIL=demo@example.invalid)

.PHONY: demo demo-stop test faults lint format bench bench-record bench-scale docs docs-pages clean

demo: $(VENV)/.installed  ## apply the example to this machine, ask it, show the audit log
	@echo '$$ llmctl apply --yes -f examples/llmops.yaml'
	@$(DEMO_IDENTITY) $(LLMCTL) apply --yes -f examples/llmops.yaml
	@echo
	@echo '$$ llmctl chat support "$(QUESTION)" -f examples/llmops.yaml'
	@$(LLMCTL) chat support "$(QUESTION)" -f examples/llmops.yaml
	@echo
	@echo '$$ llmctl audit log -f examples/llmops.yaml'
	@$(LLMCTL) audit log -f examples/llmops.yaml
	@echo
	@echo 'It goes on running. `make demo-stop` takes it away; docs/tour.md shows more.'
	@echo 'To use llmctl yourself: export PATH="$$PWD/.venv/bin:$$PATH"'

demo-stop: $(VENV)/.installed  ## take the demo away again; its record in git stays
	@$(DEMO_IDENTITY) $(LLMCTL) destroy --yes -f examples/llmops.yaml

test: $(VENV)/.installed-test  ## install all that the tests need and run them
	@$(BIN)/python -m pytest

faults: $(VENV)/.installed-test  ## every fault at every point of every operation: hours, goes on where it was
	@nice -n 10 $(BIN)/python -m tests.faults --resume --results build/faults

lint: $(VENV)/.installed-test  ## formatting, lint, types, layers
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: $(VENV)/.installed-test
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

docs: $(VENV)/.installed-docs  ## the documentation as a site, in build/site
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo 'It is in build/site. To read it with its search: python3 -m http.server -d build/site'

docs-pages: $(VENV)/.installed  ## the pages of docs/ that are generated from the code
	@$(BIN)/python -m tools.docs

bench: $(VENV)/.installed-test  ## the measurements of docs/benchmarks.md
	@$(BIN)/python benchmarks/startup.py
	@$(BIN)/python benchmarks/gate_runner.py
	@$(BIN)/python benchmarks/gateway_swaps.py

bench-record: $(VENV)/.installed-test  ## … of writing, asking and verifying a record of 10,000 commits
	@$(BIN)/python benchmarks/record.py
	@$(BIN)/python benchmarks/audit.py
	@$(BIN)/python benchmarks/verify.py

bench-scale: $(VENV)/.installed-test  ## … of many prompts, beside terraform where it is installed: half an hour
	@$(BIN)/python benchmarks/scale.py

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache

$(VENV)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "llmctl needs Python 3.11 or newer; run: make PYTHON=python3.11")'
	@echo "installing into $(VENV), about half a minute …"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -e .
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -e ".[test,lint,train]"
	@touch $@

$(VENV)/.installed-docs: $(VENV)/.installed
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -e ".[docs]"
	@touch $@
