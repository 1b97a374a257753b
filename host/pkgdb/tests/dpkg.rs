//! Packages made and installed by dpkg itself, in a system of the test's own.
#![allow(missing_docs)]

mod system;

use std::fs;
use std::ops::ControlFlow;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::process::Command;

use davy_model::FileId;
use davy_pkgdb::{Budget, Error, Manager::Dpkg, Verdict, learn};
use sha2::{Digest, Sha256};
use system::{System, has, put, run, said, verdict};

const SCRIPT: &[u8] = b"#!/bin/sh\necho tool\n";

fn dpkg(system: &System) -> Command {
    let mut command = Command::new("dpkg");
    let root = format!("--root={}", system.root().display());
    command.args([&root, "--log=/dev/null", "--force-not-root", "--force-bad-path"]);
    command
}

/// Makes a package of these files, configuration by its place, and installs it.
fn install(system: &System, control: &str, files: &[(&str, &[u8], u32)]) {
    let tree = system.beside("tree");
    let conffiles: String =
        files.iter().filter(|f| f.0.starts_with("etc/")).map(|f| format!("/{}\n", f.0)).collect();
    let control = format!("Maintainer: nobody <nobody@example.org>\nDescription: test\n{control}\n");
    put(&tree, "DEBIAN/control", control.as_bytes(), 0o644);
    put(&tree, "DEBIAN/conffiles", conffiles.as_bytes(), 0o644);
    for (path, content, mode) in files {
        put(&tree, path, content, *mode);
    }
    let package = system.beside("packages").join("package.deb");
    run(Command::new("dpkg-deb").args(["--root-owner-group", "-Znone", "-b"]).arg(&tree).arg(&package));
    fs::remove_dir_all(tree).expect("removed");
    run(dpkg(system).arg("-i").arg(package));
}

fn prepared() -> Option<System> {
    if !has("dpkg-deb") {
        return None;
    }
    let system = System::new();
    for folder in ["info", "updates", "triggers"] {
        fs::create_dir_all(system.root().join("var/lib/dpkg").join(folder)).expect("made");
    }
    system.write("var/lib/dpkg/status", "");
    install(
        &system,
        "Package: tool\nVersion: 1.0\nArchitecture: all",
        &[
            ("usr/bin/tool", SCRIPT, 0o755),
            ("bin/merged", b"#!/bin/sh\n", 0o755),
            ("usr/lib/tool/libtool.so.1", b"no ELF, but its name says so", 0o644),
            ("usr/lib/tool/hidden", b"\x7fELF and no more", 0o644),
            ("usr/share/doc/tool/readme.txt", b"#! data by its name", 0o644),
            ("usr/share/tool/table", b"data", 0o644),
            ("etc/tool.conf", b"data", 0o644),
            ("etc/init.d/tool", b"#!/bin/sh\nstart\n", 0o755),
        ],
    );
    Some(system)
}

#[test]
fn what_dpkg_installed_matches_and_what_was_changed_since_does_not() {
    let Some(system) = prepared() else { return };
    let first = system.learn(Dpkg);
    assert_eq!(
        said(&first.trust),
        [
            "/etc/init.d/tool tool Matches conffile",
            "/usr/bin/merged tool Matches",
            "/usr/bin/tool tool Matches",
            "/usr/lib/tool/hidden tool Matches",
            "/usr/lib/tool/libtool.so.1 tool Matches",
        ]
    );
    assert_eq!((first.summary.missing, first.summary.faults.count()), (0, 0), "{:?}", first.summary);
    let sha256: [u8; 32] = Sha256::digest(SCRIPT).into();
    let vouched = first.trust.vouched(&sha256).expect("vouched for");
    assert_eq!((vouched.path, vouched.package.version.as_str()), (Path::new("/usr/bin/tool"), "1.0"));
    let meta = fs::metadata(system.root().join("usr/bin/tool")).expect("there");
    let learned = first.trust.by_file(FileId { dev: meta.dev(), ino: meta.ino() }).expect("learned");
    assert_eq!(learned.sha256, sha256);
    assert_eq!(verdict(&first.trust, "/bin/merged"), Some(Verdict::Matches));

    system.append("usr/bin/tool", "miner\n");
    system.append("etc/init.d/tool", "edited\n");
    fs::remove_file(system.root().join("usr/lib/tool/hidden")).expect("removed");
    // A link to what anybody may write is not what was packaged.
    fs::remove_file(system.root().join("bin/merged")).expect("removed");
    symlink("/tmp/x", system.root().join("bin/merged")).expect("linked");
    let second = system.learn(Dpkg);
    assert_eq!(
        said(&second.trust),
        [
            "/etc/init.d/tool tool Changed conffile",
            "/usr/bin/tool tool Changed",
            "/usr/lib/tool/libtool.so.1 tool Matches",
        ]
    );
    assert_eq!(second.summary.missing, 1);
    let changed: [u8; 32] = Sha256::digest([SCRIPT, b"miner\n"].concat()).into();
    assert!(second.trust.by_path(Path::new("/usr/bin/tool")).is_some_and(|l| l.sha256 == changed));
    assert!(second.trust.vouched(&changed).is_none() && second.trust.vouched(&sha256).is_none());
    assert_eq!(second.trust.vouched_digests().count(), 1);
}

