#!/usr/bin/env bash
# Measures what Davy costs this host, counts what Davy and its peers cost in virtual machines, then sits the full exam;
# the numbers are left in target/bench.json, target/bench-vm.json and target/exam.json. Arguments go to the first part:
# --rounds 3 --rest 10 for a first look; DAVY_BENCH_VM=0 and DAVY_BENCH_EXAM=0 leave the others out.
set -euo pipefail
cd "$(dirname "$0")/.."

export DAVY_BIN="$PWD/target/release/davy"
cargo run --quiet --release --locked --package davy-test-bench -- --davy "$DAVY_BIN" --json target/bench.json "$@"
if [ "${DAVY_BENCH_VM:-1}" = 1 ]; then
    cargo bench --quiet --locked --package davy-test-vm --bench costs -- --json "$PWD/target/bench-vm.json"
fi
if [ "${DAVY_BENCH_EXAM:-1}" = 1 ]; then
    cargo build --quiet --release --locked --package davy-test-miner
    cargo run --quiet --release --locked --package davy-test-exam -- --full --json target/exam.json
fi
