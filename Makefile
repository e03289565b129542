# circle-tf: `make demo` and `make test` are all a newcomer needs.

LOCK ?= requirements.lock
NEWEST ?= 13
SUITS := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, $(NEWEST)))
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
  $$p -c '$(SUITS)' 2>/dev/null && command -v $$p && break; done)
VENV ?= .venv
RUN := $(VENV)/bin/python
WORKDIR ?= runs/glyphs
BASE_PATH ?= models/glyphs
UV := uv==0.13.9
# Not in the lock, for it brings keyrings and cryptography; only its check of what is built is used.
TWINE := twine==7.0.0
# Many times faster than pip, and one cache for all environments; with a bar on a terminal. Bytecode
# is made here: where PYTHONDONTWRITEBYTECODE is set, as in many containers, each of hundreds of
# processes would compile TensorFlow anew, 7 s of each.
INSTALL = uv pip install --compile-bytecode $(if $(MAKE_TERMERR),,-q)
COMPILE = $(RUN) -m uv pip compile -q --universal --python-version 3.11 --no-header --no-annotate
# More workers than four would take more memory than the time is worth.
PARALLEL := -n auto --maxprocesses=4 --durations=10

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow test-all test-library run-library test-on test-addons run-addons \
  bench-peers bench-quick gpu-check docs lint release-check format bazel lock clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

demo: $(VENV)/.installed ## Train on glyphs, evaluate, publish: a servable model in minutes
	$(RUN) -m trainers.train --config=configs/glyphs.py --workdir=$(WORKDIR)
	$(RUN) -m trainers.evaluate --workdir=$(WORKDIR)
	$(RUN) -m export.publish --workdir=$(WORKDIR) --base_path=$(BASE_PATH) --gallery=held_out
	@echo "Look at it:"
	@echo "  pictures     $(WORKDIR)/plots"
	@echo "  TensorBoard  $(VENV)/bin/tensorboard --logdir=$(WORKDIR)"
	@echo "  serve it     $(RUN) -m export.serve --ui --model_name=$(notdir $(BASE_PATH))" \
	  "--model_base_path=$(BASE_PATH)"
	@echo "  ask it       $(RUN) -m export.query --model=$(notdir $(BASE_PATH))" \
	  "--held_out=$(WORKDIR)/held_out.npz --sheet=neighbours.png"
	@echo "  your images  see 'Train on your own folder' in README.md"

# Every behaviour once. ARGS are pytest's; a test that they name runs though it is slow. Compiling is
# much of their time, so XLA's programs are left as they come; all other targets have them optimised.
QUICK_XLA := XLA_FLAGS="--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
test: $(VENV)/.installed ## Run the tests, in minutes; ARGS="tests/circle_tf/losses/circle_losses_test.py" runs some
	$(if $(ARGS),,$(QUICK_XLA)) $(RUN) -m pytest $(if $(ARGS),$(ARGS),$(PARALLEL) -m "not slow")

test-slow: $(VENV)/.installed ## Run the exhaustive tests that `make test` leaves out
	$(RUN) -m pytest $(PARALLEL) -m slow $(ARGS)

test-all: test test-slow ## Run all tests

test-library: ## Run what another Python can change: make test-library PYTHON=python3.13 VENV=.venv-3.13
	$(MAKE) run-library LOCK=requirements-library.lock ASKED=$@

run-library: $(VENV)/.installed
	$(RUN) -m pytest $(PARALLEL) tests/portable_test.py circle_tf $(ARGS)

# The oldest pair and one in the middle have a lock, for CI; any other is resolved when asked for.
PAIR = tf$(TENSORFLOW)-keras$(KERAS)
PAIR_LOCK = $(or $(wildcard requirements-$(PAIR).lock),.venv-versions/$(PAIR).lock)
LIBRARY := tests/portable_test.py tests/circle_tf circle_tf --ignore=tests/circle_tf/backbones

test-on: ## Run the library's tests on other versions: make test-on TENSORFLOW=2.18 KERAS=3.8
	$(MAKE) $(PAIR_LOCK)
	$(MAKE) run-on VENV=.venv-versions/$(PAIR) LOCK=$(PAIR_LOCK) NEWEST=12 ASKED=$@

run-on: $(VENV)/.installed
	$(RUN) -m pytest $(PARALLEL) -m "not slow" $(or $(ARGS),$(LIBRARY))

