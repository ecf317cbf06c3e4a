# Everything builds into .venv/ and exporter/_bpf/. `make help` lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# bcc belongs to the system's interpreter, and other users than the builder can run it
PYTHON ?= $(shell /usr/bin/python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo /usr/bin/python3 || command -v python3)
BIN := .venv/bin
# Most tests wait for something; tests/conftest.py says what runs beside what, and in which order
PYTEST := pytest -q -n 3 --dist loadgroup --no-loadscope-reorder
DOCKER ?= docker
IMAGE ?= shortproc-exporter
IMAGE_ARGS = --build-arg REVISION=$$(git rev-parse --short=7 HEAD) --build-arg VERSION=$$(sed -n 's/^__version__ = "\(.*\)"/\1/p' exporter/__init__.py)
comma := ,
OBJECTS := $(addprefix exporter/_bpf/,lifecycle.bpf.o failures.bpf.o events.bpf.o)

# What the exporter itself needs, and what the tests and benchmarks need besides
RUN_PACKAGES := python3-venv clang libbpf1 libbpf-dev libc6-dev linux-libc-dev python3-bpfcc
TEST_PACKAGES := gcc openssl procps python3-bcrypt python3-psutil python3-yaml systemd systemd-container bsdextrautils lintian mandoc zsh prometheus prometheus-alertmanager chromium
BENCH_PACKAGES := bpftrace bpftool libbpf-tools bpfcc-tools forkstat atop prometheus-process-exporter prometheus-node-exporter
KERNEL_PACKAGES := gcc qemu-system-x86 busybox-static cpio kmod xz-utils zstd $(shell apt-cache pkgnames 2>/dev/null | grep -x virtiofsd) \
	$(if $(findstring --short,$(ARGS)),,qemu-system-arm gcc-aarch64-linux-gnu libc6-dev-arm64-cross)
PACKAGES := $(RUN_PACKAGES) $(if $(filter test coverage bench attack soak pictures install-deps,$(MAKECMDGOALS)),$(TEST_PACKAGES)) \
	$(if $(filter bench,$(MAKECMDGOALS)),$(BENCH_PACKAGES)) $(if $(filter test-kernels,$(MAKECMDGOALS)),$(KERNEL_PACKAGES))

C_FILES = $(shell find bpf bench tests -name '*.[ch]')
SHELL_FILES := .ci/need .ci/otelcol .ci/other-suite .ci/prometheus3 .ci/run deploy/container/healthcheck deploy/release deploy/debian/{build,postinst,postrm,prerm,rtupdate} deploy/completion/shortproc-exporter.bash tests/vm/{fetch,run}

.PHONY: help
help: ## Show this help
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

.PHONY: install-deps
install-deps: ## Install the system packages that running and testing need (as root, with apt); starts no service
	@.ci/need $(PACKAGES)
	@$(if $(filter prometheus,$(PACKAGES)),.ci/prometheus3)

.PHONY: all
all: install-deps .venv/ready object ## Build the BPF objects and .venv

.PHONY: check-bpf
check-bpf: all ## Load every BPF program into this kernel; print instructions, maps and the result
	@$(BIN)/python -m exporter.loaders.check

.PHONY: run
run: all ## Run the exporter; metrics at http://localhost:10199/metrics (ARGS="--help" and so on)
	@exec $(BIN)/shortproc-exporter $(ARGS)

# Else each worker compiles all tests at each run, which takes longer than to find them
test coverage: export PYTHONDONTWRITEBYTECODE =

.PHONY: test
test: all .venv/dev ## Run all tests; kernel tests need root, and skipped tests say why (ARGS="tests/unit -k name")
	@$(BIN)/$(PYTEST) $(ARGS)

.PHONY: test-kernels
test-kernels: all .venv/dev ## Check other kernels and odd conditions in QEMU (as root; WRITE=1 keeps the result for make docs; ARGS=--short)
	@$(BIN)/python -m tests.vm.matrix $(ARGS)

.PHONY: coverage
coverage: all .venv/dev ## Run all tests; fail if branch coverage is below the floor in pyproject.toml (as root)
	@rm -rf build/coverage && install -d -m 1777 build/coverage
	@$(BIN)/coverage run -m $(PYTEST) $(ARGS)
	@$(BIN)/coverage combine -q
	@$(BIN)/coverage report

.PHONY: lint
lint: all .venv/dev current ## Check style, types, spelling, imports, and that generated files are current
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports >/dev/null || $(BIN)/lint-imports
	@$(BIN)/codespell
	@$(BIN)/clang-format --dry-run --Werror $(C_FILES)
	@$(BIN)/shellcheck --severity=warning $(SHELL_FILES)

