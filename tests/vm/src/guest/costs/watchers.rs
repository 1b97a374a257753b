//! Davy and its peers, started and stopped as their manuals have it.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use davy_test_vm::costs::{QUEUE_MODULES, Watcher};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::USER;
use crate::cases::SELF;

const DAVY: [&str; 3] = ["/usr/sbin/davy", "--base-dir", "/tmp/davy"];

/// The rules of a usual deployment: Debian's own settings, then programs and connections.
const AUDIT_RULES: &str = "/etc/audit/davy-bench.rules";

/// Made by the gate when it binds this case's cgroup.
const GATE_READY: &str = "/tmp/gate-is-ready";

/// How long one may take to start or to end, in the machine's time.
const PATIENCE: Duration = Duration::from_secs(60);

/// What one does once at its start is not its running cost.
const WARM_UP: Duration = Duration::from_secs(5);

/// A watcher at work.
pub(super) struct Running {
    watcher: Watcher,
    child: Child,
    log: String,
}

impl Running {
    /// Starts it and waits until it has settled.
    pub(super) fn start(watcher: Watcher) -> Result<Self> {
        let mut command = match watcher {
            Watcher::Davy => {
                fs::create_dir_all(DAVY[2])?;
                let mut command = Command::new(DAVY[0]);
                command.args(&DAVY[1..]).arg("agent");
                command
            }
            Watcher::Trust => {
                let _ = fs::remove_file(GATE_READY);
                let mut command = Command::new(SELF);
                command.args(["act", "trust-everything", GATE_READY]);
                command
            }
            Watcher::Auditd => {
                fs::create_dir_all("/var/log/audit")?;
                let mut command = Command::new("/sbin/auditd");
                command.arg("-n");
                command
            }
            Watcher::Fapolicyd => {
                for folder in ["/var/lib/fapolicyd", "/run/fapolicyd"] {
                    fs::create_dir_all(folder)?;
                }
                // Stays in the foreground and tells denials only.
                let mut command = Command::new("/usr/sbin/fapolicyd");
                command.arg("--debug-deny");
                command
            }
            Watcher::OpenSnitch => {
                QUEUE_MODULES.into_iter().for_each(insert);
                fs::create_dir_all("/etc/opensnitchd/rules")?;
                let mut command = Command::new("/usr/bin/opensnitchd");
                command.args(["-rules-path", "/etc/opensnitchd/rules"]);
                command
            }
        };
        let log = format!("/tmp/{}.out", watcher.name());
        let output = File::create(&log)?;
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let child = command.spawn().with_context(|| format!("starting {}", watcher.name()))?;
        let mut running = Self { watcher, child, log };
        running.settle().map_err(|error| {
            println!("{}", running.said());
            error.context(format!("{} did not start", watcher.name()))
        })?;
        Ok(running)
    }

    fn settle(&mut self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        if self.watcher == Watcher::Davy {
            while davy_status().is_err() {
                ensure!(self.child.try_wait()?.is_none() && Instant::now() < deadline, "no answer");
                std::thread::sleep(Duration::from_millis(500));
            }
        }
        while self.watcher == Watcher::Trust && !fs::exists(GATE_READY)? {
            ensure!(self.child.try_wait()?.is_none() && Instant::now() < deadline, "the gate is not ready");
            std::thread::sleep(Duration::from_millis(100));
        }
        std::thread::sleep(WARM_UP);
        if self.watcher == Watcher::Auditd {
            auditctl(&["-R", AUDIT_RULES])?;
            auditctl(&["-e", "1"])?;
        }
        ensure!(self.child.try_wait()?.is_none(), "it ended");
        Ok(())
    }

    /// Proves that it watched, so that no cost of an idle program is reported.
    pub(super) fn check(&mut self) -> Result<()> {
        ensure!(self.child.try_wait()?.is_none(), "it ended while the loads ran");
        match self.watcher {
            Watcher::Davy => {
                let status = davy_status()?;
                ensure!(status["tier"] == "lsm", "the tier is {}", status["tier"]);
                ensure!(status["events"].as_u64() > Some(50), "it took in {} events", status["events"]);
                let mut drops = status["drops"].as_array().into_iter().flatten();
                ensure!(drops.all(|drop| drop["count"] == 0), "it lost events: {}", status["drops"]);
            }
            Watcher::Auditd => {
                let log = fs::read("/var/log/audit/audit.log")?;
                let log = String::from_utf8_lossy(&log);
                ensure!(log.contains("davy-bench"), "its log has none of the loads");
            }
            Watcher::Trust | Watcher::Fapolicyd => {
                let stranger = Path::new("/tmp/stranger");
                fs::copy("/bin/true", stranger)?;
                // One goes by the name that it knows, the other by the content.
                File::options().append(true).open(stranger)?.write_all(b"!")?;
                let started = Command::new(stranger).uid(USER).status();
                fs::remove_file(stranger)?;
                ensure!(started.is_err(), "a program that it does not trust was started");
            }
            Watcher::OpenSnitch => {
                // net/netfilter/nfnetlink_queue.c, seqprint: queue, port, waiting, mode, range, dropped twice, packets.
                let queues = fs::read_to_string("/proc/net/netfilter/nfnetlink_queue")?;
                let packets = |line: &str| line.split_whitespace().nth(7)?.parse::<u64>().ok();
                let seen: u64 = queues.lines().filter_map(packets).sum();
                ensure!(seen > 0, "its queues had {seen} packets");
            }
        }
        Ok(())
    }

    /// What it printed.
    pub(super) fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Ends it and leaves the machine as it was before.
    pub(super) fn stop(mut self) -> Result<()> {
        if self.watcher == Watcher::Auditd {
            auditctl(&["-D"])?;
            // Without this rule every process that is born from now on would be followed as if to be audited.
            auditctl(&["-a", "never,task"])?;
            auditctl(&["-e", "0"])?;
        }
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).context("it has no number")?;
        kill_process(pid, Signal::TERM)?;
        let deadline = Instant::now() + PATIENCE;
        while self.child.try_wait()?.is_none() {
            ensure!(Instant::now() < deadline, "{} does not end", self.watcher.name());
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn davy_status() -> Result<Value> {
    let output = Command::new(DAVY[0]).args(&DAVY[1..]).args(["status", "--json"]).output()?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn auditctl(arguments: &[&str]) -> Result<()> {
    let output = Command::new("/sbin/auditctl").args(arguments).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "auditctl {}: {}", arguments.join(" "), said.trim());
    Ok(())
}

/// Loads a kernel module. One that is there, or that a later kernel has built in, is no failure: the check tells.
fn insert(name: &str) {
    let module = format!("/lib/modules/{name}.ko");
    if Path::new(&module).exists() {
        let _ = Command::new("/bin/insmod").arg(module).stderr(Stdio::null()).status();
    }
}
