# make demo   train the demo on handwritten digits, evaluate it, write its report
# make test   style, types, and all tests that take less than a second
# make test-longer   whole trainings: a change must pass these too
# make test-slow   the tests that take more than ten seconds
# make docs   the documentation as a site, in site/; it opens at site/index.html (to search it: python -m http.server -d site)
# make release   all of a release but the upload: notes, tests, docs, dist/
# make bench DATA=FOLDER/multi30k   speed beside the peers, quickly: a look, not a measurement
#
# Both make .venv when it is missing or older than the versions it should hold.

PYTHON ?= python3
BIN := .venv/bin
# A file of tests per process, a process per core with one thread each; tests of threads set their own number.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --maxprocesses 8 --dist loadfile
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: help demo test test-longer test-slow lint docs release bench clean

help:
	@sed -n 's/^# \{0,1\}//p' Makefile

demo: .venv/installed
	@$(BIN)/sourcewise demo digits

test: lint
	$(PYTEST) -m "not slow and not longer"

test-longer: .venv/installed
	$(PYTEST) -m "longer and not slow"

test-slow: .venv/installed
	@$(BIN)/python -c 'import ray' 2>/dev/null || $(PIP_INSTALL) -c constraints.txt -e '.[cluster]'
	$(PYTEST) -m slow

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: .venv/installed
	@$(BIN)/python -c 'import material, mkdocstrings' 2>/dev/null || $(PIP_INSTALL) -c constraints.txt -e '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

release: .venv/installed
	@$(BIN)/python scripts/release_notes.py >/dev/null
	@$(PIP_INSTALL) -c constraints.txt -e '.[docs,release]'
	$(MAKE) test test-longer test-slow docs
	rm -rf dist
	$(BIN)/python -m build --no-isolation
	$(BIN)/python -m twine check --strict dist/*
	@$(BIN)/python scripts/release_notes.py >site/notes.md
	@echo "dist/ is what to upload; its notes are in site/notes.md"

bench: .venv/installed
	@test -f '$(DATA)/train.tsv' || { echo "make bench DATA=FOLDER, which holds train.tsv and test.tsv" >&2; exit 2; }
	@$(PIP_INSTALL) -c constraints.txt -e '.[bench]'
	$(BIN)/python benchmarks/train_speed.py --data '$(DATA)' --quick
	$(BIN)/python benchmarks/generate_speed.py --data '$(DATA)' --shape small --train-steps 300 --quick

.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "sourcewise needs Python 3.11 or later: make PYTHON=python3.11 $(MAKECMDGOALS)" >&2; exit 2; }
	@echo "installing into .venv (once)"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(PIP_INSTALL) -c constraints.txt -e '.[demo,dev,serve]'
	@touch $@

clean:
	rm -rf .venv build dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis
