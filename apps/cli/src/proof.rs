//! What `davy status` says of the last canary and the last drill.

use davy_wire::{AgentStatus, Proof};

use crate::clock::Clock;

/// The last canary, when it was not stopped.
pub(crate) fn broken(status: &AgentStatus) -> Option<&Proof> {
    status.last_canary.as_ref().filter(|proof| !proof.tally.all_held())
}

/// What held, a sentence each, to follow another; nothing of what never was.
pub(crate) fn sentences(status: &AgentStatus, clock: &Clock) -> String {
    let named = [("canary", &status.last_canary), ("drill", &status.last_drill)];
    let proofs = named.into_iter().filter_map(|(name, proof)| Some((name, proof.as_ref()?)));
    proofs
        .map(|(name, proof)| {
            let held = match proof.tally.of {
                0 => "nothing of it can be tried on this host".to_owned(),
                of => format!("{} of {of} held", proof.tally.held),
            };
            format!(" Last {name} {}: {held}.", clock.moment(proof.time))
        })
        .collect()
}

/// What failed of them, a sentence each.
pub(crate) fn alarms(status: &AgentStatus) -> Vec<String> {
    let canary = broken(status).into_iter().flat_map(|proof| &proof.tally.failed);
    let canary = canary.map(|words| format!("The last canary was not stopped: {words}"));
    let drill = status.last_drill.iter().flat_map(|proof| &proof.tally.failed);
    canary.chain(drill.map(|name| format!("The last drill failed: {name}"))).collect()
}
