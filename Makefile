# Each target sets up its own virtual environment first. PYTHON chooses the interpreter.
PYTHON ?= python3
RUN := .venv/bin/python

.PHONY: demo test lint bench gpu docs

.venv: pyproject.toml constraints.txt
	$(PYTHON) -m venv --clear .venv
	$(RUN) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[onnx,plot,test]'
	touch .venv

demo: .venv
	$(RUN) -m xlstm_ts demo

test: .venv
	$(RUN) -m pytest

lint: .venv
	$(RUN) -m ruff format --check .
	$(RUN) -m ruff check .
	$(RUN) -m mypy

bench: .venv
	for file in benchmarks/[a-z]*.py; do $(RUN) $$file --check || exit 1; done

gpu: .venv
	$(RUN) -m pytest -m "" tests/test_gpu.py tests/kernels

docs: .venv
	$(RUN) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	$(RUN) -m mkdocs build --strict
