//! An act's process, seen from the runner.

use std::fmt;
use std::io::{BufRead, BufReader};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// What every drill's folder begins with.
pub(crate) const FOLDER: &str = "davy-drill-";

/// Most lines of an act that wait to be read.
const MAX_LINES: usize = 256;

/// An act could not be played here, which says nothing of the agent.
#[derive(Debug)]
pub(crate) struct CannotPlay(pub(crate) String);

impl fmt::Display for CannotPlay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the act could not be played: {}", self.0)
    }
}

impl std::error::Error for CannotPlay {}

/// A running act. It is ended and reaped with this value.
#[derive(Debug)]
pub(crate) struct Actor {
    child: Child,
    handle: OwnedFd,
    lines: Receiver<(Instant, String)>,
}

impl Actor {
    /// Starts a command that plays an act.
    pub(crate) fn start(mut command: Command) -> anyhow::Result<Self> {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("start {}", command.get_program().display()))?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).context("the act has no pid")?;
        let handle = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(handle) => handle,
            Err(why) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(why).context("hold on to the act");
            }
        };
        let (sender, lines) = std::sync::mpsc::sync_channel(MAX_LINES);
        if let Some(out) = child.stdout.take() {
            // Ends with the act, whose end closes the pipe.
            std::thread::spawn(move || {
                for line in BufReader::new(out).lines().map_while(Result::ok) {
                    if sender.send((Instant::now(), line)).is_err() {
                        break;
                    }
                }
            });
        }
        Ok(Self { child, handle, lines })
    }

    /// Its pid; it stays the same when the act becomes another program.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A handle to signal it by.
    pub(crate) fn handle(&self) -> anyhow::Result<OwnedFd> {
        self.handle.try_clone().context("hold on to the act")
    }

    /// Waits for a line that begins with the word; gives when it came and what follows the word.
    ///
    /// # Errors
    /// When it does not come in time, or the act says that it failed.
    pub(crate) fn wait_for(&self, word: &str, patience: Duration) -> anyhow::Result<(Instant, String)> {
        let until = Instant::now() + patience;
        loop {
            match self.lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok((when, line)) => {
                    let (first, rest) = line.split_once(' ').unwrap_or((&line, ""));
                    if first == word {
                        return Ok((when, rest.to_owned()));
                    }
                    if first == "failed" {
                        return Err(CannotPlay(rest.to_owned()).into());
                    }
                }
                Err(RecvTimeoutError::Timeout) => bail!("the act did not come to `{word}` in {patience:?}"),
                Err(RecvTimeoutError::Disconnected) => bail!("the act ended before it came to `{word}`"),
            }
        }
    }

    /// The next line.
    pub(crate) fn line(&self, patience: Duration) -> Option<String> {
        self.lines.recv_timeout(patience).ok().map(|(_, line)| line)
    }

    /// Whether it has ended, and by which signal if by one.
    pub(crate) fn ended(&mut self) -> Option<Option<i32>> {
        self.child.try_wait().ok().flatten().map(|status| status.signal())
    }

    /// CPU time used so far, in clock ticks (proc_pid_stat(5), fields 14 and 15).
    pub(crate) fn ticks(&self) -> Option<u64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).ok()?;
        let mut fields = stat.rsplit_once(") ")?.1.split(' ').skip(11);
        let (user, system): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        Some(user + system)
    }
}

impl Actor {
    /// Ends it and reaps it, whatever state it is in; the pid may be another's from here on.
    pub(crate) fn end(&mut self) {
        let _ = pidfd_send_signal(&self.handle, Signal::KILL);
        let _ = pidfd_send_signal(&self.handle, Signal::CONT);
        let _ = self.child.wait();
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        self.end();
    }
}
