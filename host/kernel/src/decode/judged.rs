use davy_model::{CodeJudgement, CodeKind, CodeOutcome, CodeReason, Sha256};

use crate::abi::{FileKey, Judged};
use crate::guard::file_id;

/// What a record says of code; `None` for one that says what this version does not know.
pub(super) fn judgement(record: &Judged) -> Option<CodeJudgement> {
    // As `enum code_kind`.
    let kind = *crate::trust::KINDS.get(usize::from(record.kind))?;
    Some(CodeJudgement {
        kind,
        outcome: match record.outcome {
            0 => CodeOutcome::WouldDeny,
            1 => CodeOutcome::Denied,
            2 => CodeOutcome::Marked,
            _ => return None,
        },
        reason: reason(record.reason)?,
        file: (record.ino != 0).then(|| file_id(FileKey { ino: record.ino, dev: record.dev })),
        path: path(record, kind)?,
        sha256: (record.has_sha256 != 0).then_some(Sha256(record.sha256)),
        repeats: record.repeats,
    })
}

/// As `enum code_reason`.
fn reason(number: u8) -> Option<CodeReason> {
    Some(match number {
        1 => CodeReason::Unknown,
        2 => CodeReason::Blocked,
        3 => CodeReason::OpenForWriting,
        4 => CodeReason::Unreadable,
        5 => CodeReason::Nameless,
        6 => CodeReason::Unstable,
        7 => CodeReason::WrittenMemory,
        8 => CodeReason::NotJudged,
        9 => CodeReason::WithoutFile,
        10 => CodeReason::NotAllowed,
        11 => CodeReason::InUse,
        12 => CodeReason::Expired,
        13 => CodeReason::WrittenByTrusted,
        _ => return None,
    })
}

/// The kernel ends a path with a zero, and one without a name with a remark, which the kind says already.
fn path(record: &Judged, kind: CodeKind) -> Option<Option<String>> {
    let bytes = record.path.get(..usize::from(record.path_len))?;
    let bytes = bytes.strip_suffix(&[0]).unwrap_or(bytes);
    let text = String::from_utf8_lossy(bytes);
    let text = if kind == CodeKind::Nameless { text.trim_end_matches(" (deleted)") } else { &*text };
    Some((!text.is_empty()).then(|| text.to_owned()))
}
