# Davy's front door. `make help` lists what can be asked for.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# One target directory for everything, and cargo found where rustup puts it even when sudo emptied the path.
export CARGO_TARGET_DIR := $(CURDIR)/target
export PATH := $(PATH):$(HOME)/.cargo/bin

DENY_VERSION := 0.20.2
DENY := target/tools/bin/cargo-deny
FUZZ_VERSION := 0.13.2
FUZZ := target/tools/bin/cargo-fuzz
DAVY := target/release/davy

.PHONY: help run build test lint tidy deny fmt fuzz bench deb clean ready ready-test ready-bench

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 18

ready:
	@packaging/prepare.sh build

ready-test:
	@packaging/prepare.sh test

ready-bench:
	@packaging/prepare.sh bench

build: ready ## the release binary, static, in target/release/davy
	@packaging/build.sh

run: build ## build, then watch this host in observe mode until Ctrl-C
	@packaging/run.sh $(DAVY)

test: ready-test ## everything: build, lint, all tests, the virtual machines, the short exam
	@$(MAKE) build
	@$(MAKE) lint
	@tests/run.sh

lint: ready-test fmt ## formatting, clippy, licences and advisories, the house rules
	cargo clippy --workspace --all-targets --locked -- -D warnings
	@$(MAKE) tidy deny

fmt:
	cargo fmt --all --check

tidy: ## the house rules alone
	cargo xtask tidy

deny: $(DENY) ## licences, sources and advisories of every dependency
	$(DENY) --log-level warn check --hide-inclusion-graph bans licenses sources
	@if $(DENY) fetch db 2>target/tools/advisories.log; then \
	    $(DENY) --log-level warn check --hide-inclusion-graph --disable-fetch advisories; \
	else \
	    echo "SKIPPED: advisories: no network to the advisory database:" \
	        "$$(grep -m 1 fatal: target/tools/advisories.log || tail -n 1 target/tools/advisories.log)"; \
	fi

# A debug build: the tool runs for seconds, its optimised build for minutes.
$(DENY):
	cargo install --quiet --locked --debug --version $(DENY_VERSION) --root target/tools cargo-deny
	@touch $@

fuzz: ready-test $(FUZZ) ## every reader of hostile bytes under a fuzzer, a minute each
	@tests/fuzz.sh

$(FUZZ):
	cargo install --quiet --locked --debug --version $(FUZZ_VERSION) --root target/tools cargo-fuzz
	@touch $@

bench: ready-bench build ## ratios with and without Davy and, in virtual machines, its peers; the full exam
	@tests/bench.sh

deb: build ## a Debian package in target/debian
	@packaging/build-deb.sh $(DAVY)

clean: ## removes everything that was built
	cargo clean
