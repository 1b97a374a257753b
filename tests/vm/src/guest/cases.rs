//! The cases. Each is a function that returns or fails; what it prints is shown when it fails.

mod agent;
mod blocking;
mod guarding;
mod kernel;
mod network;
mod rounding;
mod sensing;
mod trust;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Output};

use anyhow::{Context, Result};
use davy_test_vm::report::SKIP_CODE;
pub(crate) use trust::{agent as trust_agent, everything as trust_everything, tiny as tiny_program};

/// Where this program lies in the initramfs.
pub(crate) const SELF: &str = "/init";

/// A feature that this machine lacks, so that a case cannot be tried.
#[derive(Debug)]
pub(crate) struct Lacks(pub(crate) String);

impl std::fmt::Display for Lacks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Lacks {}

/// The case of this name.
fn find(name: &str) -> Option<fn() -> Result<()>> {
    Some(match name {
        "stock_kernel_offers_bpf_lsm" => kernel::stock_kernel_offers_bpf_lsm,
        "every_capability_is_proven" => kernel::every_capability_is_proven,
        "processes_are_seen" => sensing::processes_are_seen,
        "flows_are_seen" => sensing::flows_are_seen,
        "rounding_mode_is_seen" => rounding::rounding_mode_is_seen,
        "written_then_executable_is_seen" => sensing::written_then_executable_is_seen,
        "memfd_execution_is_seen" => sensing::memfd_execution_is_seen,
        "msr_write_is_seen" => sensing::msr_write_is_seen,
        "guarded_process_is_not_killed" => guarding::guarded_process_is_not_killed,
        "guarded_process_is_not_traced" => guarding::guarded_process_is_not_traced,
        "guarded_files_are_not_changed" => guarding::guarded_files_are_not_changed,
        "guarded_attributes_are_not_changed" => guarding::guarded_attributes_are_not_changed,
        "guarded_pins_are_not_taken" => guarding::guarded_pins_are_not_taken,
        "guard_ends_with_the_sensors" => guarding::guard_ends_with_the_sensors,
        "port_watch_begins" => network::port_watch_begins,
        "outbound_rules_hold_in_their_scope" => network::outbound_rules_hold_in_their_scope,
        "isolated_host_reaches_nobody" => blocking::isolated_host_reaches_nobody,
        "destination_is_closed_for_one_cgroup" => blocking::destination_is_closed_for_one_cgroup,
        "pinned_block_outlives_the_agent" => blocking::pinned_block_outlives_the_agent,
        "agent_finds_a_randomx_shape" => agent::agent_finds_a_randomx_shape,
        "drills_of_campaign_and_tampering_hold" => agent::drills_of_campaign_and_tampering_hold,
        _ => return trust::find(name).or_else(|| crate::costs::find(name)),
    })
}

/// Runs the case of this name in this process.
pub(crate) fn run(name: &str, cgroup: &Path) -> ExitCode {
    let Some(case) = find(name) else {
        println!("there is no case {name}");
        return ExitCode::FAILURE;
    };
    // It moves itself before anything else, so that no part of it ever runs outside.
    if let Err(error) = fs::write(cgroup.join("cgroup.procs"), "0") {
        println!("moving into {}: {error}", cgroup.display());
        return ExitCode::FAILURE;
    }
    // What the rooms log is shown when the case fails; libbpf's own words, thousands of lines, only when asked for.
    let libbpf = if boot_option("davy.verbose").is_some() { "debug" } else { "off" };
    let filter = tracing_subscriber::EnvFilter::new(format!("debug,libbpf={libbpf}"));
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).init();
    match case() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => match error.downcast_ref::<Lacks>() {
            Some(lacks) => {
                println!("{lacks}");
                ExitCode::from(u8::try_from(SKIP_CODE).unwrap_or(1))
            }
            None => {
                println!("{error:?}");
                ExitCode::FAILURE
            }
        },
    }
}

/// The value of an option on the kernel's command line; empty for one without.
pub(crate) fn boot_option(name: &str) -> Option<String> {
    let line = fs::read_to_string("/proc/cmdline").ok()?;
    let value = |word: &str| word.strip_prefix(name)?.strip_prefix('=').or(Some("")).map(str::to_owned);
    line.split_whitespace().find_map(value)
}

/// A cgroup below the case's own. The supervisor removes it with the case.
pub(crate) struct Cell(pub(crate) PathBuf);

impl Cell {
    pub(crate) fn make(name: &str) -> Result<Self> {
        let own = fs::read_to_string("/proc/self/cgroup")?;
        let own = own.trim().strip_prefix("0::/").context("no cgroup v2")?.split('/').next().unwrap_or("");
        let path = PathBuf::from("/sys/fs/cgroup").join(own).join(name);
        fs::create_dir(&path).with_context(|| format!("making {}", path.display()))?;
        Ok(Self(path))
    }

    /// Moves this process into it.
    pub(crate) fn enter(&self) -> Result<()> {
        fs::write(self.0.join("cgroup.procs"), "0").context("moving into a cgroup")
    }

    /// Runs a shell script in it and gives what came of it.
    pub(crate) fn shell(&self, script: &str) -> Result<Output> {
        let script = format!("echo $$ >{}/cgroup.procs || exit 99; {script}", self.0.display());
        Command::new("/bin/sh").args(["-c", &script]).output().context("starting a shell")
    }
}

/// A child that is ended with the case.
pub(crate) struct Started(pub(crate) Child);

impl Started {
    pub(crate) fn act(act: &[&str]) -> Result<Self> {
        Ok(Self(Command::new(SELF).arg("act").args(act).spawn()?))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_name_has_a_case() {
        for name in davy_test_vm::cases::NAMES {
            assert!(super::find(name).is_some(), "{name} is listed and not there");
        }
        for watcher in davy_test_vm::costs::Watcher::ALL {
            assert!(super::find(watcher.case()).is_some(), "{watcher:?} has no case");
        }
    }
}
