# make up     install what is missing and run the whole of Penstock on this machine
# make test   install what is missing (servers and a browser included) and run all tests
# make soak   run the long forms of tests that have a short one, and print their figures
PYTHON ?= python3
BIN := .venv/bin
VENDOR := src/penstock/console/static/vendor/uplot.js
PROTO := src/penstock/gateway/grpc/inference.proto
GENERATED := src/penstock/gateway/grpc/inference_pb2.py
HOT := $(shell $(PYTHON) scripts/compile_hot.py --list)
ARGS ?=

# What does not need each other is installed and compiled side by side.
MAKEFLAGS += --jobs=2

# In a checkout whose modules are compiled, `make install` (or `make interpreted`) comes after each change of them.
.PHONY: bench-content up interpreted install install-dev system-packages test soak properties check format bench bench-fairness bench-peers features image image-test lock clean bench-connections bench-tls bench-slow-clients bench-experiments bench-drift bench-endurance bench-registry bench-latency

up: install
	$(BIN)/penstock up $(ARGS)

install: .venv/.installed $(VENDOR) $(GENERATED) .venv/.compiled

.venv/.installed: pyproject.toml requirements-run.lock
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-run.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -e .
	touch $@

# The modules that every request goes through, compiled where there is a C compiler; `make interpreted` takes that back.
.venv/.compiled: .venv/.installed scripts/compile_hot.py $(HOT)
	$(BIN)/python scripts/compile_hot.py
	touch $@

interpreted:
	$(PYTHON) scripts/compile_hot.py --remove
	touch .venv/.compiled

install-dev: install .venv/.installed-dev

.venv/.installed-dev: .venv/.installed requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	touch $@

.venv/langchain/.installed: tests/langchain/requirements.lock .venv/.installed
	$(PYTHON) -m venv .venv/langchain
	.venv/langchain/bin/pip install --quiet --disable-pip-version-check --require-hashes -r $<
	touch $@

$(GENERATED): $(PROTO) .venv/.installed
	$(BIN)/python -m grpc_tools.protoc -Isrc --python_out=src --pyi_out=src $(PROTO)
	touch $@

$(VENDOR): frontend/package-lock.json frontend/build.mjs
	cd frontend && npm ci --silent --no-audit --no-fund && node build.mjs
	touch $@

system-packages:
	scripts/system-packages

test: install-dev system-packages .venv/langchain/.installed
	$(BIN)/pytest --numprocesses 2 --dist loadfile --max-worker-restart 0 $(ARGS)

soak: install-dev system-packages
	$(BIN)/pytest -s -m soak $(ARGS)

# New examples of every property, where `make test` tries the same ones again.
properties: install-dev system-packages
	$(BIN)/pytest -m "hypothesis and not soak" --hypothesis-profile new $(ARGS)

check: install-dev
	$(BIN)/ruff format --check src tests bench examples
	$(BIN)/ruff check src tests bench examples
	$(BIN)/mypy
	$(BIN)/lint-imports

format: install-dev
	$(BIN)/ruff format src tests bench examples
	$(BIN)/ruff check --fix src tests bench examples

bench: install-dev
	$(BIN)/python -m bench.run $(ARGS)
	$(BIN)/python -m bench.steps
	$(BIN)/python -m bench.budget --write

features: install-dev
	$(BIN)/python -m bench.features $(ARGS)

bench-latency: install-dev system-packages
	$(BIN)/python -m bench.latency $(ARGS)

bench-content: install-dev
	$(BIN)/python -m bench.content $(ARGS)

bench-fairness: install-dev
	$(BIN)/python -m bench.fairness $(ARGS)

bench-experiments: install-dev
	$(BIN)/python -m bench.experiments $(ARGS)

bench-registry: install-dev
	$(BIN)/python -m bench.registry $(ARGS)

bench-drift: install-dev
	$(BIN)/python -m bench.drift $(ARGS)

bench-endurance: install-dev
	$(BIN)/python -m bench.endurance $(ARGS)

bench-connections: install-dev
	$(BIN)/python -m bench.connections $(ARGS)

bench-tls: install-dev
	$(BIN)/python -m bench.tls $(ARGS)

bench-slow-clients: install-dev system-packages
	$(BIN)/python -m bench.slow_clients $(ARGS)

bench-peers:
	bench/install-peers

image: install-dev
	rm -rf dist
	$(BIN)/python -m build --wheel --outdir dist
	docker build -t penstock:latest -f deploy/Dockerfile .

image-test: install-dev
	deploy/image-test

lock:
	$(BIN)/pip-compile --quiet --no-emit-index-url --no-emit-trusted-host --generate-hashes --strip-extras --allow-unsafe \
	  --extra engine --extra postgres --extra redis --extra analytics --extra otlp --extra grpc --extra grpc-build --extra compile --extra gpu --extra probe --extra dev -o requirements.lock pyproject.toml
	$(BIN)/pip-compile --quiet --no-emit-index-url --no-emit-trusted-host --generate-hashes --strip-extras --allow-unsafe \
	  --extra engine --extra postgres --extra redis --extra analytics --extra otlp --extra grpc --extra grpc-build --extra compile --extra gpu --extra probe -c requirements.lock -o requirements-run.lock pyproject.toml
	$(BIN)/pip-compile --quiet --no-emit-index-url --no-emit-trusted-host --generate-hashes --strip-extras --allow-unsafe \
	  --no-emit-find-links -o tests/langchain/requirements.lock tests/langchain/requirements.in

clean:
	rm -rf .venv build dist src/penstock.egg-info frontend/node_modules src/penstock/console/static/vendor src/penstock/gateway/grpc/inference_pb2.py*
