# Each target installs what it needs on its first run. `make help` lists the targets.
# Requires GNU make and Python 3.11 or newer; PYTHON=python3.12 chooses another interpreter.

PYTHON ?= python3
PORT ?= 8080
VENV := .venv
LOWEST := .venv-lowest
STORAGE := .venv-storage
AZURITE := azurite@3.35.0
comma := ,

# Create an environment. Without the check, pip says of an older Python only that versions conflict.
venv = $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "$(PYTHON) is Python %d.%d, but 3.11 or \
	newer is needed: set PYTHON, for example make PYTHON=python3.12 $(or $(MAKECMDGOALS),demo)" % sys.version_info[:2])' \
	&& $(PYTHON) -m venv $(1)

# Install the package into an environment: by uv, which is faster, or by pip if uv fails. uv does not trust the
# certificates of the system by default: those of a proxy, for example.
install = unset PYTHONDONTWRITEBYTECODE; export UV_SYSTEM_CERTS=true; echo "Installing into $(1) ..."; \
	{ $(1)/bin/python -m pip install --quiet --disable-pip-version-check uv==0.13.9 && \
	$(1)/bin/uv pip install --quiet --compile-bytecode --python $(1)/bin/python -c $(2) -e '.[$(or $(3),test)]'; } || \
	{ echo "uv could not install this: trying pip ..."; \
	$(1)/bin/python -m pip install --quiet --disable-pip-version-check -c $(2) -e '.[$(or $(3),test)]'; }

resolve := --quiet --upgrade --no-header --no-annotate --python-version 3.11
# Newer versions of these would raise common-compat or rich above the floors that are to be tested.
old_packages := 'apache-airflow-providers-smtp<=2.4.2' 'apache-airflow-providers-common-io<1.8' \
	'apache-airflow-providers-common-sql<1.32' 'import-linter>=2.5,<2.7'

BENCH ?=

.PHONY: help demo plan key airflow test quick test-lowest test-cluster test-storage test-ui lint types unit browser mutants \
	faults-table bench picture docs dist constraints clean

help:  ## Show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

demo: $(VENV)/ready  ## Delete old replicas of a sandbox with Airflow: first a dry run, then a real run
	@$(VENV)/bin/python scripts/try_it.py demo

plan: key $(VENV)/ready  ## Show what would be deleted in your account; deletes nothing (needs TAVUS_API_KEY)
	@$(VENV)/bin/python scripts/try_it.py plan

key:  # before anything is installed
	@[ -n "$$TAVUS_API_KEY" ] || { echo "TAVUS_API_KEY is not set. Set it to the API key of the account to plan for."; exit 2; }

airflow: $(VENV)/ready  ## Run Airflow with its UI, connected to a sandbox (PORT=8080)
	@$(VENV)/bin/python scripts/try_it.py airflow --port $(PORT)

test: lint types unit  ## Run lint, types and all tests, every DAG against a sandbox included (minutes)

quick: $(VENV)/ready  ## Run the tests that need no server, no Airflow database and no other process (seconds)
	$(VENV)/bin/python -m pytest -q -m 'not server and not airflow_db and not process and not slow'

lint: $(VENV)/ready  ## Check style (ruff), the layers of the package (import-linter) and the table of `make mutants`
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/lint-imports --no-logo
	$(VENV)/bin/python scripts/mutants.py --check

types: $(VENV)/ready  ## Check types (mypy --strict)
	$(VENV)/bin/mypy

unit: $(VENV)/ready
	$(VENV)/bin/python -m pytest

browser: $(VENV)/ready  ## Install Chromium (Debian, as root), its driver and axe-core (npm) for the UI tests
	@command -v chromium >/dev/null || { apt-get -qq update && apt-get -qq -y --no-install-recommends install chromium; }
	@$(VENV)/bin/uv pip install --quiet --python $(VENV)/bin/python -c constraints.txt -e '.[ui]'
	@test -f $(VENV)/axe.min.js || { dir=$$(mktemp -d) && (cd $$dir && npm pack --silent axe-core@4.14.1 >/dev/null && \
		tar -xzf *.tgz) && cp $$dir/package/axe.min.js $(VENV)/ && rm -r $$dir; } || \
		echo "axe-core was not installed (it needs npm): the tests of accessibility are skipped"

