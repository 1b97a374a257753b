//! Packages made and installed by rpm itself, in a system of the test's own.
#![allow(missing_docs)]

mod system;

use std::fs;
use std::path::Path;
use std::process::Command;

use davy_pkgdb::{Manager::Rpm, Verdict};
use sha2::{Digest, Sha256};
use system::{System, has, put, run, said, verdict};

const SCRIPT: &[u8] = b"#!/bin/sh\necho tool\n";

fn prepared() -> Option<System> {
    if !has("rpmbuild") {
        return None;
    }
    if !rustix::process::geteuid().is_root() {
        println!("SKIPPED: rpm installs into a root of its own only for root");
        return None;
    }
    Some(System::new())
}

/// Makes a package of these files and installs it. `algorithm` is rpm's number of the digest of its files.
fn install(system: &System, name: &str, algorithm: u32, files: &[(&str, &[u8], u32)], more: &str) {
    let work = system.beside("work");
    let content = work.join("content");
    let mut list = String::new();
    for (path, bytes, mode) in files {
        put(&content, path, bytes, *mode);
        let config = if path.starts_with("etc/") { "%config " } else { "" };
        list += &format!("%attr({mode:o},root,root) {config}/{path}\n");
    }
    let spec = format!(
        "Name: {name}\nVersion: 1\nRelease: 2\nEpoch: 3\nSummary: test\nLicense: none\nBuildArch: noarch\n\
         AutoReqProv: no\n%description\ntest\n%install\nmkdir -p %{{buildroot}}\ncp -a {}/. %{{buildroot}}/\n\
         %files\n{list}{more}\n",
        content.display()
    );
    put(&work, "x.spec", spec.as_bytes(), 0o644);
    let define = |macros: &str| ["--define".to_owned(), macros.to_owned()];
    run(Command::new("rpmbuild")
        .arg("-bb")
        .args(define(&format!("_topdir {}", work.display())))
        .args(define(&format!("_binary_filedigest_algorithm {algorithm}")))
        .args(define("__os_install_post %{nil}"))
        .env("HOME", &work)
        .arg(work.join("x.spec")));
    let package = work.join(format!("RPMS/noarch/{name}-1-2.noarch.rpm"));
    rpm(system, &["-U", "--nodeps", "--force", package.to_str().expect("text")]);
    fs::remove_dir_all(work).expect("removed");
}

fn rpm(system: &System, arguments: &[&str]) {
    let command = &mut Command::new("rpm");
    command.arg("--root").arg(system.root()).args([
        "--dbpath",
        "/var/lib/rpm",
        "--noscripts",
        "--notriggers",
    ]);
    run(command.args(arguments));
}

#[test]
fn what_rpm_installed_matches_by_the_digest_of_its_package() {
    let Some(system) = prepared() else { return };
    let files: [(&str, &[u8], u32); 4] = [
        ("usr/bin/tool", SCRIPT, 0o755),
        ("usr/lib/libtool.so", b"by its name", 0o644),
        ("usr/share/tool.data", b"data", 0o644),
        ("etc/tool.sh", b"#!/bin/sh\n", 0o644),
    ];
    install(&system, "tool", 8, &files, "%ghost /usr/lib/ghost.so");
    install(&system, "old", 1, &[("usr/bin/old", b"#!/bin/sh\nold\n", 0o755)], "");
    install(&system, "long", 10, &[("usr/bin/long", b"#!/bin/sh\nlong\n", 0o755)], "");
    // SHA-1, which nothing here knows: listed, and not vouched for.
    install(&system, "odd", 2, &[("usr/bin/odd", b"#!/bin/sh\nodd\n", 0o755)], "");
    // What a ghost's name holds, no package brought.
    system.write("usr/lib/ghost.so", "anything");
    let first = system.learn(Rpm);
    assert_eq!(
        said(&first.trust),
        [
            "/etc/tool.sh tool Matches conffile",
            "/usr/bin/long long Matches",
            "/usr/bin/odd odd NoDigest",
            "/usr/bin/old old Matches",
            "/usr/bin/tool tool Matches",
            "/usr/lib/libtool.so tool Matches",
        ]
    );
    assert_eq!(first.summary.faults.count(), 0, "{:?}", first.summary.faults);
    let vouched = first.trust.vouched(&Sha256::digest(SCRIPT).into()).expect("vouched for");
    assert_eq!(vouched.package.to_string(), "tool 3:1-2 noarch");

    for path in ["usr/bin/tool", "usr/bin/old", "usr/bin/long"] {
        system.append(path, "miner\n");
    }
    let second = system.learn(Rpm).trust;
    for path in ["/usr/bin/tool", "/usr/bin/old", "/usr/bin/long"] {
        assert_eq!(verdict(&second, path), Some(Verdict::Changed), "{path}");
    }
    assert_eq!(verdict(&second, "/usr/lib/libtool.so"), Some(Verdict::Matches));
    let owners = system.db(Rpm).owners(Path::new("/bin/tool")).expect("read");
    assert_eq!(owners.iter().map(|o| o.package.name.as_str()).collect::<Vec<_>>(), ["tool"]);
}

#[test]
fn a_refresh_hashes_only_packages_that_changed() {
    let Some(system) = prepared() else { return };
    install(&system, "tool", 8, &[("usr/bin/tool", SCRIPT, 0o755)], "");
    install(&system, "other", 8, &[("usr/bin/other", b"#!/bin/sh\n1\n", 0o755)], "");
    let first = system.learn(Rpm);
    assert!(system.refresh(Rpm, &first.trust).is_none(), "nothing changed");
    install(&system, "other", 8, &[("usr/bin/other", b"#!/bin/sh\n2\n", 0o755)], "");
    let second = system.refresh(Rpm, &first.trust).expect("changed");
    assert_eq!((second.summary.packages, second.summary.packages_read, second.summary.hashed), (2, 1, 1));
    assert!(second.trust.vouched(&Sha256::digest(b"#!/bin/sh\n2\n").into()).is_some());
    assert!(second.trust.vouched(&Sha256::digest(b"#!/bin/sh\n1\n").into()).is_none());
    rpm(&system, &["-e", "other"]);
    let third = system.refresh(Rpm, &second.trust).expect("changed");
    assert_eq!(said(&third.trust), ["/usr/bin/tool tool Matches"]);
}
