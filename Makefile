# The two commands: `make demo` and `make test`.  Everything else is for developers.  All of them are idempotent.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin

.PHONY: demo test lint build clean bench bench-smoke bench-pull simulate simulate-canary soak proto lock help

help:            ## this text
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:[^#]*##/\t/' | expand -t 16

demo: $(VENV)/.run              ## a shop, a canary promoted and one rolled back, on this machine (about a minute)
	$(BIN)/meshproxy demo $(ARGS)

test: $(VENV)/.dev              ## the whole test suite
	$(BIN)/python -m pytest $(ARGS)

lint: $(VENV)/.dev              ## ruff, mypy --strict, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

build: $(VENV)/.dev             ## compile the data path in place with mypyc (needs a C compiler)
	MESHPROXY_COMPILE=require $(BIN)/python setup.py -q build_ext --inplace

clean:           ## remove what build and the tests made (also compiled extensions)
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name '*.so' -not -path './.venv/*' -delete
	rm -f meshproxy/compiled.*.txt

bench-smoke: $(VENV)/.dev       ## seconds: CPU a request, this machine
	$(BIN)/python -m benchmarks.smoke

bench: $(VENV)/.bench           ## us beside Envoy, HAProxy, nginx, nghttpx, linkerd2-proxy: about 20 min on a quiet machine
	$(BIN)/python -m benchmarks.bench $(ARGS)

bench-pull: $(VENV)/.dev        ## from the 15th failed request of a bad canary to its last one at each client: docs/canary/evidence.md (about 3 min)
	$(BIN)/python -m benchmarks.pull $(ARGS)

simulate: $(VENV)/.dev          ## the balancer's strategies, simulated with seeds: the table of docs/balancing.md (about 2 min)
	$(BIN)/python -m benchmarks.simulation $(ARGS)

simulate-canary: $(VENV)/.dev   ## canaries judged by evidence and by thresholds, simulated with seeds: docs/canary/evidence.md (about 8 min)
	$(BIN)/python -m benchmarks.evidence $(ARGS)

soak: $(VENV)/.dev              ## ten minutes of everything at full load: memory flat, no error, the books agree
	$(BIN)/python -m benchmarks.soak $(ARGS)

proto: $(VENV)/.dev             ## regenerate the code of mesh.proto and workload.proto (and of the benchmark's stub of Linkerd's API)
	$(BIN)/python -m grpc_tools.protoc -I . --python_out . --pyi_out . --grpc_python_out . control/api/mesh.proto control/api/workload.proto
	$(BIN)/python -m grpc_tools.protoc -I . --python_out . --pyi_out . benchmarks/linkerd/api/*.proto
	$(BIN)/python -m grpc_tools.protoc -I . --grpc_python_out . $(foreach n,destination identity inbound outbound,benchmarks/linkerd/api/$(n).proto)

lock: $(VENV)/.dev              ## pin all dependencies with hashes, naming no index
	$(BIN)/python -m pip install --quiet pip-tools
	CUSTOM_COMPILE_COMMAND="make lock" $(BIN)/pip-compile --quiet --generate-hashes --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --strip-extras --output-file requirements.lock pyproject.toml
	CUSTOM_COMPILE_COMMAND="make lock" $(BIN)/pip-compile --quiet --generate-hashes --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --strip-extras --allow-unsafe --extra test,lint,build --output-file requirements-dev.lock pyproject.toml
	CUSTOM_COMPILE_COMMAND="make lock" $(BIN)/pip-compile --quiet --generate-hashes --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --strip-extras --extra bench --constraint requirements-dev.lock --output-file requirements-bench.lock pyproject.toml

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "meshproxy needs Python 3.11 or newer; '$(PYTHON)' is not. Install one (Debian: apt install python3 python3-venv) or say make PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "This Python has no venv module. Debian, Ubuntu: apt install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run: requirements.lock pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

$(VENV)/.dev: requirements-dev.lock pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@ $(VENV)/.run

# The peers that come as wheels; the others are Debian's: apt install haproxy nginx-light nghttp2 wrk
$(VENV)/.bench: requirements-bench.lock $(VENV)/.dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-bench.lock
	@touch $@
