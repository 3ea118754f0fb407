# Two commands do all the set-up; each makes its own virtual environment from nothing.
#   make demo   install, encode and decode a real photograph, show it beside AVIF and JPEG at equal bytes
#   make test   install, lint, type-check, run every test

PYTHON ?= python3
PIP_FLAGS ?= --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test lint clean

demo: .venv-demo/.done
	.venv-demo/bin/unquant demo --output out/demo

test: .venv/.done lint
	.venv/bin/pytest

lint: .venv/.done
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/lint-imports
	.venv/bin/pyright --pythonpath .venv/bin/python

.venv-demo/.done: pyproject.toml constraints.txt
	$(PYTHON) -m venv --clear .venv-demo
	.venv-demo/bin/pip install $(PIP_FLAGS) -e '.[demo]'
	touch $@

.venv/.done: pyproject.toml constraints.txt
	$(PYTHON) -m venv --clear .venv
	.venv/bin/pip install $(PIP_FLAGS) -e '.[dev]'
	touch $@

clean:
	rm -rf .venv .venv-demo out build dist