.PHONY: current
current: all .venv/dev ## Check that generated files are current
	@$(BIN)/python -m grafana --check
	@$(BIN)/python -m docs --check

.PHONY: format
format: all .venv/dev ## Format Python and C, and apply the fixes of ruff
	@$(BIN)/ruff check --fix --exit-zero --quiet .
	@$(BIN)/ruff format .
	@$(BIN)/clang-format -i $(C_FILES)

.PHONY: hooks
hooks: all .venv/dev ## Run the checks of `make lint` before each git commit (pre-commit)
	@$(BIN)/pre-commit install

.PHONY: pictures
pictures: all .venv/dev ## Redraw docs/images/*.png: the page, and the dashboards after an incident of five minutes on this machine (as root)
	@$(BIN)/python -m tests.e2e.picture
	@$(BIN)/python -m tests.e2e.fleet.pictures

.PHONY: dashboards
dashboards: all .venv/dev ## Regenerate grafana/*.json
	@$(BIN)/python -m grafana

.PHONY: docs
docs: all .venv/dev ## Regenerate the generated parts of documents, rules and config/
	@$(BIN)/python -m docs

.PHONY: bench
bench: all ## Run all benchmarks, some compared with other tools (as root)
	@$(BIN)/python -m bench

.PHONY: attack
attack: all ## Scrape the exporter while clients attack it from loopback; fail if that delays scrapes or takes memory (as root)
	@$(BIN)/python -m bench.attack

.PHONY: soak
soak: all ## Kill, stop and starve the exporter for 20 minutes under a load whose truth is known (as root; SECONDS=180 for less)
	@$(BIN)/python -m bench.soak $(if $(SECONDS),--seconds=$(SECONDS)) $(ARGS)

.PHONY: fuzz
fuzz: all .venv/dev ## Fuzz the code that reads bytes of others, 30 s for each target (ARGS="--seconds=300 accept"; `--keep` keeps the corpus)
	@$(BIN)/pip install -q --disable-pip-version-check --group fuzz
	@$(BIN)/python -m tests.fuzz $(ARGS)

.PHONY: wheel
wheel: all ## Build the wheel, with the BPF objects inside, into dist/
	@$(BIN)/pip wheel -q --disable-pip-version-check --no-deps --wheel-dir dist .

.PHONY: deb
deb: all ## Build the Debian package into dist/
	@deploy/debian/build

.PHONY: release
release: all .venv/dev ## Build the files of a release into dist/: wheel, Debian packages, chart, SBOM, checksums (TAG=vX.Y.Z checks the version)
	@deploy/release

.PHONY: image
image: ## Build the container image shortproc-exporter (with docker, or DOCKER="buildah" or "podman")
	$(DOCKER) build -f deploy/container/Dockerfile $(IMAGE_ARGS) -t $(IMAGE) .

.PHONY: images
images: ## Build the image for amd64 and arm64 with docker buildx, into dist/; with PUSH=1 push it (IMAGE=registry.example/name:tag)
	$(DOCKER) buildx build --platform=linux/amd64,linux/arm64 -f deploy/container/Dockerfile $(IMAGE_ARGS) --sbom=true --provenance=true \
		-t $(IMAGE) $(if $(PUSH),--push,--output=type=oci$(comma)dest=dist/image.tar) .

.PHONY: clean
clean: ## Remove everything that was built
	rm -rf .venv exporter/_bpf dist build

.venv/ready: pyproject.toml
	@$(PYTHON) -m venv .venv >/dev/null || { echo "cannot make .venv: the package python3-venv is missing" >&2; rm -rf .venv; exit 1; }
	@$(BIN)/pip install -q --disable-pip-version-check --upgrade 'pip>=25.1'
	@$(BIN)/pip install -q --disable-pip-version-check -e .
	@touch $@

.venv/dev: .venv/ready
	@$(BIN)/pip install -q --disable-pip-version-check --group dev
	@$(BIN)/pip install -q --disable-pip-version-check --no-deps --group axe
	@$(BIN)/pip install -q --disable-pip-version-check --upgrade --target .venv/schemas --group schemas
	@touch $@

# Without clang the exporter still runs, by scanning
.PHONY: object
object:
	@if command -v clang >/dev/null; then $(MAKE) -s $(OBJECTS); else echo "clang is missing: built without eBPF" >&2; fi

$(OBJECTS): exporter/_bpf/%.o: bpf/%.c bpf/build.py $(wildcard bpf/*.h)
	@$(PYTHON) bpf/build.py $@
