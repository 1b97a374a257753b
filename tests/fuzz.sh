#!/usr/bin/env bash
# Runs every fuzz target of the workspace for FUZZ_SECONDS (60) each, with a coverage-guided fuzzer (libFuzzer). What was
# found interesting stays in target/fuzz, so that the next run goes on from there. Ends with an error at the first crash;
# the input that did it lies in the room's fuzz/artifacts.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
seconds=${FUZZ_SECONDS:-60}
fuzz=$root/target/tools/bin/cargo-fuzz
# The instrumentation is a flag that the stable compiler knows and hides.
export RUSTC_BOOTSTRAP=1 CARGO_TARGET_DIR="$root/target/fuzz/build"
host=$(rustc -vV | sed -n 's/^host: //p')

for folder in core/*/fuzz guards/*/fuzz; do
    room=${folder%/fuzz}
    # cargo-fuzz knows no --locked.
    if ! cargo metadata --locked --format-version 1 --manifest-path "$folder/Cargo.toml" >/dev/null; then
        printf '%s\n' "$folder/Cargo.lock is not what it depends on; to take the workspace's versions:" \
            "cp Cargo.lock $folder/ && cargo metadata --format-version 1 --manifest-path $folder/Cargo.toml >/dev/null" >&2
        exit 1
    fi
    for target in $(cd "$room" && "$fuzz" list); do
        corpus=$root/target/fuzz/corpus/$room/$target
        mkdir -p "$corpus"
        printf 'fuzzing %s/%s for %s s\n' "$room" "$target" "$seconds"
        # Without a sanitizer: the code under test has no unsafe blocks, and what is looked for are panics and hangs.
        (cd "$room" && "$fuzz" run --sanitizer none --target "$host" "$target" "$corpus" -- \
            -max_total_time="$seconds" -max_len=8192 -timeout=10 -verbosity=0 -print_funcs=0)
    done
done
printf 'No crash.\n'
