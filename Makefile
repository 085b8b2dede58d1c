# The doors of the project. CI calls only these.
SHELL := /bin/bash
.DEFAULT_GOAL := help
CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/sluice
TOOLS := $(CACHE)/tools
BUF := $(TOOLS)/venv/bin/buf
EXAMPLE := $(TOOLS)/property-events
CARGO_DENY := $(TOOLS)/bin/cargo-deny
NEXTEST := $(TOOLS)/bin/cargo-nextest
# Tests of single crates wait for Kafka half of the time.
UNIT_THREADS := $(shell echo $$(($$(nproc) * 3 / 2)))
# One profile, one feature set and one pass for lints and code (.cargo/config.toml), so that nothing is compiled twice.
BIN := $(or $(CARGO_TARGET_DIR),target)
ALL := --workspace --all-targets --locked
PROGRAMS := --locked -p sluice-features -p sluiced -p sluice

.PHONY: help deps test-deps tools up up-separate demo example test check fmt deny proto layers build units faults faults-long slowest load api-baseline docs clean

help: ## List the doors
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

deps: ## Install what the machine lacks (as root), or name the exact command
	@dev/deps.sh

test-deps: # The same with what only tests need
	@dev/deps.sh tests

tools: test-deps $(BUF) $(CARGO_DENY) $(NEXTEST) ## Install the checkers into the cache
$(BUF): dev/tools.txt
	@python3 -m venv $(TOOLS)/venv && $(TOOLS)/venv/bin/pip install --quiet --requirement dev/tools.txt && touch $@
$(CARGO_DENY): dev/tools.mk
	@cargo install cargo-deny --version $(CARGO_DENY_VERSION) --locked --debug --quiet --root $(TOOLS) && touch $@
$(NEXTEST): dev/tools.mk
	@cargo install cargo-nextest --version $(NEXTEST_VERSION) --locked --debug --quiet --no-default-features --features default-no-update --root $(TOOLS) && touch $@
include dev/tools.mk

up: deps ## Build and start everything on this machine: Kafka, PostgreSQL, all services, a demo tenant
	@cargo build $(PROGRAMS) && $(BIN)/debug/sluiced up $(UP_ARGS)

up-separate: ## The same, with every role as a process of its own
	@$(MAKE) --no-print-directory up UP_ARGS=--separate

demo: deps ## Stream 336,776 real events of two tenants through two gateways and compare every count
	@flights=$$(dev/flights.sh) && cargo build $(PROGRAMS) -p sluice-loadtest && $(BIN)/debug/sluice-loadtest demo --flights "$$flights" $(DEMO_ARGS)

# Within `make test` the programs are built already, with the features that the tests need.
example: deps $(EXAMPLE)/installed ## Run an application with outbox, inbox, retries and dead letters, and compare its books
	@$(if $(filter test,$(MAKECMDGOALS)),,cargo build $(PROGRAMS))
	@cd examples/property-events && $(EXAMPLE)/bin/python -m unittest && \
		$(EXAMPLE)/bin/python -m property_events --sluiced "$(abspath $(BIN))/debug/sluiced" $(EXAMPLE_ARGS)
$(EXAMPLE)/installed: examples/property-events/requirements.txt
	@python3 -m venv $(EXAMPLE) && $(EXAMPLE)/bin/pip install --quiet --requirement $< && touch $@

test: tools check units faults example slowest ## Everything that CI runs

check: fmt proto deny build layers ## Format, protos, dependencies, lints (the build), layers, docs

fmt:
	cargo fmt --all --check

deny: $(CARGO_DENY)
	$(CARGO_DENY) check bans licenses sources

proto: $(BUF)
	$(BUF) lint
	$(BUF) format --diff --exit-code proto
	$(BUF) breaking proto --against dev/api-baseline.binpb

layers: build
	$(BIN)/debug/xtask check

build: ## Compile and lint everything
	cargo build $(ALL)

units: build ## Tests of single crates, on one shared Kafka and PostgreSQL
	$(BIN)/debug/devstack run -- $(NEXTEST) nextest run --profile units $(ALL) --test-threads $(UNIT_THREADS) -E 'not package(sluice-e2e)'

faults: build ## End-to-end and fault tests, short forms; those without a promise about time two at a time
	$(BIN)/debug/devstack run -- $(NEXTEST) nextest run --profile faults $(ALL) -E 'package(sluice-e2e)'

slowest: ## Show where the time of the last test runs went
	@$(BIN)/debug/xtask slowest

faults-long: ## The same, with the counts of the long forms
	SLUICE_TEST_LONG=1 $(MAKE) --no-print-directory faults

load: ## Measure against a bare client in the same run; writes loadtest/results
	cargo build --release --locked -p sluiced -p sluice-loadtest
	$(BIN)/release/sluice-loadtest measure
	$(BIN)/release/sluice-loadtest groups

api-baseline: $(BUF) ## At a release: make today's protos the ones that later changes must not break
	$(BUF) build proto --exclude-source-info --output dev/api-baseline.binpb

docs: layers ## Check the docs

clean: ## Remove build output and the local stack's data
	cargo clean && rm -rf .sluice
