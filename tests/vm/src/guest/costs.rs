//! The bench: how many instructions the machine executes for a load, with a watcher and without.
//!
//! The machine's clock counts instructions (`Clock::Instructions`), a nanosecond each, so what the scheduler tells as
//! time is work. All of it counts: the load, the kernel, the watcher's own threads.

mod loads;
mod watchers;

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, ExitStatus, Stdio};

use anyhow::{Context, Result, bail, ensure};
use davy_test_vm::costs::Watcher;

use crate::cases::SELF;
use watchers::Running;

/// How often both conditions are counted, after one short time that warms caches.
const ROUNDS: u32 = 2;

/// The user that the loads run as.
const USER: u32 = 1000;

/// The bench's case of this name.
pub(crate) fn find(name: &str) -> Option<fn() -> Result<()>> {
    Some(match Watcher::ALL.into_iter().find(|watcher| watcher.case() == name)? {
        Watcher::Davy => || compare(Watcher::Davy),
        Watcher::Trust => || compare(Watcher::Trust),
        Watcher::Auditd => || compare(Watcher::Auditd),
        Watcher::Fapolicyd => || compare(Watcher::Fapolicyd),
        Watcher::OpenSnitch => || compare(Watcher::OpenSnitch),
    })
}

/// Nothing, the watcher, nothing, the watcher.
fn compare(watcher: Watcher) -> Result<()> {
    for round in 0..=ROUNDS {
        count(round, false, watcher).context("with nothing")?;
        let mut running = Running::start(watcher)?;
        if watcher == Watcher::Trust {
            // A file is read once in its life there; what that costs is not what running it costs.
            ensure!(loads(round, true, 100, 100, Stdio::null())?.success(), "the loads that are not counted");
        }
        count(round, true, watcher).and_then(|()| running.check()).map_err(|error| {
            println!("{}", running.said());
            error.context(format!("with {}", watcher.name()))
        })?;
        running.stop()?;
    }
    Ok(())
}

/// The loads run in a process that is born under the condition: what is decided at a fork (whether the audit
/// subsystem follows a process) is decided anew. They run as a user, because fapolicyd asks less of root's programs.
fn count(round: u32, watched: bool, watcher: Watcher) -> Result<()> {
    let of_all = if round == 0 { 10 } else { 1 };
    // A connection takes OpenSnitch as long as a hundred take the kernel.
    let of_net = if watcher == Watcher::OpenSnitch { 40 } else { 1 };
    let console = File::options().write(true).open("/dev/console")?;
    let status = loads(round, watched, of_all, of_net, console.into())?;
    ensure!(status.success(), "the loads: {status}");
    Ok(())
}

fn loads(round: u32, watched: bool, of_all: u32, of_net: u32, said: Stdio) -> Result<ExitStatus> {
    let mut loads = Command::new(SELF);
    loads.arg("loads").args([round.to_string(), watched.to_string(), of_all.to_string(), of_net.to_string()]);
    Ok(loads.stdout(said).uid(USER).gid(USER).status()?)
}

/// Runs and counts all loads in this process.
pub(crate) fn run_loads(arguments: &[&str]) -> ExitCode {
    let all = || match arguments {
        [round, watched, of_all, of_net] => {
            loads::run(round.parse()?, watched.parse()?, of_all.parse()?, of_net.parse()?)
        }
        _ => bail!("usage: loads ROUND WATCHED DIVISOR DIVISOR"),
    };
    match all() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:?}");
            ExitCode::FAILURE
        }
    }
}
