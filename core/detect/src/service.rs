//! Services that start what their profile does not have.

use davy_model::{ProcessKey, ProgramClass, ServiceBreach, Signal, Timestamp};

use crate::flow_watch::Noted;
use crate::ledger::{Particulars, Topic, evidence};
use crate::weights::{SERVICE_MAKER, SERVICE_TOOL};

/// The number that evidence bears whose process merely tried: it may be the service itself.
pub(crate) const REFUSED: &str = "refused";

/// What a breach says. Who is bound by which profile is decided elsewhere; here it is told.
pub(crate) fn look(time: Timestamp, key: ProcessKey, breach: &ServiceBreach) -> Noted {
    let (topic, weight): (Topic, f32) = match breach.class {
        ProgramClass::Shell => ("service/shell", SERVICE_TOOL),
        ProgramClass::Downloader => ("service/downloader", SERVICE_TOOL),
        ProgramClass::NetworkTool => ("service/network_tool", SERVICE_TOOL),
        ProgramClass::PersistenceTool => ("service/persistence_tool", SERVICE_TOOL),
        ProgramClass::Compiler => ("service/compiler", SERVICE_MAKER),
        ProgramClass::Interpreter => ("service/interpreter", SERVICE_MAKER),
    };
    let class = breach.class.words();
    let who = format!("{} ({})", breach.service, breach.root.pid);
    let by = if breach.chain.len() > 1 {
        format!(", by way of {}", breach.chain.join(" > "))
    } else {
        String::new()
    };
    let text = if breach.refused {
        format!("was kept from starting {class}, which {who} has no use for: {}{by}", breach.path)
    } else {
        format!("is {class} that came from {who}, which has no use for one: `{}`{by}", breach.command)
    };
    let found = evidence(time, Signal::Service, weight, text).of(key).technique(&breach.technique.0);
    (topic, if breach.refused { found.number(REFUSED, 1.0) } else { found })
}
