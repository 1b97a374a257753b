//! Lateral movement: who on this host reaches inside addresses that it never spoke to, by services that lead from host to host.
//!
//! For each [`Mover`] (a service, a container, a user outside of both) it is remembered to which inside addresses it spoke at which
//! of those services' ports. A first connection is news once, and never again. What a few first connections within
//! [`WINDOW_SECS`] come to is summed up in bits: the service's own weight, [`FURTHER`] for every further address at it, and
//! [`FROM_WEB`] when the process came from a service that strangers talk to. [`TOLD`] bits are told; while a mover's usual peers
//! are still being learned it takes [`TOLD_LEARNING`].
//!
//! What was learned is what the map of connections keeps over restarts ([`Lateral::restore`]).

mod services;
#[cfg(test)]
mod tests;
mod would;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::IpAddr;

use davy_model::{
    Connection, FlowOpen, Heading, LateralMove, LateralReach, Mover, Peer, Place, Talker, Technique,
    Timestamp, Transport,
};

use crate::place_of;
pub use services::{Service, Services};
pub use would::{Called, Caller, stopped_by};

/// First connections so close to each other are one move, in seconds.
pub const WINDOW_SECS: f64 = 600.0;
/// What every further address at a service adds, in bits.
pub const FURTHER: f32 = 1.5;
/// What it adds that the process came from a service that strangers talk to, in bits.
pub const FROM_WEB: f32 = 4.0;
/// From how many bits on it is told.
pub const TOLD: f32 = 6.0;
/// The same while the mover's usual peers are still being learned.
pub const TOLD_LEARNING: f32 = 12.0;

/// What services that applications use may add while a mover's usual peers are still being learned, in bits: who sets up an
/// application connects it to a cluster of each.
pub const APPLICATIONS_LEARNING: f32 = 6.0;
/// From which weight on a service is one by which one logs in or commands, in bits; applications use the others.
const LOGS_IN: f32 = 3.0;

/// Movers remembered. When full, the one that was silent for the longest is forgotten, and is learned anew when it comes back.
pub const MAX_MOVERS: usize = 1_024;
/// Addresses remembered of one mover, all ports together. Who has more speaks to so many that one more is no news.
pub const MAX_PEERS: usize = 2_048;
/// First connections that are summed up; further ones within the window add nothing.
const MAX_FRESH: usize = 256;
/// Addresses that are told of each service.
const MAX_SHOWN: usize = 8;

/// A first connection.
#[derive(Clone, Copy, Debug)]
struct Fresh {
    time: Timestamp,
    service: usize,
    address: IpAddr,
}

/// What is known of one mover.
#[derive(Debug)]
struct Known {
    since: Timestamp,
    last: Timestamp,
    peers: BTreeSet<(u16, IpAddr)>,
    fresh: VecDeque<Fresh>,
    from: Option<String>,
    /// What its move was told as last.
    told: Option<Told>,
}

/// What was told of a move.
#[derive(Clone, Copy, Debug)]
struct Told {
    /// When the move began.
    began: Timestamp,
    time: Timestamp,
    bits: f32,
}

impl Known {
    fn new(since: Timestamp) -> Self {
        Self { since, last: since, peers: BTreeSet::new(), fresh: VecDeque::new(), from: None, told: None }
    }
}

/// The engine.
#[derive(Debug)]
pub struct Lateral {
    services: Services,
    movers: HashMap<Mover, Known>,
    learn_secs: f64,
}

impl Lateral {
    /// Nobody is known yet. A mover's peers are learned for so many seconds from when it was first seen.
    #[must_use]
    pub fn new(services: Services, learn_secs: f64) -> Self {
        Self { services, movers: HashMap::new(), learn_secs }
    }

    /// Learns for so long from now on.
    pub fn set_learning(&mut self, learn_secs: f64) {
        self.learn_secs = learn_secs;
    }

    /// Takes over who talked to whom before `now`. Of whoever has peers that are no longer told apart, the usual ones are not
    /// known, so they are learned anew.
    pub fn restore(&mut self, kept: &[Connection], now: Timestamp) {
        let mut blurred = BTreeSet::new();
        for row in kept {
            let Some(mover) = Mover::of(&row.talker) else { continue };
            let known = self.known(mover.clone(), row.first);
            known.since = known.since.min(row.first);
            known.last = known.last.max(row.last);
            if row.direction != Heading::Outbound || row.transport != Transport::Tcp {
                continue;
            }
            if row.peer == Peer::Others || row.more_addresses {
                blurred.insert(mover.clone());
            }
            let addresses = row.addresses.iter().map(IpAddr::to_canonical);
            let peers: Vec<(u16, IpAddr)> = addresses.map(|address| (row.port, address)).collect();
            if self.services.at(row.port).is_some()
                && let Some(known) = self.movers.get_mut(&mover)
            {
                known.peers.extend(peers.into_iter().take(MAX_PEERS.saturating_sub(known.peers.len())));
            }
        }
        for mover in blurred {
            if let Some(known) = self.movers.get_mut(&mover) {
                known.since = now;
            }
        }
    }

