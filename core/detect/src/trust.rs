//! Code that was refused because nobody vouches for it, or that is on the block-list.

use davy_model::{CodeJudgement, CodeKind, CodeOutcome, CodeReason, ProcessKey, Signal, Timestamp};

use crate::flow_watch::Noted;
use crate::ledger::{Particulars, Topic, evidence};
use crate::weights::{TRUST_BLOCKED, TRUST_REFUSED};

/// The topic of refused code. Each kind has one of its own: a process that is refused a program and then tries memory has done
/// something new, and its finding is told anew.
const fn topic(kind: CodeKind) -> Topic {
    match kind {
        CodeKind::Exec | CodeKind::Service => "trust/program",
        CodeKind::Library => "trust/library",
        CodeKind::Script => "trust/script",
        CodeKind::Memory => "trust/memory",
        CodeKind::Nameless => "trust/nameless",
        CodeKind::Module => "trust/module",
        CodeKind::Bpf => "trust/bpf",
        CodeKind::Trace => "trust/trace",
    }
}

/// The topic of code on the block-list.
pub(crate) const BLOCKED: Topic = "trust/blocked";

/// What a judgement says. That code merely would have been refused is counted elsewhere and is no finding: on a host where
/// programs are built that is every day's work.
pub(crate) fn look(time: Timestamp, key: ProcessKey, judgement: &CodeJudgement) -> Option<Noted> {
    let blocked = judgement.reason == CodeReason::Blocked;
    // Of which service a program came is told apart.
    if (judgement.outcome != CodeOutcome::Denied && !blocked) || judgement.kind == CodeKind::Service {
        return None;
    }
    let what = match judgement.kind {
        CodeKind::Exec | CodeKind::Service => "the program",
        CodeKind::Library => "the library",
        CodeKind::Script => "the script",
        CodeKind::Memory => "memory that it wrote",
        CodeKind::Nameless => "code without a file",
        CodeKind::Module => "the kernel module",
        CodeKind::Bpf => "a BPF program",
        CodeKind::Trace => "an act on another process",
    };
    let path = judgement.path.as_deref().map(|path| format!(" {path}")).unwrap_or_default();
    let why = match judgement.reason {
        CodeReason::Blocked => "it is on the block-list",
        CodeReason::Nameless => "no list can vouch for it",
        CodeReason::OpenForWriting => "somebody had it open for writing",
        CodeReason::WrittenMemory | CodeReason::WithoutFile => "it does not come from a file",
        CodeReason::NotAllowed => "this program may not",
        CodeReason::Unreadable => "it cannot be read, or not in the time there is",
        CodeReason::InUse => "it is in use as code",
        _ => "nobody vouches for it",
    };
    let done = if judgement.outcome == CodeOutcome::Denied { "was kept from running" } else { "ran" };
    let text = format!("{done} {what}{path}: {why}");
    let (topic, weight) =
        if blocked { (BLOCKED, TRUST_BLOCKED) } else { (topic(judgement.kind), TRUST_REFUSED) };
    let technique = match judgement.kind {
        CodeKind::Module => "T1547.006",
        CodeKind::Library => "T1574.006",
        CodeKind::Script => "T1059",
        CodeKind::Nameless | CodeKind::Memory => "T1620",
        CodeKind::Trace => "T1055.008",
        CodeKind::Exec | CodeKind::Service | CodeKind::Bpf => "T1204.002",
    };
    Some((topic, evidence(time, Signal::Trust, weight, text).of(key).technique(technique)))
}
