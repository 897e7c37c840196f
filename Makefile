# Everything that a person or CI does with this checkout. `make` alone says what there is.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

PYTHON ?= python3
PY := .venv/bin/python
# More for pytest: make test PYTEST='tests/unit -k lifecycle'
PYTEST ?=

.PHONY: help demo demo-stop test check services e2e-large chaos fuzz attack-mutations bench bench-quick bench-peers clean

help:  ## this list
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

demo: .venv/runtime.stamp  ## grade a class of fourteen here and now; needs Python 3.11 and pip's registry only; KEEP=1 leaves it running
	@$(PY) -m scripts.demo $(if $(KEEP),--keep)

demo-stop: .venv/runtime.stamp  ## stop and remove what `make demo KEEP=1` left running
	@$(PY) -m scripts.demo --stop

test: .venv/dev.stamp services  ## every test, on a real Docker engine and real MongoDB servers
	$(PY) -m scripts.run_tests $(PYTEST)

e2e-large: .venv/dev.stamp services  ## a class of two hundred, which `make test` spares you
	BROADWAY_TEST_STUDENTS=200 $(PY) -m pytest tests/e2e/test_large.py

MINUTES ?= 2
STORE ?= both
chaos: .venv/dev.stamp services  ## break things at random, then count; MINUTES=30 SEED=7 STORE=sqlite, mongo or both
	$(PY) -m tests.chaos --minutes $(MINUTES) --store $(STORE) $(if $(SEED),--seed $(SEED))

attack-mutations: .venv/dev.stamp services  ## switch off each defence by itself and see that its attack is noticed
	$(PY) -m pytest -v -rN tests/attack/test_mutations.py

fuzz: .venv/dev.stamp services  ## attack the API along its description; MINUTES=30 for each store, SEED=7
	BROADWAY_FUZZ_SECONDS=$$(($(MINUTES) * 60)) BROADWAY_FUZZ_SEED=$(or $(SEED),$$RANDOM) $(PY) -m pytest tests/fuzz

bench: .venv/dev.stamp services  ## what it costs, as ratios in one run: under ten minutes; a quiet machine tells more
	$(PY) -m benchmarks

bench-quick: .venv/dev.stamp services  ## the same with fewer repetitions, under two minutes
	$(PY) -m benchmarks --quick

QUICK ?=
bench-peers: .venv/dev.stamp services  ## beside Celery, RQ, Dramatiq and Taskiq, which it installs; QUICK=1
	@PYTHON=$(PY) benchmarks/peers/provide.sh
	$(PY) -m benchmarks.peers $(if $(QUICK),--quick)

check: .venv/dev.stamp  ## format, lint, strict types, layers
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m mypy .
	$(PY) -m pytest -q tests/unit/test_layers.py

services: .venv/dev.stamp  ## install and start what the tests need: Docker engine, images, mongod, Chromium
	@PYTHON=$(PY) scripts/services.sh

clean:  ## stop what was started here, remove what was made here
	@scripts/services.sh stop
	rm -rf .venv .services .mypy_cache .ruff_cache .pytest_cache .hypothesis build
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp is newer than the requirements that it stands for: nothing is asked of pip while they do not change.
.venv/runtime.stamp: requirements.txt | .venv/bin/pip
	@echo "installing requirements.txt"
	@$(PY) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

.venv/dev.stamp: requirements-dev.txt .venv/runtime.stamp
	@echo "installing requirements-dev.txt"
	@$(PY) -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@

.venv/bin/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo 'Python 3.11 or newer is needed; name one with: make PYTHON=python3.12 …' >&2; exit 1; }
	@# Debian keeps what `venv` needs in a package of its own.
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null \
		|| { test $$(id -u) = 0 && command -v apt-get >/dev/null \
			&& { apt-get -q update; apt-get -q -y install python3-venv; } >/dev/null; } \
		|| { echo 'this Python has no ensurepip; on Debian: sudo apt-get install python3-venv' >&2; exit 1; }
	@$(PYTHON) -m venv --clear .venv
