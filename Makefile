# make demo: install and draw a first picture.  make test: install and run the checks and tests.
# make test-slow: the tests that take too long for that.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PROCESSES ?= 2
PROMPT ?= a red circle to the left of a blue square

.PHONY: demo test test-slow check format clean

demo: $(VENV)/.installed
	$(BIN)/realcompo demo "$(PROMPT)"

test: check
	$(BIN)/pytest -q -n $(PROCESSES) --durations=10

test-slow: $(VENV)/.installed-dev
	$(BIN)/pytest -q --durations=10 -m slow

check: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(VENV)/.installed: pyproject.toml constraints.txt
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e ".[cli]"
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) demo_output
