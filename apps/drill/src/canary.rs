//! A process for the agent to act on, so that it knows whether its acts do what they say.
//!
//! It sits in a cgroup of its own, computes nothing and reaches nothing but the port it is sent to. It is no child of the
//! agent, because the agent's failsafes spare those. It ends with this value, or with the agent.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::scope::Scope;

/// What every canary's cgroup begins with.
const NAME: &str = "davy-canary-";

/// How long the canary may take to be there: its program may have to be read from a slow disk.
const START: Duration = Duration::from_secs(10);

/// How long it may take to answer while it may.
const PATIENCE: Duration = Duration::from_secs(5);

/// How many canaries this process has had.
static CANARIES: AtomicU32 = AtomicU32::new(1);

/// A living canary, or one that was ended.
#[derive(Debug)]
pub struct Canary {
    pid: u32,
    held: Option<OwnedFd>,
    first: Child,
    questions: ChildStdin,
    asked: u64,
    answers: Receiver<String>,
    scope: Option<Scope>,
}

impl Canary {
    /// Starts one from the program with the verb `drill-act`. Without root it gets no cgroup of its own.
    ///
    /// # Errors
    /// What could not be made.
    pub fn start(program: &Path) -> anyhow::Result<Self> {
        let scope = if rustix::process::geteuid().is_root() {
            let number = CANARIES.fetch_add(1, Ordering::Relaxed);
            let own = std::process::id();
            Some(Scope::make(&format!("{NAME}{own}-{}-{number}", start_of(own).unwrap_or_default()))?)
        } else {
            None
        };
        let mut command = Command::new(program);
        command.args(["drill-act", "canary"]).env_clear();
        match &scope {
            Some(scope) => command.arg(scope.directory()),
            None => command.arg("-"),
        };
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut first = command.spawn().with_context(|| format!("start {}", program.display()))?;
        let questions = first.stdin.take().context("the canary does not listen")?;
        let out = first.stdout.take().context("the canary does not answer")?;
        let (sender, answers) = std::sync::mpsc::sync_channel(16);
        // Ends with the canary, whose end closes the pipe.
        std::thread::Builder::new().name("davy-canary-ear".to_owned()).spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        })?;
        let mut canary = Self { pid: 0, held: None, first, questions, asked: 0, answers, scope };
        let told = canary.line(START)?.context("the canary did not start in time")?;
        let pid = told.strip_prefix("ready ").and_then(|pid| pid.parse().ok());
        canary.pid = pid.with_context(|| format!("the canary says {told:?}"))?;
        // It holds the other end of the pipes, so it lives, and nobody else has its pid.
        canary.held =
            Pid::from_raw(canary.pid.cast_signed()).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        let _ = canary.first.wait();
        Ok(canary)
    }

    /// Removes what canaries left whose agent was killed, and with it those that still stand there.
    pub fn sweep() {
        Scope::sweep_if(|name| is_orphan(name, start_of));
    }

    /// Its pid.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The path of its own cgroup v2, if it has one.
    #[must_use]
    pub fn cgroup(&self) -> Option<&str> {
        self.scope.as_ref().map(Scope::path)
    }

    /// Whether it answers within the time; no time stands for as long as it may take while it runs. What it is asked while
    /// it stands still it answers when it runs on.
    ///
    /// # Errors
    /// When it has ended.
    pub fn answers(&mut self, within: Option<Duration>) -> anyhow::Result<bool> {
        Ok(self.ask("there?", within.unwrap_or(PATIENCE))?.is_some())
    }

    /// What comes of a connection from inside its cgroup: `connected`, or `refused` and why.
    ///
    /// # Errors
    /// When it has ended, or does not say.
    pub fn connect(&mut self, to: SocketAddr) -> anyhow::Result<String> {
        self.ask(&format!("connect {to}"), PATIENCE)?
            .context("the canary did not say what came of its connection")
    }

    /// What comes of an empty datagram to this destination that no router passes on: `refused` where that is forbidden.
    ///
    /// # Errors
    /// When it has ended, or does not say.
    pub fn point(&mut self, to: SocketAddr) -> anyhow::Result<String> {
        self.ask(&format!("point {to}"), PATIENCE)?.context("the canary did not say what came of its socket")
    }

    /// Whether this is the cgroup of a canary, which root alone can make.
    #[must_use]
    pub fn is_home(cgroup: &str) -> bool {
        cgroup.strip_prefix('/').is_some_and(|name| name.starts_with(NAME))
    }

    /// Whether it ends in time.
    pub fn ends(&mut self) -> bool {
        let until = Instant::now() + PATIENCE;
        loop {
            match self.answers.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => return false,
                Err(RecvTimeoutError::Disconnected) => return true,
            }
        }
    }

    /// Asks, and waits for the answer to this question: those to earlier ones may come first.
    fn ask(&mut self, question: &str, within: Duration) -> anyhow::Result<Option<String>> {
        self.asked += 1;
        writeln!(self.questions, "{} {question}", self.asked).context("ask the canary")?;
        let until = Instant::now() + within;
        while let Some(line) = self.line(until.saturating_duration_since(Instant::now()))? {
            let (number, answer) = line.split_once(' ').unwrap_or((&line, ""));
            if number.parse() == Ok(self.asked) {
                return Ok(Some(answer.to_owned()));
            }
        }
        Ok(None)
    }

    fn line(&mut self, within: Duration) -> anyhow::Result<Option<String>> {
        match self.answers.recv_timeout(within) {
            Ok(line) => match line.strip_prefix("failed ") {
                Some(why) => bail!("the canary: {why}"),
                None => Ok(Some(line)),
            },
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => bail!("the canary has ended"),
        }
    }
}

impl Drop for Canary {
    fn drop(&mut self) {
        // Unless it hangs, the first step has ended long ago. One that stands still reads no end of its pipe.
        let _ = self.first.kill();
        let _ = self.first.wait();
        if let Some(held) = &self.held {
            let _ = pidfd_send_signal(held, Signal::KILL);
        }
    }
}

/// Whether a canary's cgroup has outlived the agent whose pid and start it is named after. A pid alone does not tell: in a
/// container the next agent often has the one that the last had.
fn is_orphan(name: &str, start_of: impl Fn(u32) -> Option<u64>) -> bool {
    let Some(rest) = name.strip_prefix(NAME) else { return false };
    let mut numbers = rest.split('-').map(str::parse::<u64>);
    let (Some(Ok(pid)), Some(Ok(start))) = (numbers.next(), numbers.next()) else { return false };
    u32::try_from(pid).is_ok_and(|pid| start_of(pid) != Some(start))
}

/// When a process started, in clock ticks since boot; `None` when there is none of this pid (proc_pid_stat(5)).
fn start_of(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(") ")?;
    rest.split(' ').nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_outlived_its_agent_is_an_orphan() {
        let start_of = |pid| (pid == 7).then_some(1100);
        assert!(is_orphan("davy-canary-8-1100-1", start_of), "no such process");
        assert!(is_orphan("davy-canary-7-900-3", start_of), "another process of the same pid");
        assert!(!is_orphan("davy-canary-7-1100-1", start_of), "it lives");
        for other in ["davy-drill-8-1100-1", "davy-canary-8", "davy-canary-x-1-1", "davy-canary-8-x-1"] {
            assert!(!is_orphan(other, start_of), "{other}");
        }
    }

    #[test]
    fn a_process_has_one_start() {
        let own = std::process::id();
        assert!(start_of(own).is_some_and(|start| start > 0) && start_of(own) == start_of(own));
        assert_eq!(start_of(4_194_399), None);
    }
}
