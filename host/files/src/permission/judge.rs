//! The threads that look at what is asked for, and ask the caller's judge.

use std::cell::OnceCell;
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use davy_model::FileId;

use super::ask::{Answer, Ask, AskKind};
use super::config::GateConfig;
use super::lease;
use super::message::{Message, receive, send};
use super::opener::purpose;

/// Takes questions from one keeper until it is gone. Several do so at once.
pub(super) struct Judge {
    pub(super) config: Arc<GateConfig>,
    pub(super) asks: Arc<OwnedFd>,
    pub(super) keeper: u32,
    /// Times that the caller's judge panicked.
    pub(super) panics: Arc<AtomicU64>,
}

impl Judge {
    pub(super) fn run(&self) {
        while let Ok(Some((message, file))) = receive(&self.asks, true) {
            let (Message::Ask { number, pid, exec }, Some(file)) = (message, file) else { continue };
            let judged = catch_unwind(AssertUnwindSafe(|| self.judge(pid, exec, file.into())));
            let answer = judged.unwrap_or_else(|_| {
                self.panics.fetch_add(1, Ordering::Relaxed);
                self.config.late
            });
            let verdict = Message::Verdict {
                number,
                allow: answer != Answer::Deny,
                keep: answer == Answer::AllowAnyone,
            };
            if send(&self.asks, verdict, None, true).is_err() {
                return;
            }
        }
    }

    fn judge(&self, pid: u32, exec: bool, content: File) -> Answer {
        // First of all: whoever is not concerned waits for no lease and no reading.
        if !(self.config.concerns)(pid) {
            return Answer::Allow;
        }
        // What cannot be looked at has no bytes to judge; the kernel opened it a moment ago.
        let Ok(stat) = content.metadata() else { return Answer::Allow };
        if !stat.is_file() {
            return Answer::Allow;
        }
        let kind =
            if exec { Some(AskKind::Program) } else { purpose(pid, &content, &*self.config.script_of) };
        // That somebody only reads it must not hold for whoever comes to load it.
        let Some(kind) = kind else { return Answer::Allow };
        let steadiness = lease::hold(&content, self.keeper);
        let path = std::fs::read_link(format!("/proc/self/fd/{}", content.as_raw_fd()));
        let ask = Ask {
            kind,
            file: FileId { dev: stat.dev(), ino: stat.ino() },
            path: path.map_or_else(|_| String::new(), |path| path.to_string_lossy().into_owned()),
            pid,
            steadiness,
            content,
            digest: OnceCell::new(),
        };
        (self.config.judge)(&ask)
    }
}
