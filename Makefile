# The front door. `make` alone says what there is.

SHELL := bash
export CARGO ?= cargo
# Whatever is asked, quotes and dollars too, reaches the demo as it is: make
# itself would expand $5 and $(shell …).
override PROMPT := $(value PROMPT)
export PROMPT

.DEFAULT_GOAL := help

.PHONY: help
help: ## Say what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: fetch
fetch: ## Fetch libtorch and two models into .cache/ (720 MB, once)
	@scripts/fetch all

.PHONY: build
build: fetch ## Build everything
	@scripts/build

.PHONY: demo
demo: build ## Watch the market do two jobs and a batch on a real model (PROMPT="…")
	@scripts/demo

.PHONY: market
market: build ## Start the same market and leave it up until Ctrl-C (PORT=7777)
	@scripts/market

.PHONY: test
test: fetch ## Run all tests
	@scripts/test

.PHONY: faults
faults: fetch ## Kill every process at every point of a paid job and a batch (10 minutes)
	@scripts/faults

.PHONY: lint
lint: fetch ## Check format, lints, documentation and dependencies
	@scripts/lint

.PHONY: ci
ci: ## Do what the continuous integration does
	@.ci/run

.PHONY: wallet
wallet: ## Build, check and test the wallet alone, on a private regtest
	@scripts/wallet

.PHONY: bench
bench: fetch ## Measure (PART="engine decode bf16"); figures are in docs/benchmarks.md
	@scripts/bench $(PART)

.PHONY: reference
reference: fetch ## Remake the reference files that the engine is tested against
	@scripts/reference

.PHONY: release
release: fetch ## Build optimised programs into target/release/
	@scripts/build --release
