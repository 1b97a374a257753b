use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::{Result, anyhow, bail};

use crate::unbooted::{Missing, not_started};

/// How old what was made out of the archive may grow before the archive is asked for something newer.
const FRESH: Duration = Duration::from_secs(14 * 24 * 3600);

/// Debian's key, without which nothing from the archive is trusted.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Packages of one suite that are unpacked together in a folder of their own; nothing is installed.
pub(crate) struct Unpacked<'a> {
    /// Where downloads and unpacked folders lie.
    pub(crate) store: &'a Path,
    /// The folder's name in `store`.
    pub(crate) name: &'a str,
    /// Debian's suite.
    pub(crate) suite: &'a str,
}

impl Unpacked<'_> {
    /// The folder with the packages in it: as it lies there when it is fresh, else out of Debian's archive. An old
    /// one serves when the archive cannot be reached.
    ///
    /// `choose` names the packages (`name` or `name=version`) with the archive's records at hand.
    pub(crate) fn obtain(&self, choose: impl FnOnce(&Apt) -> Result<Vec<String>>) -> Result<PathBuf> {
        let folder = self.store.join(self.name);
        // dpkg-deb gives files the package's times, so a file of our own tells the age.
        keep_fresh(&folder.join("fetched"), || self.download(&folder, choose))?;
        Ok(folder)
    }

    fn download(&self, folder: &Path, choose: impl FnOnce(&Apt) -> Result<Vec<String>>) -> Result<()> {
        let apt = Apt::prepare(&self.store.join("apt").join(self.name), self.suite)?;
        let packages = choose(&apt)?;
        let scratch = self.store.join(format!("{}.new", self.name));
        let _ = fs::remove_dir_all(&scratch);
        fs::create_dir_all(&scratch)?;
        let mut arguments = vec!["-qq", "download"];
        arguments.extend(packages.iter().map(String::as_str));
        apt.run("apt-get", &arguments, &scratch)?;
        let unpacked = scratch.join("root");
        for entry in
            fs::read_dir(&scratch)?.flatten().filter(|e| e.path().extension().is_some_and(|x| x == "deb"))
        {
            run(Command::new("dpkg-deb").arg("-x").arg(entry.path()).arg(&unpacked))?;
        }
        fs::write(unpacked.join("fetched"), packages.join("\n"))?;
        let _ = fs::remove_dir_all(folder);
        fs::rename(&unpacked, folder)?;
        fs::remove_dir_all(&scratch)?;
        Ok(())
    }
}

/// A suite of Debian's archive as sources.list(5) has it.
pub(crate) fn source(suite: &str) -> Result<String> {
    if !Path::new(KEYRING).exists() {
        bail!(Missing(format!("{KEYRING} (package debian-archive-keyring) is not installed")));
    }
    Ok(format!("deb [signed-by={KEYRING}] http://deb.debian.org/debian {suite} main"))
}

/// Makes a file anew when it is missing or old. An old one serves when that fails.
pub(crate) fn keep_fresh(file: &Path, make: impl FnOnce() -> Result<()>) -> Result<()> {
    let made = fs::metadata(file).and_then(|m| m.modified()).ok();
    let fresh = |at: SystemTime| at.elapsed().is_ok_and(|age| age < FRESH);
    if made.is_some_and(fresh) {
        return Ok(());
    }
    make().or_else(|error| if made.is_some() { Ok(()) } else { Err(error) })
}

/// apt with its own sources, lists and cache, so that the machine's stay as they are.
pub(crate) struct Apt {
    options: Vec<String>,
}

impl Apt {
    fn prepare(folder: &Path, suite: &str) -> Result<Self> {
        for part in ["lists/partial", "archives/partial"] {
            fs::create_dir_all(folder.join(part))?;
        }
        let folder = folder.canonicalize()?;
        let sources = folder.join("sources.list");
        fs::write(&sources, format!("{}\n", source(suite)?))?;
        // With nothing installed, the newest version is the candidate; else an installed one would be, which the
        // archive may no longer have.
        let status = folder.join("status");
        fs::write(&status, "")?;
        let options = [
            format!("Dir::State::status={}", status.display()),
            format!("Dir::Etc::SourceList={}", sources.display()),
            "Dir::Etc::SourceParts=/dev/null".to_owned(),
            format!("Dir::State::Lists={}/lists", folder.display()),
            format!("Dir::Cache={}", folder.display()),
            "APT::Sandbox::User=root".to_owned(),
            "Acquire::Retries=2".to_owned(),
            "Acquire::http::Timeout=30".to_owned(),
            "Acquire::Languages=none".to_owned(),
            // Else an archive that was not reached shows as one without packages.
            "APT::Update::Error-Mode=any".to_owned(),
        ]
        .into_iter()
        .flat_map(|option| ["-o".to_owned(), option])
        .collect();
        let apt = Self { options };
        apt.run("apt-get", &["-qq", "update"], &folder)?;
        Ok(apt)
    }

