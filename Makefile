# What people run; 'make' alone lists it. Everything is done by scripts and programs that can be run by hand too.

CARGO ?= cargo
BIN := target/release

.PHONY: help
help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

.PHONY: deps
deps: ## Install the Debian packages that are missing (root)
	@scripts/install-deps

.PHONY: build
build: deps ## Build what runs, optimised
	@# Without the simulation and the benchmarks: their features would bring the fakes into the daemon.
	@$(CARGO) build --release --workspace --exclude drover-sim --exclude drover-bench --bins

.PHONY: demo
demo: deps ## One node without configuration, and a VM that runs
	@echo "building three programs; from a clean clone this takes some minutes"
	@$(CARGO) build --profile quick --locked -p droverd -p drover-cli -p drover-lab --bins
	@target/quick/drover-lab demo up

.PHONY: demo-down
demo-down: ## Remove every trace of the demo
	@if [ -x target/quick/drover-lab ]; then target/quick/drover-lab demo down; fi

.PHONY: lab
lab: build ## A cluster of three nodes on this machine
	@$(BIN)/drover-lab up --nodes 3

.PHONY: lab-down
lab-down: ## Remove every trace of the lab
	@if [ -x $(BIN)/drover-lab ]; then $(BIN)/drover-lab down; fi

.PHONY: rounds
rounds: build ## Random faults on a real cluster, checked from outside (root); SEED=1 ROUNDS=20 NODES=3
	$(BIN)/drover-lab rounds --seed $(or $(SEED),1) --rounds $(or $(ROUNDS),20) --nodes $(or $(NODES),3)

.PHONY: check
check: ## Formatting, lints, and documentation without warnings
	$(CARGO) fmt --all --check
	@scripts/check-lines
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings --cfg tokio_unstable" $(CARGO) doc --workspace --no-deps --locked --quiet

.PHONY: deny
deny: ## Licences, versions and known defects of what we depend on (cargo install cargo-deny; network)
	$(CARGO) deny check

.PHONY: test
test: deps ## All tests, those with real components included (root)
	scripts/test

.PHONY: soak
soak: ## Simulated clusters with new seeds, as long as you give it; SOAK=3600 (seconds) FROM=100000 (first seed)
	scripts/soak $(or $(SOAK),3600) $(or $(FROM),100000)

.PHONY: bench
bench: build ## Measure, and print the table of docs/benchmarks.md (root)
	@$(CARGO) build --release --locked -p drover-bench
	$(BIN)/drover-bench
