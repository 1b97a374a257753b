//! Two network namespaces joined by a pair of virtual Ethernet devices, which behave as two hosts. Nothing in them reaches the
//! machine's own network.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// Two hosts. They go when this is dropped, with everything between them.
#[derive(Debug)]
pub struct TwoHosts {
    holders: [Child; 2],
}

impl TwoHosts {
    /// Two hosts with these addresses, each with its prefix length; what does not lie in a network of both is reached over the
    /// link as well.
    ///
    /// # Errors
    /// When unshare(1), nsenter(1) or ip(8) is missing or refuses.
    pub fn make(first: &[&str], second: &[&str]) -> Result<Self> {
        let hosts = Self { holders: [holder()?, holder()?] };
        let name = |n: usize| format!("davy{n}");
        let pair = format!(
            "ip link add {} type veth peer name {} netns {}",
            name(0),
            name(1),
            hosts.holders[1].id()
        );
        hosts.shell(0, &pair)?;
        for (host, addresses) in [first, second].into_iter().enumerate() {
            let link = name(host);
            let mut lines = format!("set -e; ip link set lo up; ip link set {link} up;");
            for address in addresses {
                lines.push_str(&format!(" ip addr add {address} dev {link} nodad;"));
            }
            lines.push_str(&format!(" ip route add default dev {link}"));
            hosts.shell(host, &lines)?;
        }
        Ok(hosts)
    }

    /// The namespace of the first (0) or the second (1) host.
    #[must_use]
    pub fn namespace(&self, host: usize) -> PathBuf {
        format!("/proc/{}/ns/net", self.holders[host].id()).into()
    }

    /// A command that runs on one of them; its program and arguments are to be added.
    #[must_use]
    pub fn command(&self, host: usize) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.namespace(host).display())).arg("--");
        command
    }

    /// Runs a shell's line on one of them and waits for it.
    ///
    /// # Errors
    /// When it fails; with what it complained of.
    pub fn shell(&self, host: usize, line: &str) -> Result<()> {
        let output = self.command(host).args(["/bin/sh", "-c", line]).stdin(Stdio::null()).output()?;
        if !output.status.success() {
            bail!("`{line}` on host {host}: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(())
    }
}

impl Drop for TwoHosts {
    fn drop(&mut self) {
        for holder in &mut self.holders {
            let _ = holder.kill();
            let _ = holder.wait();
        }
    }
}

/// A process that does nothing in a network namespace of its own, for ten minutes at the most.
fn holder() -> Result<Child> {
    let mut child = Command::new("unshare")
        .args(["--net", "--", "sleep", "600"])
        .stdin(Stdio::null())
        .spawn()
        .context("unshare did not start")?;
    let namespace = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/net")).ok();
    let end = Instant::now() + Duration::from_secs(10);
    while namespace(&child.id().to_string()).is_none_or(|its| Some(its) == namespace("self")) {
        if Instant::now() > end || child.try_wait()?.is_some() {
            let _ = child.kill();
            let _ = child.wait();
            bail!("unshare made no network namespace");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(child)
}
