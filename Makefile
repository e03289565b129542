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

.DEFAULT_GOAL := help
.PHONY: help demo test test-fast test-library test-addons run-addons bench-peers lint format bazel lock clean

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

test: $(VENV)/.installed ## Run all tests
	$(RUN) -m pytest -q --durations=10 $(ARGS)

test-fast: $(VENV)/.installed ## Run all tests but those marked slow
	$(RUN) -m pytest -q -m "not slow" $(ARGS)

test-library: $(VENV)/.installed ## Run the fast tests of circle_tf, as CI does on every Python
	$(RUN) -m pytest -q -m "not slow" tests/circle_tf circle_tf $(ARGS)

# Addons ended with TensorFlow 2.15, the last for Python 3.11: an environment and a lock of its own.
test-addons: ## Run the tests of circle_tf on TensorFlow Addons' stack (Keras 2, Python 3.11)
	$(MAKE) run-addons VENV=.venv-addons LOCK=requirements-addons.lock NEWEST=11 ASKED=$@

run-addons: $(VENV)/.installed
	$(RUN) -m pytest -q -m "not slow" tests/addons_stack tests/circle_tf circle_tf $(ARGS) \
	  --ignore=circle_tf/keras_hooks.py --ignore=circle_tf/steps.py \
	  --ignore=circle_tf/passes.py --ignore=circle_tf/cached_gradients.py \
	  --ignore=circle_tf/sharded_gradients.py

bench-peers: ## Make .venv-peers: PyTorch and pytorch-metric-learning, for benchmarks/
	$(MAKE) .venv-peers/.installed VENV=.venv-peers LOCK=requirements-peers.lock ASKED=$@

lint: $(VENV)/.installed ## Check style
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

format: $(VENV)/.installed ## Mend style
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

bazel: $(VENV)/.installed ## Query the Bazel targets and run a representative test
	third_party/bazel/check.sh $(RUN)

lock: $(VENV)/.installed ## Resolve both locks anew, for all supported Pythons
	$(RUN) -m pip install -q uv
	$(RUN) -m uv pip compile -q --universal --python-version 3.11 --extra dev \
	  --no-header --no-annotate pyproject.toml -o requirements.lock
	$(RUN) -m uv pip compile -q --universal --python-version 3.11 --extra addons --extra test \
	  --no-header --no-annotate pyproject.toml -o requirements-addons.lock

clean: ## Remove what make made, but for runs/ and models/
	rm -rf $(VENV) .venv-* _build dist *.egg-info .pytest_cache .ruff_cache .hypothesis

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
	@$(RUN) -m pip install -q --disable-pip-version-check -r $(LOCK)
	@touch $@
