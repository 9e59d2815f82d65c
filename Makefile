# Everything starts here: `make demo` shows the whole path, `make test` runs all tests. Both set themselves up.
VENV   ?= .venv
PYTHON ?= python3
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
SOURCES := medfsad_bench baselines methods tests .site
SITE   ?= build/site

.PHONY: demo test test-long lint format bench gpu site clean
.DELETE_ON_ERROR:
# Tests start hundreds of processes, each of which would compile whatever it imports anew.
unexport PYTHONDONTWRITEBYTECODE

# Pinned versions are taken from .ci/constraints.txt, so that a fresh machine gets what the tests were run with.
$(READY): pyproject.toml .ci/constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint .ci/constraints.txt torch torchvision
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint .ci/constraints.txt --editable '.[dev]'
	touch $@

demo: $(READY)
	$(BIN)/medfsad demo

# Two processes of one thread each: two threads of one process wait for each other as soon as anything else runs.
test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist worksteal

# What takes minutes: the demo from an installed wheel, every example of the documentation.
test-long: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 -m long tests

lint: $(READY)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY)
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/ruff check --fix $(SOURCES)

bench: $(READY)
	for file in tests/bench/bench_*.py; do PYTHONPATH=tests $(BIN)/python $$file || exit 1; done

# The gpu tests, then speeds, memory and differences from the CPU, within 8 minutes, into gpu-results/. OPTIONS=--small
# rehearses it on the CPU; OPTIONS='--data DIR' takes a file prepared at 256 px in place of phantoms.
gpu: $(READY)
	PYTHONPATH=tests $(BIN)/python -m bench.gpu $(OPTIONS)

# Board of the accepted rows and documentation; open build/site/index.html. OPTIONS='--runs medfsad-runs' shows others.
site: $(READY)
	PYTHONPATH=.site $(BIN)/python -m documentation --out $(SITE) $(OPTIONS)

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis medfsad-demo gpu-results
