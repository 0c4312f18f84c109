# The commands of this clone. `make` alone lists them.
.DEFAULT_GOAL := help

.PHONY: build
build: store/node_modules ## Build the program (target/release/citycell)
	cargo build --release --package citycell

.PHONY: demo
demo: build ## Show a simulated district live, until stopped
	cargo run --release --package citycell -- demo

.PHONY: test
test: store/node_modules ## Run every test, with a real Kafka beside them
	scripts/test

.PHONY: torture
torture: store/node_modules ## Kill everything at random (KILLS=, SECONDS=, SEED=), then compare
	CITYCELL_TORTURE="kills=$(KILLS) seconds=$(SECONDS) seed=$(SEED)" scripts/torture

.PHONY: pressure
pressure: store/node_modules ## Take everything away for minutes (OUTAGE=120 s), then compare
	CITYCELL_PRESSURE="$(or $(OUTAGE),120)" scripts/pressure

.PHONY: fuzz
fuzz: prerequisites ## Look for bytes that break what reads them (SECONDS= each, TARGETS=)
	SECONDS_EACH="$(SECONDS)" TARGETS="$(TARGETS)" scripts/fuzz

.PHONY: bench
bench: prerequisites ## Run the benchmarks at full size
	cargo build --release --package citycell-benchmarks --bins
	set -e; for bench in benchmarks/src/bin/*.rs; do \
	  cargo run --quiet --release --package citycell-benchmarks --bin "$$(basename "$$bench" .rs)"; \
	done

.PHONY: kafka-start
kafka-start: ## Start a real Kafka broker on 127.0.0.1:9092
	scripts/prerequisites java mvn
	scripts/kafka/start

.PHONY: kafka-stop
kafka-stop: ## Stop that broker; its data stays in .data/kafka
	scripts/kafka/stop

.PHONY: prerequisites
prerequisites: ## Say which tools are missing and how to get them
	scripts/prerequisites

.PHONY: help
help: ## List these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# The embedded ClickHouse is an npm package; without network a complete folder is left as it is.
store/node_modules: store/package-lock.json | prerequisites
	cd store && npm ci --no-audit --no-fund
	touch store/node_modules
