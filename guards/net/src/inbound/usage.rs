//! Who really used which port.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use davy_model::{Place, Timestamp, Transport};

/// The most ports that are remembered; what comes to further ones is counted as lost.
const MAX_PORTS: usize = 512;

/// The most sources that are remembered of one port. Of more, the longest silent is forgotten for the newest.
const MAX_SOURCES: usize = 128;

/// A port in a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortKey {
    /// The network namespace's inode; zero where unknown.
    pub network: u64,
    /// Over which protocol.
    pub transport: Transport,
    /// Its number.
    pub port: u16,
}

/// What was seen at every port, within bounds.
#[derive(Debug, Default)]
pub struct Usage {
    ports: BTreeMap<PortKey, PortUse>,
    lost: u64,
}

/// What was seen at one port.
#[derive(Clone, Debug, Default)]
pub struct PortUse {
    /// Connections.
    pub connections: u64,
    /// Of those, how many were refused, or would have been.
    pub refused: u64,
    /// When the latest came.
    pub last: Option<Timestamp>,
    /// Sources that were forgotten for newer ones; whoever came back counts each time.
    pub forgotten: u64,
    sources: HashMap<IpAddr, SourceUse>,
}

/// What was seen of one source at one port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceUse {
    /// Its address.
    pub from: IpAddr,
    /// Where it is.
    pub place: Place,
    /// Connections.
    pub connections: u64,
    /// When the latest came.
    pub last: Timestamp,
}

impl Usage {
    /// Counts a connection.
    pub fn count(&mut self, time: Timestamp, port: PortKey, from: IpAddr, place: Place, refused: bool) {
        if self.ports.len() >= MAX_PORTS && !self.ports.contains_key(&port) {
            self.lost += 1;
            return;
        }
        self.ports.entry(port).or_default().count(time, from.to_canonical(), place, refused);
    }

    /// Counts connections of which only the number is known.
    pub fn count_unnamed(&mut self, time: Timestamp, port: PortKey, many: u64) {
        if self.ports.len() >= MAX_PORTS && !self.ports.contains_key(&port) {
            self.lost += many;
            return;
        }
        let used = self.ports.entry(port).or_default();
        used.connections = used.connections.saturating_add(many);
        used.last = used.last.max(Some(time));
    }

    /// What was seen at a port.
    #[must_use]
    pub fn of(&self, port: PortKey) -> Option<&PortUse> {
        self.ports.get(&port)
    }

    /// Connections that could not be taken in.
    #[must_use]
    pub const fn lost(&self) -> u64 {
        self.lost
    }
}

impl PortUse {
    fn count(&mut self, time: Timestamp, from: IpAddr, place: Place, refused: bool) {
        self.connections = self.connections.saturating_add(1);
        self.refused = self.refused.saturating_add(u64::from(refused));
        self.last = self.last.max(Some(time));
        if self.sources.len() >= MAX_SOURCES && !self.sources.contains_key(&from) {
            let longest = self
                .sources
                .values()
                .min_by_key(|source| (source.last, source.from))
                .map(|source| source.from);
            longest.map(|from| self.sources.remove(&from));
            self.forgotten = self.forgotten.saturating_add(1);
        }
        let new = SourceUse { from, place, connections: 0, last: time };
        let source = self.sources.entry(from).or_insert(new);
        source.connections = source.connections.saturating_add(1);
        source.last = source.last.max(time);
    }

    /// Its sources, the latest first.
    #[must_use]
    pub fn sources(&self) -> Vec<SourceUse> {
        let mut sources: Vec<SourceUse> = self.sources.values().copied().collect();
        sources.sort_by_key(|source| (std::cmp::Reverse(source.last), source.from));
        sources
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::net::Ipv4Addr;

    use super::*;
    use proptest::prelude::*;

    fn source(n: u32) -> IpAddr {
        IpAddr::V4(Ipv4Addr::from_bits(0xc633_0000 + n))
    }

    fn key(port: u16) -> PortKey {
        PortKey { network: 1, transport: Transport::Tcp, port }
    }

    #[test]
    fn counts_by_source_and_forgets_the_longest_silent() {
        let mut usage = Usage::default();
        let port = key(443);
        for n in 0..(MAX_SOURCES as u32 + 10) {
            usage.count(Timestamp::from_secs(n.into()), port, source(n), Place::Outside, n % 2 == 0);
            // The first comes again and again, so it is never the longest silent.
            usage.count(Timestamp::from_secs(n.into()), port, source(0), Place::Outside, false);
        }
        let seen = usage.of(port).unwrap();
        assert_eq!((seen.sources().len(), seen.connections, seen.forgotten), (MAX_SOURCES, 276, 10));
        assert_eq!(seen.refused, 69);
        assert!(seen.sources().iter().any(|s| s.from == source(0) && s.connections == 139));
        assert_eq!(usage.of(key(444)).map(|seen| seen.connections), None);
        usage.count_unnamed(Timestamp::from_secs(500), port, 40);
        assert_eq!(usage.of(port).unwrap().last, Some(Timestamp::from_secs(500)));
    }

    proptest! {
        #[test]
        fn stays_within_its_bounds(seen in proptest::collection::vec((any::<u16>(), 0u32..4000, any::<i32>()), 0..3000)) {
            let mut usage = Usage::default();
            for (port, from, time) in &seen {
                usage.count(Timestamp(i64::from(*time)), key(*port), source(*from), Place::Inside, false);
            }
            prop_assert!(usage.ports.len() <= MAX_PORTS);
            prop_assert!(usage.ports.values().all(|port| port.sources.len() <= MAX_SOURCES));
            let counted: u64 = usage.ports.values().map(|port| port.connections).sum();
            prop_assert_eq!(counted + usage.lost(), seen.len() as u64);
        }
    }
}
