//! dpkg's database below a root.

use davy_packages::dpkg::{
    Alternative, Diversions, Installed, apply_updates, files_of, files_of_distroless, read_alternative,
    read_diversions, read_list, read_md5sums, read_status,
};
use davy_packages::{Aliases, Faults, FileDigest, PackagedFile};
use sha2::{Digest, Sha256};

use crate::db::{Fingerprint, Known, Manager, PackageFiles, Reading, fingerprint};
use crate::error::Error;
use crate::root::{Root, Stamp};

pub(crate) const STATUS: &str = "var/lib/dpkg/status";
/// Where images that were built without dpkg keep a paragraph a file.
pub(crate) const STATUS_FOLDER: &str = "var/lib/dpkg/status.d";
const DIVERSIONS: &str = "var/lib/dpkg/diversions";
const UPDATES: &str = "var/lib/dpkg/updates";
const INFO: &str = "var/lib/dpkg/info";

/// What dpkg runs of a package when it is installed, upgraded or removed, and debconf when it asks (deb-preinst(5)). No digest of
/// them is kept anywhere; they lie beside the digests of all else.
const MAINTAINER_SCRIPTS: [&str; 5] = ["preinst", "postinst", "prerm", "postrm", "config"];

/// The largest file of a database that is read. `status` of every package of Debian is a fifth of it.
const LIMIT: u64 = 512 << 20;

pub(crate) struct Dpkg<'a> {
    pub(crate) root: &'a Root,
}

/// What changes whenever dpkg does anything.
pub(crate) fn stamp(root: &Root) -> Vec<Option<Stamp>> {
    [STATUS, STATUS_FOLDER, DIVERSIONS, UPDATES, INFO].map(|path| root.stamp(path)).to_vec()
}

impl Dpkg<'_> {
    /// The packages, and the diversions among their files.
    pub(crate) fn packages(&self, faults: &mut Faults) -> Result<(Vec<Installed>, Diversions), Error> {
        let status = self.root.read(STATUS, LIMIT)?.unwrap_or_default();
        let mut status = read_status(STATUS, &status);
        faults.append(status.faults);
        // While it runs, dpkg writes what changed there, in files that are numbered, and into status at the end.
        for name in self.root.names(UPDATES)? {
            if name.bytes().all(|b| b.is_ascii_digit()) {
                let path = format!("{UPDATES}/{name}");
                let update = read_status(&path, &self.root.read(&path, LIMIT)?.unwrap_or_default());
                faults.append(update.faults);
                apply_updates(&mut status.entries, update.entries);
            }
        }
        let diversions = self.root.read(DIVERSIONS, LIMIT)?.unwrap_or_default();
        let diversions = read_diversions(DIVERSIONS, &diversions);
        faults.append(diversions.faults);
        Ok((status.entries, diversions.entries))
    }

    pub(crate) fn distroless_packages(&self, faults: &mut Faults) -> Result<Vec<Installed>, Error> {
        let mut packages = Vec::new();
        for name in self.root.names(STATUS_FOLDER)? {
            if !name.ends_with(".md5sums") {
                let path = format!("{STATUS_FOLDER}/{name}");
                let read = read_status(&path, &self.root.read(&path, LIMIT)?.unwrap_or_default());
                faults.append(read.faults);
                packages.extend(read.entries);
            }
        }
        Ok(packages)
    }

    /// The files of a package, unless nothing changed in what is known of them.
    pub(crate) fn files(
        &self,
        installed: &Installed,
        diversions: &Diversions,
        aliases: &Aliases,
        known: Option<&Known<'_>>,
        faults: &mut Faults,
    ) -> Result<Reading, Error> {
        let names = installed.info_names();
        let base = names.iter().map(|name| format!("{INFO}/{name}"));
        let base = base.clone().find(|base| self.root.stamp(&format!("{base}.list")).is_some());
        let Some(base) = base else {
            // Nothing but a name, as packages without files and those that were never unpacked are.
            return Ok(files(installed, Vec::new(), fingerprint_of(installed, &[])));
        };
        let (list_path, md5sums_path) = (format!("{base}.list"), format!("{base}.md5sums"));
        let scripts = MAINTAINER_SCRIPTS.map(|name| format!("{base}.{name}"));
        let mut stamps = [&list_path, &md5sums_path].map(|path| self.root.stamp(path)).to_vec();
        stamps.extend(scripts.iter().map(|path| self.root.stamp(path)));
        let fingerprint = fingerprint_of(installed, &stamps);
        let unchanged = |k: &&Known<'_>| k.packages.get(&installed.package) == Some(&fingerprint);
        let known = known.filter(unchanged);
        if known.is_some_and(|k| k.diversions == diversions) {
            return Ok(Reading::Unchanged(installed.package.clone()));
        }
        let list = self.root.read(&list_path, LIMIT)?.unwrap_or_default();
        let list = read_list(&list_path, &list);
        if let Some(known) = known {
            let name = &installed.package.name;
            let stays = |path: &&[u8]| known.diversions.resolve(path, name) == diversions.resolve(path, name);
            if list.entries.iter().all(stays) {
                return Ok(Reading::Unchanged(installed.package.clone()));
            }
        }
        faults.append(list.faults);
        let md5sums = self.root.read(&md5sums_path, LIMIT)?.unwrap_or_default();
        let md5sums = read_md5sums(&md5sums_path, &md5sums);
        faults.append(md5sums.faults);
        let mut found = files_of(installed, &list.entries, &md5sums.entries, diversions, aliases);
        let there = scripts.iter().zip(&stamps[2..]).filter(|(_, stamp)| stamp.is_some());
        found.extend(there.map(|(path, _)| PackagedFile {
            path: format!("/{path}").into_bytes(),
            digest: Some(FileDigest::Own),
            conffile: false,
        }));
        Ok(files(installed, found, fingerprint))
    }

    pub(crate) fn distroless_files(
        &self,
        installed: &Installed,
        aliases: &Aliases,
        known: Option<&Known<'_>>,
        faults: &mut Faults,
    ) -> Result<Reading, Error> {
        let path = format!("{STATUS_FOLDER}/{}.md5sums", installed.package.name);
        let fingerprint = fingerprint_of(installed, &[self.root.stamp(&path)]);
        if known.is_some_and(|k| k.packages.get(&installed.package) == Some(&fingerprint)) {
            return Ok(Reading::Unchanged(installed.package.clone()));
        }
        let md5sums = read_md5sums(&path, &self.root.read(&path, LIMIT)?.unwrap_or_default());
        faults.append(md5sums.faults);
        Ok(files(installed, files_of_distroless(&md5sums.entries, aliases), fingerprint))
    }
}

