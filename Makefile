# Weft's commands for people and for CI. 'make help' lists them.
#
# Nothing is assumed but Go, and for what runs ClickHouse or Kafka here: npm, Maven and Java. Tools are pinned below and
# fetched into .cache/bin, servers into the user's cache.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules
.DEFAULT_GOAL := help

GOLANGCI_LINT = $$(scripts/tool github.com/golangci/golangci-lint/v2 v2.15.0 github.com/golangci/golangci-lint/v2/cmd/golangci-lint)
GOTESTSUM = $$(scripts/tool gotest.tools/gotestsum v1.13.0 gotest.tools/gotestsum)

# ARGS is handed to the command that a target runs: make demo ARGS="--keep --visitors 500".
ARGS ?=
# PKG narrows test-unit and test: make test-unit PKG=./pkg/stream/...
PKG ?= ./...
# TIMEOUT is that of one package's tests.
TIMEOUT ?= 20m

# BENCH_TIMEOUT is that of one package's benchmarks: a million timers and seven rounds of each contest take their time.
BENCH_TIMEOUT ?= 60m

# FLAKY=1, as in CI: a test that fails is run once more, alone. It must pass then, and stands in bin/flaky*.txt; a data race,
# or more failures than four (a subtest and the test around it are two), is never given one. By hand there is none, so that
# whoever wrote the test sees it.
FLAKY ?=
RERUN = $(if $(FLAKY),--rerun-fails=1 --rerun-fails-max-failures=4 --rerun-fails-run-root-test --rerun-fails-abort-on-data-race --rerun-fails-report=$(2))

# 1: packages, 2: report of tests that were run again, 3: more flags.
GO_TEST = $(GOTESTSUM) --format pkgname-and-test-fails --format-hide-empty-pkg $(RERUN) --packages="$(1)" -- -race -shuffle=on -timeout $(TIMEOUT) $(3)
# E2E runs alone, after the others: its tests watch the clock of a whole deployment.
E2E = ./services/weft/e2e
OTHERS = $$(go list -tags integration $(PKG) | grep -v '/services/weft/e2e$$')
# Packages that have tests against real servers.
WITH_SERVERS = $$(grep -rl --include='*_test.go' '^//go:build integration' pkg services scripts | xargs -n1 dirname | sort -u | grep -v 'weft/e2e$$' | sed 's|^|./|')
BENCHES = $$(grep -rl --include='*_test.go' '^func Benchmark' pkg services | xargs -n1 dirname | sort -u | sed 's|^|./|')

.PHONY: help
help: ## Show this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z][a-z0-9-]*:.*## / {printf "  %-14s %s\n", $$1, $$2} /^## / {print "\n" substr($$0, 4)}' $(MAKEFILE_LIST)

## Use it

.PHONY: demo
demo: build clickhouse ## Watch a simulated shop go through Weft, on parts of its own (ARGS="--keep")
	bin/weft demo $(ARGS)

.PHONY: up
up: build clickhouse ## Run all of Weft in one process, on parts of its own (ARGS="--config weft.yaml")
	bin/weft up $(ARGS)

.PHONY: deps
deps: clickhouse ## Fetch what a fresh machine lacks: modules, ClickHouse (libchdb), Redis
	@scripts/fetch-redis --optional
	go mod download

## Build and check it

.PHONY: build
build: ## Build bin/weft
	CGO_ENABLED=0 go build -trimpath -o bin/weft ./services/weft

.PHONY: lint
lint: ## Lint, with the rules of .golangci.yml
	$(GOLANGCI_LINT) run ./...

.PHONY: test
test: clickhouse redis bin/testservers ## All rings of tests, on servers given, in Docker, or native ones that it starts
	bin/testservers run -- $(MAKE) --no-print-directory test-here

.PHONY: test-here
test-here: # with servers in WEFT_TEST_...
	$(call GO_TEST,$(OTHERS),bin/flaky.txt,-tags integration)
	$(call GO_TEST,$(E2E),bin/flaky-e2e.txt,-tags integration -count=1)

