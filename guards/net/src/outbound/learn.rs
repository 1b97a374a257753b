//! From what was seen to entries for the policy: few, and such as people would have written.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::net::IpAddr;

use davy_model::{
    Connection, Heading, OutboundProtocol, Peer, PortRange, Prefix, Transport, UNIT_NAME_MAX, reversed_name,
    template_of,
};
use serde::Serialize;

/// Destinations of one entry beyond which it is told in one word.
const MAX_DESTINATIONS: usize = 24;

/// Ports of one entry beyond which it is for all ports.
const MAX_PORTS: usize = 16;

/// An entry that would allow what was seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Proposed {
    /// The systemd unit it came from.
    pub service: Option<String>,
    /// The container it came from.
    pub container: Option<String>,
    /// The user, where neither of them is known.
    pub user: Option<String>,
    /// Networks and names.
    pub to: Vec<String>,
    /// Ports.
    pub ports: Vec<PortRange>,
    /// TCP or UDP.
    pub protocol: OutboundProtocol,
    /// The programs that connected, by the last part of their paths.
    pub programs: Vec<String>,
    /// How many connections there were.
    pub connections: u64,
    /// Why it should be looked at before it is taken; empty where nothing speaks against it.
    pub odd: Vec<&'static str>,
}

type Who = (Option<String>, Option<String>, Option<String>);

/// What was seen of one who, at one port.
#[derive(Default)]
struct Seen {
    names: BTreeSet<String>,
    addresses: BTreeSet<IpAddr>,
    programs: BTreeSet<String>,
    connections: u64,
    unclear: bool,
}

/// A row of the map of connections, and the name of its user.
pub type Row<'a> = (&'a Connection, Option<&'a str>);

/// Proposes entries for these rows, each with its user's name. What went to loopback, or to name servers that everyone may ask,
/// needs none; other addresses of the host itself do, for they are judged as any.
#[must_use]
pub fn propose<'a>(rows: impl IntoIterator<Item = Row<'a>>, resolvers: &[IpAddr]) -> Vec<Proposed> {
    group(rows.into_iter().filter(|(row, _)| wants_an_entry(row, resolvers)))
}

/// Whether this host began it, and neither on loopback nor to ask a name server that everyone may ask.
pub(super) fn wants_an_entry(row: &Connection, resolvers: &[IpAddr]) -> bool {
    let asks = row.port == 53 && !row.addresses.is_empty();
    let known = asks && row.addresses.iter().all(|address| resolvers.contains(address));
    row.direction == Heading::Outbound && !is_loopback(row) && !known
}

pub(super) fn protocol_of(transport: Transport) -> OutboundProtocol {
    match transport {
        Transport::Tcp => OutboundProtocol::Tcp,
        Transport::Udp => OutboundProtocol::Udp,
    }
}

/// Groups rows as people would write entries.
pub(super) fn group<'a>(rows: impl IntoIterator<Item = Row<'a>>) -> Vec<Proposed> {
    let mut seen: BTreeMap<(Who, OutboundProtocol, u16), Seen> = BTreeMap::new();
    for (row, user) in rows {
        let talker = &row.talker;
        let alone = talker.service.is_none() && talker.container.is_none();
        let service = talker.service.as_deref().map(general);
        let who = (service, talker.container.clone(), user.filter(|_| alone).map(str::to_owned));
        let entry = seen.entry((who, protocol_of(row.transport), row.port)).or_default();
        match &row.peer {
            Peer::Name(name) if is_plain(name) => drop(entry.names.insert(name.clone())),
            Peer::Name(_) => entry.addresses.extend(&row.addresses),
            Peer::Address(address) => drop(entry.addresses.insert(*address)),
            Peer::Others => entry.unclear = true,
        }
        let program = talker.program.rsplit('/').next().unwrap_or_default();
        if !program.is_empty() {
            entry.programs.insert(program.to_owned());
        }
        entry.connections = entry.connections.saturating_add(row.connections);
    }
    join_ports(seen)
}

/// The template of an instance, for the next one has another name and does the same; but not of the managers of users, which have
/// nothing in common but their program.
fn general(unit: &str) -> String {
    template_of(unit).filter(|template| template != "user@.service").unwrap_or_else(|| unit.to_owned())
}

