# Needs python3 >= 3.11 with its venv module, git and make; everything else goes into .venv.
# PYTHON=python3.12 chooses the interpreter, ARGS="..." adds arguments to bench and the tests.

PYTHON ?= python3
ARGS ?=

# First on the PATH: the tools that requirements.txt pins, mpirun among them.
in_venv := PATH="$(CURDIR)/.venv/bin:$$PATH"
# Most of a test's time is XLA compiling on one core: two files at a time, in the order of tests/README.md.
pytest := $(in_venv) pytest -n 2 --dist loadfile --no-loadscope-reorder
# What starts ranks, jobs, servers or browsers.
clusters := mpi or slurm or ssh or postgres or browser
# What takes minutes to try to break something; it runs by `make test-robust` alone.
attacks := robust

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help install demo quickstart test test-slow test-mpi test-slurm test-ssh test-postgres test-browser test-robust test-python check package lint types density format roofline bench docs diagrams site notebook lock clean

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1~\2/p' Makefile | tr '~' '\t' | expand -t 18

install: .venv/.installed  ## set up .venv (every target below does it, where it is missing or out of date)

demo: .venv/.installed  ## watch a learning algorithm that comes with the library learn (half a minute on 2 cores)
	@$(in_venv) python -m vsml.demo $(ARGS)

quickstart: .venv/.installed  ## meta-train a learning algorithm on real digits, and test it (6 minutes on 2 cores)
	@$(in_venv) python launch.py --config_files configs/quickstart.yaml $(ARGS)

test: .venv/.installed  ## the tests, less whole runs and what starts ranks, jobs, servers or browsers (an estimated 10 minutes on 2 quiet cores)
	$(pytest) -m "not slow and not ($(clusters)) and not $(attacks)" $(ARGS)

test-slow: .venv/.installed  ## whole runs: training, resuming, probe tasks
	$(pytest) -m "slow and not ($(clusters)) and not $(attacks)" $(ARGS)

test-mpi: .venv/.installed  ## runs of several ranks under mpirun
	$(pytest) -m "mpi and not $(attacks)" $(ARGS)

test-slurm: .venv/.installed  ## jobs on a private Slurm of one node (installs Debian's packages when root)
	$(pytest) -m slurm $(ARGS)

test-ssh: .venv/.installed  ## runs through a private sshd (installs Debian's packages when root)
	$(pytest) -m ssh $(ARGS)

test-postgres: .venv/.installed  ## the database of rules on a private PostgreSQL (installs Debian's package when root)
	$(pytest) -m "postgres and not $(attacks)" $(ARGS)

test-browser: .venv/.installed  ## pages in a headless chromium (installs Debian's packages when root)
	$(pytest) -m browser $(ARGS)


# A second Python, if uv finds one here or can bring it; its environment is kept in build/.
NEWER ?= 3.13
newer := build/python$(NEWER)
pyenv_newer = $(or $(PYENV_ROOT),$(HOME)/.pyenv)/versions/$(NEWER)*/bin/python
# What differs between Pythons shows here, if anywhere: syntax, annotations, imports, files, numbers.
SHORT ?= registry config checkpoint files locks package golden standardise

test-python: .venv/.installed  ## a short form of the tests on a second Python (NEWER=3.13 chooses it)
	@$(in_venv); \
	if ! found=$$(uv python find $(NEWER) 2> /dev/null || ls $(pyenv_newer) 2> /dev/null | tail -1 | grep . || \
	    { uv python install --quiet $(NEWER) 2> /dev/null && uv python find $(NEWER); }); then \
	    echo "make: no Python $(NEWER) here, and uv cannot bring one: nothing is tested on it"; exit 0; fi; \
	set -ex; \
	uv venv --quiet --clear --python "$$found" $(newer); \
	uv pip install --quiet --python $(newer)/bin/python --requirement requirements.txt; \
	PYTHONPATH="$(CURDIR)" $(newer)/bin/python -m pytest -n 2 --dist loadfile \
	    -m "not slow and not ($(clusters)) and not $(attacks)" $(SHORT:%=tests/test_%.py) $(ARGS)

test-robust: .venv/.installed  ## attacks with fixed seeds: kills, mutated inputs, writers, links, full disks (10 minutes on 2 cores)
	$(pytest) -m $(attacks) $(ARGS)

