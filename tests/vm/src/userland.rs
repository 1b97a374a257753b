use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::archive::Unpacked;
use crate::initramfs::Initramfs;

/// What the bench runs of Debian 12, each program followed by the libraries that it needs.
const PACKAGES: [&str; 5] = [
    "libc6 libgcc-s1 coreutils libacl1 libattr1 libgmp10 libpcre2-8-0 libselinux1",
    "gcc-12 cpp-12 libgcc-12-dev libc6-dev linux-libc-dev libisl23 libmpfr6 libmpc3 libzstd1 zlib1g \
     binutils binutils-x86-64-linux-gnu libbinutils libctf0 libctf-nobfd0 libjansson4",
    "auditd libaudit1 libauparse0 libcap-ng0 libwrap0 libnsl2 libtirpc3 libgssapi-krb5-2 libkrb5-3 \
     libk5crypto3 libkrb5support0 libcom-err2 libkeyutils1 libssl3",
    "fapolicyd liblmdb0 libmagic1 libmagic-mgc libseccomp2 libudev1 libbz2-1.0 liblzma5",
    "opensnitch libnetfilter-queue1 libnfnetlink0 libmnl0",
];

/// What of it no program of the bench reads. The image lies in the guest's memory.
const LEFT_OUT: [&str; 9] = [
    "./fetched",
    "./usr/share/doc",
    "./usr/share/man",
    "./usr/share/info",
    "./usr/share/locale",
    "./usr/lib/x86_64-linux-gnu/gconv",
    "./usr/lib/gcc/x86_64-linux-gnu/12/lto1",
    "./usr/bin/x86_64-linux-gnu-lto-dump-12",
    "*.a",
];

/// A piece of Debian 12, unpacked: small programs, a compiler, and Davy's peers.
#[derive(Clone, Debug)]
pub struct Userland {
    folder: PathBuf,
}

impl Userland {
    /// Kept in `store`, as kernels are.
    ///
    /// # Errors
    /// When there is none in `store` and the archive (or apt) is out of reach; the text says which.
    pub fn obtain(store: &Path) -> Result<Self> {
        let packages = PACKAGES.iter().flat_map(|list| list.split_whitespace()).map(str::to_owned);
        let folder =
            Unpacked { store, name: "userland", suite: "bookworm" }.obtain(|_| Ok(packages.collect()))?;
        Ok(Self { folder })
    }

    /// Takes all of it into a machine, over what lies there.
    ///
    /// # Errors
    /// When tar is missing or fails.
    pub fn lay_into(&self, initramfs: &Initramfs) -> Result<()> {
        initramfs.add_tree(&self.folder, &LEFT_OUT)
    }
}
