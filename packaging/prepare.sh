#!/bin/sh
# Looks whether this machine can build Davy, and installs the Debian packages that it lacks.
# Usage: prepare.sh build|test|bench
set -eu
cd "$(dirname "$0")/.."
want=${1:-build}

say() { printf '%s\n' "$*" >&2; }

# --- Rust: one line that says what to do ---------------------------------------------------------------------

needed=$(sed -n 's/^rust-version *= *"\(.*\)"/\1/p' Cargo.toml)
if ! command -v cargo >/dev/null 2>&1; then
    say "davy: no cargo here; install Rust $needed or newer: curl --proto '=https' -sSf https://sh.rustup.rs | sh, then open a new shell"
    exit 1
fi
found=$(cargo --version | cut -d' ' -f2)
oldest=$(printf '%s\n%s\n' "$needed" "${found%%-*}" | sort -V | head -n 1)
if [ "$oldest" != "$needed" ]; then
    say "davy: cargo $found is too old, Rust $needed or newer is needed: rustup update stable (or install it from https://rustup.rs)"
    exit 1
fi

# --- Debian packages -----------------------------------------------------------------------------------------

installed() { [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

# Prints the packages that are missing for $1, each with its reason.
missing_for() {
    while read -r when names why; do
        [ "$when" = "$1" ] || continue
        present=
        for name in $(printf '%s' "$names" | tr '|' ' '); do
            if installed "$name"; then present=1; fi
        done
        [ -n "$present" ] || printf '%s\t%s\n' "${names%%|*}" "$why"
    done <packaging/build-packages.txt
}

# Prints the packages whose programs the everyday loads of the full exam lack. A program counts wherever it came from; one that
# is named by its path is wanted for what its package adds to it.
missing_for_loads() {
    servers=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | tail -n 1)
    while read -r name programs; do
        case $name in '' | '#'*) continue ;; esac
        installed "$name" && continue
        for program in $programs; do
            case $program in /*) ;; *) PATH="$PATH:/usr/sbin:/sbin:$servers" command -v "$program" >/dev/null && continue ;; esac
            printf '%s\t%s\n' "$name" "is an everyday load of the exam, or part of one"
            break
        done
    done <tests/exam/packages.txt
}

if ! command -v dpkg-query >/dev/null 2>&1; then
    say "davy: this is not Debian; what packaging/build-packages.txt lists for '$want' must be here under its local name"
    exit 0
fi

missing=$(missing_for build)
if [ "$want" != build ]; then
    missing=$(printf '%s\n%s' "$missing" "$(missing_for test)" | sed '/^$/d')
fi
if [ "$want" = bench ]; then
    missing=$(printf '%s\n%s\n%s' "$missing" "$(missing_for bench)" "$(missing_for_loads)" | sed '/^$/d')
    # What two lists name is named once.
    missing=$(printf '%s\n' "$missing" | awk -F '\t' '!seen[$1]++')
fi
[ -n "$missing" ] || exit 0

names=$(printf '%s\n' "$missing" | cut -f1 | tr '\n' ' ')
names=${names% }
say "davy: these Debian packages are missing:"
printf '%s\n' "$missing" | while IFS="$(printf '\t')" read -r name why; do printf '  %-16s %s\n' "$name" "$why"; done >&2

as_root=
if [ "$(id -u)" -ne 0 ]; then
    # A password can only be asked for where somebody sits.
    if command -v sudo >/dev/null 2>&1 && { sudo -n true 2>/dev/null || [ -t 0 ]; }; then
        as_root=sudo
    else
        as_root=none
    fi
fi

# Tests start the services that they try by themselves; none is to listen on this host because its package came for a test
# (policy-rc.d is Debian's way to say so).
install() {
    $as_root env DEBIAN_FRONTEND=noninteractive sh -c '
        if [ ! -e /usr/sbin/policy-rc.d ]; then
            trap "rm -f /usr/sbin/policy-rc.d" EXIT
            trap "exit 130" INT TERM
            printf "#!/bin/sh\nexit 101\n" >/usr/sbin/policy-rc.d
            chmod 755 /usr/sbin/policy-rc.d
        fi
        apt-get update -qq && apt-get install -y -qq --no-install-recommends "$@"' install $names
}

if [ "$as_root" != none ]; then
    say "davy: installing them: apt-get install $names"
    if install >&2; then
        case " $names " in
        *" redis-server "* | *" postgresql "* | *" php-fpm "* | *" openssh-server "*)
            say "davy: services among them were not started; those you do not want at the next boot: systemctl disable NAME" ;;
        esac
        exit 0
    fi
    say "davy: apt-get failed"
fi

say "davy: to install them: apt-get install --no-install-recommends $names   (as root)"

# What no build can do without stops here; the rest costs features, and the build says which.
stopped=
for need in gcc make pkg-config; do
    command -v "$need" >/dev/null 2>&1 || stopped="$stopped $need"
done
for need in libelf-dev:libelf.h zlib1g-dev:zlib.h; do
    [ -e "/usr/include/${need#*:}" ] || stopped="$stopped ${need%%:*}"
done
if [ -n "$stopped" ]; then
    say "davy: nothing can be built without$stopped"
    exit 1
fi
say "davy: going on without them"
