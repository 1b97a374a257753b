//! The engine's end of lateral movement: flows go to the guard with who holds them, and what it tells goes to the detector.

use std::sync::Arc;

use davy_detect::Detector;
use davy_model::{Connection, Event, EventKind, LateralMove, Mode, Timestamp};
use davy_net::lateral::{Called, Caller, Lateral, Services, stopped_by};
use davy_proc::Users;

use crate::connections::talker;
use crate::services::ServiceWatch;
use crate::shared::{Shared, lock};

/// Who goes from this host to others inside.
pub(crate) struct LateralWatch {
    lateral: Lateral,
    shared: Arc<Shared>,
    users: Users,
    /// Whether what is told now was there before anybody watched.
    found: bool,
}

impl LateralWatch {
    /// With who talked to whom before `now`.
    pub(crate) fn new(kept: &[Connection], now: Timestamp, shared: Arc<Shared>) -> Self {
        let learn_secs = lock(&shared.rulebook).policy().lateral.learn_for.as_secs_f64();
        let mut lateral = Lateral::new(Services::built_in(), learn_secs);
        lateral.restore(kept, now);
        Self { lateral, shared, users: Users::new(), found: true }
    }

    /// From now on what is told to begin begins.
    pub(crate) fn watched(&mut self) {
        self.found = false;
    }

    /// Takes in an event, after the detector. Gives what is to be told.
    pub(crate) fn see(
        &mut self,
        event: &Event,
        detector: &Detector,
        services: &ServiceWatch,
    ) -> Option<Event> {
        let EventKind::FlowOpen(open) = &event.kind else { return None };
        if !self.lateral.concerns(open) {
            return None;
        }
        let policy = lock(&self.shared.rulebook).policy();
        let talker = talker(event.process, detector)?;
        let process = event.process?;
        self.lateral.set_learning(policy.lateral.learn_for.as_secs_f64());
        let from = services.web_service_of(&process);
        // It is learned whatever the mode is, so that whoever begins to observe knows what is usual.
        let moved = self.lateral.opened(event.time, open, &talker, from, self.found)?;
        if policy.lateral.mode == Mode::Off {
            return None;
        }
        let known = detector.processes().get(&process)?;
        let uid = known.program.creds.uid;
        let name = self.users.name_or_number(uid);
        let caller = Caller {
            cgroup: &known.program.cgroup,
            container: talker.container.as_deref(),
            user: (&name, uid),
        };
        let address = open.remote.ip().to_canonical();
        let called = Called { address, port: open.remote.port(), name: detector.name_of(address) };
        let stopped_by = stopped_by(&policy, caller, called, event.time);
        let moved = LateralMove { stopped_by, ..moved };
        Some(Event { time: event.time, process: Some(process), kind: EventKind::Lateral(Box::new(moved)) })
    }
}
