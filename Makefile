# Every target sets up what it needs by itself: Python >= 3.11, make and a package index are enough.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
RUN_READY := $(VENV)/.run-ready
DEV_READY := $(VENV)/.dev-ready
SOURCES := worker_chart_export daemon localcloud tests benchmarks docs

# Most tests wait for processes, leases and deadlines: more workers than cores shorten the run.
WORKERS ?= 6
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist loadscope
# The workers share their compiled files, whatever the caller's environment says.
export PYTHONDONTWRITEBYTECODE =
# What Python and the dependencies can change. The formulas, the pixels and the decisions are the same everywhere.
ELSEWHERE := -m "not official and not long" tests/integration tests/unit/daemon \
	$(addprefix tests/unit/worker_chart_export/,backends concurrency execution inputs observability outputs charts/chart_img \
	  charts/local/test_local_picture.py test_orchestration.py) \
	$(patsubst %,tests/process/test_%.py,main_job stop_signals tracing)
MINUTES ?= 10
ROUNDS ?= 3
PIP := -m pip install --quiet --disable-pip-version-check --require-hashes
# The site is built by packages that nothing else needs.
DOCS_VENV := .venv-docs
FLOORS_VENV := .venv-floors
NODE_READY := tests/node/node_modules/.ready
COMPILE := uv pip compile --quiet --upgrade --universal --python-version 3.11 --no-annotate --no-header \
	--no-emit-index-url --no-emit-find-links --generate-hashes
SEED ?=

.PHONY: help demo test test-long test-floors test-other-python chaos load explore bench mutants walk systemd node check lint types imports format lock reference docs coverage charts pictures gallery-pictures page-pictures clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/' | expand -t 16

demo: $(RUN_READY) ## The whole main job on this machine; gallery in demo-output/index.html
	$(BIN)/worker-chart-export demo --output demo-output

test: $(DEV_READY) ## All tests but the long ones: unit, contract (both clouds), integration, process, chaos
	$(PYTEST) -m "not long"

test-long: $(DEV_READY) ## The long ones: a storm, SIGTERMs at random moments, the units in a booted systemd, an operator's drills on Google's emulators
	$(BIN)/python -m pytest -n 5 --dist loadscope -m long tests/chaos tests/process tests/systemd # a worker for each unit

test-floors: $(FLOORS_VENV)/.ready ## What older dependencies can change, with the oldest that pyproject.toml allows
	$(FLOORS_VENV)/bin/python -m pytest -n 3 --dist loadscope -q -W ignore::DeprecationWarning $(ELSEWHERE)

test-other-python: $(DEV_READY) ## What another Python can change, on the Python of VENV
	$(BIN)/python tests/seed_scenarios/run.py
	$(BIN)/python -m pytest -n 3 --dist loadscope -q $(ELSEWHERE) tests/contract

chaos: $(DEV_READY) ## Kills, freezes, outages, an upgrade and a storm, with figures; MINUTES=10 SEED=n
	$(BIN)/python -m tests.chaos --minutes $(MINUTES) $(if $(SEED),--seed $(SEED))

load: $(DEV_READY) ## 10,000 messages, 1,000 runs, a run of 1,500 steps, 8 daemons: costs and losses, ten minutes; SOAK=60: a soak of that many minutes instead
	$(BIN)/python -m tests.load $(if $(SOAK),--soak $(SOAK))

explore: $(DEV_READY) ## Every interleaving of the claims and leases of a small world; eight minutes
	$(BIN)/python -m tests.explorer

bench: $(DEV_READY) ## The worker compared with a bare subscriber, half an hour; writes docs/benchmarks.md; ROUNDS=3
	$(BIN)/python $(PIP) -r requirements-bench.lock
	$(BIN)/python -m benchmarks --rounds $(ROUNDS)

mutants: $(DEV_READY) ## Mutation testing of the core, an hour: each change of the code that no test notices; ONLY='*.ledger.lease.*'
	$(BIN)/python $(PIP) -r requirements-mutants.lock
	$(BIN)/python -m tests.mutation $(if $(ONLY),--only '$(ONLY)')

walk: $(DEV_READY) ## The way of one message: files and functions in the order they run
	$(BIN)/python -m benchmarks.walk

systemd: $(DEV_READY) ## The units in a booted systemd (root, package systemd-container)
	$(BIN)/python -m pytest tests/systemd

node: $(RUN_READY) ## Google's Node clients on the embedded cloud: every ordinary call (needs Node 18 or newer, and npm)
	@if command -v node > /dev/null && command -v npm > /dev/null; then \
	  $(MAKE) --no-print-directory --quiet $(NODE_READY) && $(BIN)/python -m tests.node; \
	else echo "Node or npm was not found: the calls of Google's Node clients did not run"; test -z "$$CI"; fi

