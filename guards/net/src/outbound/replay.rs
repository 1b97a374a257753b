//! What a policy would have refused of what was seen.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use davy_model::{Connection, OutboundTables, Peer, Timestamp};
use davy_policy::Policy;
use serde::Serialize;

use super::compile::{Host, compile};
use super::learn::{Proposed, Row, addresses_of, group, protocol_of, wants_an_entry};
use super::lookup::{Ask, allowing};

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Replayed {
    /// Connections that were looked at: those that this host began, without loopback and its name servers.
    pub connections: u64,
    /// Those of them that an entry allows.
    pub allowed: u64,
    /// Those that none allows.
    pub refused: u64,
    /// What none allows, grouped as the entries that would allow it.
    pub missing: Vec<Proposed>,
    /// What cannot be told from what is kept of it, grouped alike; why is in `odd`.
    pub unclear: Vec<Proposed>,
}

enum Verdict {
    Allowed,
    Refused,
    Unclear,
}

/// Judges rows, each with its user's name, by a policy. What is kept of connections knows a process's service and its effective
/// user, where the kernel goes by its unit, with the slices around it, and the real user; the two seldom differ.
#[must_use]
pub fn replay<'a>(
    policy: &Policy,
    rows: impl IntoIterator<Item = Row<'a>>,
    resolvers: &[IpAddr],
    now: Timestamp,
) -> Replayed {
    let rows: Vec<Row<'a>> = rows.into_iter().filter(|(row, _)| wants_an_entry(row, resolvers)).collect();
    let numbers: BTreeMap<&str, u32> =
        rows.iter().filter_map(|(row, user)| Some(((*user)?, row.talker.uid?))).collect();
    let user = |name: &str| name.parse().ok().or_else(|| numbers.get(name).copied());
    let judge = Judge {
        tables: compile(policy, &Host { user: &user, resolvers }, now).tables,
        around: policy
            .outbound
            .allow
            .iter()
            .filter_map(|allow| allow.service.as_deref())
            .filter(|unit| is_around(unit))
            .collect(),
    };
    let mut replayed = Replayed::default();
    let (mut refused, mut unclear) = (Vec::new(), Vec::new());
    for (row, user) in rows {
        let count = row.connections;
        replayed.connections = replayed.connections.saturating_add(count);
        match judge.verdict(row) {
            Verdict::Allowed => replayed.allowed = replayed.allowed.saturating_add(count),
            Verdict::Refused => {
                replayed.refused = replayed.refused.saturating_add(count);
                refused.push((row, user));
            }
            Verdict::Unclear => unclear.push((row, user)),
        }
    }
    let most_first = |mut groups: Vec<Proposed>| {
        groups.sort_by_key(|entry| std::cmp::Reverse(entry.connections));
        groups
    };
    replayed.missing = most_first(group(refused));
    replayed.unclear = most_first(group(unclear));
    for entry in replayed.unclear.iter_mut().filter(|entry| entry.odd.is_empty()) {
        entry.odd.push("an entry for a slice or a scope may allow it, and what is kept does not name those");
    }
    replayed
}

/// Whether a unit has others, or a login, in it: the map of connections does not name such.
fn is_around(unit: &str) -> bool {
    unit.ends_with(".slice") || unit.ends_with(".scope")
}

struct Judge<'a> {
    tables: OutboundTables,
    /// Units of the policy that a process may be in without its being known.
    around: Vec<&'a str>,
}

impl Judge<'_> {
    fn verdict(&self, row: &Connection) -> Verdict {
        let name = match &row.peer {
            Peer::Others => return Verdict::Unclear,
            Peer::Name(name) => Some(name.as_str()),
            Peer::Address(_) => None,
        };
        let addresses = match addresses_of(row) {
            [] => &[IpAddr::V4(Ipv4Addr::UNSPECIFIED)],
            known => known,
        };
        let known: Vec<&str> = row.talker.service.as_deref().into_iter().collect();
        let perhaps: Vec<&str> = known.iter().chain(&self.around).copied().collect();
        let allowed = |units: &[&str]| {
            addresses.iter().all(|address| {
                let ask = Ask {
                    units: units.to_vec(),
                    container: row.talker.container.as_deref(),
                    uid: row.talker.uid,
                    protocol: protocol_of(row.transport),
                    port: row.port,
                    to: *address,
                    name,
                };
                allowing(&self.tables, &ask).first().is_some()
            })
        };
        match (allowed(&known), row.port) {
            (true, _) => Verdict::Allowed,
            (false, 0) => Verdict::Unclear,
            (false, _) if allowed(&perhaps) => Verdict::Unclear,
            (false, _) => Verdict::Refused,
        }
    }
}

#[cfg(test)]
#[path = "replay_tests.rs"]
mod tests;
