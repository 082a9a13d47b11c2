# Everything here works on a fresh machine with Python 3.11 or newer: `make demo`, `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: demo test test-fast test-all check docs schemas clean

demo: $(INSTALLED)
	$(BIN)/smoothcert demo-data demo/digits --format parquet
	$(BIN)/smoothcert study jobs/digits-with-psm.yaml
	$(BIN)/smoothcert certify jobs/digits.yaml

# One thread for each process unless the environment says otherwise: tests start hundreds of them
OMP_NUM_THREADS ?= 1
# Bytecode is kept, whatever the environment says of it: for the same reason
PYTEST := OMP_NUM_THREADS=$(OMP_NUM_THREADS) PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -q

# Four processes for two cores: most integration tests wait for other processes. In the order of the files, so that the
# long ones, which start Ray, come first (tests/conftest.py)
test: $(INSTALLED)
	$(PYTEST) -n 4 --no-loadscope-reorder

# Before every commit: no Ray, no servers, nothing slow. Three processes for two cores: some tests wait for a moment
test-fast: $(INSTALLED)
	$(PYTEST) -n 3 --fast tests/unit

# Before a release, hours: every fault, family and command, and five times the statistics
test-all: $(INSTALLED)
	SMOOTHCERT_ALL_FAULTS=1 SMOOTHCERT_ALL_FAMILIES=1 SMOOTHCERT_ALL_COMMANDS=1 SMOOTHCERT_TEST_SCALE=5 \
		$(PYTEST) -n 4 --no-loadscope-reorder

check: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m smoothcert.store.tables.contract --check
	$(BIN)/python -m smoothcert.catalogue.page --check
	$(BIN)/python -m pytest -q tests/unit/test_import_direction.py

# The site, in build/docs: a warning, a dead link among them, is an error
docs: $(INSTALLED)
	$(BIN)/python -m sphinx -q -W --keep-going -c docs -b html . build/docs -d build/doctrees

schemas: $(INSTALLED)
	$(BIN)/python -m smoothcert.store.tables.contract
	$(BIN)/python -m smoothcert.catalogue.page

clean:
	rm -rf demo runs

# torch comes first: constraints.txt pins it, so that nothing pulls another build
$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt torch
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@
