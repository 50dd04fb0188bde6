# Every target sets up what it needs, once, in .venv; nothing has to be activated.
#   PYTHON        the interpreter that .venv is made with (3.10 or later)
#   JOBS          how many notebooks or test processes run at a time (default: 2)
#   LAB_FLAGS     options for JupyterLab, for example: make lab LAB_FLAGS="--no-browser --port=8899"
#                 (it refuses to run as root; in a container, LAB_FLAGS=--allow-root lets it)
#   APP_FLAGS     options for Voila, for example: make app APP_FLAGS="--no-browser --port=8866"
#   PYTEST_ARGS   options for the unit tests, for example: make check PYTEST_ARGS="-k moments"
#   BROWSER_ARGS  the same for the browser tests; CHROMIUM names a browser for them
#   COLAB         where Colab gets the kit: make course COLAB=git+https://..., or a wheel's address
#   LOCK_FLAGS    options for uv, for example: make lock LOCK_FLAGS=--upgrade

PYTHON ?= python3
JOBS ?= 2
LAB_FLAGS ?=
APP_FLAGS ?=
PYTEST_ARGS ?=
BROWSER_ARGS ?=
COLAB ?=
LOCK_FLAGS ?=

PY := .venv/bin/python
CACHE := $(if $(EMBVAR_HOME),$(EMBVAR_HOME),data)/cache
STATISTICS := $(CACHE)/minilm-wikipedia
FIGURES := $(CACHE)/figures
EXECUTED := $(CACHE)/executed
COURSE := $(CACHE)/course
SLIDES := $(CACHE)/slides
SITE := $(CACHE)/site

# For processes that share the cores: threads that wait busily hold each other up.
WAIT_ASLEEP := OMP_WAIT_POLICY=PASSIVE
ONE_THREAD := OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 $(WAIT_ASLEEP)

# The page of `make app` asks nothing of another machine.
APP_POLICY := default-src 'self' data: blob: ws://127.0.0.1:* 'unsafe-inline' 'unsafe-eval'; \
  frame-ancestors 'self'

LONG_SUITES := tests/robustness tests/models/test_sweep.py tests/statistics/test_coverage.py \
  tests/course/test_colab.py

# In .venv, Python and pip see its own packages only, and Jupyter its own kernel rather than one of
# the user's. Agg in MPLBACKEND would switch the notebooks' figures off.
unexport PYTHONHOME PYTHONPATH MPLBACKEND PIP_TARGET PIP_PREFIX PIP_ROOT
export JUPYTER_PREFER_ENV_PATH := 1
export PIP_USER := 0
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help setup models pass result run notebooks lab app course slides site check test test-long \
  test-browser twins bench bench-peers lock clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

# --- set-up ---

# Two stamps in .venv, each written last. Making .venv clears them, so an interrupted set-up starts
# again; packages that left the lock do not linger.
PACKAGES := .venv/.packages
INSTALLED := .venv/.installed

# Scripts in .venv hold its path, and its Python is a link to the one it was made with: if it was
# moved here from elsewhere, or that Python is gone, it is made anew.
ifneq "$(shell [ -x $(PY) ] && cat $(PACKAGES) 2>/dev/null)" "$(CURDIR)"
.PHONY: $(PACKAGES)
endif

$(PACKAGES): requirements.lock
	@PYTHON="$(PYTHON)" bash .ci/venv.sh
	@echo "$(CURDIR)" > $@

# The lock holds setuptools and all dependencies: this asks no registry for anything.
$(INSTALLED): $(PACKAGES) pyproject.toml setup.py
	@$(PY) -I -m pip install --quiet --no-deps --no-build-isolation --no-index --editable .
	@touch $@
	@echo "set-up: .venv is ready."

setup: $(INSTALLED) ## make .venv from requirements.lock (the other targets do it by themselves)
	@:

models: setup ## fetch the two pinned models into data/models
	@$(PY) -m embvar_kit fetch

# --- results ---

# The pass over the whole excerpt: notebooks and app take its statistics from the cache.
pass: models
	@$(PY) -m embvar_kit.cached

result: pass ## one pass, its central tables and a page of figures, in minutes
	@$(PY) -m embvar_kit show "$(STATISTICS)/hidden"
	@echo
	@$(PY) -m embvar_kit figures "$(STATISTICS)/hidden" "$(STATISTICS)/unit" --out "$(FIGURES)"
	@echo
	@echo "Open in a browser: $(FIGURES)/index.html"

