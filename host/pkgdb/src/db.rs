//! The package databases of a system.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use davy_packages::dpkg::Diversions;
use davy_packages::{Aliases, Faults, FileDigest, Package, PackagedFile};
use sha2::{Digest, Sha256};

use crate::dpkg::{self, Dpkg, NamedAlternative};
use crate::error::Error;
use crate::root::{Root, Stamp};
use crate::rpm::Rpm;

/// Whose database it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manager {
    /// dpkg, of Debian and its kin, distroless images included.
    Dpkg,
    /// rpm, of Fedora, openSUSE and their kin.
    Rpm,
}

/// A package database below a root folder.
#[derive(Debug)]
pub struct PackageDb {
    pub(crate) root: Root,
    source: Source,
}

#[derive(Debug)]
enum Source {
    Dpkg,
    Distroless,
    Rpm(Rpm),
}

/// A package and what it brought.
#[derive(Clone, Debug)]
pub struct PackageFiles {
    /// The package.
    pub package: Package,
    /// What it brought, where it lies now. dpkg does not say which of these are folders and links.
    pub files: Vec<PackagedFile>,
    pub(crate) fingerprint: Fingerprint,
}

/// A package that lists a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The package.
    pub package: Package,
    /// What the database says the content is to be, if it does.
    pub digest: Option<FileDigest>,
    /// Whether it is configuration.
    pub conffile: bool,
}

/// Changes when anything changes in what a database says of a package's files.
pub(crate) type Fingerprint = [u8; 16];

pub(crate) fn fingerprint(hash: Sha256) -> Fingerprint {
    let mut short = [0; 16];
    short.copy_from_slice(&hash.finalize()[..16]);
    short
}

/// What was read before.
pub(crate) struct Known<'a> {
    pub(crate) packages: HashMap<&'a Package, Fingerprint>,
    pub(crate) diversions: &'a Diversions,
}

/// What a reading yields for each package.
pub(crate) enum Reading {
    /// Nothing changed since it was read before.
    Unchanged(Package),
    /// Its files.
    Files(PackageFiles),
}

pub(crate) type Each<'a> = dyn FnMut(Reading) -> ControlFlow<()> + 'a;

/// A database between two changes: what it says of all packages, with their files still to be read.
pub(crate) struct Snapshot {
    /// Taken before anything was read, so that a change meanwhile shows.
    pub(crate) stamp: Vec<Option<Stamp>>,
    pub(crate) diversions: Diversions,
    pub(crate) aliases: Aliases,
    /// What could not be read so far.
    pub(crate) faults: Faults,
    packages: Vec<davy_packages::dpkg::Installed>,
}

impl PackageDb {
    /// The databases of the system whose root folder this is: none, one, or both where both tools are used.
    ///
    /// # Errors
    /// When the folder cannot be opened.
    pub fn open(root: &Path) -> Result<Vec<Self>, Error> {
        let mut found = Vec::new();
        let opened = Root::open(root)?;
        if opened.stamp(dpkg::STATUS).is_some() {
            found.push(Self { root: Root::open(root)?, source: Source::Dpkg });
        } else if opened.stamp(dpkg::STATUS_FOLDER).is_some() {
            found.push(Self { root: Root::open(root)?, source: Source::Distroless });
        }
        if let Some(rpm) = Rpm::find(&opened) {
            found.push(Self { root: opened, source: Source::Rpm(rpm) });
        }
        Ok(found)
    }

    /// Whose database it is.
    pub fn manager(&self) -> Manager {
        match self.source {
            Source::Dpkg | Source::Distroless => Manager::Dpkg,
            Source::Rpm(_) => Manager::Rpm,
        }
    }

    /// Yields every package with what it brought, until told to break. What could not be read is returned.
    ///
    /// # Errors
    /// When the database as a whole cannot be read.
    pub fn packages(&self, each: &mut dyn FnMut(PackageFiles) -> ControlFlow<()>) -> Result<Faults, Error> {
        let snapshot = self.snapshot()?;
        self.read(snapshot, None, &mut |reading| match reading {
            Reading::Files(files) => each(files),
            Reading::Unchanged(_) => ControlFlow::Continue(()),
        })
    }

    /// The packages that list a path. Goes through the whole database: for a question, not for every exec.
    ///
    /// # Errors
    /// When the database as a whole cannot be read.
    pub fn owners(&self, path: &Path) -> Result<Vec<Owner>, Error> {
        let wanted = self.root.aliases().resolve(path.as_os_str().as_bytes()).into_owned();
        let mut owners = Vec::new();
        self.packages(&mut |PackageFiles { package, files, .. }| {
            owners.extend(files.into_iter().filter(|file| file.path == wanted).map(|file| Owner {
                package: package.clone(),
                digest: file.digest,
                conffile: file.conffile,
            }));
            ControlFlow::Continue(())
        })?;
        Ok(owners)
    }

    /// The links whose targets are chosen (update-alternatives(1)), by name, and what of them could not be read. rpm's
    /// systems keep them as Debian does, elsewhere.
    ///
    /// # Errors
    /// When their folder cannot be read.
    pub fn alternatives(&self) -> Result<(Vec<NamedAlternative>, Faults), Error> {
        dpkg::alternatives(&self.root, self.manager())
    }

    /// What changes when the database does.
    pub(crate) fn stamp(&self) -> Vec<Option<Stamp>> {
        match &self.source {
            Source::Dpkg | Source::Distroless => dpkg::stamp(&self.root),
            Source::Rpm(rpm) => rpm.stamp(&self.root),
        }
    }

    pub(crate) fn snapshot(&self) -> Result<Snapshot, Error> {
        let mut snapshot = Snapshot {
            stamp: self.stamp(),
            diversions: Diversions::default(),
            aliases: self.root.aliases(),
            faults: Faults::default(),
            packages: Vec::new(),
        };
        match self.source {
            Source::Dpkg => {
                let dpkg = Dpkg { root: &self.root };
                (snapshot.packages, snapshot.diversions) = dpkg.packages(&mut snapshot.faults)?;
            }
            Source::Distroless => {
                snapshot.packages = Dpkg { root: &self.root }.distroless_packages(&mut snapshot.faults)?;
            }
            Source::Rpm(_) => {}
        }
        Ok(snapshot)
    }

    pub(crate) fn read(
        &self,
        snapshot: Snapshot,
        known: Option<&Known<'_>>,
        each: &mut Each<'_>,
    ) -> Result<Faults, Error> {
        let Snapshot { diversions, aliases, mut faults, packages, .. } = snapshot;
        let dpkg = Dpkg { root: &self.root };
        match &self.source {
            Source::Rpm(rpm) => faults.append(rpm.read(&aliases, known, each)?),
            Source::Dpkg => {
                for installed in packages.iter().filter(|i| i.state.has_files()) {
                    let reading = dpkg.files(installed, &diversions, &aliases, known, &mut faults)?;
                    if each(reading).is_break() {
                        break;
                    }
                }
            }
            Source::Distroless => {
                for installed in &packages {
                    let reading = dpkg.distroless_files(installed, &aliases, known, &mut faults)?;
                    if each(reading).is_break() {
                        break;
                    }
                }
            }
        }
        Ok(faults)
    }
}
