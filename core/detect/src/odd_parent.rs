//! Services that start what they should not.

use davy_model::{ImageKind, ProcessInfo, Signal, Timestamp};

use crate::flow_watch::Noted;
use crate::known_names::KnownNames;
use crate::ledger::{Particulars, evidence};
use crate::masquerade::whence;
use crate::places::{Place, place};
use crate::process_table::{Process, ProcessTable, base_name};
use crate::weights::ODD_PARENT;

/// Programs that stand between a service and what it starts.
const BETWEEN: [&str; 14] = [
    "sh", "bash", "dash", "ash", "zsh", "busybox", "env", "nohup", "setsid", "timeout", "sudo", "su", "nice",
    "xargs",
];

/// The service that a process comes from, when only shells and the like stand between.
pub(crate) fn service_above<'a>(
    info: &ProcessInfo,
    table: &'a ProcessTable,
    names: &KnownNames,
) -> Option<&'a Process> {
    let mut next = info.parent.and_then(|p| table.get(&p));
    for _ in 0..6 {
        let process = next?;
        let file = process.file_name();
        if serves(process, names) {
            return Some(process);
        }
        if !BETWEEN.contains(&file) {
            return None;
        }
        next = process.parent.and_then(|p| table.get(&p));
    }
    None
}

/// Whether a process serves the network or a timer.
pub(crate) fn serves(process: &Process, names: &KnownNames) -> bool {
    let file = process.file_name();
    let by_name = |name: &str| {
        names.is_service(name)
            || names.is_service(name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.'))
    };
    if by_name(file) || process.program.args.first().is_some_and(|a| by_name(base_name(a))) {
        return true;
    }
    // Application servers are all the same program; their arguments tell them.
    file == "java"
        && process.program.args.iter().take(64).any(|a| {
            [
                "catalina",
                "tomcat",
                "jetty",
                "weblogic",
                "solr",
                "activemq",
                "confluence",
                "jenkins.war",
                "spring",
            ]
            .iter()
            .any(|word| a.to_ascii_lowercase().contains(word))
        })
}

/// Whether a service started something from where nobody installs programs.
pub(crate) fn look(
    time: Timestamp,
    info: &ProcessInfo,
    table: &ProcessTable,
    names: &KnownNames,
) -> Option<Noted> {
    let odd = info.image.kind != ImageKind::File || place(&info.image.path) != Place::Plain;
    let miner = names.miner(base_name(&info.image.path)).is_some();
    if !(odd || miner) {
        return None;
    }
    let service = service_above(info, table, names)?;
    if service.program.image.file.ino != 0 && service.program.image.file == info.image.file {
        return None;
    }
    let text = format!("was started by {} ({}), and runs {}", service.comm, service.key.pid, whence(info));
    Some(("odd_parent", evidence(time, Signal::OddParent, ODD_PARENT, text).of(info.key).technique("T1059")))
}
