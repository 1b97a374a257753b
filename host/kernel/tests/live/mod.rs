//! Running sensors for a test, with what they told so far; or the reason why not here.
#![allow(dead_code, unreachable_pub)]

pub mod client;
pub mod own;

use std::cell::RefCell;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use davy_kernel::{ProbeContext, SensorConfig, Sensors, probe};
use davy_model::{Capability, Capture, Captured, Direction, Event, FlowKey, Probe};

/// Sensors see the whole host, so tests that count take turns.
static TURN: Mutex<()> = Mutex::new(());

/// The boot mark that tests put into identities.
pub const BOOT: u32 = 7;

pub struct Live {
    pub sensors: Sensors,
    pub events: Receiver<Event>,
    captures: Receiver<Vec<Capture>>,
    captured: RefCell<Vec<Capture>>,
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
        let (keep, captures) = channel();
        let keep = Box::new(move |batch| drop(keep.send(batch)));
        let sensors = Sensors::start(config, probes(), sink, keep).expect("what was probed starts");
        assert_eq!(sensors.faults(), &[] as &[String]);
        Some(Self { sensors, events, captures, captured: RefCell::default(), _turn: turn })
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

    /// Everything captured so far.
    pub fn captures(&self) -> Vec<Capture> {
        let mut captured = self.captured.borrow_mut();
        captured.extend(self.captures.try_iter().flatten());
        captured.clone()
    }

    /// The bytes captured of a flow in one direction, which follow each other without a gap.
    pub fn captured(&self, wanted: FlowKey, way: Direction) -> Vec<u8> {
        let mut whole = Vec::new();
        for capture in self.captures() {
            if let Captured::Flow { flow, direction, offset, bytes } = capture.content
                && (flow, direction) == (wanted, way)
            {
                assert_eq!(usize::try_from(offset).unwrap(), whole.len());
                whole.extend_from_slice(&bytes);
            }
        }
        whole
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
