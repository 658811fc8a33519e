# One virtual environment, made on first use: with uv where there is one, else with python3 -m venv.
PYTHON ?= python3
MINUTES ?= 60
VENV := .venv
BIN := $(VENV)/bin
SHARED_OUT := -n 2 --dist loadfile
READY := $(VENV)/.ready

.PHONY: demo test check lint types audit chaos soak oldest bench bench-quick clean

demo: $(READY)  ## one job per file of the standard library, on the embedded server
	$(BIN)/python examples/quickstart.py $(DIR)

test: $(READY)  ## the default test-suite, on every server that is here
	$(BIN)/python -m pytest $(SHARED_OUT)

check: lint types test  ## what CI runs

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy aqueue tests examples bench
	$(BIN)/basedpyright --level error

audit: $(READY)  ## known vulnerabilities of everything installed here; fails too where no database answers
	$(BIN)/python -m pip freeze --exclude-editable > $(VENV)/installed.txt
	$(BIN)/pip-audit --strict --disable-pip --no-deps --progress-spinner off --requirement $(VENV)/installed.txt

chaos: $(READY)  ## the long fault runs, several minutes
	$(BIN)/python -m pytest -m chaos -s

soak: $(READY)  ## steady work for MINUTES (60), measured: nothing may grow
	AQUEUE_SOAK_MINUTES=$(MINUTES) $(BIN)/python -m pytest -m chaos -s tests/faults/test_soak.py

oldest: .venv-oldest/.ready  ## the tests again, with the oldest redis-py that is supported
	AQUEUE_TEST_SERVERS=all .venv-oldest/bin/python -m pytest $(SHARED_OUT) tests/behaviour tests/transitions tests/store tests/faults/test_topologies.py

bench: $(READY)  ## aqueue and its peers, every measure, into bench/results; under 25 minutes
	$(BIN)/python -m bench full

bench-quick: $(READY)  ## the essentials against the fastest peers, under 3 minutes once their environments are there
	$(BIN)/python -m bench quick

clean:
	rm -rf $(VENV) .venv-oldest .aqueue .bench

$(READY): pyproject.toml
	@if command -v uv >/dev/null 2>&1; then \
		uv venv --quiet --allow-existing $(VENV) && uv pip install --quiet --python $(BIN)/python -e '.[dev]'; \
	else \
		$(PYTHON) -m venv $(VENV) && $(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'; \
	fi
	@touch $@

.venv-oldest/.ready: pyproject.toml
	@if command -v uv >/dev/null 2>&1; then \
		uv venv --quiet --allow-existing .venv-oldest && \
		uv pip install --quiet --python .venv-oldest/bin/python -e '.[test]' 'redis[hiredis]==5.0.1'; \
	else \
		$(PYTHON) -m venv .venv-oldest && \
		.venv-oldest/bin/python -m pip install --quiet --disable-pip-version-check -e '.[test]' 'redis[hiredis]==5.0.1'; \
	fi
	@touch $@
