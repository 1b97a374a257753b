#!/usr/bin/env bash
# Runs every test of the workspace, then says again how each runner ended and what was skipped for want of what.
set -uo pipefail
cd "$(dirname "$0")/.."
log=target/test.log

# Binaries that are tested from the outside are the ones that `make build` left.
export DAVY_BIN="$PWD/target/release/davy"

# --show-output, because a test that skips says so on its own output.
cargo test --workspace --locked --no-fail-fast -- --show-output 2>&1 | tee "$log"
status=${PIPESTATUS[0]}

printf '\n=== runners ===\n'
grep -E '^ +(Running|Doc-tests) |^test result: |^error: test failed' "$log"
skips=$(grep -oE 'SKIPPED: .*' "$log" | sort | uniq -c)
if [ -n "$skips" ]; then
    printf '\n=== skipped, with the feature that is missing ===\n%s\n' "$skips"
fi
if [ "$status" -ne 0 ]; then
    # What a failed test said, without the frames of its stack, for those who see no more than the end.
    printf '\n=== failed ===\n'
    awk '/^failures:$/ { failed = 1 } /^test result: / { failed = 0 } failed && !/^ +([0-9]+: |at )/' "$log" | head -c 20000
fi
if [ "$status" -eq 0 ]; then
    printf '\nAll tests passed.\n'
else
    printf '\nTests FAILED; the whole log is in %s.\n' "$log"
fi
exit "$status"