test-ui: browser  ## Test forms, approval and the Tavus page in a browser; screenshots go to UI_PICTURES
	$(VENV)/bin/python -m pytest tests/test_airflow.py tests/test_erasure_airflow.py tests/test_page.py tests/test_page_airflow.py -k 'browser or test_page'

test-lowest: $(LOWEST)/ready  ## Run all tests on the lowest supported versions of Airflow and other dependencies
	$(LOWEST)/bin/python -m pytest

test-cluster: $(VENV)/cluster  ## Run the batched DAG on two Celery workers and kill one of them
	@$(VENV)/bin/python scripts/cluster.py

test-storage: $(STORAGE)/ready  ## Test the ledger in S3 (moto) and Azure Blob Storage (azurite; needs npm)
	PATH="$(CURDIR)/$(STORAGE)/node_modules/.bin:$$PATH" TAVUS_TEST_STORES=1 \
		$(STORAGE)/bin/python -m pytest tests/storage/test_object_stores.py

mutants: $(VENV)/ready  ## Put known bugs into copies of the package and check that tests fail (minutes)
	$(VENV)/bin/python scripts/mutants.py

faults-table: $(VENV)/bench  ## Run the fault tests with other HTTP clients too, and write docs/faults.md
	PYTHONPATH=tests $(VENV)/bin/python scripts/faults_table.py

docs: $(VENV)/docs  ## Build the documentation into site/; fails on a broken link or a misspelled word
	$(VENV)/bin/codespell README.md CONTRIBUTING.md SECURITY.md CHANGELOG.md docs tavus_provider dags scripts benchmarks
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict

dist: $(VENV)/release  ## Build the source distribution and the wheel into dist/, and check them
	@rm -rf dist
	@$(VENV)/bin/python scripts/build_dist.py
	$(VENV)/bin/twine check --strict dist/*

constraints: $(VENV)/ready  ## Update constraints.txt and constraints-lowest.txt
	$(VENV)/bin/uv pip compile $(resolve) --extra test --extra bench --extra cluster --extra ui --extra docs --extra release setup.cfg -o constraints.txt
	{ grep -E '^(build|hypothesis|mypy|pytest|requests-mock|ruff|schemathesis|trustme|types-pyyaml|types-requests)==' \
		constraints.txt; printf '%s\n' $(old_packages); } | $(VENV)/bin/uv pip compile $(resolve) \
		--resolution lowest-direct setup.cfg - -o constraints-lowest.txt

bench: $(VENV)/bench  ## Compare the speed with other HTTP clients (BENCH=--help)
	@$(VENV)/bin/python benchmarks/bench.py $(BENCH)

picture: browser  ## Update the pictures in docs/
	$(VENV)/bin/python scripts/picture.py
	DOCS_PICTURES=docs $(VENV)/bin/python -m pytest -q tests/test_page_airflow.py -k pictures

clean:  ## Remove everything that the other targets have created
	rm -rf $(VENV) $(LOWEST) $(STORAGE) .airflow .cluster build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(VENV)/ready: setup.cfg constraints.txt
	@$(call venv,$(VENV))
	@$(call install,$(VENV),constraints.txt)
	@touch $@

$(VENV)/bench: $(VENV)/ready
	@$(call install,$(VENV),constraints.txt,bench)
	@touch $@

$(VENV)/docs: $(VENV)/ready
	@$(call install,$(VENV),constraints.txt,docs)
	@touch $@

$(VENV)/release: $(VENV)/ready
	@$(call install,$(VENV),constraints.txt,release)
	@touch $@

$(VENV)/cluster: $(VENV)/ready
	@$(call install,$(VENV),constraints.txt,cluster)
	@touch $@

$(LOWEST)/ready: setup.cfg constraints-lowest.txt
	@$(call venv,$(LOWEST))
	@$(call install,$(LOWEST),constraints-lowest.txt)
	@touch $@

$(STORAGE)/ready: setup.cfg constraints.txt
	@$(call venv,$(STORAGE))
	grep -v '^python-dateutil==' constraints.txt > $(STORAGE)/constraints.txt
	@$(call install,$(STORAGE),$(STORAGE)/constraints.txt,test$(comma)storage-test)
	npm install --silent --prefix $(STORAGE) $(AZURITE)
	@touch $@
