//! What the agent's threads know of each other: counters, the policy in force, and the overrules.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use davy_model::{ActionRecord, Event, Probe, ProcessInfo, Timestamp};
use davy_net::map::Filter;
use davy_net::scans::PortScan;
use davy_wire::{ConnectionEntry, Proof, TopView};
use tokio::sync::oneshot;

use crate::recent::Recent;
use crate::rulebook::Rulebook;
use crate::standing::Standing;

/// How many events may wait for the engine: more than half a second of the highest rate Davy promises to keep up with. What
/// waits here is memory, some 700 bytes for a program's start, so more would be paid for by the host.
pub(crate) const QUEUE: usize = 32_768;

/// What goes into the engine's queue.
#[derive(Debug)]
pub(crate) enum Input {
    /// Something happened on the host.
    Event(Event),
    /// Someone asks for what only the engine knows.
    Ask(Ask),
    /// The arbiter did something, or wrote down that it would have.
    Acted(Box<ActionRecord>),
    /// What came of the agent's own canary.
    Proven(Proof),
    /// What was last seen before this is forgotten.
    Forget(Timestamp),
    /// Somebody looks for open ports.
    PortScan(Box<PortScan>),
    /// Time to go.
    Stop,
}

/// Questions that only the engine can answer.
#[derive(Debug)]
pub(crate) enum Ask {
    /// The busiest trees.
    Top(oneshot::Sender<TopView>),
    /// One process by pid.
    Process(u32, oneshot::Sender<Option<ProcessInfo>>),
    /// Who talks to whom.
    Connections(Box<Filter>, oneshot::Sender<Vec<ConnectionEntry>>),
}

/// Counters that anyone may read.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Events taken in.
    pub(crate) events: AtomicU64,
    /// Events lost because the engine's queue was full.
    pub(crate) queue_full: AtomicU64,
    /// Captures that nobody read, because the inspect worker fell behind or failed.
    pub(crate) captures_lost: AtomicU64,
    /// Findings the arbiter could not be told of.
    pub(crate) arbiter_full: AtomicU64,
    /// How often the engine drew conclusions: it stands still when the engine hangs.
    pub(crate) turns: AtomicU64,
    /// Processes in the table.
    pub(crate) processes: AtomicU64,
    /// Flows in the table.
    pub(crate) flows: AtomicU64,
}

/// The state shared by the agent's threads.
#[derive(Debug)]
pub(crate) struct Shared {
    /// When the agent started.
    pub(crate) started: Timestamp,
    /// What the kernel and the machine can do.
    pub(crate) probes: Mutex<Vec<Probe>>,
    /// Counters.
    pub(crate) counters: Counters,
    /// Losses counted by the sensors, by kind.
    pub(crate) sensor_drops: Mutex<Vec<(String, u64)>>,
    /// The policy in force.
    pub(crate) rulebook: Mutex<Rulebook>,
    /// What overrules it.
    pub(crate) standing: Mutex<Standing>,
    /// What is isolated now.
    pub(crate) isolated: Mutex<Vec<davy_wire::IsolatedStatus>>,
    /// Destinations blocked now, for people.
    pub(crate) blocked: Mutex<Vec<String>>,
    /// Who held a pid lately.
    pub(crate) recent: Recent,
    /// Incidents that still run.
    pub(crate) running: Mutex<Vec<davy_model::IncidentId>>,
    /// The last time that the agent proved its own enforcement.
    pub(crate) last_canary: Mutex<Option<Proof>>,
    /// The last drill that it was told of.
    pub(crate) last_drill: Mutex<Option<Proof>>,
}

/// Locks a mutex whose holder may have panicked: the values here are replaced whole, so they are never half written.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The door into the engine's queue, for sensors: it never waits, and counts what it could not take.
#[derive(Clone, Debug)]
pub(crate) struct Intake {
    sender: SyncSender<Input>,
    shared: Arc<Shared>,
}

impl Intake {
    pub(crate) fn new(sender: SyncSender<Input>, shared: Arc<Shared>) -> Self {
        Self { sender, shared }
    }

    /// Takes an event, or counts its loss.
    pub(crate) fn event(&self, event: Event) {
        self.shared.recent.learn(&event);
        if let Err(TrySendError::Full(_)) = self.sender.try_send(Input::Event(event)) {
            self.shared.counters.queue_full.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits for room: for what must not be lost. Says whether the engine still runs.
    pub(crate) fn must(&self, input: Input) -> bool {
        self.sender.send(input).is_ok()
    }

    /// What was seen lately.
    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// A sink for a sensor.
    pub(crate) fn sink(&self) -> Box<dyn FnMut(Event) + Send> {
        let intake = self.clone();
        Box::new(move |event| intake.event(event))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_is_a_few_megabytes() {
        let bytes = size_of::<Input>() * QUEUE;
        assert!(bytes <= 6 << 20, "{bytes} bytes for {QUEUE} inputs of {} each", size_of::<Input>());
    }
}