check: lint types density package .venv-site/.installed  ## what continuous integration runs: lint, types, density and all tests but attacks, clusters last
	$(pytest) -m "not ($(clusters)) and not $(attacks)" $(ARGS)
	$(pytest) -m "($(clusters)) and not $(attacks)" $(ARGS)

package: .venv/.installed  ## build the wheel and the source distribution into dist/, and check what an index would show
	rm -rf dist
	$(in_venv) python -m build --outdir dist .
	$(in_venv) twine check --strict dist/*

lint: .venv/.installed  ## formatting and style (ruff)
	$(in_venv) ruff format --check .
	$(in_venv) ruff check .

types: .venv/.installed  ## type annotations (mypy)
	$(in_venv) mypy

density: .venv/.installed  ## print how dense the code is: tokens a line of the densest files (enforces nothing)
	@$(in_venv) python tools/density.py

format: .venv/.installed  ## format the code, and mend what ruff can mend
	$(in_venv) ruff format .
	$(in_venv) ruff check --fix .

roofline: .venv/.installed  ## measure what this machine could do at best, once (a minute or two)
	$(in_venv) python benchmarks/roofline.py $(ARGS)

bench: .venv/.installed  ## speed and memory of every kernel and of the plain formulation (ARGS=--full on a GPU)
	$(in_venv) python benchmarks/synapses.py $(ARGS)
	$(in_venv) python benchmarks/graphs.py
	$(in_venv) python benchmarks/search.py

docs: .venv/.installed  ## write docs/configuration.md from the schema, and docs/operators.md from the operators of rules
	$(in_venv) python -m vsml.launching.reference > docs/configuration.md.new
	mv docs/configuration.md.new docs/configuration.md
	$(in_venv) python -m vsml.rules.reference > docs/operators.md.new
	mv docs/operators.md.new docs/operators.md

diagrams: .venv/.installed  ## draw the diagrams of docs/ (tools/diagrams.py)
	$(in_venv) python tools/diagrams.py $(ARGS)

site: .venv-site/.installed  ## build the documentation site into site/; a broken link is an error
	@NO_MKDOCS_2_WARNING=1 .venv-site/bin/mkdocs build --strict $(ARGS)
	@echo "built: site/index.html; to look at it: .venv-site/bin/mkdocs serve"

# Which notebooks `make notebook` runs.
NOTEBOOKS ?= examples/*.ipynb

notebook: .venv/.installed  ## run the notebooks of examples/ again, which also draws the README's figure (20 minutes on 2 cores)
	VSML_NOTEBOOK_FIGURE="$(CURDIR)/docs/results/learning_curves.png" PYTHONPATH="$(CURDIR)" \
	    $(in_venv) python tools/notebooks.py $(NOTEBOOKS)

lock: .venv/.installed  ## write requirements.txt from pyproject.toml (ARGS=--upgrade for newer versions)
	$(in_venv) uv pip compile pyproject.toml --universal --extra all --extra dev -o requirements.txt --quiet $(ARGS)

clean:  ## remove .venv and caches; runs stay
	rm -rf .venv .venv-site site build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +

.venv/.installed: requirements.txt pyproject.toml
	@command -v $(PYTHON) > /dev/null || \
	    { echo "make: no $(PYTHON) here; install Python 3.11 or newer, or name one: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "make: Python 3.11 or newer is needed and $(PYTHON) is" \
	      "$$($(PYTHON) --version); name a newer one: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2> /dev/null || \
	    { echo "make: $(PYTHON) lacks its venv module; on Debian and Ubuntu: apt-get install python3-venv" \
	      "(python3.12-venv for a python3.12 beside the system's)"; exit 1; }
	@echo "installing what requirements.txt lists into .venv: a minute or two"
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check --requirement requirements.txt
	.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

# The tools of the site are in a place of their own: no test and no run needs them.
.venv-site/.installed: pyproject.toml
	@echo "installing what builds the site into .venv-site: half a minute"
	$(PYTHON) -m venv .venv-site
	.venv-site/bin/python -c 'import tomllib; extras = tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]; print(*extras["docs"], sep="\n")' > .venv-site/requirements.txt
	.venv-site/bin/python -m pip install --quiet --disable-pip-version-check --requirement .venv-site/requirements.txt
	@touch $@
