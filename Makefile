# Each target sets up its own virtual environment first. PYTHON chooses the interpreter.
PYTHON ?= python3
RUN := .venv/bin/python
# Touched last: a set-up that failed half-way is done again.
READY := .venv/ready

.PHONY: demo test lint bench gpu spark docs dist

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv --clear .venv
	$(RUN) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[fabric,mqtt,onnx,parquet,plot,sktime,test]'
	touch $(READY)

demo: $(READY)
	$(RUN) -m xlstm_ts demo

test: $(READY)
	$(RUN) -m pytest -n auto

lint: $(READY)
	$(RUN) -m ruff format --check .
	$(RUN) -m ruff check .
	$(RUN) -m mypy

bench: $(READY)
	@failed=; for file in benchmarks/[a-z]*.py; do \
		echo "$(RUN) $$file --check"; $(RUN) $$file --check || failed="$$failed $$file"; \
	done; \
	if [ -n "$$failed" ]; then echo "failed:$$failed" >&2; exit 1; fi

# Streams on CUDA are tested where xlstm-ts[onnx-gpu] has taken the place of [onnx].
gpu: $(READY)
	$(RUN) -m pytest -m "" tests/test_gpu.py tests/kernels tests/streaming/test_banks.py

# Streams on Spark (which needs Java 17) and Ray: a gigabyte of packages, so `test` does without.
spark: $(READY)
	$(RUN) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[spark,ray]'
	$(RUN) -m pytest tests/test_spark.py tests/test_examples.py

# What a release has to pass beside .ci/run; it installs torch once more, in an environment of its own.
dist: $(READY)
	$(RUN) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[release]'
	$(RUN) -m pyright --pythonpath $(RUN)
	rm -rf dist build
	$(RUN) -m build --outdir dist
	$(RUN) -m twine check --strict dist/*
	$(RUN) .ci/dist.py dist

docs: $(READY)
	$(RUN) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	$(RUN) -m mkdocs build --strict