    /// Whether a flow is one that is looked at: a TCP connection to an inside address at a port of the table.
    #[must_use]
    pub fn concerns(&self, open: &FlowOpen) -> bool {
        open.transport == Transport::Tcp
            && !open.accepted
            && self.services.at(open.remote.port()).is_some()
            && place_of(open.remote.ip(), Some(open.local.ip())) == Place::Inside
    }

    /// A flow began, or was found. `from` is the service that strangers talk to, where the process came from one. Gives what is to
    /// be told, with an empty [`LateralMove::stopped_by`]. What was `found` when the agent began is learned and not judged.
    pub fn opened(
        &mut self,
        time: Timestamp,
        open: &FlowOpen,
        talker: &Talker,
        from: Option<&str>,
        found: bool,
    ) -> Option<LateralMove> {
        if !self.concerns(open) {
            return None;
        }
        let mover = Mover::of(talker)?;
        let (service, _) = self.services.at(open.remote.port())?;
        let (address, learn_secs) = (open.remote.ip().to_canonical(), self.learn_secs);
        let known = self.known(mover.clone(), time);
        known.last = known.last.max(time);
        let peer = (open.remote.port(), address);
        if known.peers.contains(&peer) || known.peers.len() >= MAX_PEERS {
            return None;
        }
        known.peers.insert(peer);
        if found {
            return None;
        }
        known.fresh.retain(|fresh| time.secs_since(fresh.time) <= WINDOW_SECS);
        if known.fresh.is_empty() {
            known.from = None;
        }
        // Who goes on and on makes one move after the other: everything that is fresh came after what was told.
        known.told = known.told.filter(|told| time.secs_since(told.time) <= WINDOW_SECS);
        if known.fresh.len() < MAX_FRESH {
            known.fresh.push_back(Fresh { time, service, address });
        }
        if known.from.is_none() {
            known.from = from.map(str::to_owned);
        }
        let learning = time.secs_since(known.since) < learn_secs;
        self.weigh(&mover, time, learning)
    }

    /// Sums up what is fresh of a mover; gives it when that is enough, and more than was told.
    fn weigh(&mut self, mover: &Mover, time: Timestamp, learning: bool) -> Option<LateralMove> {
        let known = self.movers.get_mut(mover)?;
        let mut by_service: BTreeMap<usize, Vec<IpAddr>> = BTreeMap::new();
        for fresh in &known.fresh {
            let addresses = by_service.entry(fresh.service).or_default();
            if !addresses.contains(&fresh.address) {
                addresses.push(fresh.address);
            }
        }
        let user = matches!(mover, Mover::User(_));
        let (mut logins, mut applications) = (0.0, 0.0);
        let mut reached = Vec::new();
        for (index, addresses) in &by_service {
            let Some(service) = self.services.get(*index) else { continue };
            // People log in elsewhere all day; that they go from host to host says something.
            let first = if user { 0.0 } else { service.weight };
            let sum = if service.weight >= LOGS_IN { &mut logins } else { &mut applications };
            *sum += first + FURTHER * (addresses.len() as f32 - 1.0);
            reached.push(LateralReach {
                service: service.name.clone(),
                technique: Technique::new(&service.technique),
                addresses: addresses[addresses.len().saturating_sub(MAX_SHOWN)..].to_vec(),
                count: u32::try_from(addresses.len()).unwrap_or(u32::MAX),
            });
        }
        if learning {
            applications = applications.min(APPLICATIONS_LEARNING);
        }
        let bits = if known.from.is_some() { FROM_WEB } else { 0.0 } + logins + applications;
        let enough = if learning { TOLD_LEARNING } else { TOLD };
        let grown = known.told.is_none_or(|told| bits >= told.bits + 1.0);
        if bits < enough || !grown {
            return None;
        }
        let first = known.fresh.front().map_or(time, |fresh| fresh.time);
        let began = known.told.map_or(first, |told| told.began);
        known.told = Some(Told { began, time, bits });
        Some(LateralMove {
            mover: mover.clone(),
            from: known.from.clone(),
            reached,
            began,
            secs: time.secs_since(first).ceil() as u32,
            millibits: (bits * 1000.0) as u32,
            learning,
            stopped_by: String::new(),
        })
    }

    fn known(&mut self, mover: Mover, time: Timestamp) -> &mut Known {
        if !self.movers.contains_key(&mover) && self.movers.len() >= MAX_MOVERS {
            let silent =
                self.movers.iter().min_by_key(|(_, known)| known.last).map(|(mover, _)| mover.clone());
            silent.map(|mover| self.movers.remove(&mover));
        }
        self.movers.entry(mover).or_insert_with(|| Known::new(time))
    }
}
