#!/bin/sh
# Builds the release binary and leaves it in target/release/davy, whatever this host's target is called.
set -eu
cd "$(dirname "$0")/.."

cargo build --release --locked --package davy-cli
host=$(rustc -vV | sed -n 's/^host: //p')
mkdir -p target/release
# A rename, so that a running davy keeps its file and nobody ever sees half of one.
cp "target/$host/release/davy" target/release/davy.new
mv target/release/davy.new target/release/davy
