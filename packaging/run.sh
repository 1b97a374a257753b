#!/bin/sh
# Starts `davy run` with as much of the host in view as the user may have.
# Usage: run.sh BINARY; DAVY_UNPRIVILEGED=1 stays with the user's own rights.
set -eu
davy=$1

if [ "$(id -u)" -eq 0 ] || [ "${DAVY_UNPRIVILEGED:-}" = 1 ]; then
    exec "$davy" run
fi
if command -v sudo >/dev/null 2>&1 && { sudo -n true 2>/dev/null || [ -t 0 ]; }; then
    printf '%s\n' "davy: starting as root through sudo, to see the whole host (DAVY_UNPRIVILEGED=1 make run does without)" >&2
    exec sudo "$davy" run
fi
exec "$davy" run
