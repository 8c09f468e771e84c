# make demo    set up .venv, then the whole platform on real text: prepare, run, search, verdict, promote, report
# make demo-post    after make demo: fine-tuning and preferences, searched, judged, promoted behind the full run
# make demo-vision  after make demo: a small vision-language model, its share of text and of each source of pictures
# make test    set up .venv, then every test
# make check   format, lint, types, import contract
# make setup   .venv alone, with the console script `ablate` in it
# make exports-env    the loaders of other trainers, for the tests of `ablate export`; they skip without it
# make test-exports   the same with litgpt, which brings Lightning, and those tests alone

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
EXPORTS := .venv-exports
LOADERS := tests/sweeps/exporters/loaders.txt
LOADERS_MORE := tests/sweeps/exporters/loaders_more.txt

.PHONY: setup demo demo-post demo-vision test check format lock gpu-check gpu-bundle exports-env test-exports clean

setup: $(STAMP)

# The lock holds every version; the package itself is installed editable so that conf/ is read in place. The Hydra
# plugins are copied into .venv even so: when one of them changes, the installation is repeated.
$(STAMP): requirements.lock pyproject.toml $(wildcard sweeps/plugins/hydra_plugins/*/*.py)
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $(STAMP)

demo: setup
	$(BIN)/python -m ablations.demo

demo-post: setup
	$(BIN)/python -m ablations.demo post

demo-vision: setup
	$(BIN)/python -m ablations.demo vision

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

# On top of .venv: its torch serves these loaders too, so nothing large is fetched a second time. Packages
# are installed without their dependencies, which would pull torch and numpy of other versions in.
exports-env: $(EXPORTS)/.installed

$(EXPORTS)/.installed: $(LOADERS) $(STAMP)
	rm -rf $(EXPORTS)
	$(BIN)/python -m venv --without-pip $(EXPORTS)
	$(BIN)/python -c 'import sysconfig as s; own = s.get_path("purelib"); new = s.get_path("purelib", vars={"base": "$(EXPORTS)"}); open(new + "/platform.pth", "w").write(f"import site; site.addsitedir({own!r})\n")'
	$(BIN)/python -m pip --python $(EXPORTS)/bin/python install --quiet --disable-pip-version-check --no-deps -r $(LOADERS)
	touch $@

test-exports: exports-env
	$(BIN)/python -m pip --python $(EXPORTS)/bin/python install --quiet --disable-pip-version-check --no-deps -r $(LOADERS_MORE)
	$(BIN)/python -m pytest tests/sweeps/exporters

clean:
	rm -rf .venv .venv-exports .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