    /// A field of the newest record of `package` whose version begins with `version` and a dot.
    pub(crate) fn field(&self, package: &str, version: &str, field: &str) -> Result<String> {
        let records = self.run("apt-cache", &["show", package], Path::new("."))?;
        for record in records.split("\n\n") {
            let value = |name: &str| {
                let of = |line: &str| Some(line.strip_prefix(name)?.strip_prefix(": ")?.trim().to_owned());
                record.lines().find_map(of)
            };
            // Debian's epoch says nothing here.
            let number = value("Version").map(|v| v.rsplit(':').next().unwrap_or("").to_owned());
            if let Some(found) = value(field)
                && number.and_then(|v| Some(v.strip_prefix(version)?.starts_with('.'))) == Some(true)
            {
                return Ok(found);
            }
        }
        bail!("the archive has no {package} {version}")
    }

    fn run(&self, program: &str, arguments: &[&str], folder: &Path) -> Result<String> {
        with_patience(|| run(Command::new(program).args(&self.options).args(arguments).current_dir(folder)))
    }
}

/// What apt says of a host that it does not reach, without a translation.
const UNREACHED: [&str; 7] = [
    " resolving '",
    "Could not resolve ",
    "Could not connect to ",
    "Unable to connect to ",
    "Cannot initiate the connection to ",
    "onnection timed out",
    "Connection failed",
];

/// Runs a program to its end and gives what it printed.
pub(crate) fn run(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.env("LC_ALL", "C.UTF-8").output().map_err(|error| not_started(&name, error))?;
    if !output.status.success() {
        return Err(failed(&name, &output.status.to_string(), &String::from_utf8_lossy(&output.stderr)));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Why a program failed, from what it said: for want of a network, or by a fault.
fn failed(name: &str, status: &str, said: &str) -> anyhow::Error {
    let of_network = |line: &&str| UNREACHED.iter().any(|words| line.contains(words));
    if let Some(line) = said.lines().find(of_network) {
        return Missing(format!("no network to Debian's archive: {}", line.trim())).into();
    }
    // A program that calls others ends with no more than that it failed; what failed was said before.
    let of_fault = |line: &&str| ["E: ", "Err:", "W: Failed"].iter().any(|mark| line.starts_with(mark));
    let mut faults: Vec<_> = said.lines().map(str::trim).filter(of_fault).take(8).collect();
    if faults.is_empty() {
        faults.extend(said.trim().lines().next_back());
    }
    anyhow!("{name}: {status}: {}", faults.join("; "))
}

/// Tries again after a pause what an archive that is being renewed, or a busy one, fails once.
pub(crate) fn with_patience<T>(mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    for pause in [5, 30] {
        match attempt() {
            Err(error) if !error.is::<Missing>() => eprintln!("trying again in {pause} s: {error:#}"),
            ended => return ended,
        }
        std::thread::sleep(Duration::from_secs(pause));
    }
    attempt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Unbooted;

    /// What apt-get 2.6 and mmdebstrap 1.3 say.
    #[test]
    fn an_archive_out_of_reach_is_missing_and_one_that_is_wrong_is_broken() {
        for said in [
            "E: Failed to fetch http://deb.debian.org/debian/dists/bookworm/InRelease  Temporary failure resolving 'deb.debian.org'\n\
             E: Some index files failed to download. They have been ignored, or old ones used instead.",
            "E: Failed to fetch http://deb.debian.org/x  Could not connect to 127.0.0.1:9 (127.0.0.1). - connect (111: Connection refused)",
            "Err:1 http://deb.debian.org/debian bookworm InRelease\n  Temporary failure resolving 'deb.debian.org'\n\
             E: mmdebstrap failed to run",
        ] {
            let unbooted = Unbooted::from(failed("apt-get", "exit status: 100", said));
            assert!(
                matches!(&unbooted, Unbooted::Missing(why) if why.contains("no network")),
                "{unbooted:?}"
            );
        }
        for said in [
            "E: The repository 'http://deb.debian.org/debian nosuite Release' does not have a Release file.",
            "E: Failed to fetch http://deb.debian.org/x.deb  404  Not Found",
            "E: mmdebstrap failed to run",
            "",
        ] {
            let unbooted = Unbooted::from(failed("apt-get", "exit status: 100", said));
            assert!(matches!(&unbooted, Unbooted::Broken(_)), "{unbooted:?}");
        }
    }

    #[test]
    fn every_fault_is_told_and_not_only_the_last_line() {
        let said = "I: running apt-get update...\nErr:7 http://deb.debian.org/debian bookworm/main Packages\n  \
                    File has unexpected size\nE: Some index files failed to download.\nE: mmdebstrap failed to run\n";
        assert_eq!(
            failed("mmdebstrap", "exit status: 25", said).to_string(),
            "mmdebstrap: exit status: 25: Err:7 http://deb.debian.org/debian bookworm/main Packages; E: Some index \
             files failed to download.; E: mmdebstrap failed to run"
        );
    }
}
