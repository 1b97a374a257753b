//! How a gate is kept, and what it says of itself.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use super::ask::{Answer, Ask};

/// Finds the script that a program was given: its name and its arguments in, the argument that names the script out.
pub type ScriptOf = dyn Fn(&str, &[String]) -> Option<String> + Send + Sync;

/// By when a decision is made without the judge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadlines {
    /// For an exec.
    pub exec: Duration,
    /// For an open.
    pub open: Duration,
    /// A judge that lets a question wait is asked whether it lives. When it does not say so within this time, nobody waits
    /// for it until it does.
    pub silence: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            exec: Duration::from_secs(2),
            open: Duration::from_secs(1),
            silence: Duration::from_millis(500),
        }
    }
}

/// What is to be asked about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Marked {
    /// What is reached through the mount that this folder lies in.
    Mount(PathBuf),
    /// The file system that this folder lies in, through whichever mount.
    FileSystem(PathBuf),
}

impl Marked {
    pub(super) fn path(&self) -> &PathBuf {
        match self {
            Self::Mount(path) | Self::FileSystem(path) => path,
        }
    }
}

/// How a gate is to be kept.
pub struct GateConfig {
    /// Starts a process that calls [`super::keep`] in its only thread; its input and output are set by the gate.
    pub keeper: Box<dyn Fn() -> Command + Send + Sync>,
    /// Decides. Called from several threads at once, and free to take its time: who waits for it has a deadline.
    pub judge: Box<dyn Fn(&Ask) -> Answer + Send + Sync>,
    /// Whether anything that this process does is to be judged. Whom it is not about is let through at once.
    pub concerns: Box<dyn Fn(u32) -> bool + Send + Sync>,
    /// Tells scripts from what interpreters merely read.
    pub script_of: Box<ScriptOf>,
    /// Whether opens are asked for as well, for libraries and scripts. Every open of what is marked then costs a question.
    pub opens: bool,
    /// Threads that judge.
    pub threads: usize,
    /// By when.
    pub deadlines: Deadlines,
    /// The answer for a judge that lives and was too slow for one question, or panicked over it. For a judge that does not
    /// live, or has too many questions before it, it is always to allow.
    pub late: Answer,
}

impl GateConfig {
    /// Execs only, of everybody, the usual deadlines, and what is late is allowed.
    #[must_use]
    pub fn new(
        keeper: impl Fn() -> Command + Send + Sync + 'static,
        judge: impl Fn(&Ask) -> Answer + Send + Sync + 'static,
    ) -> Self {
        Self {
            keeper: Box::new(keeper),
            judge: Box::new(judge),
            concerns: Box::new(|_| true),
            script_of: Box::new(|_, _| None),
            opens: false,
            threads: 4,
            deadlines: Deadlines::default(),
            late: Answer::Allow,
        }
    }
}

impl fmt::Debug for GateConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GateConfig")
            .field("opens", &self.opens)
            .field("threads", &self.threads)
            .field("deadlines", &self.deadlines)
            .field("late", &self.late)
            .finish_non_exhaustive()
    }
}

/// What a gate has done since it was started. The keeper tells its counts once a second; what it counted last is lost
/// when it is killed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GateCounts {
    /// Execs and opens of others than the agent.
    pub asked: u64,
    /// Of these: decided by the judge in time.
    pub judged: u64,
    /// Allowed because the judge allowed these very bytes to anyone before.
    pub remembered: u64,
    /// The judge was too slow for this one.
    pub late: u64,
    /// Allowed because the judge did not show that it lives.
    pub absent: u64,
    /// Allowed because too many waited already.
    pub crowded: u64,
    /// Times the kernel's queue was full; how many it allowed is not known.
    pub overflows: u64,
    /// By the agent, its keeper and PID 1, which are let through.
    pub own: u64,
    /// Times the judge panicked.
    pub panics: u64,
    /// Times a keeper ended and another was started. Nothing was asked between.
    pub restarts: u64,
}

impl std::ops::Add for GateCounts {
    type Output = Self;

    /// What two keepers, or two gates, did together.
    fn add(self, other: Self) -> Self {
        Self {
            asked: self.asked + other.asked,
            judged: self.judged + other.judged,
            remembered: self.remembered + other.remembered,
            late: self.late + other.late,
            absent: self.absent + other.absent,
            crowded: self.crowded + other.crowded,
            overflows: self.overflows + other.overflows,
            own: self.own + other.own,
            panics: self.panics + other.panics,
            restarts: self.restarts + other.restarts,
        }
    }
}

/// Why there is no gate, or a mark not.
#[derive(Debug, thiserror::Error)]
pub enum GateError {
    /// No sockets, process or threads.
    #[error("starting the keeper of the permission gate: {0}")]
    Start(io::Error),
    /// The keeper has no group.
    #[error("asking the kernel for permission events: {0}; it needs CAP_SYS_ADMIN and 2,048 open files")]
    Group(io::Error),
    /// A mount or file system cannot be marked.
    #[error("marking {}: {source}", path.display())]
    Mark {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}
