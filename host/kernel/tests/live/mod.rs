//! Running sensors for a test, with what they told so far; or the reason why not here.
#![allow(dead_code, unreachable_pub)]

use std::sync::mpsc::{Receiver, channel};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use davy_kernel::{ProbeContext, SensorConfig, Sensors, probe};
use davy_model::{Capability, Event, Probe};

/// Sensors see the whole host, so tests that count take turns.
static TURN: Mutex<()> = Mutex::new(());

/// The boot mark that tests put into identities.
pub const BOOT: u32 = 7;

pub struct Live {
    pub sensors: Sensors,
    pub events: Receiver<Event>,
    _turn: MutexGuard<'static, ()>,
}

/// What works here, probed once.
pub fn probes() -> &'static [Probe] {
    static PROBES: OnceLock<Vec<Probe>> = OnceLock::new();
    PROBES.get_or_init(|| probe(&ProbeContext::default()))
}

/// Whether all of these work; says loudly which does not.
pub fn have(needed: &[Capability]) -> bool {
    needed.iter().all(|needed| {
        let found =
            probes().iter().find(|probe| probe.capability == *needed).expect("every capability is probed");
        if !found.works {
            eprintln!("SKIPPED: {needed:?}: {}", found.reason);
        }
        found.works
    })
}

pub fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Live {
    pub fn start(needed: &[Capability]) -> Option<Self> {
        Self::configured(needed, SensorConfig::new(BOOT))
    }

    pub fn configured(needed: &[Capability], config: SensorConfig) -> Option<Self> {
        if !have(needed) {
            return None;
        }
        let turn = turn();
        let (send, events) = channel();
        let sink = Box::new(move |event| drop(send.send(event)));
        let sensors = Sensors::start(config, probes(), sink).expect("what was probed starts");
        assert_eq!(sensors.faults(), &[] as &[String]);
        Some(Self { sensors, events, _turn: turn })
    }

    /// Waits for an event that `pick` takes.
    pub fn wait<T>(&self, what: &str, mut pick: impl FnMut(Event) -> Option<T>) -> T {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            match self.events.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(event) => {
                    if let Some(found) = pick(event) {
                        return found;
                    }
                }
                Err(_) => panic!("no event for: {what}"),
            }
        }
    }

    /// Everything told within a time.
    pub fn collect(&self, time: Duration) -> Vec<Event> {
        let deadline = Instant::now() + time;
        let mut all = Vec::new();
        while let Ok(event) = self.events.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            all.push(event);
        }
        all
    }
}
