//! The engine thread's end: what no entry allows, and name servers that are none of the host's, become findings.

use std::sync::Arc;

use davy_detect::Detector;
use davy_model::{Event, EventKind, Finding, FindingId, FlowKey, Timestamp};
use davy_net::outbound::{Began, Cases, EncryptedDns};

use super::OutboundDesk;

/// What is told of connections.
pub(crate) struct OutboundTeller {
    cases: Cases,
    encrypted_dns: EncryptedDns,
    /// Findings that were made since they were last asked for. Each is one of a program and a destination that has not been told
    /// of today, so that few wait.
    made: Vec<Finding>,
    desk: Arc<OutboundDesk>,
}

impl OutboundTeller {
    /// Nothing was told yet.
    pub(crate) fn new(desk: Arc<OutboundDesk>) -> Self {
        Self { cases: Cases::default(), encrypted_dns: EncryptedDns::default(), made: Vec::new(), desk }
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
        let mut due = std::mem::take(&mut self.made);
        due.extend(self.cases.due(now));
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
        let Some(resolvers) = self.desk.known_resolvers() else { return };
        let process = flow.owner.and_then(|owner| detector.processes().get(&owner));
        let (program, comm) =
            process.map_or(("", "somebody"), |p| (p.program.image.path.as_str(), p.comm.as_str()));
        let began = Began { time, flow: key, process: flow.owner, program, comm, to, name };
        self.made.extend(self.encrypted_dns.see(&began, &resolvers, id));
    }
}
