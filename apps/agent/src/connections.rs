//! Who talks to whom: the engine's events go onto the map, and what changes on the map goes to the store.

use std::time::{Duration, Instant};

use davy_detect::{Detector, Process};
use davy_model::{Connection, Event, EventKind, ProcessKey, Talker, Timestamp, service_of};
use davy_net::map::{Changes, Filter, Known, Map};

/// How often what changed is written down. A kill of the agent costs the sums of so long, never a row that was written.
const KEEP_EVERY: Duration = Duration::from_secs(30);

/// The longest path that is kept, in bytes; it is for people.
const MAX_PATH: usize = 512;

/// The map, fed by events.
pub(crate) struct Connections {
    map: Map,
    /// Whether what is told now was there before anybody watched.
    found: bool,
    kept: Instant,
}

impl Connections {
    /// With the rows that an earlier agent kept. What is told until [`Connections::watched`] was there before.
    pub(crate) fn new(kept: Vec<Connection>) -> Self {
        let mut map = Map::new();
        map.restore(kept);
        Self { map, found: true, kept: Instant::now() }
    }

    /// From now on what is told to begin begins.
    pub(crate) fn watched(&mut self) {
        self.found = false;
    }

    /// Takes in an event, after the detector.
    pub(crate) fn see(&mut self, event: &Event, detector: &Detector) {
        let time = event.time;
        match &event.kind {
            EventKind::FlowOpen(open) => {
                self.map.opened(time, open, event.process, talker(event.process, detector), self.found);
            }
            EventKind::FlowChunk(chunk) => self.map.grew(time, chunk),
            EventKind::FlowRead(reading) => self.map.read(reading),
            EventKind::FlowClose(close) => self.map.closed(time, close.flow, close.volume),
            EventKind::Flows(flows) => {
                let name = detector.name_of(flows.remote.ip()).map(str::to_owned);
                self.map.counted(time, flows, talker(event.process, detector), name);
            }
            _ => {}
        }
    }

    /// Looks after the map; to be called about twice a second. Gives what is to be written down when it is time for that.
    pub(crate) fn tend(&mut self, now: Timestamp, detector: &Detector) -> Option<Changes> {
        self.settle(now, false, detector);
        (self.kept.elapsed() >= KEEP_EVERY).then(|| {
            self.kept = Instant::now();
            self.map.take_changes()
        })
    }

    /// Everything that is not written down yet, at the agent's end.
    pub(crate) fn rest(&mut self, now: Timestamp, detector: &Detector) -> Changes {
        self.settle(now, true, detector);
        self.map.take_changes()
    }

    /// Forgets what was last seen before this.
    pub(crate) fn forget_before(&mut self, before: Timestamp) {
        self.map.forget_before(before);
    }

    /// The rows that are asked for.
    pub(crate) fn select(&self, filter: &Filter) -> Vec<Connection> {
        self.map.select(filter)
    }

    /// What did not fit, by kind.
    pub(crate) fn losses(&self) -> [(&'static str, u64); 3] {
        let losses = self.map.losses();
        [
            ("rows of connections, the map was full", losses.rows),
            ("connections summed up with others, their program has too many peers", losses.others),
            ("flows not followed to their end for the map", losses.flows),
        ]
    }

    fn settle(&mut self, now: Timestamp, at_once: bool, detector: &Detector) {
        self.map.settle(now, at_once, |owner, address| Known {
            talker: talker(owner, detector),
            name: detector.name_of(address).map(str::to_owned),
        });
    }
}

pub(crate) fn talker(owner: Option<ProcessKey>, detector: &Detector) -> Option<Talker> {
    detector.processes().get(&owner?).map(describe)
}

fn describe(process: &Process) -> Talker {
    let program = &process.program;
    let path = &program.image.path;
    Talker {
        program: path[..path.floor_char_boundary(MAX_PATH)].to_owned(),
        file: program.image.file,
        service: service_of(&program.cgroup).map(str::to_owned),
        container: program.container.clone(),
        uid: Some(program.creds.euid),
    }
}
