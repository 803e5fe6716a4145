# One word for each thing to do. Each sets up what it needs, and is quick the second time.
# Needs GNU make and Python 3.11 or newer; PYTHON=python3.12 takes another one.

PYTHON ?= python3
PORT ?= 8080
VENV := .venv
LOWEST := .venv-lowest

# The way into an environment: uv, because it is quick; pip where uv is not to be had.
install = unset PYTHONDONTWRITEBYTECODE; \
	$(1)/bin/python -m pip install --quiet --disable-pip-version-check uv==0.13.9 && \
	$(1)/bin/uv pip install --quiet --compile-bytecode --python $(1)/bin/python -c $(2) -e '.[test]' || \
	$(1)/bin/python -m pip install --quiet --disable-pip-version-check -c $(2) -e '.[test]'

resolve := --quiet --upgrade --no-header --no-annotate --python-version 3.11
# Newer ones of these three raise common-compat, whose floor is to be tested.
old_providers := 'apache-airflow-providers-smtp<=2.4.2' 'apache-airflow-providers-common-io<1.8' \
	'apache-airflow-providers-common-sql<1.32'

.PHONY: help demo plan airflow test test-lowest lint types unit picture constraints clean

help:  ## Show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

demo: $(VENV)/ready  ## Prune a sandbox on loopback with Airflow: first dry, then for real
	@$(VENV)/bin/python scripts/try_it.py demo

plan: $(VENV)/ready  ## With TAVUS_API_KEY: show what would be deleted in your account, delete nothing
	@$(VENV)/bin/python scripts/try_it.py plan

airflow: $(VENV)/ready  ## The whole of Airflow with its UI, wired to a sandbox (PORT=8080)
	@$(VENV)/bin/python scripts/try_it.py airflow --port $(PORT)

test: lint types unit  ## Lint, types, unit tests, and every DAG against a sandbox over HTTP

lint: $(VENV)/ready
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

types: $(VENV)/ready
	$(VENV)/bin/mypy

unit: $(VENV)/ready
	$(VENV)/bin/python -m pytest

test-lowest: $(LOWEST)/ready  ## The tests on the lowest Airflow that is supported
	$(LOWEST)/bin/python -m pytest

constraints: $(VENV)/ready  ## Resolve constraints.txt and constraints-lowest.txt anew
	$(VENV)/bin/uv pip compile $(resolve) --extra test setup.cfg -o constraints.txt
	{ grep -E '^(build|hypothesis|mypy|pytest|requests-mock|ruff|schemathesis|types-pyyaml|types-requests)==' \
		constraints.txt; printf '%s\n' $(old_providers); } | $(VENV)/bin/uv pip compile $(resolve) \
		--resolution lowest-direct setup.cfg - -o constraints-lowest.txt

picture: $(VENV)/ready  ## Draw the pictures in docs/ anew
	$(VENV)/bin/python scripts/picture.py

clean:  ## Remove what the other words have made
	rm -rf $(VENV) $(LOWEST) .airflow build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(VENV)/ready: setup.cfg constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(call install,$(VENV),constraints.txt)
	@touch $@

$(LOWEST)/ready: setup.cfg constraints-lowest.txt
	$(PYTHON) -m venv $(LOWEST)
	$(call install,$(LOWEST),constraints-lowest.txt)
	@touch $@
