//! What the tables say of one connection, as the kernel's programs look it up.

use std::net::IpAddr;

use davy_model::{OutboundProtocol, OutboundTables, RuleSet, mapped_octets, reversed_name, template_of};

/// What fills a name up to the length that the kernel looks up; an entry for a name alone ends with one of it.
const FILL: u8 = 0;

/// Who wants to connect to what.
#[derive(Clone, Debug)]
pub struct Ask<'a> {
    /// The units that the process is in: its own, and the slices around it.
    pub units: Vec<&'a str>,
    /// The id of its container, at least twelve characters of it.
    pub container: Option<&'a str>,
    /// Its real user id; `None` for a user that nobody knows.
    pub uid: Option<u32>,
    /// By what.
    pub protocol: OutboundProtocol,
    /// Port; zero for a socket that is neither TCP nor UDP.
    pub port: u16,
    /// Where to; it says nothing for such a socket.
    pub to: IpAddr,
    /// The name that led there.
    pub name: Option<&'a str>,
}

/// The rules that allow it: a rule's number is its place in the policy.
#[must_use]
pub fn allowing(tables: &OutboundTables, ask: &Ask<'_>) -> RuleSet {
    let to = match ask.protocol {
        OutboundProtocol::Raw => RuleSet::ALL,
        _ => to_address(tables, ask.to).or(&ask.name.map(|name| to_name(tables, name)).unwrap_or_default()),
    };
    for_whom(tables, ask).and(&to)
}

/// The rules that would allow it if the right name had led there, whichever that is.
#[must_use]
pub fn allowing_by_name(tables: &OutboundTables, ask: &Ask<'_>) -> RuleSet {
    let named = tables.names.iter().fold(RuleSet::default(), |all, (_, set)| all.or(set));
    for_whom(tables, ask).and(&named)
}

/// The rules for who asks, and the port.
fn for_whom(tables: &OutboundTables, ask: &Ask<'_>) -> RuleSet {
    let of = |found: Option<&RuleSet>| found.copied().unwrap_or_default();
    let templates: Vec<String> = ask.units.iter().filter_map(|unit| template_of(unit)).collect();
    let units = tables.units.iter();
    let units = units.filter(|(name, _)| ask.units.contains(&name.as_str()) || templates.contains(name));
    let units = units.fold(tables.any_unit, |all, (_, set)| all.or(set));
    let own = ask.container.and_then(|id| id.as_bytes().get(..12));
    let container = tables.containers.iter().find(|(id, _)| Some(&id[..]) == own);
    let containers = tables.any_container.or(&of(container.map(|(_, set)| set)));
    let user = tables.users.iter().find(|(uid, _)| Some(*uid) == ask.uid);
    let users = user.map_or(tables.any_user, |(_, set)| *set);
    let port = tables.ports.iter().find(|(port, _)| *port == (ask.protocol, ask.port));
    let number = OutboundProtocol::ALL.iter().position(|one| *one == ask.protocol).unwrap_or_default();
    let ports = port.map_or(tables.any_port[number], |(_, set)| *set);
    units.and(&containers).and(&users).and(&ports)
}

/// Whether any entry is about this name.
#[must_use]
pub fn allows_name(tables: &OutboundTables, name: &str) -> bool {
    to_name(tables, name).first().is_some()
}

fn to_address(tables: &OutboundTables, address: IpAddr) -> RuleSet {
    let wanted = u128::from_be_bytes(mapped_octets(address));
    let begins = |(prefix, bits, _): &&([u8; 16], u8, RuleSet)| {
        (u128::from_be_bytes(*prefix) ^ wanted).leading_zeros() >= u32::from(*bits)
    };
    let longest = tables.destinations.iter().filter(begins).max_by_key(|(_, bits, _)| *bits);
    longest.map(|(_, _, set)| *set).unwrap_or_default()
}

fn to_name(tables: &OutboundTables, name: &str) -> RuleSet {
    let Some(mut key) = reversed_name(name) else { return RuleSet::default() };
    key.push(FILL);
    let longest = tables.names.iter().filter(|(begin, _)| key.starts_with(begin));
    longest.max_by_key(|(begin, _)| begin.len()).map(|(_, set)| *set).unwrap_or_default()
}
