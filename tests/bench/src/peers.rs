//! Programs that watch the same things, where they can be run without changing the machine for others.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

/// The rules of a usual deployment: programs and connections.
const AUDIT_RULES: [&[&str]; 2] = [
    &["-a", "always,exit", "-F", "arch=b64", "-S", "execve,execveat", "-k", "davy-bench"],
    &["-a", "always,exit", "-F", "arch=b64", "-S", "connect", "-k", "davy-bench"],
];

/// A program to compare with.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Peer {
    /// The kernel's audit subsystem with its daemon.
    Auditd,
    /// An allow-list of programs by fanotify.
    Fapolicyd,
    /// An outbound allow-list by process.
    OpenSnitch,
}

impl Peer {
    pub(crate) const ALL: [Self; 3] = [Self::Auditd, Self::Fapolicyd, Self::OpenSnitch];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Auditd => "auditd",
            Self::Fapolicyd => "fapolicyd",
            Self::OpenSnitch => "OpenSnitch",
        }
    }

    /// Whether it can run here; the error is the reason that the tables give.
    pub(crate) fn possible(self) -> Result<()> {
        match self {
            Self::Auditd => auditd_possible(),
            Self::Fapolicyd => bail!(
                "it holds up every open on every mounted file system of the host by fanotify permission marks, and \
                 has no setting that keeps it to one mount; a mistake stops the whole machine"
            ),
            Self::OpenSnitch => bail!(
                "it diverts the host's new connections to a queue by rules in the root network namespace, and asks a \
                 person or refuses; other work on this machine would be refused with it"
            ),
        }
    }

    /// Starts it; it ends when the value is dropped.
    pub(crate) fn start(self) -> Result<Auditd> {
        match self {
            Self::Auditd => Auditd::start(),
            _ => bail!("{} is not started here", self.name()),
        }
    }
}

/// A program of the audit package: the installed one, or one that `tests/bench.sh` unpacked below the target folder.
fn audit(program: &str) -> Result<Command> {
    let unpacked = std::env::current_dir()?.join("target/peers/auditd");
    let roots = [PathBuf::from("/"), unpacked];
    let (root, path) = roots
        .iter()
        .map(|root| (root, root.join("sbin").join(program)))
        .find(|(_, path)| path.exists())
        .context("it is neither installed nor to be had from the archive (package auditd)")?;
    let mut command = Command::new(path);
    if root != Path::new("/") {
        let libraries = ["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"].map(|part| root.join(part));
        command.env("LD_LIBRARY_PATH", std::env::join_paths(libraries)?);
    }
    Ok(command)
}

fn auditctl(arguments: &[&str]) -> Result<String> {
    let output = audit("auditctl")?.args(arguments).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "auditctl {}: {}", arguments.join(" "), said.trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn auditd_possible() -> Result<()> {
    let state = auditctl(&["-s"])?;
    ensure!(state.lines().any(|line| line.trim() == "pid 0"), "another audit daemon runs already");
    let rules = auditctl(&["-l"])?;
    ensure!(rules.trim() == "No rules", "the machine has audit rules of its own");
    Ok(())
}

/// A running audit daemon with our rules, writing to a folder of its own.
pub(crate) struct Auditd {
    daemon: Child,
    _folder: TempDir,
}

impl Auditd {
    fn start() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let log = folder.path().join("audit.log");
        let configuration = format!(
            "log_file = {}\nlog_format = RAW\nflush = INCREMENTAL_ASYNC\nfreq = 50\nmax_log_file = 64\n\
             max_log_file_action = ROTATE\nnum_logs = 2\nspace_left = 75\nspace_left_action = IGNORE\n\
             admin_space_left = 50\nadmin_space_left_action = IGNORE\ndisk_full_action = IGNORE\n\
             disk_error_action = IGNORE\n",
            log.display()
        );
        std::fs::write(folder.path().join("auditd.conf"), configuration)?;
        let daemon = audit("auditd")?
            .args(["-f", "-c"])
            .arg(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let running = Self { daemon, _folder: folder };
        std::thread::sleep(Duration::from_secs(2));
        auditctl(&["-e", "1"])?;
        for rule in AUDIT_RULES {
            auditctl(rule)?;
        }
        Ok(running)
    }
}

impl Drop for Auditd {
    fn drop(&mut self) {
        let _ = auditctl(&["-D", "-k", "davy-bench"]);
        let _ = auditctl(&["-e", "0"]);
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}