fn files(installed: &Installed, files: Vec<PackagedFile>, fingerprint: Fingerprint) -> Reading {
    Reading::Files(PackageFiles { package: installed.package.clone(), files, fingerprint })
}

/// dpkg never writes into a file of its database, it puts another in its place; so a stamp stands for content.
fn fingerprint_of(installed: &Installed, stamps: &[Option<Stamp>]) -> Fingerprint {
    let mut hash = Sha256::new();
    hash.update([installed.state as u8]);
    for conffile in &installed.conffiles {
        hash.update(&conffile.path);
        hash.update([0, u8::from(conffile.md5.is_some())]);
        hash.update(conffile.md5.unwrap_or_default());
    }
    for stamp in stamps {
        hash.update([u8::from(stamp.is_some())]);
        hash.update(stamp.iter().flat_map(Stamp::bytes).collect::<Vec<u8>>());
    }
    fingerprint(hash)
}

/// A link whose target is chosen, and the name it goes by, such as `editor`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedAlternative {
    /// The name, as update-alternatives(1) takes it.
    pub name: String,
    /// What it is.
    pub alternative: Alternative,
}

pub(crate) fn alternatives(root: &Root, manager: Manager) -> Result<(Vec<NamedAlternative>, Faults), Error> {
    let folder = match manager {
        Manager::Dpkg => "var/lib/dpkg/alternatives",
        Manager::Rpm => "var/lib/alternatives",
    };
    let mut found = Vec::new();
    let mut faults = Faults::default();
    for name in root.names(folder)? {
        let path = format!("{folder}/{name}");
        let read = read_alternative(&path, &root.read(&path, LIMIT)?.unwrap_or_default());
        faults.append(read.faults);
        found.extend(read.entries.map(|alternative| NamedAlternative { name, alternative }));
    }
    Ok((found, faults))
}