#[test]
fn the_scripts_that_dpkg_runs_of_a_package_are_its_own() {
    let Some(system) = prepared() else { return };
    let first = system.learn(Dpkg);
    // One that only a removal runs: the others would be run in a root without a shell.
    let control = "Package: other\nVersion: 1.0\nArchitecture: all";
    install(&system, control, &[("DEBIAN/postrm", b"#!/bin/sh\nexit 0\n", 0o755)]);
    let path = "/var/lib/dpkg/info/other.postrm";
    let second = system.refresh(Dpkg, &first.trust).expect("something changed");
    assert_eq!(verdict(&second.trust, path), Some(Verdict::Matches));
    let sha256: [u8; 32] = Sha256::digest(b"#!/bin/sh\nexit 0\n").into();
    assert_eq!(second.trust.vouched(&sha256).expect("vouched for").package.name, "other");
    // Nothing vouches for what lies there and is no package's.
    system.write("var/lib/dpkg/info/stranger.postrm", "#!/bin/sh\nminer\n");
    assert_eq!(verdict(&system.learn(Dpkg).trust, "/var/lib/dpkg/info/stranger.postrm"), None);
    fs::remove_file(system.root().join(&path[1..])).expect("removed");
    assert_eq!(verdict(&system.learn(Dpkg).trust, path), None);
}

#[test]
fn without_md5sums_a_file_is_listed_and_nothing_vouches_for_it() {
    let Some(system) = prepared() else { return };
    fs::remove_file(system.root().join("var/lib/dpkg/info/tool.md5sums")).expect("dpkg makes one");
    let trust = system.learn(Dpkg).trust;
    assert_eq!(verdict(&trust, "/usr/bin/tool"), Some(Verdict::NoDigest));
    // The digest of configuration lies elsewhere.
    assert_eq!(verdict(&trust, "/etc/init.d/tool"), Some(Verdict::Matches));
    assert!(trust.vouched(&Sha256::digest(SCRIPT).into()).is_none());
}

#[test]
fn a_diverted_file_is_known_where_it_lies() {
    let Some(system) = prepared() else { return };
    let before = system.learn(Dpkg).trust;
    let root = format!("--root={}", system.root().display());
    let divert =
        ["--package", "wrapper", "--add", "--rename", "--divert", "/usr/bin/tool.real", "/usr/bin/tool"];
    run(Command::new("dpkg-divert").arg(root).args(divert));
    install(
        &system,
        "Package: wrapper\nVersion: 2\nArchitecture: all",
        &[("usr/bin/tool", b"#!/bin/sh\nexec tool.real\n", 0o755)],
    );
    for learning in [system.learn(Dpkg), system.refresh(Dpkg, &before).expect("changed")] {
        let of = |path: &str| {
            let learned = learning.trust.by_path(Path::new(path)).expect("learned");
            (learned.package.name.clone(), learned.verdict)
        };
        assert_eq!(of("/usr/bin/tool.real"), ("tool".to_owned(), Verdict::Matches));
        assert_eq!(of("/usr/bin/tool"), ("wrapper".to_owned(), Verdict::Matches));
        assert_eq!(learning.trust.len(), 6, "{:?}", said(&learning.trust));
    }
    let owners = system.db(Dpkg).owners(Path::new("/usr/bin/tool.real")).expect("read");
    assert_eq!(owners.iter().map(|o| o.package.name.as_str()).collect::<Vec<_>>(), ["tool"]);
    assert!(owners[0].digest.is_some() && !owners[0].conffile);
}

