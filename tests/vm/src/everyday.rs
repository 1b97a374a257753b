//! What servers do on a day, for Davy to judge: scripts, sources, services and packages of a repository of its own.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::archive::run;

/// Every step, in the order they run. Each goes on where the one before it ended.
pub const STEPS: &[&str] = &[
    "packages_vouch_for_a_server",
    "first_day_is_watched",
    "what_ran_is_accepted",
    "second_day_has_nothing_to_refuse",
    "enforced_day_breaks_nothing",
    "unknown_code_is_refused",
];

/// Where the day lies in the machine.
pub const FOLDER: &str = "/srv/everyday";

/// The cgroup of everything that the day starts.
pub const SLICE: &str = "everyday.slice";

/// Davy's package in the machine.
pub const PACKAGE: &str = "/opt/davy.deb";

/// Days that there are packages for. Each has two versions: one to install, and one to upgrade to.
pub const ROUNDS: [u32; 3] = [1, 2, 3];

/// Where packages and their list lie.
pub(crate) const REPOSITORY: &str = "srv/repository";

/// What the packaged program and library are copies of. Bytes at their end tell versions apart.
const ORIGINALS: [&str; 2] = ["/bin/true", "/lib/x86_64-linux-gnu/libdl.so.2"];

/// Lays the day into a root folder, and its packages with a list that apt reads.
///
/// # Errors
/// When a file cannot be written, or dpkg-deb fails.
pub fn lay_into(folder: &Path) -> Result<()> {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("everyday");
    let to = folder.join(FOLDER.trim_start_matches('/'));
    fs::create_dir_all(to.parent().context("a folder without a parent")?)?;
    run(Command::new("cp").arg("-r").arg(from).arg(&to))?;
    lay_repository_into(folder)?;
    let sources = folder.join("etc/apt");
    fs::create_dir_all(&sources)?;
    fs::write(sources.join("sources.list"), format!("deb [trusted=yes] file:/{REPOSITORY} ./\n"))?;
    Ok(())
}

/// Lays the packages of all rounds into a root folder at [`REPOSITORY`], with their list.
///
/// # Errors
/// When a file cannot be written, or dpkg-deb fails.
pub(crate) fn lay_repository_into(folder: &Path) -> Result<()> {
    let repository = folder.join(REPOSITORY);
    fs::create_dir_all(&repository)?;
    let mut list = String::new();
    for version in ROUNDS.iter().flat_map(|round| [format!("{round}.0"), format!("{round}.1")]) {
        let scratch = repository.join("scratch");
        let package = repository.join(format!("everyday_{version}_amd64.deb"));
        build(&version, &scratch, &package).with_context(|| format!("packing version {version}"))?;
        fs::remove_dir_all(scratch)?;
        list.push_str(&entry(&package)?);
    }
    Ok(fs::write(repository.join("Packages"), list)?)
}

/// A package as Debian's are: a program, a library, a script, a Python module, configuration, and scripts of its maintainer
/// that run what it brings.
fn build(version: &str, root: &Path, package: &Path) -> Result<()> {
    let put = |path: &str, bytes: &[u8], mode: u32| -> Result<()> {
        let file = root.join(path);
        fs::create_dir_all(file.parent().context("a file without a folder")?)?;
        fs::write(&file, bytes)?;
        Ok(fs::set_permissions(file, fs::Permissions::from_mode(mode))?)
    };
    let copy = |original: &str| -> Result<Vec<u8>> {
        let bytes = fs::read(original).with_context(|| original.to_owned())?;
        Ok([bytes, version.as_bytes().to_vec()].concat())
    };
    put("usr/bin/everyday-tool", &copy(ORIGINALS[0])?, 0o755)?;
    put("usr/lib/everyday/libeveryday.so.1", &copy(ORIGINALS[1])?, 0o644)?;
    put("usr/bin/everyday-report", format!("#!/bin/sh\necho everyday {version}\n").as_bytes(), 0o755)?;
    let module = format!("VERSION = \"{version}\"\n");
    put("usr/lib/python3/dist-packages/everyday.py", module.as_bytes(), 0o644)?;
    put("etc/everyday.conf", b"round = any\n", 0o644)?;
    let sums = "cd \"$1\" && find usr -type f -exec md5sum {} +";
    let sums = run(Command::new("sh").args(["-c", sums, "sums"]).arg(root))?;
    let control = format!(
        "Package: everyday\nVersion: {version}\nArchitecture: amd64\nMaintainer: nobody <nobody@invalid>\n\
         Depends: libc6, python3\nDescription: what a server installs and upgrades\n"
    );
    let script = |text: &str| format!("#!/bin/sh\n# {version}\nset -e\n{text}\n").into_bytes();
    put("DEBIAN/control", control.as_bytes(), 0o644)?;
    put("DEBIAN/md5sums", sums.as_bytes(), 0o644)?;
    put("DEBIAN/conffiles", b"/etc/everyday.conf\n", 0o644)?;
    put("DEBIAN/triggers", b"activate-noawait ldconfig\n", 0o644)?;
    put("DEBIAN/preinst", &script("true"), 0o755)?;
    put(
        "DEBIAN/postinst",
        &script(
            "if [ \"$1\" = configure ]; then\n    everyday-tool\n    py3compile --package everyday\n    \
             update-alternatives --quiet --install /usr/bin/everyday everyday /usr/bin/everyday-report 10\nfi",
        ),
        0o755,
    )?;
    put(
        "DEBIAN/prerm",
        &script(
            "py3clean --package everyday\nif [ \"$1\" = remove ]; then\n    \
             update-alternatives --quiet --remove everyday /usr/bin/everyday-report\nfi",
        ),
        0o755,
    )?;
    put("DEBIAN/postrm", &script("true"), 0o755)?;
    run(Command::new("dpkg-deb").args(["--root-owner-group", "--build"]).arg(root).arg(package))?;
    Ok(())
}

/// What a list of packages says of one.
fn entry(package: &Path) -> Result<String> {
    let control = run(Command::new("dpkg-deb").arg("--field").arg(package))?;
    let sum = run(Command::new("sha256sum").arg(package))?;
    let sum = sum.split(' ').next().unwrap_or_default();
    let name: PathBuf = package.file_name().context("a package without a name")?.into();
    let size = fs::metadata(package)?.len();
    Ok(format!("{}\nFilename: ./{}\nSize: {size}\nSHA256: {sum}\n\n", control.trim_end(), name.display()))
}
