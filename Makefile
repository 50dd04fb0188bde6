# Every target sets up what it needs, once, in .venv; nothing has to be activated.
#   PYTHON      the interpreter that .venv is made with (3.10 or later)
#   LAB_FLAGS   options for JupyterLab, for example: make lab LAB_FLAGS="--no-browser --port=8899"
#               (it refuses to run as root; in a container, LAB_FLAGS=--allow-root lets it)
#   APP_FLAGS   options for Voila, for example: make app APP_FLAGS="--no-browser --port=8866"
#   PYTEST_ARGS options for the unit tests, for example: make test PYTEST_ARGS="-k moments"
#   BROWSER_ARGS  the same for the browser tests; CHROMIUM names a browser for them
#   LOCK_FLAGS  options for uv, for example: make lock LOCK_FLAGS=--upgrade

PYTHON ?= python3
LAB_FLAGS ?=
APP_FLAGS ?=
PYTEST_ARGS ?=
BROWSER_ARGS ?=
LOCK_FLAGS ?=

PY := .venv/bin/python
EXECUTED := data/cache/executed
STATISTICS := data/cache/minilm-wikipedia/hidden

# The page of `make app` asks nothing of another machine.
APP_POLICY := default-src 'self' data: blob: ws://127.0.0.1:* 'unsafe-inline' 'unsafe-eval'; \
  frame-ancestors 'self'

LONG_SUITES := tests/robustness

# Without the encryption each kernel warns that it has none.
NBCONVERT := $(PY) -m nbconvert --log-level=ERROR
EXECUTE := $(NBCONVERT) --to notebook --execute --ExecutePreprocessor.timeout=600 \
  --ExecutePreprocessor.store_widget_state=False \
  --KernelManager.transport_encryption=auto

# The venv is to see its own packages only, and Jupyter its own kernel rather than one of the
# user's. Agg in MPLBACKEND would switch the notebooks' figures off.
unexport PYTHONHOME PYTHONPATH MPLBACKEND
export JUPYTER_PREFER_ENV_PATH := 1

.DEFAULT_GOAL := help
.PHONY: help setup models run notebooks lab app test test-long test-browser twins bench lock clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

setup: ## make .venv from requirements.lock (the other targets do it by themselves)
	@command -v "$(PYTHON)" >/dev/null 2>&1 || { \
	  echo "set-up: there is no '$(PYTHON)' here. Install Python 3.10 or later," >&2; \
	  echo "        or name one, for example: make run PYTHON=python3.12" >&2; exit 1; }
	@"$(PYTHON)" .ci/bootstrap.py

models: setup ## fetch the two pinned models into data/models
	@$(PY) -m embvar_kit fetch

run: models ## execute all notebooks, print the headline table, say where to look
	@mkdir -p $(EXECUTED)
	@for notebook in notebooks/*.ipynb; do \
	  echo "executing $$notebook"; \
	  $(EXECUTE) --output-dir $(EXECUTED) "$$notebook" || exit 1; \
	done
	@$(NBCONVERT) --to html --CoalesceStreamsPreprocessor.enabled=True $(EXECUTED)/*.ipynb
	@$(PY) -m embvar_kit show $(STATISTICS)
	@echo
	@echo "Where to look:"
	@for page in notebooks/*.ipynb; do echo "  $(EXECUTED)/$$(basename "$$page" .ipynb).html"; done
	@echo "  make lab    opens the notebooks in JupyterLab, with their sliders alive"

notebooks: models ## execute the notebooks in place, to commit them
	$(EXECUTE) --inplace notebooks/*.ipynb
	@# A progress bar leaves an output for each of its states: keep the last one.
	$(NBCONVERT) --coalesce-streams notebooks/*.ipynb

lab: models ## open JupyterLab on the first notebook
	@# An address rather than a file to open: it is also in the links printed under --no-browser.
	@$(PY) -m jupyterlab --ServerApp.root_dir=. \
	  --LabApp.default_url=/lab/tree/notebooks/01_variance_formula.ipynb $(LAB_FLAGS)

app: models ## the two explorers as a page of their own, for a lecture
	@# A first pass takes minutes: here with a progress bar rather than behind an empty page.
	@$(PY) -c "import embvar_kit as ek; ek.cached_statistics()"
	@# Voila has no token unless it is told to make one, and its page asks for a font elsewhere.
	@$(PY) -m voila notebooks/app/explorers.ipynb --Voila.ip=127.0.0.1 --Voila.auto_token=True \
	  --Voila.tornado_settings="{'headers': {'Content-Security-Policy': \"$(APP_POLICY)\"}}" \
	  --theme=light --VoilaConfiguration.file_allowlist='[]' $(APP_FLAGS)

test: models ## everything CI runs: ruff, unit and property tests, doctests, notebooks
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	MPLBACKEND=Agg $(PY) -m pytest $(PYTEST_ARGS)
	@# A cell may take longer than a unit test; nbval's own limit names the cell, so it comes first.
	$(PY) -m pytest --nbval --nbval-current-env --nbval-cell-timeout=600 --timeout=660 \
	  --nbval-sanitize-with tests/nbval_sanitize.cfg notebooks

test-long: models ## the suites of faults and strange input in full: many more tries, other ones each time
	EMBVAR_LONG=1 MPLBACKEND=Agg $(PY) -m pytest $(PYTEST_ARGS) $(LONG_SUITES)

test-browser: models ## the notebooks and the app in a real browser; it says if one is missing
	$(PY) -m pytest $(BROWSER_ARGS) tests/browser

twins: setup ## train the four twins that data/twins lacks; goes on where it was interrupted
	$(PY) -m embvar_kit twins

bench: models ## time the pass against the bare forward and the reference loop; the explorers
	$(PY) tests/benchmarks/run.py
	$(PY) tests/benchmarks/in_browser.py

lock: ## pin all dependencies again: requirements.lock and environment.yml
	@PYTHON="$(PYTHON)" bash .ci/lock.sh $(LOCK_FLAGS)

clean: ## remove .venv, executed notebooks and tools' caches; keep models and statistics
	rm -rf .venv $(EXECUTED) build *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