/// Whether all of it went where the kernel's programs do not look.
fn is_loopback(row: &Connection) -> bool {
    let addresses = addresses_of(row);
    let is_own = |address: &IpAddr| {
        let address = address.to_canonical();
        address.is_loopback() || address.is_unspecified()
    };
    !addresses.is_empty() && addresses.iter().all(is_own)
}

/// The addresses of the other end, as far as they were kept.
pub(super) fn addresses_of(row: &Connection) -> &[IpAddr] {
    match &row.peer {
        Peer::Address(address) => std::slice::from_ref(address),
        Peer::Name(_) | Peer::Others => &row.addresses,
    }
}

/// Joins what differs in its port alone.
fn join_ports(seen: BTreeMap<(Who, OutboundProtocol, u16), Seen>) -> Vec<Proposed> {
    let mut proposed: Vec<Proposed> = Vec::new();
    for ((who, protocol, port), seen) in seen {
        let odd = oddities(&who, port, &seen);
        let to = destinations(&seen);
        let (service, container, user) = who;
        let same = proposed.iter_mut().find(|entry| {
            (&entry.service, &entry.container, &entry.user) == (&service, &container, &user)
                && entry.protocol == protocol
                && entry.to == to
                && entry.odd == odd
        });
        let range = PortRange::new(port, port);
        if let Some(entry) = same {
            entry.ports.extend(range);
            entry.programs.extend(seen.programs);
            entry.programs.sort();
            entry.programs.dedup();
            entry.connections = entry.connections.saturating_add(seen.connections);
        } else {
            let programs = seen.programs.into_iter().collect();
            let ports = range.into_iter().collect();
            let connections = seen.connections;
            proposed.push(Proposed {
                service,
                container,
                user,
                to,
                ports,
                protocol,
                programs,
                connections,
                odd,
            });
        }
    }
    for entry in proposed.iter_mut().filter(|entry| entry.ports.len() > MAX_PORTS) {
        entry.ports.clear();
        entry.odd.push("it used so many ports that all are meant");
    }
    proposed
}

fn oddities(who: &Who, port: u16, seen: &Seen) -> Vec<&'static str> {
    let (service, container, user) = who;
    let mut odd = Vec::new();
    if service.is_none() && container.is_none() {
        match user.as_deref() {
            None => odd.push("nobody knows who it was"),
            Some("root" | "0") => odd.push("it would be for all that root does outside of services"),
            Some(_) => {}
        }
    }
    if seen.unclear || port == 0 {
        odd.push("there were more destinations than are told apart");
    }
    odd
}

/// Names and networks that cover what was seen, with hardly more.
fn destinations(seen: &Seen) -> Vec<String> {
    let mut domains: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for name in &seen.names {
        domains.entry(domain(name)).or_default().insert(name);
    }
    let mut to = Vec::new();
    for (domain, names) in domains {
        let below = names.iter().filter(|name| **name != domain).count();
        if below >= 2 {
            to.push(format!("*.{domain}"));
            to.extend(names.contains(domain).then(|| domain.to_owned()));
        } else {
            to.extend(names.into_iter().map(str::to_owned));
        }
    }
    let network = |address: &IpAddr| Prefix::of(*address, if address.is_ipv4() { 24 } else { 64 });
    let mut networks: BTreeMap<Prefix, BTreeSet<IpAddr>> = BTreeMap::new();
    for address in &seen.addresses {
        networks.entry(network(address)).or_default().insert(*address);
    }
    to.extend(networks.into_iter().map(|(network, addresses)| match addresses.first() {
        Some(only) if addresses.len() == 1 => only.to_string(),
        _ => network.to_string(),
    }));
    if to.is_empty() || to.len() > MAX_DESTINATIONS { vec!["any".to_owned()] } else { to }
}

/// The domain that a name's owner likely holds: its last two parts, or three below a country's own second level (`co.uk`).
fn domain(name: &str) -> &str {
    let mut dots = name.rmatch_indices('.').map(|(at, _)| at);
    let (last, second) = (dots.next(), dots.next());
    let (Some(last), Some(second)) = (last, second) else { return name };
    let country = name.len() - last - 1 == 2 && last - second - 1 <= 3;
    match (country, dots.next()) {
        (false, _) => &name[second + 1..],
        (true, Some(third)) => &name[third + 1..],
        (true, None) => name,
    }
}

