#!/bin/sh
# Looks whether a package holds what it should, and whether what it holds runs. Installs nothing.
# Usage: check-deb.sh PACKAGE
set -eu
package=$1
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

fail() {
    echo "$package: $*" >&2
    exit 1
}

dpkg-deb -c "$package" >"$scratch/list"
for path in ./usr/sbin/davy ./usr/lib/systemd/system/davy.service ./etc/davy/davy.toml \
    ./usr/share/man/man1/davy.1.gz ./usr/share/bash-completion/completions/davy ./usr/share/doc/davy/copyright; do
    grep -q " root/root .* $path\$" "$scratch/list" || fail "does not hold $path, owned by root"
done

dpkg-deb -x "$package" "$scratch/root"
dpkg-deb -e "$package" "$scratch/control"
version=$(dpkg-deb -f "$package" Version)
# A packaging revision is not the binary's concern.
case "$("$scratch/root/usr/sbin/davy" --version)" in
*" ${version%-*}"*) ;;
*) fail "its binary does not call itself ${version%-*}" ;;
esac
grep -qx /etc/davy/davy.toml "$scratch/control/conffiles" || fail "the policy is not a conffile"
for script in postinst prerm postrm; do
    sh -n "$scratch/control/$script" || fail "$script is no shell script"
done
(cd "$scratch/root" && md5sum --quiet -c ../control/md5sums) || fail "a file is not what md5sums says"
if command -v systemd-analyze >/dev/null 2>&1; then
    # The unit names a binary that is not installed here.
    sed "s|/usr/sbin/davy|$scratch/root/usr/sbin/davy|" "$scratch/root/usr/lib/systemd/system/davy.service" \
        >"$scratch/davy.service"
    systemd-analyze verify --man=no "$scratch/davy.service" || fail "systemd does not take the unit"
else
    echo "SKIPPED: the unit is not verified: no systemd-analyze here"
fi
if command -v lintian >/dev/null 2>&1; then
    # It may be built as root, as on a machine that tests do.
    lintian --allow-root --fail-on error "$package" ||
        fail "lintian found errors"
else
    echo "SKIPPED: the package is not judged: no lintian here"
fi
