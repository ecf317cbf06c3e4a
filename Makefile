# Everything builds into .venv/ and exporter/_bpf/. `make help` lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# bcc belongs to the system's interpreter, and other users than the builder can run it
PYTHON ?= $(shell /usr/bin/python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo /usr/bin/python3 || command -v python3)
BIN := .venv/bin
DOCKER ?= docker
OBJECT := exporter/_bpf/lifecycle.bpf.o

# What the exporter itself needs, and what the tests and benchmarks need besides
RUN_PACKAGES := python3-venv clang libbpf1 libbpf-dev libc6-dev linux-libc-dev python3-bpfcc
TEST_PACKAGES := gcc openssl python3-bcrypt python3-psutil python3-yaml systemd systemd-container
BENCH_PACKAGES := bpftrace bpftool

.PHONY: help
help: ## Show this help
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

.PHONY: install-deps
install-deps: ## Install the system packages that everything here needs (as root, with apt)
	apt-get update -qq
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(RUN_PACKAGES) $(TEST_PACKAGES) make

.PHONY: all
all: deps-run .venv/ready object ## Build the BPF object and .venv

.PHONY: check-bpf
check-bpf: all ## Load every BPF program into this kernel's verifier; print instructions, maps and result
	@$(BIN)/python -m exporter.loaders.check

.PHONY: run
run: all ## Run the exporter; metrics at http://localhost:10199/metrics (ARGS="--help" and so on)
	@exec $(BIN)/shortproc-exporter $(ARGS)

.PHONY: test
test: deps-test all .venv/dev ## Run all tests; kernel tests run as root and say why where they can't
	@$(BIN)/pytest -q $(ARGS)

.PHONY: lint
lint: all .venv/dev ## Check style and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports >/dev/null || $(BIN)/lint-imports
	@$(BIN)/python -m grafana --check
	@$(BIN)/python -m exporter.metrics.document --check

.PHONY: dashboards
dashboards: all .venv/dev ## Write grafana/*.json anew from their generator
	@$(BIN)/python -m grafana

.PHONY: docs
docs: all .venv/dev ## Write docs/metrics.md anew from the code
	@$(BIN)/python -m exporter.metrics.document

.PHONY: bench
bench: deps-bench all ## Measure costs side by side with other tools, in one run (as root)
	@$(BIN)/python -m bench

.PHONY: wheel
wheel: all ## Build the wheel, with the BPF object inside, into dist/
	@$(BIN)/pip wheel -q --disable-pip-version-check --no-deps --wheel-dir dist .

.PHONY: deb
deb: all ## Build the Debian package into dist/
	@deploy/debian/build

.PHONY: image
image: ## Build the container image shortproc-exporter (with docker, or DOCKER="buildah" or "podman")
	$(DOCKER) build -f deploy/container/Dockerfile --build-arg REVISION=$$(git rev-parse --short=7 HEAD) -t shortproc-exporter .

.PHONY: clean
clean: ## Remove everything that was built
	rm -rf .venv exporter/_bpf dist build

# Install what is missing as root; else say the one line to type, and go on with what there is.
define need
	@missing=$$(dpkg-query -W -f '$${Status} $${Package}\n' $(1) 2>/dev/null | grep '^install ok installed' | cut -d' ' -f4 | sort \
		| comm -13 - <(printf '%s\n' $(1) | sort) || true); \
	if [ -z "$$missing" ] || ! command -v apt-get >/dev/null; then exit 0; fi; \
	if [ "$$(id -u)" = 0 ]; then \
		echo "installing" $$missing; apt-get update -qq; \
		DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null; \
	else echo "missing packages; to have all of it, type: sudo apt-get install -y" $$missing >&2; fi
endef

.PHONY: deps-run deps-test deps-bench
deps-run:
	$(call need,$(RUN_PACKAGES))
deps-test:
	$(call need,$(TEST_PACKAGES))
deps-bench: deps-test
	$(call need,$(BENCH_PACKAGES))

.venv/ready: pyproject.toml
	@$(PYTHON) -m venv .venv
	@$(BIN)/pip install -q --disable-pip-version-check --upgrade 'pip>=25.1'
	@$(BIN)/pip install -q --disable-pip-version-check -e .
	@touch $@

.venv/dev: .venv/ready
	@$(BIN)/pip install -q --disable-pip-version-check --group dev
	@$(BIN)/pip install -q --disable-pip-version-check --upgrade --target .venv/schemas --group schemas
	@touch $@

# Without clang the exporter still runs, by scanning
.PHONY: object
object:
	@if command -v clang >/dev/null; then $(MAKE) $(OBJECT); else echo "clang is missing: built without eBPF" >&2; fi

$(OBJECT): bpf/lifecycle.bpf.c bpf/lifecycle.h bpf/kernel.h bpf/maps.h bpf/build.py
	@$(PYTHON) bpf/build.py $@
