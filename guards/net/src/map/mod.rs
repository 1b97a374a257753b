//! The map of who talks to whom: flows and names in, rows out.
//!
//! A row sums up the connections of one [`davy_model::Talker`] with one other end at one port, never a single connection. What is
//! known of a flow comes in pieces and by different ways: its beginning at once, the answer of the name server that led to it and
//! what its first bytes say a little later, through the worker. So a flow gets its row a moment after it began, and another one
//! when a better name comes.
//!
//! Everything is bounded: [`MAX_ROWS`] rows, of which one talker has [`MAX_PEERS`] a direction (a port, where it is called), and
//! [`MAX_FLOWS`] flows that are followed. What does not fit is summed up in a row of others, goes with what was not seen for the
//! longest, or is no longer followed; [`Map::losses`] counts each.

mod filter;
mod flows;
mod row;
mod rows;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;

use davy_model::{
    Connection, FlowAggregate, FlowChunk, FlowKey, FlowOpen, FlowReading, FlowVolume, Heading, Naming, Peer,
    ProcessKey, Talker, Timestamp,
};

pub use filter::Filter;
use flows::{Flow, Flows};
use row::{RowKey, Share};
use rows::Rows;

use crate::place_of;

/// Rows kept. When full, those that were not seen for the longest go.
pub const MAX_ROWS: usize = 8_192;
/// Rows of one talker in one direction, and at one port where it is called. When full, one that was not seen for a day is summed
/// up with others, else the newcomer is.
pub const MAX_PEERS: usize = 256;
/// Flows followed at once, those that ended a moment ago among them. When full, the oldest is followed no longer.
pub const MAX_FLOWS: usize = 16_384;

/// How long a flow waits for its name, in seconds.
const NAMED_WITHIN: f64 = 1.0;
/// How long a flow that has no name yet may still get one, and an ended flow is kept for what its first bytes say, in seconds: the
/// worker is late on a busy host.
const READ_WITHIN: f64 = 5.0;
/// The longest name, in bytes (RFC 1035); longer ones are none.
const MAX_NAME: usize = 253;

/// What is known of a flow's owner and other end by others.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// The process, where the flow's beginning did not tell.
    pub talker: Option<Talker>,
    /// The name whose answer gave the address.
    pub name: Option<String>,
}

/// Rows that changed since they were last taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// New ones, and new text of old ones.
    pub written: Vec<Connection>,
    /// Numbers of those that are no more.
    pub gone: Vec<u64>,
}

impl Changes {
    /// Whether nothing changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.written.is_empty() && self.gone.is_empty()
    }
}

/// What did not fit, since the map was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// Rows that went because the map was full.
    pub rows: u64,
    /// Connections that are summed up with others.
    pub others: u64,
    /// Flows that were followed no longer while they were open.
    pub flows: u64,
}

/// The map.
#[derive(Debug, Default)]
pub struct Map {
    rows: Rows,
    flows: Flows,
    talkers: HashSet<Arc<Talker>>,
}

impl Map {
    /// A map on which nobody talks yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes over rows that were kept, the latest numbers and times among equals; no connection of theirs is open.
    pub fn restore(&mut self, kept: Vec<Connection>) {
        for connection in kept {
            let talker = self.same(connection.talker.clone());
            self.rows.restore(talker, connection);
        }
    }

    /// A flow began, or told of another peer. `found` says that it was there before anybody watched: then it is not counted
    /// again in a row that is there already, and what went over it before does not count.
    pub fn opened(
        &mut self,
        time: Timestamp,
        open: &FlowOpen,
        owner: Option<ProcessKey>,
        talker: Option<Talker>,
        found: bool,
    ) {
        if open.remote.ip().is_unspecified() {
            return;
        }
        let talker = talker.map(|talker| self.same(talker));
        if let Some(flow) = self.flows.get_mut(&open.flow) {
            if flow.open.remote == open.remote || flow.open.transport != davy_model::Transport::Udp {
                flow.owner = flow.owner.or(owner);
                flow.talker = flow.talker.take().or(talker);
                if flow.began_after_all(found)
                    && let Some(row) = flow.row
                {
                    self.rows.add(row, &Share { connections: 1, ..Share::default() }, time);
                }
                return;
            }
            // A socket that talks to several peers is as many connections, one after the other.
            let talker = flow.talker.clone().or(talker);
            let next = flow.turned(time, *open, talker);
            self.let_go(open.flow, false);
            self.flows.insert(next);
            return;
        }
        while let Some(oldest) = self.flows.too_many() {
            self.let_go(oldest, true);
        }
        self.flows.insert(Flow::new(time, *open, owner, talker, found));
    }