.PHONY: test-unit
test-unit: ## The tests that need no server
	$(call GO_TEST,$(PKG),bin/flaky.txt)

.PHONY: integration
integration: bin/testservers ## The packages that have tests on real servers, without those of whole deployments
	bin/testservers run -- $(call GO_TEST,$(WITH_SERVERS),bin/flaky.txt,-tags integration -count=1)

.PHONY: e2e
e2e: bin/testservers ## The tests of whole deployments (ARGS="-run TestTill")
	bin/testservers run -- $(call GO_TEST,$(E2E),bin/flaky-e2e.txt,-tags integration -count=1 $(ARGS))

# SEEDS is how many schedules of each shape, SEED one of them alone, SHAPE one shape alone.
SEEDS ?= 100
SEED ?= 0
SHAPE ?=
SIMULATE = go test ./services/weft/simulate -count=1 -timeout 0 -v

.PHONY: simulate
simulate: ## The services under virtual time and seeded faults (SEEDS=1000, or SEED=42 SHAPE=crash)
	$(SIMULATE) -run '^TestSimulate$$' -seeds $(SEEDS) -seed $(SEED) -shape '$(SHAPE)'

.PHONY: simulate-long
simulate-long: MINUTES = 60
simulate-long: LEDGER = .cache/simulate
simulate-long: ## Schedules on and on, from the seeds where the last run ended; its ledger adds up (MINUTES=60 LEDGER=dir)
	nice -n 19 $(SIMULATE) -run '^TestLong$$' -ledger '$(abspath $(LEDGER))' -minutes $(MINUTES) -shape '$(SHAPE)' \
		-commit "$$(git describe --always --dirty)" $(ARGS)

.PHONY: simulate-graph
simulate-graph: UNIONS = 10000000
simulate-graph: FROM = 0
simulate-graph: ## The identity graph alone, until it has made as many unions; runs add up by their seeds (UNIONS=10000000 FROM=0)
	nice -n 19 go test ./pkg/identity -count=1 -timeout 0 -v -run '^TestLong$$' -identity.unions $(UNIONS) -identity.from $(FROM)

.PHONY: simulate-mutations
simulate-mutations: ## Break the code on purpose, one place after the other: the simulation must catch each (ARGS="-mutation trim-too-far")
	$(SIMULATE) -tags mutations -run '^TestMutationsAreCaught$$' $(ARGS)

.PHONY: cdnow
cdnow: bin/testservers ## 69,659 real purchases through separate processes, one of them killed: each fact beside its expected value
	bin/testservers run -- go test -tags integration -count=1 -timeout $(TIMEOUT) -v -run '^TestCDNOW' $(E2E) $(ARGS)

.PHONY: traffic
traffic: bin/testservers ## Requests as real SDKs sent them: every event arrives
	bin/testservers run -- go test -tags integration -count=1 -timeout $(TIMEOUT) -v -run '^TestTraffic' $(E2E) $(ARGS)

.PHONY: bench
bench: bin/testservers ## The benchmarks of the hot paths, on real servers (ARGS="-bench Insert -benchtime 5s")
	{ scripts/machine; bin/testservers run -- go test -tags integration -run '^$$' -bench . -benchmem -timeout $(BENCH_TIMEOUT) $(BENCHES) $(ARGS); } 2>&1 | tee bin/bench.txt

.PHONY: flood
flood: bin/testservers ## What a source notices of another one's flood, of slow connections and of gzip bombs
	{ scripts/machine; bin/testservers run -- go test -run '^$$' -bench '^Benchmark(Flood|Abuse)$$' -benchtime 1x -timeout $(BENCH_TIMEOUT) ./services/collector $(ARGS); } 2>&1 | tee bin/flood.txt

# FUZZ narrows fuzz to the targets whose PACKAGE:NAME has it; KEEP is how many of the inputs that each finds are kept.
FUZZ ?= .
KEEP ?= 0

