//! This machine's own packages, with dpkg as the judge.
#![allow(missing_docs)]

mod system;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Read;
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use davy_pkgdb::{Manager::Dpkg, PackageDb, Verdict};
use system::{System, has, put, run, verdict};

fn host() -> Option<PackageDb> {
    if !has("dpkg-query") {
        return None;
    }
    PackageDb::open(Path::new("/")).expect("opened").into_iter().find(|db| db.manager() == Dpkg)
}

fn programs() -> BTreeSet<PathBuf> {
    let is_elf = |path: &PathBuf| {
        let mut head = [0; 4];
        fs::symlink_metadata(path).is_ok_and(|m| m.is_file())
            && File::open(path).is_ok_and(|mut f| f.read_exact(&mut head).is_ok())
            && head == *b"\x7fELF"
    };
    let entries = fs::read_dir("/usr/bin").expect("listed");
    entries.map(|e| e.expect("listed").path()).filter(is_elf).collect()
}

/// What dpkg says: packages that list the path, under either name that the merge into /usr gave it.
fn dpkg_says(path: &Path) -> BTreeSet<String> {
    let mut owners = BTreeSet::new();
    for name in [path.to_owned(), Path::new("/").join(path.strip_prefix("/usr").expect("below /usr"))] {
        let output =
            Command::new("dpkg-query").arg("-S").arg(&name).env("LC_ALL", "C").output().expect("run");
        let said = String::from_utf8_lossy(&output.stdout);
        for line in said.lines().filter(|line| !line.starts_with("diversion by")) {
            let packages = line.split(": ").next().unwrap_or("");
            owners.extend(packages.split(", ").map(|p| p.split(':').next().unwrap_or(p).to_owned()));
        }
    }
    owners
}

#[test]
fn every_program_in_usr_bin_has_the_package_that_dpkg_says_or_none() {
    let Some(db) = host() else { return };
    let programs = programs();
    let mut owners: BTreeMap<&Path, BTreeSet<String>> = BTreeMap::new();
    let faults = db
        .packages(&mut |package| {
            for file in &package.files {
                let path = Path::new(std::ffi::OsStr::from_bytes(&file.path));
                if let Some(program) = programs.get(path) {
                    owners.entry(program).or_default().insert(package.package.name.clone());
                }
            }
            ControlFlow::Continue(())
        })
        .expect("read");
    assert_eq!(faults.count(), 0, "{:?}", faults.first());
    let unowned: Vec<&PathBuf> = programs.iter().filter(|p| !owners.contains_key(p.as_path())).collect();
    println!("{} programs, {} of no package: {unowned:?}", programs.len(), unowned.len());
    for program in &unowned {
        assert_eq!(dpkg_says(program), BTreeSet::new(), "{}", program.display());
    }
    assert!(owners.len() > 50, "a Debian has more programs than {}", owners.len());
    for (program, packages) in owners.iter().step_by(owners.len() / 20) {
        assert_eq!(dpkg_says(program), *packages, "{}", program.display());
    }
}

#[test]
fn an_altered_copy_of_a_packaged_program_is_changed_and_its_neighbours_match() {
    if host().is_none() {
        return;
    }
    // The real database of two real packages, with copies of their programs.
    let system = System::new();
    let mut status = String::new();
    for package in ["coreutils", "dash"] {
        status += &run(Command::new("dpkg-query").args(["-s", package]));
        status += "\n";
        for ending in ["list", "md5sums"] {
            let path = format!("var/lib/dpkg/info/{package}.{ending}");
            system.write(&path, fs::read(Path::new("/").join(&path)).expect("dpkg has it"));
        }
    }
    system.write("var/lib/dpkg/status", status);
    let names = ["ls", "cat", "true", "sleep", "dash"];
    for name in names {
        let program = format!("usr/bin/{name}");
        put(&system.root(), &program, &fs::read(Path::new("/").join(&program)).expect("read"), 0o755);
    }
    let mut altered = fs::read("/usr/bin/ls").expect("read");
    *altered.last_mut().expect("not empty") ^= 1;
    put(&system.root(), "usr/bin/ls", &altered, 0o755);
    let trust = system.learn(Dpkg).trust;
    assert_eq!(trust.len(), names.len());
    for name in names {
        let expected = if name == "ls" { Verdict::Changed } else { Verdict::Matches };
        assert_eq!(verdict(&trust, &format!("/bin/{name}")), Some(expected), "{name}");
    }
}

#[test]
fn every_alternative_points_to_what_somebody_registered() {
    let Some(db) = host() else { return };
    let (alternatives, faults) = db.alternatives().expect("read");
    assert_eq!(faults.count(), 0, "{:?}", faults.first());
    assert!(!alternatives.is_empty());
    for named in alternatives {
        let chosen = fs::read_link(Path::new("/etc/alternatives").join(&named.name)).expect("a link");
        assert!(named.alternative.offers(chosen.as_os_str().as_bytes()), "{}: {chosen:?}", named.name);
        assert!(!named.alternative.offers(b"/tmp/x"));
    }
}
