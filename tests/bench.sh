#!/usr/bin/env bash
# Measures what Davy costs, then sits the full exam; the numbers are left in target/bench.json and target/exam.json.
# Arguments go to the cost part: --rounds 3 --rest 10 for a first look; DAVY_BENCH_EXAM=0 leaves the exam out.
set -euo pipefail
cd "$(dirname "$0")/.."

# A peer that the machine does not have is unpacked here, not installed: its package would start it for good.
peers=target/peers
if ! command -v /sbin/auditd >/dev/null 2>&1 && [ ! -d "$peers/auditd" ] && command -v apt-get >/dev/null 2>&1; then
    mkdir -p "$peers/packages"
    if (cd "$peers/packages" && apt-get -qq -o APT::Sandbox::User=root download auditd libaudit1 libauparse0 libwrap0); then
        for package in "$peers"/packages/*.deb; do dpkg-deb -x "$package" "$peers/auditd"; done
    fi
fi

# Audit rules are the whole machine's; none of ours may outlive a bench that was killed.
sweep() {
    local ctl=/sbin/auditctl
    [ -x "$ctl" ] || ctl=$peers/auditd/sbin/auditctl
    [ -x "$ctl" ] || return 0
    local libraries=$PWD/$peers/auditd/lib/x86_64-linux-gnu:$PWD/$peers/auditd/usr/lib/x86_64-linux-gnu
    if LD_LIBRARY_PATH=$libraries "$ctl" -l 2>/dev/null | grep -q davy-bench; then
        LD_LIBRARY_PATH=$libraries "$ctl" -D -k davy-bench
        LD_LIBRARY_PATH=$libraries "$ctl" -e 0
    fi
}
trap sweep EXIT

export DAVY_BIN="$PWD/target/release/davy"
cargo run --quiet --release --locked --package davy-test-bench -- --davy "$DAVY_BIN" --json target/bench.json "$@"
if [ "${DAVY_BENCH_EXAM:-1}" = 1 ]; then
    cargo build --quiet --release --locked --package davy-test-miner
    cargo run --quiet --release --locked --package davy-test-exam -- --full --json target/exam.json
fi
