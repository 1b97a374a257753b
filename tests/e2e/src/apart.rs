//! Agents in a mount namespace of their own, so that what they mark is nobody else's.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result};

use crate::{Agent, Scope, davy};

impl Agent {
    /// Starts an agent with this policy in `base`, in a mount namespace of its own: a copy of the machine's in which nothing
    /// that is mounted or marked shows anywhere else.
    ///
    /// # Errors
    /// As [`Agent::start`], and without unshare(1).
    pub fn start_apart(base: &Path, policy: &str) -> Result<Self> {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "--"]).arg(davy());
        let agent = Self::start_in(base, policy, command, &[])?;
        let namespace = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/mnt"));
        let apart = namespace(&agent.pid().to_string())? != namespace("self")?;
        apart.then_some(agent).context("the agent has the machine's own mounts")
    }

    /// Runs a shell's line in the agent's mount namespace, inside the scope's cgroup or outside of any.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn shell(&self, scope: Option<&Scope>, line: &str) -> Result<Output> {
        let mut command = Command::new("nsenter");
        command.arg(format!("--mount=/proc/{}/ns/mnt", self.pid())).args(["--", "/bin/sh", "-c"]);
        match scope {
            Some(scope) => command
                .arg("echo 0 > \"$0\" && exec /bin/sh -c \"$1\"")
                .arg(scope.dir().join("cgroup.procs"))
                .arg(line),
            None => command.arg(line),
        };
        command.stdin(Stdio::null()).output().context("nsenter did not start")
    }
}