run: result ## the result, then all notebooks executed as pages to read
	@echo
	@echo "Executing the notebooks, $(JOBS) at a time, into $(EXECUTED):"
	@$(ONE_THREAD) $(PY) .ci/execute.py --jobs $(JOBS) --out "$(EXECUTED)" notebooks/*.ipynb
	@$(PY) notebooks/site/build.py "$(EXECUTED)/site" --notebooks "$(EXECUTED)" >/dev/null
	@echo
	@echo "Where to look:"
	@echo "  $(FIGURES)/index.html"
	@echo "  $(EXECUTED)/site/notebooks/index.html"
	@echo "  make lab    opens the notebooks in JupyterLab, with working sliders"

notebooks: pass ## execute the notebooks in place, to commit them
	@$(PY) .ci/execute.py --out notebooks notebooks/*.ipynb

lab: models ## open JupyterLab on the first notebook
	@# An address rather than a file to open: it is also in the links printed under --no-browser.
	@$(PY) -m jupyterlab --ServerApp.root_dir=. \
	  --LabApp.default_url=/lab/tree/notebooks/01_variance_formula.ipynb $(LAB_FLAGS)

app: pass ## all explorers as a page of their own, for a lecture
	@# Voila has no token unless it is told to make one, and its page asks for a font elsewhere.
	@$(PY) -m voila notebooks/app/explorers.ipynb --Voila.ip=127.0.0.1 --Voila.auto_token=True \
	  --Voila.tornado_settings="{'headers': {'Content-Security-Policy': \"$(APP_POLICY)\"}}" \
	  --theme=light --VoilaConfiguration.file_allowlist='[]' $(APP_FLAGS)

# --- course ---

course: setup ## notebooks for students and for instructors, and homework that grades itself
	@$(PY) notebooks/course/versions.py "$(COURSE)" $(if $(COLAB),--colab "$(COLAB)")
	@$(PY) notebooks/course/homework.py release "$(COURSE)/homework"

slides: setup ## the lecture of 90 minutes, to show without a network
	@$(PY) notebooks/course/slides.py "$(SLIDES)"

site: setup ## the notebooks, the reference and the course as a site, to read without a network
	@$(PY) notebooks/site/build.py "$(SITE)"

# --- tests ---

# The notebook that takes longest begins, so that none is left to run alone at the end.
LONGEST := notebooks/10_past_one_machine.ipynb

UNIT_TESTS := MPLBACKEND=Agg $(WAIT_ASLEEP) $(PY) -m pytest -n $(JOBS)

check: models ## ruff and the quick tests, in under two minutes
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(UNIT_TESTS) -m "not slow" $(PYTEST_ARGS)

test: pass ## ruff, unit and property tests, doctests, notebooks
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(UNIT_TESTS) $(PYTEST_ARGS)
	@# A cell may take longer than a unit test; nbval's own limit names the cell, so it comes first.
	$(ONE_THREAD) $(PY) -m pytest -n $(JOBS) --dist loadfile --nbval --nbval-current-env \
	  --nbval-cell-timeout=1200 --timeout=1260 --nbval-sanitize-with tests/nbval_sanitize.cfg \
	  $(LONGEST) $(filter-out $(LONGEST),$(sort $(wildcard notebooks/*.ipynb))) notebooks/app

test-long: models ## faults, strange input, all architectures and simulated corpora in full: many more tries
	EMBVAR_LONG=1 MPLBACKEND=Agg $(PY) -m pytest $(PYTEST_ARGS) $(LONG_SUITES)

test-browser: models ## the notebooks and the app in a real browser; it says if one is missing
	@# The limit of a test holds for all cells of a notebook here. A file is one process' work.
	$(WAIT_ASLEEP) $(PY) -m pytest -n $(JOBS) --timeout=1500 $(BROWSER_ARGS) tests/browser

twins: setup ## train the six twins from three seeds and compare them; resumes what was interrupted
	$(PY) -m embvar_kit twins --compare 0 1 2

bench: models ## time the pass against the bare forward and the reference loop; shared cores; shards; folds; the explorers
	$(PY) tests/benchmarks/run.py
	$(PY) tests/benchmarks/of_sharing.py
	$(PY) tests/benchmarks/of_shards.py
	$(PY) tests/benchmarks/of_folds.py
	$(PY) tests/benchmarks/in_browser.py

# The libraries that the kit is measured against have an environment of their own.
PEERS := .venv-peers/.packages

$(PEERS): tests/benchmarks/peers.txt
	@echo "set-up: Making .venv-peers and installing tests/benchmarks/peers.txt."
	@$(PYTHON) -m venv --clear .venv-peers
	@.venv-peers/bin/python -I -m pip install --quiet -r $<
	@touch $@

bench-peers: models $(PEERS) ## time the pass against other libraries, in an environment of their own
	$(PY) tests/benchmarks/of_peers.py

# --- upkeep ---

lock: ## pin all dependencies again: requirements.lock and environment.yml
	@PYTHON="$(PYTHON)" bash .ci/lock.sh $(LOCK_FLAGS)

clean: ## remove .venv and .venv-peers, executed notebooks and tools' caches; keep models and statistics
	rm -rf .venv .venv-peers "$(EXECUTED)" "$(FIGURES)" "$(COURSE)" "$(SLIDES)" "$(SITE)" build *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
