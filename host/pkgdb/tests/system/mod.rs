//! A small system of its own, below a temporary folder, that dpkg or rpm installs packages into.
#![allow(dead_code, reason = "each test file uses its part")]

use std::fs;
use std::ops::ControlFlow;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use davy_pkgdb::{Budget, Learning, Manager, PackageDb, TrustDb, Verdict, learn, refresh};
use tempfile::TempDir;

/// A root folder without anything in it but the links of the merge into `/usr`.
pub(crate) struct System {
    folder: TempDir,
}

impl System {
    pub(crate) fn new() -> Self {
        let system = Self { folder: tempfile::tempdir().expect("a temporary folder") };
        fs::create_dir_all(system.root()).expect("made");
        for folder in ["usr/bin", "usr/lib"] {
            fs::create_dir_all(system.root().join(folder)).expect("made");
        }
        symlink("usr/bin", system.root().join("bin")).expect("linked");
        symlink("usr/lib", system.root().join("lib")).expect("linked");
        system
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }

    /// A folder beside the root, for what packages are made of.
    pub(crate) fn beside(&self, name: &str) -> PathBuf {
        let folder = self.folder.path().join(name);
        fs::create_dir_all(&folder).expect("made");
        folder
    }

    pub(crate) fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        put(&self.root(), path, content.as_ref(), 0o644);
    }

    pub(crate) fn append(&self, path: &str, content: &str) {
        let path = self.root().join(path);
        let mut all = fs::read(&path).expect("there");
        all.extend_from_slice(content.as_bytes());
        fs::write(path, all).expect("written");
    }

    pub(crate) fn db(&self, manager: Manager) -> PackageDb {
        let found = PackageDb::open(&self.root()).expect("opened");
        found.into_iter().find(|db| db.manager() == manager).expect("the database")
    }

    pub(crate) fn learn(&self, manager: Manager) -> Learning {
        learn(&self.db(manager), Budget::unpaced(2), &mut |_| ControlFlow::Continue(())).expect("learned")
    }

    pub(crate) fn refresh(&self, manager: Manager, before: &TrustDb) -> Option<Learning> {
        let go_on = &mut |_| ControlFlow::Continue(());
        refresh(&self.db(manager), before, Budget::unpaced(2), go_on).expect("learned")
    }
}

/// Writes a file below `folder`.
pub(crate) fn put(folder: &Path, path: &str, content: &[u8], mode: u32) {
    let path = folder.join(path);
    fs::create_dir_all(path.parent().expect("a folder")).expect("made");
    fs::write(&path, content).expect("written");
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("set");
}

/// Runs a tool to its end; what it said when it failed is the test's message.
pub(crate) fn run(command: &mut Command) -> String {
    let output = command.env("LC_ALL", "C").output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Whether a tool is there; says so when it is not.
pub(crate) fn has(tool: &str) -> bool {
    let found = Path::new("/usr/bin").join(tool).exists();
    if !found {
        println!("SKIPPED: there is no {tool} on this machine");
    }
    found
}

/// `PATH PACKAGE VERDICT` of everything learned, by path.
pub(crate) fn said(trust: &TrustDb) -> Vec<String> {
    trust
        .iter()
        .map(|l| {
            let conffile = if l.conffile { " conffile" } else { "" };
            format!("{} {} {:?}{conffile}", l.path.display(), l.package.name, l.verdict)
        })
        .collect()
}

pub(crate) fn verdict(trust: &TrustDb, path: &str) -> Option<Verdict> {
    trust.by_path(Path::new(path)).map(|learned| learned.verdict)
}
