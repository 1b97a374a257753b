//! Which flows lead to a pool for certain, so that they may be cut whoever holds them.
//!
//! What may be cut is less than what is told: a pool has a web site that people read, nodes answer questions about work, and words
//! of a mining protocol stand in pages about mining.

use std::collections::BTreeSet;

use davy_model::{Destination, Dialect, Direction, FlowKey, Part, Timestamp};

use crate::conclusions::due;
use crate::detector::Detector;
use crate::flow_table::Flow;

/// Ports of web sites. What goes to a listed pool there is cut by its words or its shape, and not because of the list.
const WEB: [u16; 2] = [80, 443];

/// For how long after its first bytes a flow to a listed pool may still turn out to ask for a web page, in seconds.
const FIRST_WORDS_SECS: f64 = 0.5;

/// Pools' addresses told of one unit without delay. Further ones are told with the finding's next renewal.
const MAX_ENDS: usize = 64;

/// New contacts a second that do not wait for the next regular conclusion; further ones do.
const MAX_URGENT: u32 = 4;

/// What is known of the pools that one unit talks to.
#[derive(Clone, Debug, Default)]
pub(crate) struct PoolEnds {
    ends: BTreeSet<Destination>,
    /// Whether one of them is new since the finding was told.
    news: bool,
}

impl PoolEnds {
    /// Says whether it is new.
    fn add(&mut self, end: Destination) -> bool {
        let new = self.ends.len() < MAX_ENDS && self.ends.insert(end);
        self.news |= new;
        new
    }

    /// Whether a pool is new since this was asked last.
    pub(crate) fn take_news(&mut self) -> bool {
        std::mem::take(&mut self.news)
    }
}

/// What cannot wait for the next regular conclusion. Anybody can dial pools in a loop, and each conclusion is work.
#[derive(Clone, Debug, Default)]
pub(crate) struct Urgency {
    pending: bool,
    /// When the second began in which so many were granted.
    since: Option<Timestamp>,
    granted: u32,
}

impl Urgency {
    fn ask(&mut self, now: Timestamp) {
        if due(self.since, now, 1.0) {
            (self.since, self.granted) = (Some(now), 0);
        }
        if self.granted < MAX_URGENT {
            self.granted += 1;
            self.pending = true;
        }
    }
}

/// Whether a flow's words are a miner's for certain. A pool's or a relay's own words, the handshake of Stratum v2, which others come
/// near, and calls of a node are told and not cut.
fn speaks(flow: &Flow) -> bool {
    let dialogue = &flow.dialogue;
    if dialogue.http && !dialogue.websocket {
        // A page about mining holds such words, and so may what is sent to one; only the two together are a session, and a
        // node's callers do not log in.
        return dialogue.part() == Part::Session && dialogue.sent.enters;
    }
    let calls_node = dialogue.sent.dialect == Some(Dialect::GetWork) && !dialogue.sent.enters;
    dialogue.part() >= Part::Jobs && (!calls_node || dialogue.received.jobs)
}

/// Whether the other end answered as a pool does. What this host's process said of jobs itself may have come back as an echo, and a web
/// page may say anything.
fn answered(flow: &Flow) -> bool {
    let dialogue = &flow.dialogue;
    dialogue.received.jobs && !dialogue.sent.jobs && (!dialogue.http || dialogue.websocket)
}

/// The end of a flow that this host began.
pub(crate) fn far_end(flow: &Flow) -> Option<Destination> {
    let remote = flow.open.remote;
    let known = !flow.open.accepted && !remote.ip().is_unspecified();
    known.then(|| Destination { address: remote.ip().to_canonical(), port: remote.port() })
}

impl Detector {
    /// Notes that a flow leads to a pool, when its words say so.
    pub(crate) fn weigh_words(&mut self, now: Timestamp, key: FlowKey) {
        if self.flows.get(&key).is_some_and(speaks) {
            self.leads_to_pool(now, key);
        }
    }

    /// Notes that a flow to a listed pool leads there to mine, when it is certain that it asks for no web page; else it is looked at
    /// again with the next conclusion.
    pub(crate) fn weigh_listed(&mut self, now: Timestamp, key: FlowKey) {
        let Some(flow) = self.flows.get(&key) else { return };
        if flow.to_pool || flow.request.is_some() || WEB.contains(&flow.open.remote.port()) {
            return;
        }
        let spoke = flow.opening.iter().find(|m| m.direction == Direction::Sent).map(|m| m.time);
        let settled = flow.tls || spoke.is_some_and(|spoke| now.secs_since(spoke) >= FIRST_WORDS_SECS);
        let may_speak = spoke.is_some() || flow.closed.is_none();
        if settled {
            self.leads_to_pool(now, key);
        } else if may_speak {
            self.listed.insert(key);
        }
    }

    /// Looks again at flows to listed pools that had not spoken yet.
    pub(crate) fn weigh_listed_again(&mut self, now: Timestamp) {
        for key in std::mem::take(&mut self.listed) {
            self.weigh_listed(now, key);
        }
    }

    /// Whether more than the words of this host's process says that the other end is a pool: its own, or its address on a list. A name
    /// proves nothing, because the process chooses what it asks for, and whom.
    pub(crate) fn is_proven_pool(&self, flow: &Flow) -> bool {
        answered(flow) || self.lists.address(flow.open.remote.ip().to_canonical()).is_some()
    }

    fn leads_to_pool(&mut self, now: Timestamp, key: FlowKey) {
        let Some(flow) = self.flows.get_mut(&key).filter(|flow| !flow.to_pool) else { return };
        let (Some(owner), Some(end)) = (flow.owner, far_end(flow)) else { return };
        flow.to_pool = true;
        let unit = self.processes.unit_of(&owner);
        if let Some(case) = self.cases.get_mut(&unit) {
            case.ledger.grow();
            if case.pools.add(end) {
                self.urgent.ask(now);
            }
        }
    }

    /// Whether something came that should not wait for the next regular conclusion: somebody talks to a pool that is new, and every
    /// line that it says there before it is cut is one too many. Four a second are granted. Asking takes it back.
    pub fn take_urgent(&mut self) -> bool {
        std::mem::take(&mut self.urgent.pending)
    }
}
