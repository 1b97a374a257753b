//! What the policy says, with everything it names looked up.

use std::collections::BTreeMap;
use std::net::IpAddr;

use davy_model::{AddressRange, Door, PortRange, Prefix, Timestamp, Transport};
use davy_policy::{Inbound, InboundAllow, InboundFrom, Origin};
use serde::{Deserialize, Serialize};

use super::read_networks;

/// The most networks in one plan: of all groups together, and of all entries, each of which has its own copy of what it names.
pub const MAX_PLAN_NETWORKS: usize = 400_000;

const TRANSPORTS: [Transport; 2] = [Transport::Tcp, Transport::Udp];

/// Who may reach which port: everything else is closed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// In the order of the policy.
    pub entries: Vec<Entry>,
}

/// One entry of `[[inbound.allow]]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// File and line of the policy.
    pub place: String,
    /// The ports; empty for all that the service listens on.
    pub ports: Vec<PortRange>,
    /// The systemd unit that must listen there; `None` for whoever does.
    pub service: Option<String>,
    /// Over which protocols.
    pub transports: Vec<Transport>,
    /// For whom, each range once and none overlapping; `None` for everybody.
    pub from: Option<Vec<AddressRange>>,
    /// The same as the policy says it.
    pub said: Vec<String>,
    /// Why.
    pub reason: String,
    /// The first moment it no longer holds.
    pub until: Option<Timestamp>,
    /// Where the service listens, or did when it was last seen to.
    pub heard: Vec<(Transport, u16)>,
}

/// A socket that waits for somebody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Over which protocol.
    pub transport: Transport,
    /// At which port.
    pub port: u16,
    /// The systemd unit of who listens.
    pub service: Option<String>,
}