check: lint types imports node test-long test ## Everything: lint, types, import contracts, all tests

lint: $(DEV_READY) ## ruff, the format, the Dockerfile, the workflows, the Kubernetes manifests
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/hadolint Dockerfile
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/kubernetes-validate --strict --no-warn deploy/gke/*.yaml
	$(BIN)/kubernetes-validate --strict --no-warn deploy/gke/autoscaling/hpa/horizontal-pod-autoscaler.yaml

types: $(DEV_READY) ## mypy, strict
	$(BIN)/mypy

imports: $(DEV_READY) ## The directions between packages and layers
	$(BIN)/lint-imports

format: $(DEV_READY) ## Format, and fix what ruff can fix
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/ruff check --fix $(SOURCES)

lock: $(DEV_READY) ## Write all lock files anew with the newest versions that fit
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/$(COMPILE) --extra tracing pyproject.toml -o requirements.lock
	$(BIN)/$(COMPILE) -c requirements.lock --extra dev pyproject.toml -o requirements-dev.lock
	$(BIN)/$(COMPILE) --resolution lowest-direct --extra tracing pyproject.toml -o $(VENV)/floors.txt
	$(BIN)/$(COMPILE) -c $(VENV)/floors.txt --extra dev pyproject.toml -o requirements-floors.lock
	$(BIN)/$(COMPILE) -c requirements-dev.lock --group bench -o requirements-bench.lock
	$(BIN)/$(COMPILE) -c requirements-dev.lock --group mutants -o requirements-mutants.lock
	$(BIN)/$(COMPILE) -c requirements-dev.lock --group docs -o requirements-docs.lock
	$(BIN)/$(COMPILE) -c requirements-dev.lock --group build -o requirements-build.lock

reference: $(RUN_READY) ## Write the pages of docs/ that are generated from the code
	$(BIN)/python -m docs.reference

docs: $(DOCS_VENV)/.ready ## The documentation as a site, in site/index.html
	NO_MKDOCS_2_WARNING=1 $(DOCS_VENV)/bin/mkdocs build --strict --quiet

coverage: $(DEV_READY) ## Line and branch coverage of the unit and integration tests; details in htmlcov/index.html
	$(BIN)/python -m pytest -q -n $(WORKERS) --dist worksteal --cov --cov-report=term --cov-report=html tests/unit tests/integration

charts: $(RUN_READY) ## Draw the pictures in docs/charts anew
	$(BIN)/python -m worker_chart_export.charts.local.gallery docs/charts
	$(BIN)/python -m docs.chart_sheets docs/charts

pictures: ## Draw docs/pictures/*.svg anew (needs Graphviz: apt-get install graphviz)
	set -e; cd docs/pictures; for text in *.dot; do \
	  dot -Tsvg -Gcomment="drawn from text with sha256 $$(sha256sum < $$text | cut -c 1-64)" -o $${text%.dot}.svg $$text; done

gallery-pictures: $(DEV_READY) ## Take docs/gallery-*.png anew from a demo with failures (needs chromium)
	$(BIN)/worker-chart-export demo --with-failures --output demo-output
	$(BIN)/python -m tests.support.page.gallery_pictures demo-output docs

page-pictures: $(DEV_READY) ## Take docs/page/*.png anew from real daemons at work (needs chromium)
	$(BIN)/python -m tests.support.page.page_pictures docs/page

clean: ## Remove what the other targets made
	rm -rf $(VENV) .venv-* mutants tests/node/node_modules demo-output dist site htmlcov .coverage* .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

$(RUN_READY): requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python $(PIP) -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

# The oldest versions that pyproject.toml allows, with the newest tools for the tests.
$(FLOORS_VENV)/.ready: requirements-floors.lock
	test -x $(FLOORS_VENV)/bin/python || $(PYTHON) -m venv $(FLOORS_VENV)
	$(FLOORS_VENV)/bin/python $(PIP) --no-deps -r requirements-floors.lock # pip would look for newer ones with extras
	$(FLOORS_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

$(DEV_READY): requirements-dev.lock $(RUN_READY)
	$(BIN)/python $(PIP) -r requirements-dev.lock
	$(BIN)/python -m pytest --collect-only -qq > /dev/null # compiles the tests once, and not in each worker at the same time
	touch $@

$(NODE_READY): tests/node/package-lock.json
	npm ci --prefix tests/node --ignore-scripts --no-audit --no-fund --loglevel=error
	touch $@

$(DOCS_VENV)/.ready: requirements-docs.lock
	test -x $(DOCS_VENV)/bin/python || $(PYTHON) -m venv $(DOCS_VENV)
	$(DOCS_VENV)/bin/python $(PIP) -r requirements-docs.lock
	touch $@
