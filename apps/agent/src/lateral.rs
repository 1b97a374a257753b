//! The engine's end of lateral movement: flows go to the guard with who holds them, and what it tells goes to the detector.

use std::collections::VecDeque;
use std::sync::Arc;

use davy_detect::Detector;
use davy_model::{Connection, Event, EventKind, FlowOpen, LateralMove, Mode, ProcessKey, Talker, Timestamp};
use davy_net::lateral::{Beginning, Called, Caller, Lateral, Services, stopped_by};
use davy_proc::Users;

use crate::connections::talker;
use crate::services::ServiceWatch;
use crate::shared::{Shared, lock};

/// How long a flow waits for the name that led to it, in seconds: the answer is read in the worker, and comes after the flow.
const NAMED_WITHIN: f64 = 1.5;
/// Flows that wait. When full, the oldest is judged with what is known by then.
const MAX_WAITING: usize = 4_096;

/// A flow that is judged in a moment, with what its process was when it began.
struct Waiting {
    time: Timestamp,
    open: FlowOpen,
    process: ProcessKey,
    talker: Talker,
    from: Option<String>,
    cgroup: String,
    uid: u32,
    found: bool,
}

/// Who goes from this host to others inside.
pub(crate) struct LateralWatch {
    lateral: Lateral,
    waiting: VecDeque<Waiting>,
    shared: Arc<Shared>,
    users: Users,
    /// Whether what is told now was there before anybody watched.
    found: bool,
}

impl LateralWatch {
    /// With who talked to whom before `now`.
    pub(crate) fn new(kept: &[Connection], now: Timestamp, shared: Arc<Shared>) -> Self {
        let learn_secs = lock(&shared.rulebook).policy().lateral.learn_for.as_secs_f64();
        let mut lateral = Lateral::new(Services::built_in(), learn_secs, now);
        lateral.restore(kept, now);
        Self { lateral, waiting: VecDeque::new(), shared, users: Users::new(), found: true }
    }

    /// From now on what is told to begin begins.
    pub(crate) fn watched(&mut self) {
        self.found = false;
    }

    /// Takes in an event, after the detector. Gives what is to be told of an earlier one that had to make room.
    pub(crate) fn see(
        &mut self,
        event: &Event,
        detector: &Detector,
        services: &ServiceWatch,
    ) -> Option<Event> {
        let EventKind::FlowOpen(open) = &event.kind else { return None };
        let process = event.process?;
        let talker = talker(event.process, detector)?;
        // Whoever does anything is known from then on: what it usually speaks to is learned from its first flow, not from its first
        // suspicious one.
        if !self.lateral.seen(event.time, open, &talker) {
            return None;
        }
        let program = &detector.processes().get(&process)?.program;
        self.waiting.push_back(Waiting {
            time: event.time,
            open: *open,
            process,
            talker,
            from: services.web_service_of(&process).map(str::to_owned),
            cgroup: program.cgroup.clone(),
            uid: program.creds.uid,
            found: self.found,
        });
        let oldest = (self.waiting.len() > MAX_WAITING).then(|| self.waiting.pop_front())??;
        self.judge(&oldest, detector)
    }

    /// Judges what waited long enough; to be called in each turn. Gives what is to be told.
    pub(crate) fn tend(&mut self, now: Timestamp, detector: &Detector) -> Vec<Event> {
        let mut told = Vec::new();
        while self.waiting.front().is_some_and(|flow| now.secs_since(flow.time).abs() >= NAMED_WITHIN) {
            told.extend(self.waiting.pop_front().and_then(|flow| self.judge(&flow, detector)));
        }
        told
    }

    fn judge(&mut self, flow: &Waiting, detector: &Detector) -> Option<Event> {
        let policy = lock(&self.shared.rulebook).policy();
        self.lateral.set_learning(policy.lateral.learn_for.as_secs_f64());
        let (address, port) = (flow.open.remote.ip().to_canonical(), flow.open.remote.port());
        let name = detector.name_of(address);
        // It is learned whatever the mode is, so that whoever begins to observe knows what is usual.
        let moved = self.lateral.opened(&Beginning {
            time: flow.time,
            open: &flow.open,
            talker: &flow.talker,
            from: flow.from.as_deref(),
            name,
            found: flow.found,
        })?;
        if policy.lateral.mode == Mode::Off {
            return None;
        }
        let user = self.users.name_or_number(flow.uid);
        let caller = Caller {
            cgroup: &flow.cgroup,
            container: flow.talker.container.as_deref(),
            user: (&user, flow.uid),
        };
        let stopped_by = stopped_by(&policy, caller, Called { address, port, name }, flow.time);
        let kind = EventKind::Lateral(Box::new(LateralMove { stopped_by, ..moved }));
        Some(Event { time: flow.time, process: Some(flow.process), kind })
    }
}