    /// Something went over a flow.
    pub fn grew(&mut self, time: Timestamp, chunk: &FlowChunk) {
        let Some(flow) = self.flows.get_mut(&chunk.flow) else { return };
        let grown = flow.grew(time, chunk);
        if let Some(row) = flow.row
            && !self.rows.add(row, &grown, time)
        {
            // Its row was the one not seen for the longest, until now.
            flow.row = None;
            self.flows.unsettled(chunk.flow);
        }
    }

    /// The first bytes of a flow were read.
    pub fn read(&mut self, reading: &FlowReading) {
        let Some(flow) = self.flows.get_mut(&reading.flow) else { return };
        flow.read(reading);
        let Some(row) = flow.row else { return };
        if flow.asked.is_some() && flow.renamed {
            self.move_flow(reading.flow);
        } else {
            self.rows.read(row, flow.tls, flow.request.as_deref());
        }
    }

    /// A flow ended.
    pub fn closed(&mut self, time: Timestamp, key: FlowKey, volume: FlowVolume) {
        let Some(flow) = self.flows.get_mut(&key) else { return };
        if flow.closed.is_some() {
            return;
        }
        let grown = flow.closed(time, volume);
        if let Some(row) = flow.row {
            self.rows.add(row, &grown, time);
            self.rows.shut(row);
        }
        self.flows.unsettled(key);
    }

    /// Flows ended that were only counted.
    pub fn counted(
        &mut self,
        time: Timestamp,
        flows: &FlowAggregate,
        talker: Option<Talker>,
        name: Option<String>,
    ) {
        let talker = self.same(talker.unwrap_or_default());
        let direction = if flows.accepted { Heading::Inbound } else { Heading::Outbound };
        let name = name.filter(|name| !flows.accepted && is_name(name));
        let remote = flows.remote.ip();
        let (peer, place) = match &name {
            _ if remote.is_unspecified() => (Peer::Others, None),
            Some(name) => (Peer::Name(name.clone()), Some(place_of(remote, None))),
            None => (Peer::Address(remote), Some(place_of(remote, None))),
        };
        let port = if flows.accepted { flows.local.port() } else { flows.remote.port() };
        let key = RowKey { talker, direction, transport: flows.transport, port, peer };
        let row = self.rows.find_or_make(key, name.map(|_| Naming::Dns), time);
        let address = (!remote.is_unspecified()).then_some(remote);
        let share = Share {
            connections: flows.flows,
            sent: flows.volume.sent_bytes,
            received: flows.volume.received_bytes,
        };
        self.rows.meet(row, address, place);
        self.rows.add(row, &share, time);
    }

    /// Gives flows their rows that waited long enough for a name, or all when `at_once`, and better ones to those whose name came
    /// late, and forgets those that ended. To be called about twice a second. `look` tells what is known of a flow by its owner and the other end's address.
    pub fn settle(
        &mut self,
        now: Timestamp,
        at_once: bool,
        mut look: impl FnMut(Option<ProcessKey>, IpAddr) -> Known,
    ) {
        for key in self.flows.take_unsettled() {
            let Some(flow) = self.flows.get_mut(&key) else { continue };
            if flow.row.is_none() && (at_once || now.secs_since(flow.opened) >= NAMED_WITHIN) {
                let known = look(flow.owner, flow.open.remote.ip());
                let talker = known.talker.filter(|_| flow.talker.is_none());
                let talker = talker.map(|talker| self.same(talker));
                if let Some(flow) = self.flows.get_mut(&key) {
                    flow.talker = flow.talker.take().or(talker);
                    flow.answered = known.name.filter(|name| is_name(name));
                }
                self.place(key);
            } else if flow.row.is_some() && flow.may_be_named() {
                flow.answered = look(None, flow.open.remote.ip()).name.filter(|name| is_name(name));
                if flow.answered.is_some() {
                    self.move_flow(key);
                }
            }
            let Some(flow) = self.flows.get_mut(&key) else { continue };
            let young = now.secs_since(flow.closed.unwrap_or(flow.opened)) < READ_WITHIN;
            if flow.row.is_none() || (young && (flow.closed.is_some() || flow.may_be_named())) {
                self.flows.unsettled(key);
            } else if flow.closed.is_some() {
                self.flows.remove(&key);
            }
        }
        if self.talkers.len() > 2 * MAX_ROWS {
            self.talkers.retain(|talker| Arc::strong_count(talker) > 1);
        }
    }

