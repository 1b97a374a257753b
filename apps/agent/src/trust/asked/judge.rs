//! What is answered when the kernel asks about code.

use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Mutex, OnceLock, Weak};

use davy_files::permission::{Answer, Ask, AskKind, Steadiness};
use davy_model::{CodeJudgement, CodeKind, CodeOutcome, CodeReason, Event, EventKind, Rank, Ruling, Sha256};
use davy_trust::Question;

use super::super::desk::TrustDesk;
use super::super::gate::Binding;
use crate::shared::{Intake, lock};
use crate::{clock, standing};

/// Answers what is asked, from what the desk knows.
pub(crate) struct Judge {
    desk: OnceLock<Weak<TrustDesk>>,
    pub(super) intake: Intake,
    /// The agent's own cgroup, in which nothing is refused.
    own: String,
    /// Where code is refused; nowhere until it is said.
    bound: Mutex<Option<Binding>>,
}

impl Judge {
    pub(super) fn new(intake: Intake, own: String) -> Self {
        Self { desk: OnceLock::new(), intake, own, bound: Mutex::default() }
    }

    /// From here on this desk decides.
    pub(crate) fn listen_to(&self, desk: &Arc<TrustDesk>) {
        // There is one desk, and it is given once.
        let _ = self.desk.set(Arc::downgrade(desk));
    }

    pub(super) fn bind(&self, binding: &Binding) {
        *lock(&self.bound) = Some(binding.clone());
    }

    /// Whether anything is refused where this process is. Nobody is refused whom nobody knows.
    pub(super) fn concerns(&self, pid: u32) -> bool {
        self.place(pid).is_some_and(|cgroup| self.is_bound(|binding| binding.refuses_any(&cgroup)))
    }

    /// The cgroup of a process that may be refused something.
    fn place(&self, pid: u32) -> Option<String> {
        davy_proc::cgroup(pid).filter(|cgroup| !is_own(cgroup, &self.own))
    }

    fn is_bound(&self, holds: impl FnOnce(&Binding) -> bool) -> bool {
        lock(&self.bound).as_ref().is_some_and(holds)
    }

    pub(super) fn answer(&self, ask: &Ask) -> Answer {
        let nameless = ask.content.metadata().is_ok_and(|found| found.nlink() == 0);
        let kind = match ask.kind {
            _ if nameless => CodeKind::Nameless,
            AskKind::Program => CodeKind::Exec,
            AskKind::Library => CodeKind::Library,
            AskKind::Script => CodeKind::Script,
        };
        let Some(cgroup) = self.place(ask.pid) else { return Answer::Allow };
        if !self.is_bound(|binding| binding.refuses(&cgroup, kind)) {
            return Answer::Allow;
        }
        let Some(desk) = self.desk.get().and_then(Weak::upgrade) else { return Answer::Allow };
        let digest = ask.digest().ok().map(Sha256);
        // Its path is another's to choose, by a mount of his own: no folder vouches for it here.
        let question = Question { digest, path: "", nameless, failsafe: None };
        let ruling = desk.ruling(&question, clock::now());
        let written = ask.steadiness == Steadiness::Written;
        if ruling.allowed && !written {
            // What has no file is allowed to whoever it is allowed to, here and now.
            return if nameless { Answer::Allow } else { Answer::AllowAnyone };
        }
        let judgement = CodeJudgement {
            kind,
            outcome: CodeOutcome::Denied,
            reason: reason(&ruling, digest, written),
            file: Some(ask.file),
            path: Some(ask.path.clone()),
            sha256: digest,
            repeats: 0,
        };
        let kind = EventKind::CodeJudged(Box::new(judgement));
        self.intake.event(Event { time: clock::now(), process: davy_proc::key(ask.pid), kind });
        Answer::Deny
    }
}

fn reason(ruling: &Ruling, digest: Option<Sha256>, written: bool) -> CodeReason {
    match ruling.rank {
        Rank::Blocked => CodeReason::Blocked,
        _ if written => CodeReason::OpenForWriting,
        Rank::Nameless => CodeReason::Nameless,
        _ if digest.is_none() => CodeReason::Unreadable,
        _ => CodeReason::Unknown,
    }
}

/// Whether it is the agent's cgroup or below. An agent in the root of all cgroups has no other below it for its own.
fn is_own(cgroup: &str, own: &str) -> bool {
    cgroup == own || (own != "/" && standing::within(cgroup, own))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agents_own_is_spared_and_the_root_is_not_all_its_own() {
        assert!(is_own("/davy/worker", "/davy") && !is_own("/davy2", "/davy"));
        assert!(is_own("/", "/") && !is_own("/web", "/"));
    }
}
