//! Flows that are followed: open ones, and those that ended a moment ago.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use davy_model::{
    Direction, FlowChunk, FlowKey, FlowOpen, FlowReading, FlowVolume, Heading, Naming, Peer, ProcessKey,
    Talker, Timestamp,
};

use super::row::{RowKey, Share, bounded_request};
use super::{MAX_FLOWS, is_name};

/// One direction of a flow, in payload bytes since its beginning.
#[derive(Clone, Copy, Debug, Default)]
struct Meter {
    /// What counts for somebody else.
    base: u64,
    total: u64,
    /// Whether anything was seen of it.
    begun: bool,
}

impl Meter {
    fn counted(&self) -> u64 {
        self.total.saturating_sub(self.base)
    }

    /// Takes in how far it is, and gives by how much it grew.
    fn reach(&mut self, total: u64) -> u64 {
        let before = self.counted();
        self.total = self.total.max(total);
        self.begun = true;
        self.counted() - before
    }
}

/// A flow.
#[derive(Clone, Debug)]
pub(super) struct Flow {
    pub(super) open: FlowOpen,
    pub(super) owner: Option<ProcessKey>,
    pub(super) talker: Option<Arc<Talker>>,
    /// Whether it was there before anybody watched.
    pub(super) found: bool,
    pub(super) opened: Timestamp,
    pub(super) last: Timestamp,
    pub(super) closed: Option<Timestamp>,
    /// The row that it is counted in.
    pub(super) row: Option<u64>,
    /// Whether it counts as a connection there.
    pub(super) counts: bool,
    /// The name that a name server's answer gave.
    pub(super) answered: Option<String>,
    /// The name that its process asked for on it.
    pub(super) asked: Option<(String, Naming)>,
    /// Whether that is news for its row.
    pub(super) renamed: bool,
    pub(super) tls: bool,
    pub(super) request: Option<String>,
    sent: Meter,
    received: Meter,
}

impl Flow {
    pub(super) fn new(
        time: Timestamp,
        open: FlowOpen,
        owner: Option<ProcessKey>,
        talker: Option<Arc<Talker>>,
        found: bool,
    ) -> Self {
        Self {
            open,
            owner,
            talker,
            found,
            opened: time,
            last: time,
            closed: None,
            row: None,
            counts: true,
            answered: None,
            asked: None,
            renamed: false,
            tls: false,
            request: None,
            sent: Meter::default(),
            received: Meter::default(),
        }
    }

    /// The same socket with another peer; what went over it before is the former peer's.
    pub(super) fn turned(&self, time: Timestamp, open: FlowOpen, talker: Option<Arc<Talker>>) -> Self {
        let anew = |meter: Meter| Meter { base: meter.total, ..meter };
        Self {
            sent: anew(self.sent),
            received: anew(self.received),
            ..Self::new(time, open, self.owner, talker, false)
        }
    }

    /// It is told again. One that was found and is told to begin began between the sensors' start and the search for what was there
    /// before. Says whether it counts only now.
    pub(super) fn began_after_all(&mut self, found: bool) -> bool {
        if !self.found || found {
            return false;
        }
        self.found = false;
        !std::mem::replace(&mut self.counts, true)
    }

    /// Gives what came to it.
    pub(super) fn grew(&mut self, time: Timestamp, chunk: &FlowChunk) -> Share {
        self.last = self.last.max(time);
        let end = chunk.offset.saturating_add(u64::from(chunk.size));
        let meter = match chunk.direction {
            Direction::Sent => &mut self.sent,
            Direction::Received => &mut self.received,
        };
        if self.found && !meter.begun {
            (meter.base, meter.total) = (chunk.offset, chunk.offset);
        }
        let grown = meter.reach(end);
        match chunk.direction {
            Direction::Sent => Share { sent: grown, ..Share::default() },
            Direction::Received => Share { received: grown, ..Share::default() },
        }
    }

    /// Gives what came to it since the last that was told. Of a flow that was found the whole volume says nothing of what went
    /// over it since.
    pub(super) fn closed(&mut self, time: Timestamp, volume: FlowVolume) -> Share {
        self.last = self.last.max(time);
        self.closed = Some(time);
        if self.found {
            return Share::default();
        }
        let (sent, received) =
            (self.sent.reach(volume.sent_bytes), self.received.reach(volume.received_bytes));
        Share { connections: 0, sent, received }
    }

