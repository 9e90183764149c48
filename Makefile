# Every target sets up what it needs by itself: Python >= 3.11, make and a package index are enough.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
RUN_READY := $(VENV)/.run-ready
DEV_READY := $(VENV)/.dev-ready
SOURCES := worker_chart_export daemon localcloud tests benchmarks

# Most tests wait for processes, leases and deadlines: more workers than cores shorten the run.
WORKERS ?= 4
MINUTES ?= 10
ROUNDS ?= 3
# Drawn beside it in the benchmarks alone.
MATPLOTLIB := matplotlib==3.11.2
SEED ?=

.PHONY: help demo test chaos bench walk systemd check lint types imports format lock charts pictures gallery-pictures page-pictures clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/' | expand -t 16

demo: $(RUN_READY) ## The whole main job on this machine; gallery in demo-output/index.html
	$(BIN)/worker-chart-export demo --output demo-output

test: $(DEV_READY) ## All tests: unit, contract (both clouds), integration, process, chaos
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

chaos: $(DEV_READY) ## Kills, freezes, outages and a storm, told in figures; MINUTES=10 SEED=n
	$(BIN)/python -m tests.chaos --minutes $(MINUTES) $(if $(SEED),--seed $(SEED))

bench: $(DEV_READY) ## The worker beside the floor, half an hour; writes docs/benchmarks.md; ROUNDS=3
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint requirements-dev.lock $(MATPLOTLIB)
	$(BIN)/python -m benchmarks --rounds $(ROUNDS)

walk: $(DEV_READY) ## The way of one message: files and functions in the order they run
	$(BIN)/python -m benchmarks.walk

systemd: $(DEV_READY) ## The units in a booted systemd (root, package systemd-container)
	$(BIN)/python -m pytest -rs tests/systemd

check: lint types imports test ## What CI runs: lint, types, import contracts, tests

lint: $(DEV_READY) ## ruff, the format, the Dockerfile, the Kubernetes manifests
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/hadolint Dockerfile
	$(BIN)/kubernetes-validate --strict --no-warn deploy/gke/*.yaml
	$(BIN)/kubernetes-validate --strict --no-warn deploy/gke/autoscaling/hpa/horizontal-pod-autoscaler.yaml

types: $(DEV_READY) ## mypy, strict
	$(BIN)/mypy

imports: $(DEV_READY) ## The directions between packages and layers
	$(BIN)/lint-imports

format: $(DEV_READY) ## Format and mend what ruff can mend
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/ruff check --fix $(SOURCES)

lock: $(DEV_READY) ## Write both lock files anew with the newest versions that fit
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --no-annotate --no-header --no-emit-index-url --extra tracing pyproject.toml -o requirements.lock
	$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --no-annotate --no-header --no-emit-index-url -c requirements.lock --extra dev pyproject.toml -o requirements-dev.lock

charts: $(RUN_READY) ## Draw the pictures in docs/charts anew
	$(BIN)/python -m worker_chart_export.charts.local.gallery docs/charts

pictures: ## Draw docs/pictures/*.svg anew (needs Graphviz: apt-get install graphviz)
	set -e; cd docs/pictures; for text in *.dot; do \
	  dot -Tsvg -Gcomment="drawn from text with sha256 $$(sha256sum < $$text | cut -c 1-64)" -o $${text%.dot}.svg $$text; done

gallery-pictures: $(DEV_READY) ## Take docs/gallery-*.png anew from a demo with failures (needs chromium)
	$(BIN)/worker-chart-export demo --with-failures --output demo-output
	$(BIN)/python -m tests.support.page.gallery_pictures demo-output docs

page-pictures: $(DEV_READY) ## Take docs/page/*.png anew from real daemons at work (needs chromium)
	$(BIN)/python -m tests.support.page.page_pictures docs/page

clean: ## Remove what the other targets made
	rm -rf $(VENV) .venv-* demo-output dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

$(RUN_READY): requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

$(DEV_READY): requirements-dev.lock $(RUN_READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.lock
	touch $@
