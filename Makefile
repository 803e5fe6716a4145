# One word for each thing to do. Each sets up what it needs, and is quick the second time.
# Needs GNU make and Python 3.11 or newer; PYTHON=python3.12 takes another one.

PYTHON ?= python3
PORT ?= 8080
CHARTS := chart.js@4.6.1
VENV := .venv
LOWEST := .venv-lowest

# The way into an environment: uv, because it is quick; pip where uv is not to be had.
install = unset PYTHONDONTWRITEBYTECODE; \
	$(1)/bin/python -m pip install --quiet --disable-pip-version-check uv==0.13.9 && \
	$(1)/bin/uv pip install --quiet --compile-bytecode --python $(1)/bin/python -c $(2) -e '.[$(or $(3),test)]' || \
	$(1)/bin/python -m pip install --quiet --disable-pip-version-check -c $(2) -e '.[$(or $(3),test)]'

resolve := --quiet --upgrade --no-header --no-annotate --python-version 3.11
# Newer ones of these three raise common-compat, whose floor is to be tested.
old_providers := 'apache-airflow-providers-smtp<=2.4.2' 'apache-airflow-providers-common-io<1.8' \
	'apache-airflow-providers-common-sql<1.32'

BENCH ?=

.PHONY: help demo plan airflow test test-lowest test-cluster test-ui lint types unit browser mutants faults-table \
	bench picture vendor constraints clean

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

browser: $(VENV)/ready  ## Chromium (from Debian, as root) and its driver, for the tests of the UI
	@command -v chromium >/dev/null || { apt-get -qq update && apt-get -qq -y --no-install-recommends install chromium; }
	@$(VENV)/bin/uv pip install --quiet --python $(VENV)/bin/python -c constraints.txt -e '.[ui]'

test-ui: browser  ## Forms, approval and the Tavus page in a real browser; pictures into UI_PICTURES
	$(VENV)/bin/python -m pytest tests/test_airflow.py -k browser

test-lowest: $(LOWEST)/ready  ## The tests on the lowest Airflow that is supported
	$(LOWEST)/bin/python -m pytest

test-cluster: $(VENV)/cluster  ## The batched DAG over two Celery workers, of which one is killed on the way
	@$(VENV)/bin/python scripts/cluster.py

mutants: $(VENV)/ready  ## Plant bugs into a copy of the package and show which tests catch them (takes minutes)
	$(VENV)/bin/python scripts/mutants.py

faults-table: $(VENV)/bench  ## Run the faults on other HTTP clients too, and write docs/faults.md
	PYTHONPATH=tests $(VENV)/bin/python scripts/faults_table.py

constraints: $(VENV)/ready  ## Resolve constraints.txt and constraints-lowest.txt anew
	$(VENV)/bin/uv pip compile $(resolve) --extra test --extra bench --extra cluster --extra ui setup.cfg -o constraints.txt
	{ grep -E '^(build|hypothesis|mypy|pytest|requests-mock|ruff|schemathesis|trustme|types-pyyaml|types-requests)==' \
		constraints.txt; printf '%s\n' $(old_providers); } | $(VENV)/bin/uv pip compile $(resolve) \
		--resolution lowest-direct setup.cfg - -o constraints-lowest.txt

bench: $(VENV)/bench  ## How fast this is, beside what one would otherwise write (BENCH=--help)
	@$(VENV)/bin/python benchmarks/bench.py $(BENCH)

picture: $(VENV)/ready  ## Draw the pictures in docs/ anew
	$(VENV)/bin/python scripts/picture.py

vendor:  ## Take the chart library of the Tavus page anew from npm, as it is
	@dir=$$(mktemp -d) && (cd $$dir && npm pack --silent $(CHARTS) >/dev/null && tar -xzf *.tgz) && \
		cp $$dir/package/dist/chart.umd.min.js tavus_provider/plugins/www/vendor/ && \
		cp $$dir/package/LICENSE.md tavus_provider/plugins/www/vendor/chart.js.LICENSE.md && \
		rm -r $$dir && head -2 tavus_provider/plugins/www/vendor/chart.umd.min.js

clean:  ## Remove what the other words have made
	rm -rf $(VENV) $(LOWEST) .airflow .cluster build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(VENV)/ready: setup.cfg constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(call install,$(VENV),constraints.txt)
	@touch $@

$(VENV)/bench: $(VENV)/ready
	$(call install,$(VENV),constraints.txt,bench)
	@touch $@

$(VENV)/cluster: $(VENV)/ready
	$(call install,$(VENV),constraints.txt,cluster)
	@touch $@

$(LOWEST)/ready: setup.cfg constraints-lowest.txt
	$(PYTHON) -m venv $(LOWEST)
	$(call install,$(LOWEST),constraints-lowest.txt)
	@touch $@
