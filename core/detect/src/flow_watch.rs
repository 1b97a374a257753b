//! What flows tell, and the evidence that follows for their owners.

use davy_model::{Dialogue, Evidence, FlowReading, Part, Signal, Speech, Timestamp};

use crate::flow_table::Flow;
use crate::ledger::{Particulars, Topic, evidence};
use crate::noise_handshake::has_sizes_of_noise;
use crate::pool_list::Match;
use crate::weights::{
    STRATUM_CLIENT, STRATUM_JOBS, STRATUM_NOISE, STRATUM_SERVER, STRATUM_SESSION, STRATUM_WORK,
};

/// Evidence under its topic.
pub(crate) type Noted = (Topic, Evidence);

/// Takes over what the first bytes of a flow say. Returns whether that may be evidence.
pub(crate) fn take(flow: &mut Flow, reading: &FlowReading) -> bool {
    let says = |flow: &Flow| (flow.dialogue.part(), is_page(flow), flow.name.clone());
    let before = says(flow);
    flow.tls |= reading.tls;
    if reading.name.is_some() {
        flow.name.clone_from(&reading.name);
    }
    if reading.request.is_some() {
        flow.request.clone_from(&reading.request);
    }
    flow.random_start = reading.random_start;
    flow.dialogue = Dialogue { noise: flow.dialogue.noise, ..reading.dialogue.clone() };
    look_for_noise(flow);
    before != says(flow)
}

/// Looks whether a flow began with the handshake of Stratum v2. Returns whether that is news.
pub(crate) fn look_for_noise(flow: &mut Flow) -> bool {
    if flow.dialogue.noise || !flow.random_start || !flow.from_start {
        return false;
    }
    flow.dialogue.noise = has_sizes_of_noise(&flow.opening);
    flow.dialogue.noise
}

/// Whether the words of a protocol stand in a web page: one side has them, and the other did not speak it; or they are an answer, and
/// no miner logs in by one.
fn is_page(flow: &Flow) -> bool {
    let said = &flow.dialogue;
    let asked = |speech: &Speech| speech.enters || speech.asks || speech.submits;
    let answered = |speech: &Speech| speech.jobs || speech.accepts;
    let spoken = match said.part() {
        Part::Jobs => asked(&said.sent),
        Part::Server => asked(&said.received) && answered(&said.sent),
        Part::Client | Part::Session => !flow.open.accepted,
        _ => true,
    };
    said.http && !said.websocket && !spoken
}

/// What a flow's words say about its owner.
pub(crate) fn stratum(time: Timestamp, flow: &Flow) -> Option<Noted> {
    if is_page(flow) {
        return None;
    }
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
