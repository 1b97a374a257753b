#!/bin/sh
# Makes target/debian/davy_VERSION_ARCH.deb with dpkg-deb, and looks whether what it made is whole.
# Usage: build-deb.sh BINARY
# DEB_REVISION=2 makes davy_VERSION-2_ARCH.deb: the same version packaged again, which counts as newer. DEB_DIR is another
# folder to make it in; what is there goes.
#
# dpkg-deb alone, because the package is one static binary and what that binary prints of itself: a tool that reads
# Cargo.toml would cost minutes of building and say nothing that is not said here.
set -eu
cd "$(dirname "$0")/.."
binary=$1
folder=${DEB_DIR:-target/debian}
root=$folder/root
version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version *= *"\(.*\)"/\1/p' Cargo.toml)
version=$version${DEB_REVISION:+-$DEB_REVISION}
architecture=$(dpkg --print-architecture)
package=$folder/davy_${version}_${architecture}.deb

rm -rf "$folder"
umask 022
mkdir -p "$root/DEBIAN" "$root/usr/share/man/man1"
doc=$root/usr/share/doc/davy

install -D -m 755 "$binary" "$root/usr/sbin/davy"
install -D -m 644 packaging/davy.service "$root/usr/lib/systemd/system/davy.service"
install -D -m 644 packaging/davy.toml "$root/etc/davy/davy.toml"
install -D -m 644 packaging/debian/lintian-overrides "$root/usr/share/lintian/overrides/davy"
install -D -m 644 packaging/debian/copyright "$doc/copyright"

# The changelog that Debian's tools read names the version, and lies elsewhere when there is a revision; what changed is
# in the project's own.
printf 'davy (%s) unstable; urgency=medium\n\n  * See CHANGELOG.md.\n\n -- The Davy developers <davy@users.noreply.github.com>  %s\n' \
    "$version" "$(date -R -d "@${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || date +%s)}")" |
    gzip -9n >"$doc/changelog${DEB_REVISION:+.Debian}.gz"
gzip -9nc CHANGELOG.md >"$doc/CHANGELOG.md.gz"

"$binary" policy check packaging/davy.toml >/dev/null
"$binary" man --dir "$root/usr/share/man/man1" >/dev/null
gzip -9n "$root"/usr/share/man/man1/*
install -d "$root/usr/share/bash-completion/completions" "$root/usr/share/zsh/vendor-completions" \
    "$root/usr/share/fish/vendor_completions.d"
"$binary" completions bash >"$root/usr/share/bash-completion/completions/davy"
"$binary" completions zsh >"$root/usr/share/zsh/vendor-completions/_davy"
"$binary" completions fish >"$root/usr/share/fish/vendor_completions.d/davy.fish"

for script in postinst prerm postrm; do
    install -m 755 "packaging/debian/$script" "$root/DEBIAN/$script"
done
echo /etc/davy/davy.toml >"$root/DEBIAN/conffiles"
cat >"$root/DEBIAN/control" <<EOF
Package: davy
Version: $version
Architecture: $architecture
Maintainer: The Davy developers <davy@users.noreply.github.com>
Section: admin
Priority: optional
Installed-Size: $(du -k -s --exclude=DEBIAN "$root" | cut -f1)
Depends: init-system-helpers (>= 1.54~)
Description: watches a host for cryptomining intrusions, stops and explains them
 Davy recognises miners by what they do to the processor, the memory and the
 network, whatever they call themselves and wherever they come from. It tells
 the intrusion as one story, stops it when told to, and undoes what it did.
 .
 It observes only, until its policy says otherwise.
EOF
(cd "$root" && find usr -type f -print0 | sort -z | xargs -0 md5sum) >"$root/DEBIAN/md5sums"

dpkg-deb --root-owner-group -Zxz --build "$root" "$package" >/dev/null
packaging/check-deb.sh "$package"
echo "$package"
