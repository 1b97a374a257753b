use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;
use serde_json::Value;
use tempfile::TempDir;

/// How long an agent may take to answer, or to go.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long an agent may take to have done what it does once at its start (it reads what packages vouch for), and what it
/// uses of one core when that is over.
const SETTLING: Duration = Duration::from_secs(180);
const SETTLED: f64 = 0.05;

/// An agent in observe mode with a folder of its own; gone when dropped.
pub(crate) struct Agent {
    davy: PathBuf,
    base: TempDir,
    child: Child,
    started: f64,
}

/// What an agent used while it had nothing to do.
#[derive(Debug, Serialize)]
pub(crate) struct Rest {
    /// For how long it was watched, in seconds.
    pub(crate) seconds: f64,
    /// Share of one core, in percent.
    pub(crate) cpu_percent: f64,
    /// Resident memory at the end, in bytes.
    pub(crate) resident: u64,
    /// Processes on the host meanwhile.
    pub(crate) processes: u64,
    /// What it took to start, before it rested: CPU seconds.
    pub(crate) started_cpu_seconds: f64,
}

impl Agent {
    /// Starts an agent and waits until it answers, and has done what it does once.
    pub(crate) fn start(davy: &Path) -> Result<Self> {
        Self::start_by(Command::new(davy), davy, "")
    }

    /// Starts one under a policy by a command that ends in its program, and waits likewise.
    pub(crate) fn start_by(mut command: Command, davy: &Path, policy: &str) -> Result<Self> {
        let base = tempfile::tempdir()?;
        let log = File::create(base.path().join("log"))?;
        std::fs::create_dir_all(base.path().join("etc"))?;
        std::fs::write(base.path().join("etc/davy.toml"), policy)?;
        let child = command
            .arg("--base-dir")
            .arg(base.path())
            .arg("agent")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("starting {}", davy.display()))?;
        let mut agent = Self { davy: davy.to_owned(), base, child, started: 0.0 };
        let deadline = Instant::now() + PATIENCE;
        while agent.status().is_err() {
            if agent.child.try_wait()?.is_some() || Instant::now() > deadline {
                let log = std::fs::read_to_string(agent.base.path().join("log")).unwrap_or_default();
                bail!("the agent does not answer:\n{log}");
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        agent.started = agent.settle()?;
        Ok(agent)
    }

    /// Waits until it has done what it does once at its start, which is not its running cost. Returns what that took, in CPU
    /// seconds.
    fn settle(&self) -> Result<f64> {
        let deadline = Instant::now() + SETTLING;
        loop {
            let (before, begin) = (self.cpu()?, Instant::now());
            std::thread::sleep(Duration::from_secs(2));
            let after = self.cpu()?;
            if (after - before) / begin.elapsed().as_secs_f64() < SETTLED {
                return Ok(after);
            }
            if Instant::now() > deadline {
                bail!("the agent does not come to rest within {} s", SETTLING.as_secs());
            }
        }
    }

    /// `davy status --json`.
    pub(crate) fn status(&self) -> Result<Value> {
        Ok(serde_json::from_str(&self.davy(&["status", "--json"])?)?)
    }

    /// What a verb prints.
    pub(crate) fn davy(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(&self.davy);
        let output = command.arg("--base-dir").arg(self.base.path()).args(arguments).output()?;
        if !output.status.success() {
            bail!("davy {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr));
        }
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Gives it another policy.
    pub(crate) fn reload(&self, policy: &str) -> Result<()> {
        std::fs::write(self.base.path().join("etc/davy.toml"), policy)?;
        self.davy(&["policy", "reload"])?;
        // Threads that tell the kernel look a few times a second.
        std::thread::sleep(Duration::from_secs(1));
        Ok(())
    }

    /// Watches it for a time, from outside, without asking it anything.
    pub(crate) fn at_rest(&self, time: Duration) -> Result<Rest> {
        std::thread::sleep(Duration::from_secs(3));
        let (before, begin) = (self.cpu()?, Instant::now());
        std::thread::sleep(time);
        let (after, seconds) = (self.cpu()?, begin.elapsed().as_secs_f64());
        let processes = std::fs::read_dir("/proc")?
            .flatten()
            .filter(|entry| entry.file_name().to_string_lossy().bytes().all(|b| b.is_ascii_digit()))
            .count() as u64;
        Ok(Rest {
            seconds,
            cpu_percent: 100.0 * (after - before) / seconds,
            resident: self.resident()?,
            processes,
            started_cpu_seconds: self.started,
        })
    }

    /// CPU seconds of all its threads, those that ended among them, by the scheduler's own count in ticks of 10 ms.
    pub(crate) fn cpu(&self) -> Result<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        // The name, in parentheses, may hold anything; utime and stime are the 12th and 13th fields after it (proc(5)).
        let (_, fields) = stat.rsplit_once(')').context("no name in stat")?;
        let ticks =
            fields.split_whitespace().skip(11).take(2).map(str::parse::<u64>).sum::<Result<u64, _>>()?;
        Ok(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
    }

    /// Resident memory, in bytes.
    pub(crate) fn resident(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let deadline = Instant::now() + PATIENCE;
        while self.child.try_wait().is_ok_and(|status| status.is_none()) {
            if Instant::now() > deadline {
                let _ = self.child.kill();
                let _ = self.child.wait();
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}