#[test]
fn a_refresh_reads_and_hashes_only_packages_that_changed() {
    let Some(system) = prepared() else { return };
    let native = run(Command::new("dpkg").arg("--print-architecture"));
    install(
        &system,
        &format!("Package: libmany\nVersion: 1\nMulti-Arch: same\nArchitecture: {}", native.trim()),
        &[("usr/lib/libmany.so", b"1", 0o644), ("usr/lib/libmany.py", b"1", 0o644)],
    );
    assert!(system.root().join(format!("var/lib/dpkg/info/libmany:{}.list", native.trim())).exists());
    let first = system.learn(Dpkg);
    assert_eq!((first.summary.packages_read, first.summary.hashed), (2, 7));
    assert!(system.refresh(Dpkg, &first.trust).is_none(), "nothing changed");

    install(
        &system,
        &format!("Package: libmany\nVersion: 2\nMulti-Arch: same\nArchitecture: {}", native.trim()),
        &[("usr/lib/libmany.so", b"22", 0o644)],
    );
    let second = system.refresh(Dpkg, &first.trust).expect("changed");
    assert_eq!((second.summary.packages, second.summary.packages_read, second.summary.hashed), (2, 1, 1));
    assert_eq!(said(&second.trust), said(&system.learn(Dpkg).trust));
    assert_eq!(verdict(&second.trust, "/usr/lib/libmany.py"), None);
    assert!(second.trust.vouched(&Sha256::digest(b"22").into()).is_some());
    assert!(second.trust.vouched(&Sha256::digest(b"1").into()).is_none());

    run(dpkg(&system).args(["--purge", "libmany"]));
    let third = system.refresh(Dpkg, &second.trust).expect("changed");
    assert_eq!((third.summary.packages_read, third.trust.len()), (0, 5));
}

#[test]
fn names_of_one_file_are_hashed_once_and_each_is_known() {
    let Some(system) = prepared() else { return };
    let link = system.root().join("usr/lib/tool/linked.so");
    fs::hard_link(system.root().join("usr/lib/tool/libtool.so.1"), link).expect("linked");
    system.append("var/lib/dpkg/info/tool.list", "/usr/lib/tool/linked.so\n/lib/tool/linked.so\n");
    let md5sums = fs::read_to_string(system.root().join("var/lib/dpkg/info/tool.md5sums")).expect("there");
    let line = md5sums.lines().find(|l| l.ends_with("libtool.so.1")).expect("listed");
    system.append(
        "var/lib/dpkg/info/tool.md5sums",
        &(line.replace("libtool.so.1", "linked.so")
            + "\n"
            + &line.replace("usr/lib/tool/libtool.so.1", "lib/tool/linked.so")
            + "\n"),
    );
    let learning =
        learn(&system.db(Dpkg), Budget::unpaced(1), &mut |_| ControlFlow::Continue(())).expect("learned");
    assert_eq!(learning.summary.hashed, 5, "{:?}", learning.summary);
    assert_eq!(verdict(&learning.trust, "/usr/lib/tool/linked.so"), Some(Verdict::Matches));
}

#[test]
fn an_image_cannot_lead_out_of_its_root_or_hold_the_reader() {
    let Some(system) = prepared() else { return };
    symlink("/etc", system.root().join("outside")).expect("linked");
    symlink("../../../../../../../../usr/bin", system.root().join("above")).expect("linked");
    run(Command::new("mkfifo").arg(system.root().join("usr/bin/pipe")));
    system.append(
        "var/lib/dpkg/info/tool.list",
        "/outside/passwd\n/above/dpkg\n/usr/bin/pipe\n/usr/../../etc/passwd\nnonsense\n",
    );
    let learning = system.learn(Dpkg);
    assert_eq!(learning.trust.len(), 5, "{:?}", said(&learning.trust));
    assert_eq!(learning.summary.missing, 2, "passwd and dpkg are outside");
    let faults: Vec<String> = learning.summary.faults.first().iter().map(ToString::to_string).collect();
    assert_eq!(faults.len(), 2, "{faults:?}");
    assert!(faults[0].starts_with("var/lib/dpkg/info/tool.list:"), "{faults:?}");

    // The database itself may be a link, which stays inside, and no endless pipe.
    fs::remove_file(system.root().join("var/lib/dpkg/status")).expect("removed");
    run(Command::new("mkfifo").arg(system.root().join("var/lib/dpkg/status")));
    let refused = learn(&system.db(Dpkg), Budget::unpaced(1), &mut |_| ControlFlow::Continue(()));
    assert!(
        matches!(&refused, Err(Error::Io { object, .. }) if object == "var/lib/dpkg/status"),
        "{refused:?}"
    );
}

#[test]
fn who_asks_can_stop_it() {
    let Some(system) = prepared() else { return };
    let mut calls = 0;
    let stopped = learn(&system.db(Dpkg), Budget::unpaced(2), &mut |_| {
        calls += 1;
        ControlFlow::Break(())
    });
    assert!(matches!(stopped, Err(Error::Stopped)));
    assert_eq!(calls, 1);
}

#[test]
fn an_image_without_dpkg_is_read() {
    let system = System::new();
    system.write("usr/bin/x", "#!/bin/sh\n");
    system.write(
        "var/lib/dpkg/status.d/base",
        "Package: base\nVersion: 1\nArchitecture: amd64\nDescription: x\n",
    );
    system.write("var/lib/dpkg/status.d/base.md5sums", "3e2b31c72181b87149ff995e7202c0e3  usr/bin/x\n");
    assert_eq!(said(&system.learn(Dpkg).trust), ["/usr/bin/x base Matches"]);
}
