use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::archive::Unpacked;

/// A line of kernels that Debian 12 ships.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Series {
    /// As the version begins, such as `6.1`.
    pub version: &'static str,
    /// The suite it comes from.
    pub suite: &'static str,
}

impl Series {
    /// What Debian 12 was released with, and what its backports offer (Debian 13's kernel).
    pub const ALL: [Self; 2] =
        [Self { version: "6.1", suite: "bookworm" }, Self { version: "6.12", suite: "bookworm-backports" }];

    /// Its name in test results, such as `debian_6_1`.
    #[must_use]
    pub fn name(&self) -> String {
        format!("debian_{}", self.version.replace('.', "_"))
    }
}

/// An unpacked kernel package.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// The bootable image.
    pub image: PathBuf,
    /// The folder of its modules.
    modules: PathBuf,
}

impl Kernel {
    /// The kernel of a series, kept in `store`.
    ///
    /// # Errors
    /// When there is none in `store` and the archive (or apt) is out of reach; the text says which.
    pub fn obtain(series: Series, store: &Path) -> Result<Self> {
        let name = series.name();
        let folder = Unpacked { store, name: &name, suite: series.suite }.obtain(|apt| {
            // The names behind the meta-package change with every update.
            let depends = apt.field("linux-image-cloud-amd64", series.version, "Depends")?;
            Ok(vec![depends.split([' ', ',']).next().unwrap_or_default().to_owned()])
        })?;
        let mut boot = fs::read_dir(folder.join("boot"))?.flatten().map(|entry| entry.path());
        let image = boot
            .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz-")))
            .context("the kernel package holds no boot/vmlinuz")?;
        Ok(Self { image, modules: folder.join("lib/modules") })
    }

    /// A module of this kernel by its file name without ending, for machines that have no modprobe.
    #[must_use]
    pub fn module(&self, name: &str) -> Option<PathBuf> {
        let found = Command::new("find")
            .arg(&self.modules)
            .args(["-name", &format!("{name}.ko"), "-o", "-name", &format!("{name}.ko.xz")])
            .output()
            .ok()?;
        String::from_utf8(found.stdout).ok()?.lines().next().map(PathBuf::from)
    }
}