/// What is decided of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict<'p> {
    /// An entry lets it in.
    Allowed(&'p Entry),
    /// It is let in whatever the policy says; why.
    Always(&'static str),
    /// No entry lets it in.
    Refused,
}

impl Plan {
    /// Looks up what the policy names. `read` gives the text of a file by its name in the policy.
    ///
    /// # Errors
    /// Every group that holds nothing and every file that cannot be used, a sentence each.
    pub fn make(
        inbound: &Inbound,
        origin: &Origin,
        read: impl Fn(&str) -> Result<String, String>,
    ) -> Result<Self, Vec<String>> {
        let mut faults = Vec::new();
        let mut groups = BTreeMap::new();
        let mut room = MAX_PLAN_NETWORKS;
        for (index, group) in inbound.groups.iter().enumerate() {
            let place = origin.of(&format!("inbound.group[{index}]"));
            let mut networks = group.networks.clone();
            for file in &group.files {
                match read(file).and_then(|text| read_networks(&text)) {
                    Ok(more) => networks.extend(more),
                    Err(why) => {
                        faults.push(format!("{place}: group `{}`: the file {file} {why}", group.name))
                    }
                }
            }
            if networks.is_empty() && group.files.is_empty() {
                faults.push(format!("{place}: group `{}` is empty", group.name));
            }
            match room.checked_sub(networks.len()) {
                Some(left) => room = left,
                None => {
                    faults.push(format!("{place}: the groups have more than {MAX_PLAN_NETWORKS} networks"));
                    return Err(faults);
                }
            }
            groups.insert(group.name.as_str(), networks);
        }
        let mut entries = Vec::with_capacity(inbound.allow.len());
        let mut room = MAX_PLAN_NETWORKS;
        for (index, allow) in inbound.allow.iter().enumerate() {
            let place = origin.of(&format!("inbound.allow[{index}]"));
            let entry = entry(allow, place, &groups);
            match room.checked_sub(entry.from.as_ref().map_or(0, Vec::len)) {
                Some(left) => room = left,
                None => {
                    faults.push(format!(
                        "{}: the entries open ports to more than {MAX_PLAN_NETWORKS} ranges of addresses; give ports that are \
                         open to the same group one entry",
                        entry.place
                    ));
                    return Err(faults);
                }
            }
            entries.push(entry);
        }
        if faults.is_empty() { Ok(Self { entries }) } else { Err(faults) }
    }

    /// Looks where services listen now. One that is seen nowhere keeps the ports that it had, since it may only be restarting.
    /// Says whether anything changed.
    pub fn hear(&mut self, listeners: &[Listener]) -> bool {
        let mut changed = false;
        for entry in self.entries.iter_mut().filter(|entry| entry.service.is_some()) {
            let own = listeners
                .iter()
                .filter(|l| l.service == entry.service && entry.transports.contains(&l.transport));
            let mut heard: Vec<_> = own.map(|l| (l.transport, l.port)).collect();
            heard.sort_unstable();
            heard.dedup();
            if !heard.is_empty() && heard != entry.heard {
                entry.heard = heard;
                changed = true;
            }
        }
        changed
    }

    /// Entries that open nothing, because nobody listens there, a sentence each. They are mistakes more often than not.
    #[must_use]
    pub fn unheard(&self, listeners: &[Listener], now: Timestamp) -> Vec<String> {
        let mut told = Vec::new();
        for entry in self.entries.iter().filter(|entry| entry.holds(now)) {
            let heard = |l: &&Listener| entry.opens(l.transport, l.port);
            if listeners.iter().any(|l| heard(&l)) {
                continue;
            }
            let ports: Vec<String> = entry.ports.iter().map(ToString::to_string).collect();
            let ports = ports.join(", ");
            told.push(match (&entry.service, ports.is_empty()) {
                (Some(service), true) => format!("{}: {service} listens on no port", entry.place),
                (Some(service), false) => format!("{}: {service} does not listen on {ports}", entry.place),
                (None, _) => format!("{}: nobody listens on {} {ports}", entry.place, entry.protocol()),
            });
        }
        told
    }

    /// What is decided of a connection from an address to a port of this host.
    #[must_use]
    pub fn decide(&self, transport: Transport, port: u16, from: IpAddr, now: Timestamp) -> Verdict<'_> {
        let from = from.to_canonical();
        if from.is_loopback() {
            return Verdict::Always("it comes from this host itself");
        }
        let link_local = matches!(from, IpAddr::V6(v6) if v6.is_unicast_link_local());
        if transport == Transport::Udp && (port == 68 || port == 546 && link_local) {
            return Verdict::Always("answers of DHCP servers come there");
        }
        let found = self
            .entries
            .iter()
            .find(|entry| entry.holds(now) && entry.opens(transport, port) && entry.lets(from));
        found.map_or(Verdict::Refused, Verdict::Allowed)
    }

    /// The entries that hold for a port.
    pub fn of_port(&self, transport: Transport, port: u16, now: Timestamp) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(move |entry| entry.holds(now) && entry.opens(transport, port))
    }

    /// What a firewall must leave open for the plan to hold: for each protocol ports that do not overlap, each with all that may
    /// reach it.
    #[must_use]
    pub fn doors(&self, now: Timestamp) -> Vec<Door> {
        TRANSPORTS.iter().flat_map(|transport| self.doors_of(*transport, now)).collect()
    }

    /// When the first of the entries that hold ends.
    #[must_use]
    pub fn ends(&self, now: Timestamp) -> Option<Timestamp> {
        self.entries.iter().filter(|entry| entry.holds(now)).filter_map(|entry| entry.until).min()
    }

    fn doors_of(&self, transport: Transport, now: Timestamp) -> Vec<Door> {
        let open: Vec<(PortRange, &Entry)> = self
            .entries
            .iter()
            .filter(|entry| entry.holds(now) && entry.transports.contains(&transport))
            .flat_map(|entry| entry.open_ports(transport).into_iter().map(move |ports| (ports, entry)))
            .collect();
        // Who may reach a port changes only where some range begins or has ended.
        let mut starts: Vec<u32> =
            open.iter().flat_map(|(p, _)| [u32::from(p.first()), u32::from(p.last()) + 1]).collect();
        starts.sort_unstable();
        starts.dedup();
        let mut doors: Vec<Door> = Vec::new();
        for pair in starts.windows(2) {
            let (Ok(first), Ok(last)) = (u16::try_from(pair[0]), u16::try_from(pair[1] - 1)) else {
                continue;
            };
            let here: Vec<&Entry> =
                open.iter().filter(|(p, _)| p.contains(first)).map(|(_, entry)| *entry).collect();
            let (false, Some(ports)) = (here.is_empty(), PortRange::new(first, last)) else { continue };
            let all: Option<Vec<&Vec<AddressRange>>> = here.iter().map(|entry| entry.from.as_ref()).collect();
            let from = all.map(|lists| merged(lists.into_iter().flatten().copied().collect()));
            match doors.last_mut() {
                Some(door) if u32::from(door.ports.last()) + 1 == pair[0] && door.from == from => {
                    door.ports = PortRange::new(door.ports.first(), last).unwrap_or(door.ports);
                }
                _ => doors.push(Door { transport, ports, from }),
            }
        }
        doors
    }
}

