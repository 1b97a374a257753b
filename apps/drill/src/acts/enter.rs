//! The first step of every act: into the cgroup and the network namespace, then the program that plays it.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use anyhow::Context;

use crate::namespace;

/// `nobody` and `nogroup`: an act of root's drill is not root.
pub(crate) const NOBODY: u32 = 65_534;

/// Moves this process where the act is to be, and becomes the program. `-` stands for no cgroup and no namespace.
///
/// The program is executed last, so that sensors see it begin inside the cgroup.
pub(super) fn enter(
    cgroup: &str,
    network: &str,
    program: &str,
    argv0: &str,
    act: &[String],
) -> anyhow::Result<()> {
    if cgroup != "-" {
        let procs = Path::new(cgroup).join("cgroup.procs");
        std::fs::write(&procs, "0").with_context(|| format!("enter the cgroup {cgroup}"))?;
    }
    if network != "-" {
        namespace::enter_network(Path::new(network))?;
    }
    let mut command = Command::new(program);
    command.arg0(argv0).arg("drill-act").args(act).env_clear();
    if rustix::process::geteuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    // A session of its own: the act must not look like a part of an administrator's.
    let _ = rustix::process::setsid();
    Err(command.exec()).with_context(|| format!("execute {program}"))
}
