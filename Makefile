# make demo    set up .venv, then the whole platform on real text: prepare, run, search, verdict, promote, report
# make test    set up .venv, then every test
# make check   format, lint, types, import contract
# make setup   .venv alone, with the console script `ablate` in it

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: setup demo test check format lock gpu-check gpu-bundle clean

setup: $(STAMP)

# The lock holds every version; the package itself is installed editable so that conf/ is read in place.
$(STAMP): requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $(STAMP)

demo: setup
	$(BIN)/python -m ablations.demo

test: setup
	$(BIN)/python -m pytest -n auto --dist worksteal

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Resolves the newest versions that pyproject.toml allows and freezes them.
lock:
	$(PYTHON) -m venv .venv-lock
	.venv-lock/bin/python -m pip install --quiet -e '.[dev]' hatchling editables
	{ sed -n '/^#/p' requirements.lock; .venv-lock/bin/python -m pip freeze --exclude-editable | sed 's/+cpu//'; } > requirements.lock.new
	mv requirements.lock.new requirements.lock
	rm -rf .venv-lock

# With .venv where there is one, else with $(PYTHON): a machine with a GPU often has a torch of its own, and no network.
gpu-check:
	$(or $(wildcard $(BIN)/python),$(PYTHON)) benchmarks/gpu_check.py --report gpu_check.json

# For a machine with a GPU and no network: build/ablations-gpu.tar.xz. GPU_PYTHON=/path/to/python3.12, with what such a
# machine has, imports all that is in it.
gpu-bundle: setup
	$(BIN)/python -m ablations.cli prepare
	$(BIN)/python benchmarks/gpu_bundle.py $(if $(GPU_PYTHON),--python $(GPU_PYTHON))

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
