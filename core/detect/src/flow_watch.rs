//! Reads what flows tell: protocol, name, and the evidence that follows for their owners.

use davy_model::{Direction, Evidence, Signal, Timestamp};

use crate::flow_table::Flow;
use crate::ledger::{Particulars, Topic, evidence};
use crate::pool_list::Match;
use crate::server_name::{is_tls, server_name};
use crate::stratum::{Part, looks_like_noise_handshake, unwrap};
use crate::weights::{
    STRATUM_CLIENT, STRATUM_JOBS, STRATUM_NOISE, STRATUM_SERVER, STRATUM_SESSION, STRATUM_WORK,
};

/// Bytes without any brace after which a stream that is neither TLS nor HTTP is no JSON.
const UNDECIDED: usize = 640;

/// Evidence under its topic.
pub(crate) type Noted = (Topic, Evidence);

/// Puts new bytes to the head of their direction and reads it again. Returns whether anything about the flow may have changed.
pub(crate) fn read(flow: &mut Flow, direction: Direction, offset: u64, bytes: &[u8], limit: usize) -> bool {
    let head = match direction {
        Direction::Sent => &mut flow.sent,
        Direction::Received => &mut flow.received,
    };
    if !head.push(offset, bytes, limit) {
        return false;
    }
    let full = head.full(limit);
    let bytes = head.bytes();
    if is_tls(bytes) {
        flow.tls = true;
        if direction == Direction::Received {
            head.close();
        } else if let Some(name) = server_name(bytes) {
            flow.name = Some(name);
            head.close();
        } else if full {
            head.close();
        }
        return true;
    }
    let text = unwrap(bytes);
    let plausible = text.http || text.host.is_some() || bytes.len() < UNDECIDED || text.text.contains(&b'{');
    if text.host.is_some() {
        flow.name.clone_from(&text.host);
    }
    if text.request.is_some() {
        flow.request.clone_from(&text.request);
    }
    let before = flow.dialogue.part();
    let named = text.host.is_some();
    flow.dialogue.read(direction, &text);
    if flow.from_start && !flow.dialogue.noise {
        flow.dialogue.noise = looks_like_noise_handshake(&flow.opening, flow.sent.bytes());
    }
    let changed = flow.dialogue.part() != before || named;
    if full || !plausible {
        match direction {
            Direction::Sent => flow.sent.close(),
            Direction::Received => flow.received.close(),
        }
    }
    changed
}

/// What a flow's words say about its owner.
pub(crate) fn stratum(time: Timestamp, flow: &Flow) -> Option<Noted> {
    let (bits, topic, what): (f32, Topic, &str) = match flow.dialogue.part() {
        Part::None => return None,
        Part::Session => (STRATUM_SESSION, "stratum/client", "logged in and got work as a miner"),
        Part::Client => (STRATUM_CLIENT, "stratum/client", "spoke as a miner"),
        Part::Jobs => (STRATUM_JOBS, "stratum/client", "gets mining jobs"),
        Part::Noise => (STRATUM_NOISE, "stratum/client", "began an encrypted mining session"),
        Part::Work => (STRATUM_WORK, "stratum/client", "asks for mining work"),
        Part::Server => (STRATUM_SERVER, "stratum/server", "gives mining jobs to others"),
    };
    let dialect = flow.dialogue.dialect().map_or("", |d| d.name());
    let mut text = format!("{what} by {dialect} with {}", flow.remote());
    if flow.dialogue.websocket {
        text.push_str(", inside WebSocket");
    } else if flow.dialogue.http {
        text.push_str(", inside HTTP");
    }
    if let Some(algorithm) = flow.dialogue.algorithm() {
        text.push_str(&format!(", algorithm {algorithm}"));
    }
    if let Some(agent) = flow.dialogue.agent() {
        text.push_str(&format!(", calls itself {agent}"));
    }
    let evidence = evidence(time, Signal::Stratum, bits, text).on(flow.open.flow).technique("T1071");
    Some((topic, evidence))
}

/// What a list's entry says about the owner of a flow.
pub(crate) fn listed(time: Timestamp, flow: &Flow, found: &Match, weight: f32) -> Noted {
    let text = format!("talks to {}, which stands on list {} as {}", flow.remote(), found.list, found.entry);
    ("pool_list", evidence(time, Signal::PoolList, weight, text).on(flow.open.flow).technique("T1071"))
}
