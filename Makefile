# Two commands matter: `make demo` shows the saga at work, `make test` proves it. `make` alone lists the rest.

SHELL := bash
.DEFAULT_GOAL := help
.NOTPARALLEL:
MAKEFLAGS += --no-print-directory

# Any Python from 3.11 on: PYTHON=/path/to/python make ...
PYTHON ?= $(shell for name in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	"$$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo "$$name"; break; }; done)

PY := .venv/bin/python
STAMP := .venv/requirements-installed
CODE := $(wildcard common payment_svc reservation_svc point_svc queue_svc notify_svc ops tools proof tests benchmarks containers chaos fuzz)
# More for pytest: make test ARGS="-k ledger -x"
ARGS ?=
# Two processes share out the tests, by file, or by room where a broker or an engine is shared (tests/conftest.py): while
# one waits for a broker or a container, the other computes. With ARGS=-n0 there is one.
LANES := -n 2 --dist loadscope --no-loadscope-reorder

.PHONY: help
help: ## What can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: setup
setup: $(STAMP) ## The virtual environment .venv, from pinned and hashed requirements
	@:

# The stamp is a copy of what was installed, so a file that is only newer, as after a clone, costs nothing.
$(STAMP): requirements/dev.txt
	@if cmp -s $< $@; then touch $@; exit; fi; \
	if [ -z "$(PYTHON)" ]; then \
		echo "No Python 3.11 or newer found. Install one, or name it: make PYTHON=/path/to/python3 ..." >&2; \
		exit 1; \
	fi; \
	if ! "$(PYTHON)" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
		echo "$(PYTHON) is no Python from 3.11 on with venv and pip (Debian, Ubuntu: apt-get install python3-venv)." >&2; \
		exit 1; \
	fi; \
	set -euo pipefail; \
	printf 'Setting up .venv with %s ' "$$("$(PYTHON)" --version)"; \
	"$(PYTHON)" -m venv --clear .venv; \
	$(PY) -m pip install --disable-pip-version-check --no-input --progress-bar off --require-hashes \
			--requirement $< 2>&1 | tee .venv/install.log \
		| awk '/^Collecting|^Installing/ { printf "."; fflush() } END { print "" }' \
		|| { tail -n 20 .venv/install.log >&2; exit 1; }; \
	cp $< $@

.PHONY: demo
demo: setup ## Over a hundred payments, refusals, repeats and a stopped service, live; then the verdict
	@$(PY) -m tools.demo

.PHONY: up
up: setup ## Start a broker and the five services and leave them running
	@$(PY) -m tools.stack up

.PHONY: down
down: setup ## Stop what `make up` started; the data stays
	@$(PY) -m tools.stack down

.PHONY: status
status: setup ## Say what runs
	@$(PY) -m tools.stack status

# What tests start in Docker is labelled; what is still there after them was left by a test that was cut off.
# The second label names this checkout, as containers/labels.py writes it: another one may be testing, too.
OURS = --filter label=concert-saga=test --filter label=concert-saga.checkout=$$($(PY) -c \
	'import hashlib, os; print(hashlib.sha256(os.path.realpath(".").encode()).hexdigest()[:12])')
TIDY = docker ps -aq $(OURS) | xargs -r docker rm -fv; \
	docker network ls -q $(OURS) | xargs -r docker network rm; \
	docker volume ls -q $(OURS) | xargs -r docker volume rm

.PHONY: test
test: setup ## All tests; Docker and images are found, or made
	@set -euo pipefail; \
	engine_ran=$$(docker info >/dev/null 2>&1 && echo yes || echo no); \
	tidy() { \
		trap "" INT TERM; \
		{ $(TIDY); [ $$engine_ran = yes ] || $(PY) -m tools.docker_engine stop; } >/dev/null 2>&1 || true; \
	}; \
	trap tidy EXIT; \
	$(PY) -m tools.docker_engine; \
	$(PY) -m tools.images; \
	export $$(cat var/images.env); \
	$(PY) -m tools.broker install || echo "Going on: a broker in a container serves too."; \
	$(PY) -m tools.browser; \
	$(PY) -m pytest $(LANES) $(ARGS)

.PHONY: test-native
test-native: setup ## The tests that need no container, only an installed RabbitMQ
	@$(PY) -m tools.broker install
	$(PY) -m pytest -m "not container" $(ARGS)

.PHONY: lint
lint: setup ## Style and common mistakes (ruff)
	@$(PY) -m ruff check --quiet . && $(PY) -m ruff format --quiet --check . && echo "lint: clean"

.PHONY: types
types: setup ## Types (mypy, strict)
	@$(PY) -m mypy --no-error-summary $(CODE) && echo "types: clean"

.PHONY: imports
imports: setup ## Who may import whom
	@.venv/bin/lint-imports

.PHONY: generated
generated: setup ## Whether the generated files are fresh
	@$(PY) -m tools.generate --check && $(PY) -m benchmarks.report --check && $(PY) -m chaos.report --check

.PHONY: generate
generate: setup ## Write the generated files anew
	@$(PY) -m tools.generate

.PHONY: certs
certs: setup ## Certificates for development: an authority, one for broker and databases each, and for each user
	@$(PY) -m tools.certs

.PHONY: migrations
migrations: setup ## Write migrations for tables that changed
	@for service in PAYMENT RESERVATION POINT QUEUE NOTIFY; do \
		PYTHONPATH=. .venv/bin/tortoise -c tools.migrations.$$service makemigrations; done

.PHONY: screenshots
screenshots: setup ## Pictures of the board and of the management UI, from a real run
	@$(PY) -m tools.screenshots

.PHONY: contract
contract: setup ## AsyncAPI's own validator on docs/asyncapi.yaml
	@$(PY) -m tools.contracts validate

.PHONY: explore
explore: setup ## Search every interleaving of the production code for a broken promise (many minutes)
	@$(PY) -m proof.explorer $(ARGS)

PEERS := .venv-peers/requirements-installed

.PHONY: peers
peers: $(PEERS) ## The benchmark's peers, in .venv-peers, from pinned and hashed requirements
	@:

$(PEERS): requirements/peers.txt $(STAMP)
	@if cmp -s $< $@; then touch $@; exit; fi; \
	set -euo pipefail; \
	printf 'Setting up .venv-peers '; \
	$(PY) -m venv --clear .venv-peers; \
	.venv-peers/bin/python -m pip install --disable-pip-version-check --no-input --progress-bar off --require-hashes \
			--requirement $< 2>&1 | tee .venv-peers/install.log \
		| awk '/^Collecting|^Installing/ { printf "."; fflush() } END { print "" }' \
		|| { tail -n 20 .venv-peers/install.log >&2; exit 1; }; \
	cp $< $@

.PHONY: bench
bench: setup peers ## Measure everything, beside a floor and peers (about two hours); then docs/benchmarks.md
	@$(PY) -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements/bench.txt
	@status=0; $(PY) -m benchmarks $(ARGS) || status=$$?; $(PY) -m benchmarks.report && exit $$status

.PHONY: flames
flames: setup ## Flame graphs of the five services under load
	@$(PY) -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements/bench.txt
	@$(PY) -m benchmarks --experiments profile --contenders postgres --json benchmarks/results/flames.json

# SEED= repeats a run's choices, MINUTES= makes round after round, FAULTS=a,b chooses, RATE= payments a second.
CHAOS = $(if $(SEED),--seed $(SEED)) $(if $(MINUTES),--minutes $(MINUTES)) $(if $(FAULTS),--faults $(FAULTS)) \
	$(if $(RATE),--rate $(RATE)) $(ARGS)

.PHONY: chaos
chaos: setup ## Every fault under load in containers (an hour), then docs/reliability.md; SEED= MINUTES= FAULTS= RATE=
	@status=0; $(PY) -m chaos $(CHAOS) || status=$$?; $(PY) -m chaos.report && exit $$status

.PHONY: soak
soak: setup ## An hour of load with a fault every minute: what grows?
	@status=0; $(PY) -m chaos --soak --minutes $(or $(MINUTES),60) $(if $(SEED),--seed $(SEED)) \
		$(if $(RATE),--rate $(RATE)) $(ARGS) || status=$$?; $(PY) -m chaos.report && exit $$status

.PHONY: simulate
simulate: setup ## Thousands of sagas in virtual time, faults at every boundary; SEED= and SAGAS= choose
	@SEED="$(SEED)" SAGAS="$(SAGAS)" $(PY) -m proof.simulator $(ARGS)

.PHONY: fuzz
fuzz: setup ## Hostile input by the million, and thousands through a real broker; SECONDS= for each target, MESSAGES=
	@$(PY) -m fuzz --seconds $(or $(SECONDS),60) $(ARGS)
	@FUZZ_MESSAGES=$(or $(MESSAGES),5000) FUZZ_RESULT=$(if $(findstring --keep,$(ARGS)),fuzz/results/storm.json) \
		$(PY) -m pytest -q tests/native/test_native_fuzz.py

.PHONY: matrix
matrix: setup ## The tests on other versions of broker, database and Python, as far as they can be had; docs/versions.md
	@status=0; $(PY) -m tools.matrix $(ARGS) || status=$$?; $(PY) -m tools.generate && exit $$status

.PHONY: mutants
mutants: setup ## Change the deciding code in small ways; a test must notice each (20 minutes)
	@nice -n 10 $(PY) -m tools.mutants $(ARGS)

.PHONY: prove
prove: setup ## Explorer, simulator and mutants at full length, with their figures for docs/proof.md (an hour)
	@set -euo pipefail; mkdir -p proof/results; \
	$(PY) -m proof.explorer --json > proof/results/explorer.json; \
	SEED="$(SEED)" SAGAS="$(or $(SAGAS),10000)" $(PY) -m proof.simulator --json > proof/results/simulator.json; \
	nice -n 10 $(PY) -m tools.mutants --json proof/results/mutants.json; \
	$(PY) -m tools.generate

.PHONY: advisories
advisories: setup ## Whether a release that the services are made of has a known fault; skipped without a network
	@$(PY) -m tools.advisories

.PHONY: check
check: lint types imports generated advisories test ## Everything that CI runs

.PHONY: images
images: setup ## The container images: official ones, or stand-ins built from Debian's packages
	@$(PY) -m tools.docker_engine
	$(PY) -m tools.images

.PHONY: sbom
sbom: setup ## A list of all that is in the services' image (CycloneDX), in var/sbom.cdx.json
	@$(PY) -m tools.sbom

.PHONY: clean
clean: ## Stop everything that was started here; delete data, logs and caches
	@if [ -x $(PY) ]; then $(PY) -m tools.stack down; $(PY) -m tools.broker forget; \
		$(PY) -m tools.docker_engine stop; fi
	rm -rf var .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name ".venv*" -prune -o -name __pycache__ -type d -exec rm -rf {} +
