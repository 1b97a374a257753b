//! Signals the agent, as who wants to be rid of it would, with the one signal that it is known to survive.

use std::fs;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, ensure};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// What the agent catches, tells and runs on from.
const QUIT: Signal = Signal::QUIT;

/// Enters the cgroup, signals the agent, says whether that was `delivered` or `refused` and why, and lives on, so that it can be
/// told of. It stays root: of whoever is not, the kernel refuses it by itself.
pub(super) fn run(cgroup: &str, pid: &str, socket: &Path, until: Instant) -> anyhow::Result<()> {
    fs::write(Path::new(cgroup).join("cgroup.procs"), "0")
        .with_context(|| format!("enter the cgroup {cgroup}"))?;
    // A session of its own: the act must not look like a part of an administrator's.
    let _ = rustix::process::setsid();
    let agent = Pid::from_raw(pid.parse()?).context("the agent has no pid")?;
    // Held before it is looked at, so that nobody else can have the number by then.
    let handle =
        pidfd_open(agent, PidfdFlags::empty()).with_context(|| format!("hold on to process {pid}"))?;
    ensure!(
        listens(pid, socket)?,
        "process {pid} does not listen at {}: the agent is in another namespace",
        socket.display()
    );
    ensure!(catches(pid, QUIT)?, "this agent is older than the drill, and SIGQUIT would end it: restart it");
    let sent = pidfd_send_signal(&handle, QUIT);
    match sent {
        Ok(()) => println!("steady delivered"),
        Err(why) => println!("steady refused {why}"),
    }
    std::thread::sleep(until.saturating_duration_since(Instant::now()));
    Ok(())
}

/// Whether a process holds a socket of this name (proc_pid_net(5), `unix`). Which folder it was bound in depends on who says it.
fn listens(pid: &str, socket: &Path) -> anyhow::Result<bool> {
    let name = socket.file_name().context("a socket has a name")?;
    let table = fs::read_to_string(format!("/proc/{pid}/net/unix")).context("read the table of sockets")?;
    let named = table.lines().filter_map(|line| {
        let mut fields = line.split_whitespace().skip(6);
        let (inode, path) = (fields.next()?, fields.next()?);
        (Path::new(path).file_name() == Some(name)).then(|| format!("socket:[{inode}]"))
    });
    let named: Vec<String> = named.collect();
    let held = fs::read_dir(format!("/proc/{pid}/fd")).context("look at its descriptors")?;
    let mut held = held.flatten().filter_map(|entry| fs::read_link(entry.path()).ok());
    Ok(held.any(|link| named.iter().any(|socket| link.as_os_str() == socket.as_str())))
}

/// Whether a process catches a signal (proc_pid_status(5), `SigCgt`).
fn catches(pid: &str, signal: Signal) -> anyhow::Result<bool> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).context("read its status")?;
    let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let mask = u64::from_str_radix(mask.context("its status names no signals")?.trim(), 16)?;
    Ok(mask & 1 << (signal.as_raw() - 1) != 0)
}
