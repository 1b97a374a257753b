//! The engine thread's end: what no entry allows, and name servers that are none of the host's, become findings.

use std::sync::Arc;

use davy_detect::Detector;
use davy_model::{Event, EventKind, Finding, FindingId, FlowKey, OutboundProtocol, Timestamp, Transport};
use davy_net::outbound::{Ask, Began, Cases, EncryptedDns, expressly_allowed};

use super::OutboundDesk;

/// What is told of connections.
pub(crate) struct OutboundTeller {
    cases: Cases,
    encrypted_dns: EncryptedDns,
    desk: Arc<OutboundDesk>,
}

impl OutboundTeller {
    /// Nothing was told yet.
    pub(crate) fn new(desk: Arc<OutboundDesk>) -> Self {
        Self { cases: Cases::default(), encrypted_dns: EncryptedDns::default(), desk }
    }

    /// Takes in an event, after the detector; `id` gives a number for a finding that has none.
    pub(crate) fn see(&mut self, event: &Event, detector: &Detector, id: impl FnOnce() -> FindingId) {
        match &event.kind {
            EventKind::Outbound(attempt) => self.cases.see(event.time, event.process, attempt, id),
            EventKind::FlowOpen(open) => self.look_at(open.flow, event.time, detector, id),
            EventKind::FlowRead(reading) => self.look_at(reading.flow, event.time, detector, id),
            _ => {}
        }
    }

    /// The findings that are new or have grown, and may be told now.
    pub(crate) fn due(&mut self, now: Timestamp) -> Vec<Finding> {
        let mut due = self.cases.due(now);
        due.extend(self.encrypted_dns.due(now));
        due
    }

    fn look_at(
        &mut self,
        key: FlowKey,
        time: Timestamp,
        detector: &Detector,
        id: impl FnOnce() -> FindingId,
    ) {
        let Some(flow) = detector.flows().get(&key).filter(|flow| !flow.open.accepted) else { return };
        let (to, name) = (flow.open.remote, flow.name.as_deref());
        if !self.encrypted_dns.suspects(to, name) {
            return;
        }
        let Some(judged) = self.desk.judged() else { return };
        let process = flow.owner.and_then(|owner| detector.processes().get(&owner));
        let (program, comm) =
            process.map_or(("", "somebody"), |p| (p.program.image.path.as_str(), p.comm.as_str()));
        let began = Began { time, flow: key, process: flow.owner, program, comm, to, name };
        let tables = &judged.compiled.tables;
        let allowed = || {
            process.is_some_and(|process| {
                let ask = Ask {
                    units: units_of(&process.program.cgroup),
                    container: process.program.container.as_deref(),
                    uid: Some(process.program.creds.uid),
                    protocol: match flow.open.transport {
                        Transport::Tcp => OutboundProtocol::Tcp,
                        Transport::Udp => OutboundProtocol::Udp,
                    },
                    port: to.port(),
                    to: to.ip().to_canonical(),
                    name,
                };
                expressly_allowed(&judged.policy.outbound, tables, &ask)
            })
        };
        self.encrypted_dns.see(&began, &tables.resolvers, allowed, id);
    }
}

/// The slices around a process's unit and the unit, by which entries name it.
fn units_of(cgroup: &str) -> Vec<&str> {
    let unit = davy_model::unit_of(cgroup);
    let mut units = Vec::new();
    for part in cgroup.split('/').filter(|part| !part.is_empty()) {
        units.push(part);
        if Some(part) == unit {
            break;
        }
    }
    units
}
