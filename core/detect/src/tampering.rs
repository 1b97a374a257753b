//! Who reaches into other processes, and for Davy itself.

use davy_model::{CodeAct, ProcessKey, Signal, Timestamp};

use crate::detector::Detector;
use crate::flow_watch::Noted;
use crate::ledger::{Particulars, Topic, evidence};
use crate::weights::{INJECTION, TAMPERING};

/// The topic of acts against Davy.
pub(crate) const TOPIC: Topic = "tampering";

const DEBUGGERS: [&str; 9] =
    ["gdb", "gdbserver", "lldb", "lldb-server", "strace", "ltrace", "perf", "rr", "criu"];

/// SIGHUP, SIGINT, SIGQUIT, SIGKILL, SIGTERM and SIGSTOP end or hold whoever gets them.
const ENDING: [u8; 6] = [1, 2, 3, 9, 15, 19];

/// What an act on another process says.
pub(crate) fn look(time: Timestamp, key: ProcessKey, act: &CodeAct, detector: &Detector) -> Option<Noted> {
    let actor = detector.processes.get(&key)?;
    match act {
        CodeAct::Signal { target, signal } => {
            // The service manager may stop Davy; everyone else who may not is the kernel's to judge, and is told.
            let ends = Some(*target) == detector.own && ENDING.contains(signal);
            let manager = key.pid <= 1 || Some(key) == detector.own;
            (ends && !manager).then(|| {
                let text = format!("sent signal {signal} to Davy ({})", target.pid);
                (TOPIC, evidence(time, Signal::Campaign, TAMPERING, text).of(key).technique("T1562.001"))
            })
        }
        CodeAct::Trace { target, write } => {
            if Some(*target) == detector.own && Some(key) != detector.own {
                let text = format!("reached into the memory of Davy ({})", target.pid);
                return Some((
                    TOPIC,
                    evidence(time, Signal::Campaign, TAMPERING, text).of(key).technique("T1562.001"),
                ));
            }
            let own_work = DEBUGGERS.contains(&actor.file_name())
                || detector.processes.unit_of(target) == actor.unit
                || detector.processes.ancestors(target).any(|a| a.key == key);
            (*write && !own_work).then(|| {
                let text = format!("wrote into the memory of process {}", target.pid);
                (
                    "campaign/injection",
                    evidence(time, Signal::Campaign, INJECTION, text).of(key).technique("T1055.009"),
                )
            })
        }
        _ => None,
    }
}
