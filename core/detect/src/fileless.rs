//! Code without a file: programs from memfd, from deleted files, and programs that delete their own.

use davy_model::{Evidence, ImageKind, ProcessInfo, Signal, Timestamp};

use crate::flow_watch::Noted;
use crate::known_names::KnownNames;
use crate::ledger::{Particulars, evidence};
use crate::places::{Place, place};
use crate::process_table::{Process, base_name};
use crate::weights::{FILELESS_DELETED_EXEC, FILELESS_DELETED_LATER, FILELESS_DELETED_SELF, FILELESS_MEMFD};

/// Container runtimes seal a copy of themselves in a memfd and execute it for the moment before the container's own program
/// (CVE-2019-5736).
const RUNTIMES: [&str; 9] = [
    "runc",
    "crun",
    "youki",
    "containerd-shim",
    "containerd-shim-runc-v2",
    "conmon",
    "dockerd",
    "lxc-start",
    "lxc-attach",
];

/// What the way a program was executed, or found running, says.
pub(crate) fn look(
    time: Timestamp,
    info: &ProcessInfo,
    parent: Option<&Process>,
    names: &KnownNames,
    found: bool,
) -> Option<Noted> {
    if info.image.kind == ImageKind::File || is_container_runtime(info, parent, names) {
        return None;
    }
    let name = base_name(&info.image.path);
    let (weight, text) = match info.image.kind {
        ImageKind::File => return None,
        ImageKind::Memfd => (FILELESS_MEMFD, format!("runs from memory ({name}): there is no file")),
        // After an upgrade programs run on from files that are replaced.
        ImageKind::Deleted if found && place(&info.image.path) == Place::Plain => {
            (FILELESS_DELETED_LATER, format!("runs from {name}, whose file is gone since"))
        }
        ImageKind::Deleted => {
            (FILELESS_DELETED_EXEC, format!("runs from {name}, whose file was deleted before"))
        }
    };
    Some(("fileless", nameless(time, weight, text).of(info.key)))
}

/// A program was executed without a name, as the kernel told apart from the exec.
pub(crate) fn nameless_exec(
    time: Timestamp,
    process: &Process,
    memfd: bool,
    parent: Option<&Process>,
    names: &KnownNames,
) -> Option<Noted> {
    if is_container_runtime(&process.program, parent, names) {
        return None;
    }
    let (weight, text) = if memfd {
        (FILELESS_MEMFD, "runs from memory: there is no file")
    } else {
        (FILELESS_DELETED_EXEC, "runs from a file that was deleted before")
    };
    Some(("fileless", nameless(time, weight, text.to_owned()).of(process.key)))
}

/// A running program's file was deleted by its own tree.
pub(crate) fn deleted_self(time: Timestamp, process: &Process) -> Noted {
    let text = format!("its file {} was deleted by its own tree while it ran", process.program.image.path);
    let found =
        evidence(time, Signal::Fileless, FILELESS_DELETED_SELF, text).of(process.key).technique("T1070.004");
    ("fileless/deleted", found)
}

fn nameless(time: Timestamp, weight: f32, text: String) -> Evidence {
    evidence(time, Signal::Fileless, weight, text).technique("T1620")
}

fn is_container_runtime(info: &ProcessInfo, parent: Option<&Process>, names: &KnownNames) -> bool {
    let own = info.args.first().map_or("", |a| base_name(a));
    let by_runtime = parent.is_some_and(|p| {
        (names.is_system(&p.program.image.path) || p.program.image.kind == ImageKind::Memfd)
            && (RUNTIMES.contains(&p.file_name())
                || p.program.args.first().is_some_and(|a| RUNTIMES.contains(&base_name(a))))
    });
    RUNTIMES.contains(&own) && by_runtime && info.image.kind == ImageKind::Memfd
}