    /// Forgets rows that were last seen before this.
    pub fn forget_before(&mut self, before: Timestamp) {
        self.rows.forget_before(before);
    }

    /// The rows that a filter lets by, at most as many as it wants of those seen last, the latest last.
    #[must_use]
    pub fn select(&self, filter: &Filter) -> Vec<Connection> {
        let mut wanted: Vec<_> = self.rows.iter().filter(|(_, row)| filter.wants(row)).collect();
        wanted.sort_unstable_by_key(|(id, row)| (row.last, **id));
        let skip = wanted.len().saturating_sub(filter.limit);
        wanted.into_iter().skip(skip).map(|(id, row)| row.connection(*id)).collect()
    }

    /// What changed since the last call, for the store.
    pub fn take_changes(&mut self) -> Changes {
        self.rows.take_changes()
    }

    /// What did not fit.
    #[must_use]
    pub fn losses(&self) -> Losses {
        Losses { rows: self.rows.evicted, others: self.rows.folded, flows: self.flows.let_go }
    }

    /// Rows on the map, and flows that are followed.
    #[must_use]
    pub fn sizes(&self) -> (usize, usize) {
        (self.rows.len(), self.flows.len())
    }

    /// One value for equal talkers, so that rows share it.
    fn same(&mut self, talker: Talker) -> Arc<Talker> {
        if let Some(known) = self.talkers.get(&talker) {
            return Arc::clone(known);
        }
        let talker = Arc::new(talker);
        self.talkers.insert(Arc::clone(&talker));
        talker
    }

    /// Adds a flow to the row that it belongs to by what is known of it now.
    fn place(&mut self, key: FlowKey) {
        let Some(flow) = self.flows.get_mut(&key) else { return };
        let unknown = || Arc::new(Talker::default());
        let mut row_key = flow.row_key(flow.talker.clone().unwrap_or_else(unknown));
        let mut naming = flow.naming();
        // The answer that led to it was an earlier agent's to hear.
        if flow.found
            && flow.may_be_named()
            && let Some(named) = self.rows.named(&row_key, flow.open.remote.ip())
        {
            (row_key, naming) = named;
        }
        let row = self.rows.find_or_make(row_key, naming, flow.opened);
        let flow_place = place_of(flow.open.remote.ip(), Some(flow.open.local.ip()));
        // What was there before the agent was counted by the one before it, if it has a row.
        flow.counts = !(flow.found && self.rows.inherited(row));
        flow.row = Some(row);
        flow.renamed = false;
        self.rows.meet(row, Some(flow.open.remote.ip()), Some(flow_place));
        self.rows.add(row, &flow.share(), flow.last);
        if flow.closed.is_none() {
            self.rows.unshut(row);
        }
        self.rows.read(row, flow.tls, flow.request.as_deref());
    }

    /// Takes a flow out of its row and puts it where it belongs now.
    fn move_flow(&mut self, key: FlowKey) {
        let Some(flow) = self.flows.get_mut(&key) else { return };
        if let Some(row) = flow.row.take() {
            if flow.closed.is_none() {
                self.rows.shut(row);
            }
            self.rows.take_back(row, &flow.share());
        }
        self.place(key);
    }

    /// Follows a flow no longer; what it was so far stays in its row.
    fn let_go(&mut self, key: FlowKey, for_room: bool) {
        let Some(flow) = self.flows.get_mut(&key) else { return };
        if flow.row.is_none() {
            self.place(key);
        }
        let Some(flow) = self.flows.get_mut(&key) else { return };
        let open = flow.closed.is_none();
        if let (Some(row), true) = (flow.row, open) {
            self.rows.shut(row);
        }
        self.flows.remove(&key);
        self.flows.let_go += u64::from(for_room && open);
    }
}

/// Whether a text may be shown as a name: not too long, and no address.
fn is_name(text: &str) -> bool {
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    !text.is_empty() && text.len() <= MAX_NAME && bare.parse::<IpAddr>().is_err()
}
