//! The threads that look at what is asked for, and ask the caller's judge.

use std::cell::OnceCell;
use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use davy_model::FileId;

use super::ask::{Answer, Ask, AskKind};
use super::config::GateConfig;
use super::lease;
use super::message::{Message, monotonic, receive, send};
use super::opener::purpose;

/// Files longer than this are long in reading, in bytes; hardly any program is.
const LONG: u64 = 16 << 20;

/// Threads that read long files, and how many such files may wait for them. What is beyond is judged unread.
const LONG_THREADS: usize = 2;
const LONG_WAITING: usize = 64;

/// Takes questions from one keeper until it is gone. Several threads do so at once.
#[derive(Clone)]
pub(super) struct Judge {
    pub(super) config: Arc<GateConfig>,
    pub(super) asks: Arc<OwnedFd>,
    pub(super) keeper: u32,
    /// Times that the caller's judge panicked.
    pub(super) panics: Arc<AtomicU64>,
}

/// A question that is worth the caller's judge.
struct Case {
    number: u64,
    pid: u32,
    kind: AskKind,
    content: File,
    file: FileId,
    length: u64,
    by: Instant,
}

impl Judge {
    /// Starts the threads. They end with the socket; one that is held up in the caller's judge is not waited for.
    pub(super) fn start(&self) -> io::Result<()> {
        let (sender, waiting) = sync_channel(LONG_WAITING);
        let waiting = Arc::new(Mutex::new(waiting));
        for _ in 0..LONG_THREADS {
            let (judge, waiting) = (self.clone(), Arc::clone(&waiting));
            std::thread::Builder::new()
                .name("davy-judge-long".into())
                .spawn(move || judge.run_long(&waiting))?;
        }
        for _ in 0..self.config.threads.max(1) {
            let (judge, sender) = (self.clone(), sender.clone());
            std::thread::Builder::new().name("davy-judge".into()).spawn(move || judge.run(&sender))?;
        }
        Ok(())
    }

    fn run(&self, long: &SyncSender<Case>) {
        while let Ok(Some((message, file))) = receive(&self.asks, true) {
            let (Message::Ask { number, pid, exec, since }, Some(file)) = (message, file) else { continue };
            let sorted = self.guarded(|| self.sort(number, pid, exec, since, file.into()));
            let answer = match sorted.unwrap_or(ControlFlow::Break(self.config.late)) {
                ControlFlow::Break(answer) => Some(answer),
                ControlFlow::Continue(case) if case.length > LONG => match long.try_send(case) {
                    Ok(()) => None,
                    // There is no time left to read it in.
                    Err(TrySendError::Full(case) | TrySendError::Disconnected(case)) => {
                        Some(self.judge(Case { by: Instant::now(), ..case }))
                    }
                },
                ControlFlow::Continue(case) => Some(self.judge(case)),
            };
            if answer.is_some_and(|answer| self.say(number, answer).is_err()) {
                return;
            }
        }
    }

    fn run_long(&self, waiting: &Mutex<Receiver<Case>>) {
        loop {
            let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok(case) = next else { return };
            let number = case.number;
            if self.say(number, self.judge(case)).is_err() {
                return;
            }
        }
    }

    fn say(&self, number: u64, answer: Answer) -> io::Result<()> {
        let (allow, keep) = (answer != Answer::Deny, answer == Answer::AllowAnyone);
        send(&self.asks, Message::Verdict { number, allow, keep }, None, true)
    }

    /// Runs what calls the caller's code; `None` when that panicked.
    fn guarded<T>(&self, what: impl FnOnce() -> T) -> Option<T> {
        let done = catch_unwind(AssertUnwindSafe(what)).ok();
        if done.is_none() {
            self.panics.fetch_add(1, Ordering::Relaxed);
        }
        done
    }

    /// Answers at once what needs no judge.
    fn sort(
        &self,
        number: u64,
        pid: u32,
        exec: bool,
        since: u64,
        content: File,
    ) -> ControlFlow<Answer, Case> {
        let allowed = ControlFlow::Break(Answer::Allow);
        let patience = if exec { self.config.deadlines.exec } else { self.config.deadlines.open };
        let waited = Duration::from_nanos(monotonic().saturating_sub(since));
        if waited >= patience {
            // The keeper has answered it, and others wait.
            return ControlFlow::Break(self.config.late);
        }
        // First of all: whoever is not concerned waits for no lease and no reading.
        if !(self.config.concerns)(pid) {
            return allowed;
        }
        // What cannot be looked at has no bytes to judge; the kernel opened it a moment ago.
        let Ok(found) = content.metadata() else { return allowed };
        if !found.is_file() {
            return allowed;
        }
        let kind =
            if exec { Some(AskKind::Program) } else { purpose(pid, &content, &*self.config.script_of) };
        // That somebody only reads it must not hold for whoever comes to load it.
        let Some(kind) = kind else { return allowed };
        let by = Instant::now() + (patience * 3 / 4).saturating_sub(waited);
        let file = FileId { dev: found.dev(), ino: found.ino() };
        ControlFlow::Continue(Case { number, pid, kind, content, file, length: found.len(), by })
    }

    fn judge(&self, case: Case) -> Answer {
        let Case { pid, kind, content, file, length, by, .. } = case;
        let steadiness = lease::hold(&content, self.keeper);
        let path = std::fs::read_link(format!("/proc/self/fd/{}", content.as_raw_fd()));
        let ask = Ask {
            kind,
            file,
            path: path.map_or_else(|_| String::new(), |path| path.to_string_lossy().into_owned()),
            pid,
            steadiness,
            content,
            digest: OnceCell::new(),
            length,
            by,
        };
        self.guarded(|| (self.config.judge)(&ask)).unwrap_or(self.config.late)
    }
}