.venv-versions/tf%.lock requirements-tf%.lock: $(VENV)/.installed pyproject.toml
	@mkdir -p $(@D)
	printf 'tensorflow==%s.*\nkeras==%s.*\n' $(subst -keras, ,$*) | \
	  $(COMPILE) --extra test --extra train pyproject.toml - -o $@

# Addons ended with TensorFlow 2.15, the last for Python 3.11: an environment and a lock of its own.
test-addons: ## Run the tests of circle_tf on TensorFlow Addons' stack (Keras 2, Python 3.11)
	$(MAKE) run-addons VENV=.venv-addons LOCK=requirements-addons.lock NEWEST=11 ASKED=$@

run-addons: $(VENV)/.installed
	$(RUN) -m pytest $(PARALLEL) -m "not slow" tests/portable_test.py tests/addons_stack \
	  tests/circle_tf circle_tf $(ARGS) \
	  --ignore=circle_tf/training

bench-peers: ## Make .venv-peers: PyTorch and pytorch-metric-learning, for benchmarks/
	$(MAKE) .venv-peers/.installed VENV=.venv-peers LOCK=requirements-peers.lock ASKED=$@ \
	  INSTALL="pip install -q"  # Which minds where pip was told to look for PyTorch.

bench-quick: $(VENV)/.installed ## Time what may become slower beside what it was, in 5 minutes; ARGS="--strict"
	$(RUN) -m benchmarks.quick $(ARGS)

gpu-check: $(VENV)/.installed ## Check values, times and memory on this machine's GPU, in 5 minutes; ARGS="--output=gpu.md"
	$(RUN) -m benchmarks.gpu_check $(ARGS)

docs: ## Build the documentation into site/: open site/index.html
	$(MAKE) .venv-docs/.installed VENV=.venv-docs LOCK=requirements-docs.lock ASKED=$@
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/python -m mkdocs build --strict --quiet

lint: $(VENV)/.installed ## Check style and types
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

# The example runs in an environment of the wheel's own, where nothing of the clone can be imported.
release-check: $(VENV)/.installed ## Build, check what PyPI will show, run README's example from the wheel
	rm -rf dist .venv-release
	$(RUN) -m build --no-isolation
	$(RUN) -m uv tool run -q $(TWINE) check --strict dist/*
	$(RUN) -m uv venv -q --python $(RUN) .venv-release
	$(RUN) -m $(INSTALL) --python .venv-release -c requirements.lock dist/*.whl scikit-learn
	cd dist && sed -n '/^```python/,/^```/{//!p;}' ../README.md | ../.venv-release/bin/python -I -

format: $(VENV)/.installed ## Mend style
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

bazel: $(VENV)/.installed ## Query the Bazel targets and run a representative test
	third_party/bazel/check.sh $(RUN)

lock: $(VENV)/.installed ## Resolve the locks anew, for all supported Pythons
	$(COMPILE) --extra dev pyproject.toml -o requirements.lock
	$(COMPILE) --extra test --extra train -c requirements.lock pyproject.toml -o requirements-library.lock
	$(COMPILE) --extra addons --extra test pyproject.toml -o requirements-addons.lock
	$(COMPILE) --group docs -o requirements-docs.lock
	$(MAKE) -B $(wildcard requirements-tf*.lock)

clean: ## Remove what make made, but for runs/ and models/
	rm -rf $(VENV) .venv-* _build site dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis

# An environment whose Python is gone, after an upgrade of the system say, is made again.
ifneq ($(shell $(RUN) -c 'print("runs")' 2>/dev/null),runs)
  $(shell rm -f $(VENV)/.installed)
endif

# Redone when the lock changes; a half-made environment has no stamp and is made again.
$(VENV)/.installed: $(LOCK)
	@"$(PYTHON)" -c '$(SUITS)' 2>/dev/null || { echo "error: $(VENV) needs Python 3.11 \
	$(if $(filter 11,$(NEWEST)),,to 3.$(NEWEST)); $(if $(PYTHON),$(PYTHON) is not,found none). \
	Install one, or name it: make $(or $(ASKED),$(MAKECMDGOALS)) PYTHON=/path/to/python3.11" | \
	tr -s '[:space:]' ' ' >&2; echo >&2; exit 1; }
	@echo "Making $(VENV) with $(PYTHON): a minute or two, once."
	@"$(PYTHON)" -m venv --clear $(VENV)
	@$(RUN) -m pip install -q --disable-pip-version-check $(UV)
	@$(RUN) -m $(INSTALL) -r $(LOCK)
	@touch $@
