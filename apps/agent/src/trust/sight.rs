//! What the engine sees of code that runs, on its way to the thread that judges it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError};

use davy_detect::{Detector, Process};
use davy_model::{
    CodeJudgement, CodeKind, CodeOutcome, Event, EventKind, ExecImage, ImageKind, ProcessKey, Timestamp,
};

use crate::services::Began;

use super::notice::Seat;

/// Code that ran or was refused.
#[derive(Debug)]
pub(super) struct Sight {
    pub(super) time: Timestamp,
    pub(super) process: ProcessKey,
    pub(super) uid: Option<u32>,
    /// The cgroup v2 path; empty where unknown.
    pub(super) cgroup: String,
    /// The program that started it.
    pub(super) by: Option<String>,
    pub(super) what: What,
    /// Whoever sits there, where code was refused.
    pub(super) seat: Option<Seat>,
}

/// As what it was seen.
#[derive(Debug)]
pub(super) enum What {
    /// A program was executed, where the kernel does not judge.
    Ran { image: ExecImage, comm: String },
    /// The kernel judged.
    Judged(Box<CodeJudgement>),
    /// It came from a service, under a name that says nothing of what it is.
    Descended(Box<Began>),
}

impl Sight {
    /// Whether it is to be looked at while it runs: what has no name cannot be read later, and what a service started may be
    /// stopped.
    pub(super) fn is_urgent(&self) -> bool {
        match &self.what {
            What::Ran { image, .. } => is_nameless(image),
            What::Descended(_) => true,
            What::Judged(_) => false,
        }
    }
}

/// The engine's end of the queue.
#[derive(Clone, Debug)]
pub(crate) struct Sights {
    sender: SyncSender<Sight>,
    /// Whether the kernel judges everywhere, so that what merely ran need not be looked at.
    kernel_judges: Arc<AtomicBool>,
    lost: Arc<AtomicU64>,
}

impl Sights {
    pub(super) fn new(sender: SyncSender<Sight>, kernel_judges: Arc<AtomicBool>) -> Self {
        Self { sender, kernel_judges, lost: Arc::default() }
    }

    /// Sights that were lost because the thread fell behind.
    pub(crate) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Passes on what is about code. Never waits.
    pub(crate) fn see(&self, event: &Event, detector: &Detector) {
        let Some(process) = event.process else { return };
        let mut seat = None;
        let (what, uid, cgroup, parent) = match &event.kind {
            EventKind::Exec(info) if !info.kernel_thread && !self.kernel_judges.load(Ordering::Relaxed) => {
                let what = What::Ran { image: info.image.clone(), comm: info.comm.clone() };
                (what, Some(info.creds.euid), info.cgroup.clone(), info.parent)
            }
            // What ran is told by the thread itself, whose own word this would be.
            EventKind::CodeJudged(judgement)
                if judgement.outcome != CodeOutcome::Ran && judgement.kind != CodeKind::Service =>
            {
                let known = detector.processes().get(&process);
                let uid = known.map(|process| process.program.creds.euid);
                let cgroup = known.map(|process| process.program.cgroup.clone()).unwrap_or_default();
                if judgement.outcome == CodeOutcome::Denied {
                    seat = known.and_then(|known| seat_of(known, detector));
                }
                (What::Judged(judgement.clone()), uid, cgroup, Some(process))
            }
            _ => return,
        };
        let by = parent.and_then(|key| detector.processes().get(&key)).map(|process| process.comm.clone());
        self.send(Sight { time: event.time, process, uid, cgroup, by, what, seat });
    }

    /// Has the content looked at of a program that came from a service. Never waits.
    pub(crate) fn descended(&self, began: Box<Began>) {
        let (info, time) = (&began.info, began.time);
        let (process, uid, cgroup) = (info.key, Some(info.creds.euid), info.cgroup.clone());
        self.send(Sight { time, process, uid, cgroup, by: None, what: What::Descended(began), seat: None });
    }

    fn send(&self, sight: Sight) {
        if let Err(TrySendError::Full(_)) = self.sender.try_send(sight) {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A process's terminal, through itself or the two above it: a shell's child that may not execute is gone at once.
fn seat_of(process: &Process, detector: &Detector) -> Option<Seat> {
    let tty = process.program.tty.clone()?;
    let above = |key: Option<ProcessKey>| key.and_then(|key| detector.processes().get(&key));
    let parent = above(process.parent);
    let both = [parent, parent.and_then(|parent| above(parent.parent))];
    let pids = [process.key.pid].into_iter().chain(both.into_iter().flatten().map(|p| p.key.pid));
    Some(Seat { tty, pids: pids.collect() })
}

/// Whether code had no name when it ran.
pub(super) fn is_nameless(image: &ExecImage) -> bool {
    image.kind != ImageKind::File
}