.PHONY: fuzz
fuzz: MINUTES = 10
fuzz: ## Every parser of outside bytes, one after the other, on one core at the lowest priority (MINUTES=10 of each, FUZZ=pkg/event, KEEP=8)
	scripts/fuzz --for $(MINUTES)m --match '$(FUZZ)' --keep $(KEEP)

.PHONY: bench-pipeline
bench-pipeline: bin/testservers ## What an event costs in the whole pipeline, process by process, and how long it takes
	{ scripts/machine; bin/testservers run -- go test -tags integration -count=1 -timeout $(BENCH_TIMEOUT) -v -run '^TestPipeline$$' $(E2E) -pipeline.events 300000 -pipeline.for 60s $(ARGS); } 2>&1 | tee bin/bench-pipeline.txt

# What chaos runs for, and with: make chaos MINUTES=5 SEED=7 CLUSTER=1 LEDGER=dir STRIKES=50.
MINUTES ?= 3
SEED ?= 0
STRIKES ?= 0
CLUSTER ?=
LEDGER ?= .cache/chaos

.PHONY: chaos
chaos: chaos-parts ## Kill, freeze, fill, cut: separate processes on three brokers; then count and compare (MINUTES= SEED= CLUSTER=1 LEDGER=dir)
	bin/chaos --ledger $(LEDGER) --minutes $(MINUTES) --seed $(SEED) --strikes $(STRIKES) $(if $(CLUSTER),--cluster) $(ARGS)

.PHONY: chaos-parts
chaos-parts: build clickhouse redis # what chaos runs, built and fetched
	@scripts/fetch-kafka
	@go build -o bin/chaos ./scripts/chaos

# How long Kafka is away, events per second meanwhile, and the spool's bound in bytes, if it is to run full: make outage MINUTES=1 SPOOL=67108864.
RATE ?= 2000
SPOOL ?= 0

.PHONY: outage
outage: MINUTES = 5
outage: bin/testservers ## Kill Kafka under load for minutes: nothing acknowledged is lost, and at what price (MINUTES= RATE= SPOOL=67108864)
	{ scripts/machine; bin/testservers run -- go test -tags integration -count=1 -timeout $(BENCH_TIMEOUT) -v -run '^TestOutage$$' $(E2E) \
		-outage.for $(MINUTES)m -outage.rate $(RATE) -outage.spool $(SPOOL) -outage.judge $(ARGS); } 2>&1 | tee bin/outage.txt

.PHONY: generate
generate: ## Write weft.example.yaml anew from the code
	go test ./pkg/config -run Example -update

## Servers for your own tests

.PHONY: native-up
native-up: bin/testservers ## Start Apache Kafka, Redis and ClickHouse on free ports; addresses in .cache/native/env
	bin/testservers up .cache/native

.PHONY: native-down
native-down: bin/testservers ## Stop them
	bin/testservers down .cache/native

## Docker

.PHONY: docker-up
docker-up: ## Build the image and start every service in a container of its own, with Kafka, Redis and ClickHouse
	docker compose up --build --wait

.PHONY: docker-down
docker-down: ## Stop the containers; data and secrets stay ('docker compose down -v' removes them)
	docker compose down

.PHONY: docker-demo
docker-demo: ## Send the simulated shop through the running containers (ARGS="--visitors 300")
	scripts/docker/demo $(ARGS)

.PHONY: docker-test
docker-test: ## Try docker-compose.yml: the shop, the first uses, the analyst, kill -9 of everything (about ten minutes)
	scripts/docker/test

.PHONY: clean
clean: native-down ## Remove what was built, and the native servers' data
	rm -rf bin .cache/native .cache/bin

.PHONY: clickhouse
clickhouse: # libchdb into the user's cache
	@scripts/fetch-clickhouse

.PHONY: redis
redis:
	@scripts/fetch-redis

.PHONY: bin/testservers
bin/testservers:
	@go build -o $@ ./scripts/testservers
