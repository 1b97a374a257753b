#!/usr/bin/env bash
# Measures, and leaves the numbers in target/bench.json; then runs the full exam.
set -euo pipefail
cd "$(dirname "$0")/.."

cargo run --quiet --release --locked --package davy-test-bench -- --davy target/release/davy --json target/bench.json "$@"