impl Entry {
    fn holds(&self, now: Timestamp) -> bool {
        self.until.is_none_or(|until| now < until)
    }

    fn opens(&self, transport: Transport, port: u16) -> bool {
        let named = || self.ports.iter().any(|ports| ports.contains(port));
        self.transports.contains(&transport)
            && match self.service {
                None => named(),
                Some(_) => self.heard.contains(&(transport, port)) && (self.ports.is_empty() || named()),
            }
    }

    fn lets(&self, from: IpAddr) -> bool {
        self.from.as_ref().is_none_or(|ranges| {
            // Addresses of one family come before those of the other, so that one search serves both.
            let at = ranges.partition_point(|range| range.first <= from);
            at.checked_sub(1).is_some_and(|at| from <= ranges[at].last)
        })
    }

    /// The ports as the policy names them; of a service those of them on which it listens.
    fn open_ports(&self, transport: Transport) -> Vec<PortRange> {
        if self.service.is_none() {
            return self.ports.clone();
        }
        let own = self.heard.iter().filter(|(t, _)| *t == transport).map(|(_, port)| *port);
        let own =
            own.filter(|port| self.ports.is_empty() || self.ports.iter().any(|ports| ports.contains(*port)));
        own.filter_map(|port| PortRange::new(port, port)).collect()
    }

    fn protocol(&self) -> &'static str {
        match self.transports.as_slice() {
            [Transport::Tcp] => "TCP port",
            [Transport::Udp] => "UDP port",
            _ => "port",
        }
    }
}

fn entry(allow: &InboundAllow, place: String, groups: &BTreeMap<&str, Vec<Prefix>>) -> Entry {
    let anyone = allow.from.contains(&InboundFrom::Anyone);
    let networks = allow.from.iter().flat_map(|from| match from {
        InboundFrom::Anyone => Vec::new(),
        InboundFrom::Network(network) => vec![*network],
        InboundFrom::Group(name) => groups.get(name.as_str()).cloned().unwrap_or_default(),
    });
    Entry {
        place,
        ports: allow.ports.clone(),
        service: allow.service.clone(),
        transports: TRANSPORTS.into_iter().filter(|transport| allow.protocol.holds(*transport)).collect(),
        from: (!anyone).then(|| merged(networks.map(AddressRange::from).collect())),
        said: allow.from.iter().map(ToString::to_string).collect(),
        reason: allow.reason.clone(),
        until: allow.until,
        heard: Vec::new(),
    }
}

/// The same addresses in as few ranges as can be, in order.
fn merged(mut ranges: Vec<AddressRange>) -> Vec<AddressRange> {
    ranges.sort_unstable();
    let mut out: Vec<AddressRange> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match out.last_mut() {
            Some(before) if touches(before.last, range.first) => before.last = before.last.max(range.last),
            _ => out.push(range),
        }
    }
    out
}

/// Whether a range that ends with `last` goes on at `first`, which is not before its beginning.
fn touches(last: IpAddr, first: IpAddr) -> bool {
    match (last, first) {
        (IpAddr::V4(last), IpAddr::V4(first)) => first.to_bits() <= last.to_bits().saturating_add(1),
        (IpAddr::V6(last), IpAddr::V6(first)) => first.to_bits() <= last.to_bits().saturating_add(1),
        _ => false,
    }
}