/// Whether a name can stand in a policy.
fn is_plain(name: &str) -> bool {
    name.contains('.')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        && !name.bytes().all(|b| b.is_ascii_digit() || b == b'.')
        && reversed_name(name).is_some()
}

/// Whether the policy takes this for who it is.
fn fits(key: &str, who: &str) -> bool {
    match key {
        "service" => who.len() > ".service".len() && who.len() <= UNIT_NAME_MAX && !who.contains('/'),
        "container" => who.len() >= 12 && who.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')),
        _ => !who.is_empty(),
    }
}

/// The entries as text for the policy. What is odd, or cannot be written so, is a comment.
#[must_use]
pub fn to_toml(proposed: &[Proposed]) -> String {
    let mut text = String::new();
    for entry in proposed {
        let mut lines = String::new();
        let who = [("service", &entry.service), ("container", &entry.container), ("user", &entry.user)];
        for (key, who) in who.into_iter().filter_map(|(key, who)| Some((key, who.as_deref()?))) {
            let _ = writeln!(lines, "{key} = {}", quoted(who));
        }
        let list = |list: &[String]| list.iter().map(|one| quoted(one)).collect::<Vec<_>>().join(", ");
        let _ = writeln!(lines, "to = [{}]", list(&entry.to));
        let ports: Vec<String> = entry.ports.iter().map(PortRange::to_string).collect();
        if !ports.is_empty() {
            let _ = writeln!(lines, "ports = [{}]", ports.join(", "));
        }
        let _ = writeln!(lines, "protocol = {}", quoted(entry.protocol.name()));
        let times =
            if entry.connections == 1 { "once".to_owned() } else { format!("{} times", entry.connections) };
        let by: Vec<String> = entry.programs.iter().map(|program| shown(program)).collect();
        let by = if by.is_empty() { "seen".to_owned() } else { by.join(", ") };
        let _ = writeln!(lines, "reason = {}", quoted(&format!("learned: {by}, {times}")));
        let _ = writeln!(text, "# {}", entry.summary());
        for odd in &entry.odd {
            let _ = writeln!(text, "# look at it first: {odd}");
        }
        let mark = if entry.stands() { "" } else { "# " };
        let _ = writeln!(text, "{mark}[[outbound.allow]]");
        for line in lines.lines() {
            let _ = writeln!(text, "{mark}{line}");
        }
        text.push('\n');
    }
    text
}

impl Proposed {
    /// Whether it stands in the policy's text as an entry, and not as a comment: nothing speaks against it, and a policy can say so.
    #[must_use]
    pub fn stands(&self) -> bool {
        let who = [("service", &self.service), ("container", &self.container), ("user", &self.user)];
        let plain = |(key, who): (&str, &Option<String>)| {
            who.as_ref().is_none_or(|who| who.bytes().all(|b| b.is_ascii_graphic()) && fits(key, who))
        };
        self.odd.is_empty() && who.into_iter().all(plain)
    }

    /// In one line for people: `nginx.service -> 10.0.3.0/24:8080`.
    #[must_use]
    pub fn summary(&self) -> String {
        let who = self.service.as_deref().or(self.container.as_deref()).or(self.user.as_deref());
        let who = shown(who.unwrap_or("somebody"));
        let ports: Vec<String> = self.ports.iter().map(PortRange::to_string).collect();
        let ports = if ports.is_empty() { "*".to_owned() } else { ports.join(",") };
        let to: Vec<String> = self.to.iter().map(|to| format!("{to}:{ports}")).collect();
        let udp = if self.protocol == OutboundProtocol::Udp { " by UDP" } else { "" };
        format!("{who} -> {}{udp}", to.join(" "))
    }
}

/// What strangers may have named, on one line.
fn shown(text: &str) -> String {
    text.chars().take(64).map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' }).collect()
}

/// A basic string of TOML.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => out.push('?'),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
#[path = "learn_tests.rs"]
mod tests;