    pub(super) fn read(&mut self, reading: &FlowReading) {
        self.tls |= reading.tls;
        let name = reading.name.as_deref().map(host).filter(|name| is_name(name));
        if let (Some(name), false) = (name, self.open.accepted) {
            let asked = (name.to_ascii_lowercase(), if reading.tls { Naming::Tls } else { Naming::Http });
            if self.asked.as_ref() != Some(&asked) {
                self.renamed = true;
                self.asked = Some(asked);
            }
        }
        if let Some(request) = &reading.request {
            let host = name.filter(|_| self.open.accepted);
            self.request = Some(bounded_request(request, host));
        }
    }

    /// What it adds to its row.
    pub(super) fn share(&self) -> Share {
        Share {
            connections: u64::from(self.counts),
            sent: self.sent.counted(),
            received: self.received.counted(),
        }
    }

    /// Whether an answer of a name server would tell its name.
    pub(super) fn may_be_named(&self) -> bool {
        !self.open.accepted && self.naming().is_none()
    }

    pub(super) fn naming(&self) -> Option<Naming> {
        if self.open.accepted {
            return None;
        }
        let asked = self.asked.as_ref().map(|(_, naming)| *naming);
        asked.or(self.answered.as_ref().map(|_| Naming::Dns))
    }

    /// The row that it belongs to. The other end of an inbound flow is its address: what it asks for is a name of this host.
    pub(super) fn row_key(&self, talker: Arc<Talker>) -> RowKey {
        let address = self.open.remote.ip();
        let (direction, port, peer) = if self.open.accepted {
            (Heading::Inbound, self.open.local.port(), Peer::Address(address))
        } else {
            let name = self.asked.as_ref().map(|(name, _)| name).or(self.answered.as_ref());
            let peer = name.map_or(Peer::Address(address), |name| Peer::Name(name.clone()));
            (Heading::Outbound, self.open.remote.port(), peer)
        };
        RowKey { talker, direction, transport: self.open.transport, port, peer }
    }
}

/// A name without the port that an HTTP request puts behind it.
fn host(name: &str) -> &str {
    match name.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') && port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => name,
    }
}

/// The flows, bounded.
#[derive(Debug, Default)]
pub(super) struct Flows {
    entries: HashMap<FlowKey, Flow>,
    /// In the order they came; keys of flows that are gone are stepped over.
    order: VecDeque<FlowKey>,
    /// Those that wait for a name, or to be forgotten.
    unsettled: Vec<FlowKey>,
    pub(super) let_go: u64,
}

impl Flows {
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn get_mut(&mut self, key: &FlowKey) -> Option<&mut Flow> {
        self.entries.get_mut(key)
    }

    pub(super) fn insert(&mut self, flow: Flow) {
        let key = flow.open.flow;
        self.unsettled.push(key);
        self.order.push_back(key);
        self.entries.insert(key, flow);
        // Keys that were stepped over, or stand there twice, never outnumber the rest for long.
        if self.order.len() > 2 * MAX_FLOWS {
            let entries = &self.entries;
            let mut seen = std::collections::HashSet::new();
            self.order.retain(|key| entries.contains_key(key) && seen.insert(*key));
        }
    }

    pub(super) fn remove(&mut self, key: &FlowKey) {
        self.entries.remove(key);
    }

    /// The oldest, when there is no room for one more.
    pub(super) fn too_many(&mut self) -> Option<FlowKey> {
        while self.entries.len() >= MAX_FLOWS {
            let oldest = self.order.pop_front()?;
            if self.entries.contains_key(&oldest) {
                return Some(oldest);
            }
        }
        None
    }

    pub(super) fn unsettled(&mut self, key: FlowKey) {
        self.unsettled.push(key);
    }

    /// Each once.
    pub(super) fn take_unsettled(&mut self) -> Vec<FlowKey> {
        let mut keys = std::mem::take(&mut self.unsettled);
        keys.sort_unstable();
        keys.dedup();
        keys
    }
}
