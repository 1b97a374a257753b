//! Sensors with a memory, for cases to ask.

use std::cell::RefCell;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use davy_kernel::{ProbeContext, SensorConfig, Sensors, probe};
use davy_model::{Capture, Captured, Direction, Event, EventKind, FlowKey};

/// How long an event may take to arrive on an emulated CPU.
const PATIENCE: Duration = Duration::from_secs(15);

pub(crate) struct Watch {
    pub(crate) sensors: Sensors,
    incoming: Receiver<Event>,
    captures: Receiver<Vec<Capture>>,
    captured: RefCell<Vec<Capture>>,
    seen: RefCell<Vec<Event>>,
}

impl Watch {
    /// Starts everything that the probes allow.
    pub(crate) fn start() -> Result<Self> {
        Self::with(SensorConfig::new(0))
    }

    pub(crate) fn with(config: SensorConfig) -> Result<Self> {
        let probes = probe(&ProbeContext::default());
        let (tell, incoming) = channel();
        let sink = Box::new(move |event| {
            let _ = tell.send(event);
        });
        let (keep, captures) = channel();
        let keep = Box::new(move |batch| {
            let _ = keep.send(batch);
        });
        let sensors = Sensors::start(config, &probes, sink, keep).context("starting the sensors")?;
        if let Some(fault) = sensors.faults().first() {
            bail!("a class of sensors did not start: {fault}");
        }
        Ok(Self { sensors, incoming, captures, captured: RefCell::default(), seen: RefCell::default() })
    }

    /// Waits until what was captured of a flow holds a text.
    pub(crate) fn expect_bytes(&self, wanted: FlowKey, way: Direction, text: &str) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let mut captured = self.captured.borrow_mut();
        loop {
            let whole: Vec<u8> = captured
                .iter()
                .filter_map(|capture| match &capture.content {
                    Captured::Flow { flow, direction, bytes, .. } if (*flow, *direction) == (wanted, way) => {
                        Some(bytes.as_slice())
                    }
                    _ => None,
                })
                .collect::<Vec<_>>()
                .concat();
            if String::from_utf8_lossy(&whole).contains(text) {
                return Ok(());
            }
            match self.captures.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(batch) => captured.extend(batch),
                Err(_) => bail!("{text:?} was not captured of the flow; {} bytes were", whole.len()),
            }
        }
    }

    /// Waits for an event of any process that `wanted` takes.
    pub(crate) fn expect_of_anyone(&self, what: &str, wanted: impl Fn(&EventKind) -> bool) -> Result<Event> {
        self.find(None, what, wanted)
    }

    /// Waits for an event of `pid` that `wanted` takes.
    pub(crate) fn expect(&self, pid: u32, what: &str, wanted: impl Fn(&EventKind) -> bool) -> Result<Event> {
        self.find(Some(pid), what, wanted)
    }

    /// How many events so far `wanted` takes.
    pub(crate) fn heard(&self, wanted: impl Fn(&EventKind) -> bool) -> usize {
        let mut seen = self.seen.borrow_mut();
        while let Ok(event) = self.incoming.recv_timeout(Duration::from_secs(1)) {
            seen.push(event);
        }
        seen.iter().filter(|event| wanted(&event.kind)).count()
    }

    fn find(&self, pid: Option<u32>, what: &str, wanted: impl Fn(&EventKind) -> bool) -> Result<Event> {
        let of_it = |event: &Event| pid.is_none_or(|pid| event.process.is_some_and(|p| p.pid == pid));
        let deadline = Instant::now() + PATIENCE;
        let mut next = 0;
        loop {
            let mut seen = self.seen.borrow_mut();
            for event in &seen[next..] {
                if of_it(event) && wanted(&event.kind) {
                    return Ok(event.clone());
                }
            }
            next = seen.len();
            match self.incoming.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(event) => seen.push(event),
                Err(_) => {
                    let told = seen.iter().filter(|event| of_it(event));
                    let told: Vec<String> = told.map(|event| format!("{:?}", event.kind)).collect();
                    bail!(
                        "no {what} of process {pid:?}; {} events, of it: {told:#?}; lost: {:?}",
                        seen.len(),
                        self.sensors.drops()
                    );
                }
            }
        }
    }
}
