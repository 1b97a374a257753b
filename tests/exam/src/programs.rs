use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// Which Debian packages bring which programs.
const PACKAGES: &str = include_str!("../packages.txt");

/// The programs under test.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    pub(crate) davy: PathBuf,
    pub(crate) miner: PathBuf,
    pub(crate) pool: PathBuf,
}

impl Programs {
    /// Finds them: the agent where `DAVY_BIN` says, or in the release build, or beside this program; the others
    /// beside this program.
    pub(crate) fn find() -> Result<Self> {
        let miner = beside("davy-test-miner")?;
        let pool = beside("davy-test-pool")?;
        let davy = match env::var_os("DAVY_BIN") {
            Some(path) => PathBuf::from(path),
            None => release(&miner).map_or_else(|| beside("davy"), Ok)?,
        };
        if !davy.is_file() {
            bail!("there is no program {}", davy.display());
        }
        Ok(Self { davy: davy.canonicalize()?, miner, pool })
    }
}

/// A program of this workspace in the folder of this one (or above it, for a test program in `deps`).
fn beside(name: &str) -> Result<PathBuf> {
    let own = env::current_exe()?;
    own.ancestors().skip(1).take(2).map(|folder| folder.join(name)).find(|path| path.is_file()).with_context(
        || format!("{name} is not built; `cargo test --workspace` or `cargo build -p {name}` builds it"),
    )
}

/// The release build of the agent: `make build` leaves it in `target/release`, Cargo in the target's own folder.
fn release(miner: &Path) -> Option<PathBuf> {
    let target = miner.parent()?.parent()?;
    [target.parent()?.join("release/davy"), target.join("release/davy")]
        .into_iter()
        .find(|path| path.is_file())
}

/// Why this machine cannot sit the exam, if it cannot.
#[must_use]
pub fn obstacle() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("root (the agent's sensors, namespaces and other users need it)".to_owned());
    }
    if crate::scope::cgroup2().is_none() {
        return Some("a writable cgroup v2 mount (it tells the loads' processes from all others)".to_owned());
    }
    None
}

/// The first program of `names` that is not installed, with the package that brings it.
pub(crate) fn missing(names: &[&str]) -> Option<String> {
    let absent = names.iter().find(|name| !installed(name))?;
    let package = PACKAGES
        .lines()
        .filter(|line| !line.starts_with('#'))
        .find_map(|line| {
            let mut words = line.split_whitespace();
            let package = words.next()?;
            words.any(|word| word == *absent).then_some(package)
        })
        .unwrap_or("unknown");
    Some(format!("{absent} is not installed (Debian package {package})"))
}

fn installed(name: &str) -> bool {
    Command::new("sh")
        .args(["-c", &format!("{SEARCH}; command -v {name}")])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Makes a shell look where Debian hides servers' programs too.
pub(crate) const SEARCH: &str =
    "PATH=$PATH:/usr/sbin:/sbin:$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | tail -n 1)";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named_with_its_package() {
        assert_eq!(missing(&["sh"]), None);
        assert_eq!(
            missing(&["sh", "no-such-program"]).as_deref(),
            Some("no-such-program is not installed (Debian package unknown)")
        );
    }

    #[test]
    fn every_program_of_a_load_has_a_package() {
        for load in crate::loads::everyday() {
            for program in load.programs {
                let named =
                    PACKAGES.lines().any(|line| line.split_whitespace().skip(1).any(|word| word == *program));
                assert!(named, "{program} of {} is in no line of packages.txt", load.name);
            }
        }
    }

    /// A machine on which nothing is installed and nobody is root, so that what would be installed is only named.
    fn prepared(what: &str) -> String {
        let folder = tempfile::tempdir().expect("a folder");
        for tool in ["awk", "cut", "dirname", "head", "ls", "sed", "sort", "tail", "tr"] {
            let found = format!("/usr/bin/{tool}");
            std::os::unix::fs::symlink(found, folder.path().join(tool)).expect("a link");
        }
        for (name, says) in [("cargo", "cargo 99.0.0"), ("id", "1000"), ("dpkg-query", "")] {
            let path = folder.path().join(name);
            std::fs::write(&path, format!("#!/bin/sh\necho '{says}'\n")).expect("a script");
            let runs = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            std::fs::set_permissions(&path, runs).expect("a program");
        }
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../packaging/prepare.sh");
        let mut command = Command::new("/bin/sh");
        command.args([script, what]).env_clear().env("PATH", folder.path());
        let output = command.stdin(Stdio::null()).output().expect("the script runs");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    #[test]
    fn the_bench_installs_what_its_loads_run() {
        let names = |said: &str| {
            let line = said.lines().find(|line| line.contains("to install them: ")).expect("a last word");
            line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
        };
        let (bench, test) = (prepared("bench"), prepared("test"));
        let (of_bench, of_test) = (names(&bench), names(&test));
        let lines = PACKAGES.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
        for line in lines {
            let mut words = line.split_whitespace();
            let package = words.next().expect("a package");
            // What lies in the folders that are always looked in is there whatever the path is.
            let there = words.all(|program| Path::new("/usr/sbin").join(program).exists());
            let named = of_bench.iter().filter(|name| *name == package).count();
            assert!(named == 1 || there && named == 0, "{package} is named {named} times: {bench}");
        }
        assert!(of_test.iter().any(|name| name == "qemu-system-x86"), "{test}");
        assert!(!of_test.iter().any(|name| name == "ffmpeg"), "{test}");
        assert!(of_bench.iter().any(|name| name == "clamav"), "{bench}");
    }
}
