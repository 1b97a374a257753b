//! Lateral movement: who on this host reaches inside addresses that it never spoke to, by services that lead from host to host.
//!
//! For each [`Mover`] (a service, a container, a user outside of both) it is remembered to which inside addresses it spoke at which
//! of those services' ports. A first connection is news once, and never again; a new address of a known name is none. What a few
//! first connections within [`WINDOW_SECS`] come to is summed up in bits: the service's own weight, [`FURTHER`] for every further
//! address of one by which one logs in, [`FURTHER_OF_MANY`] of the others, and [`FROM_WEB`] when something is logged in to, or
//! commanded, by a process that came from a service that strangers talk to. [`TOLD`] bits are told; while a mover's usual peers are
//! still being learned it takes [`TOLD_LEARNING`].
//!
//! Whoever is new does its usual work for the first time. In the first [`FIRST_SECS`] of a service or a container, and while the
//! whole host is new, only logins from services that strangers talk to are told; the rest is learned.
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
pub use services::{Service, Services, Use};
pub use would::{Called, Caller, stopped_by};

/// First connections so close to each other are one move, in seconds.
pub const WINDOW_SECS: f64 = 600.0;
/// What every further address adds of a service by which one logs in, in bits.
pub const FURTHER: f32 = 1.5;
/// The same of other services, and of those by which the mover speaks to many as its work: monitoring, backups, clusters that grow.
pub const FURTHER_OF_MANY: f32 = 0.125;
/// How many peers a mover has by a service as its work.
pub const MANY: usize = 8;
/// What it adds that the process came from a service that strangers talk to, in bits.
pub const FROM_WEB: f32 = 4.0;
/// From how many bits on it is told.
pub const TOLD: f32 = 6.0;
/// The same while the mover's usual peers are still being learned.
pub const TOLD_LEARNING: f32 = 12.0;
/// For so long a service or a container is learned by what it does, whatever it looks like, in seconds.
pub const FIRST_SECS: f64 = 3600.0;

/// Movers remembered. When full, the one that was silent for the longest is forgotten, and is learned anew when it comes back.
pub const MAX_MOVERS: usize = 1_024;
/// Addresses remembered of one mover, all ports together. Who has more speaks to so many that one more is no news.
pub const MAX_PEERS: usize = 2_048;
/// Names remembered of one mover, all ports together. Addresses of further names are news each.
pub const MAX_NAMES: usize = 256;
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
    /// Whether it was learned as usual.
    learned: bool,
}

/// What is known of one mover.
#[derive(Debug)]
struct Known {
    since: Timestamp,
    last: Timestamp,
    peers: BTreeSet<(u16, IpAddr)>,
    names: BTreeSet<(u16, String)>,
    /// How many peers were learned of each service.
    usual: BTreeMap<usize, u32>,
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
    /// How many services it had.
    services: usize,
}

impl Known {
    fn new(since: Timestamp) -> Self {
        Self {
            since,
            last: since,
            peers: BTreeSet::new(),
            names: BTreeSet::new(),
            usual: BTreeMap::new(),
            fresh: VecDeque::new(),
            from: None,
            told: None,
        }
    }

    fn learn(&mut self, service: usize, port: u16, address: IpAddr) {
        if self.peers.len() < MAX_PEERS && self.peers.insert((port, address)) {
            *self.usual.entry(service).or_default() += 1;
        }
    }

    /// Says whether there was room for it.
    fn learn_name(&mut self, port: u16, name: &str) -> bool {
        let named = (port, name.to_owned());
        if self.names.len() < MAX_NAMES {
            self.names.insert(named);
            return true;
        }
        self.names.contains(&named)
    }
}

/// The beginning of a flow, and what became known of it since.
#[derive(Clone, Copy, Debug)]
pub struct Beginning<'a> {
    /// When.
    pub time: Timestamp,
    /// The flow.
    pub open: &'a FlowOpen,
    /// Who began it.
    pub talker: &'a Talker,
    /// The service that strangers talk to, where the process came from one.
    pub from: Option<&'a str>,
    /// The name that led there, where it is known.
    pub name: Option<&'a str>,
    /// Whether it was there when the agent began: then it is learned and not judged.
    pub found: bool,
}

/// The engine.
#[derive(Debug)]
pub struct Lateral {
    services: Services,
    movers: HashMap<Mover, Known>,
    /// Since when this host is known.
    since: Timestamp,
    learn_secs: f64,
}

impl Lateral {
    /// Nobody is known yet. A mover's peers are learned for so many seconds from when it was first seen, the host for so many
    /// from `now`.
    #[must_use]
    pub fn new(services: Services, learn_secs: f64, now: Timestamp) -> Self {
        Self { services, movers: HashMap::new(), since: now, learn_secs }
    }

    /// Learns for so long from now on.
    pub fn set_learning(&mut self, learn_secs: f64) {
        self.learn_secs = learn_secs;
    }

    /// Takes over who talked to whom before `now`. Of whoever may have spoken to inside addresses that are no longer told apart, the
    /// usual ones are not known, so they are learned anew.
    pub fn restore(&mut self, kept: &[Connection], now: Timestamp) {
        let mut blurred = BTreeSet::new();
        for row in kept {
            self.since = self.since.min(row.first);
            let Some(mover) = Mover::of(&row.talker) else { continue };
            let service = self.services.at(row.port).map(|(index, _)| index);
            let known = self.known(mover.clone(), row.first);
            known.since = known.since.min(row.first);
            known.last = known.last.max(row.last);
            if row.direction != Heading::Outbound || row.transport != Transport::Tcp {
                continue;
            }
            // Rows of others have no port.
            let concerns = service.is_some() || row.port == 0;
            let mut told_apart = row.peer != Peer::Others && !row.more_addresses;
            if let Some(service) = service {
                row.addresses.iter().for_each(|a| known.learn(service, row.port, a.to_canonical()));
                if let Peer::Name(name) = &row.peer {
                    // Further addresses of a name are no news.
                    told_apart |= known.learn_name(row.port, name);
                }
            }
            if concerns && !told_apart && row.place != Some(Place::Host) {
                blurred.insert(mover);
            }
        }
        for mover in blurred {
            if let Some(known) = self.movers.get_mut(&mover) {
                known.since = now;
            }
        }
    }

    /// A flow began, whoever began it and whatever it is: who does anything is known from then on. Says whether it is one to be
    /// judged by [`Lateral::opened`]: a TCP connection to an inside address at a port of the table, where the mover never was.
    pub fn seen(&mut self, time: Timestamp, open: &FlowOpen, talker: &Talker) -> bool {
        let Some(mover) = Mover::of(talker) else { return false };
        let concerns = self.concerns(open);
        let known = self.known(mover, time);
        known.last = known.last.max(time);
        concerns && !known.peers.contains(&(open.remote.port(), open.remote.ip().to_canonical()))
    }

    fn concerns(&self, open: &FlowOpen) -> bool {
        open.transport == Transport::Tcp
            && !open.accepted
            && self.services.at(open.remote.port()).is_some()
            && place_of(open.remote.ip(), Some(open.local.ip())) == Place::Inside
    }

    /// Judges a flow. Gives what is to be told, with an empty [`LateralMove::stopped_by`].
    pub fn opened(&mut self, begun: &Beginning<'_>) -> Option<LateralMove> {
        if !self.seen(begun.time, begun.open, begun.talker) {
            return None;
        }
        let (time, port) = (begun.time, begun.open.remote.port());
        let address = begun.open.remote.ip().to_canonical();
        let mover = Mover::of(begun.talker)?;
        let (service, _) = self.services.at(port)?;
        let (host_since, learn_secs) = (self.since, self.learn_secs);
        let known = self.movers.get_mut(&mover)?;
        let learning = time.secs_since(known.since.max(host_since)) < learn_secs;
        let full = known.peers.len() >= MAX_PEERS;
        let named = begun.name.is_some_and(|name| known.names.contains(&(port, name.to_owned())));
        if let Some(name) = begun.name {
            known.learn_name(port, name);
        }
        if learning || begun.found || named {
            known.learn(service, port, address);
        } else if !full {
            known.peers.insert((port, address));
        }
        if begun.found || named || full {
            return None;
        }
        // What was done while it was new does not come back when it no longer is.
        let settled = known.since.plus_secs(learn_secs.min(FIRST_SECS));
        known.fresh.retain(|fresh| {
            time.secs_since(fresh.time) <= WINDOW_SECS && (time < settled || fresh.time >= settled)
        });
        if known.fresh.is_empty() {
            known.from = None;
        }
        // Who goes on and on makes one move after the other: everything that is fresh came after what was told.
        known.told = known.told.filter(|told| time.secs_since(told.time) <= WINDOW_SECS);
        if known.fresh.len() < MAX_FRESH {
            known.fresh.push_back(Fresh { time, service, address, learned: learning });
        }
        if known.from.is_none() {
            known.from = begun.from.map(str::to_owned);
        }
        let new = time < settled && !matches!(mover, Mover::User(_));
        let phase = if new || time.secs_since(host_since) < learn_secs {
            Phase::New
        } else if learning {
            Phase::Learning
        } else {
            Phase::Known
        };
        self.weigh(&mover, time, phase)
    }

    /// Sums up what is fresh of a mover; gives it when that is enough, and more than was told.
    fn weigh(&mut self, mover: &Mover, time: Timestamp, phase: Phase) -> Option<LateralMove> {
        let known = self.movers.get_mut(mover)?;
        let mut by_service: BTreeMap<usize, Vec<IpAddr>> = BTreeMap::new();
        for fresh in &known.fresh {
            let addresses = by_service.entry(fresh.service).or_default();
            if !addresses.contains(&fresh.address) {
                addresses.push(fresh.address);
            }
        }
        let mut sums = Sums::default();
        let mut reached = Vec::new();
        for (index, addresses) in &by_service {
            let Some(service) = self.services.get(*index) else { continue };
            // What is learned of this very move does not speak for it.
            let learned = known.fresh.iter().filter(|fresh| fresh.learned && fresh.service == *index).count();
            let usual = known.usual.get(index).copied().unwrap_or_default() as usize;
            let work = usual.saturating_sub(learned) >= MANY;
            // People log in elsewhere all day; that they go from host to host says something.
            let first = if work || matches!(mover, Mover::User(_)) { 0.0 } else { service.weight };
            sums.add(service.used_for, first, addresses.len(), work);
            reached.push(LateralReach {
                service: service.name.clone(),
                technique: Technique::new(&service.technique),
                addresses: addresses[addresses.len().saturating_sub(MAX_SHOWN)..].to_vec(),
                count: u32::try_from(addresses.len()).unwrap_or(u32::MAX),
            });
        }
        let from_web = known.from.is_some() && sums.commands;
        let web = if from_web { FROM_WEB } else { 0.0 };
        let bits = match phase {
            Phase::New if !from_web => return None,
            Phase::New => web + sums.logins,
            _ => web + sums.logins + sums.others(),
        };
        let learning = phase != Phase::Known;
        let enough = if learning { TOLD_LEARNING } else { TOLD };
        let grown = known.told.is_none_or(|told| bits >= told.bits + 1.0 || reached.len() > told.services);
        if bits < enough || !grown {
            return None;
        }
        let first = known.fresh.front().map_or(time, |fresh| fresh.time);
        let began = known.told.map_or(first, |told| told.began);
        known.told = Some(Told { began, time, bits, services: reached.len() });
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

/// How well a mover is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nobody on this host is, or it is a service or a container that was first seen a moment ago.
    New,
    /// Its usual peers are still being learned.
    Learning,
    /// It is known.
    Known,
}

/// What first connections come to, in bits.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    /// By services by which one logs in.
    logins: f32,
    /// By the others: the strongest of them, and how many addresses each had.
    strongest: f32,
    addresses: usize,
    /// Whether anything was logged in to, or commanded.
    commands: bool,
}

impl Sums {
    fn add(&mut self, used_for: Use, first: f32, addresses: usize, work: bool) {
        self.commands |= used_for != Use::Application;
        match used_for {
            Use::Login if !work => self.logins += first + FURTHER * (addresses as f32 - 1.0),
            Use::Login => self.logins += FURTHER_OF_MANY * addresses as f32,
            Use::Control | Use::Application => {
                self.strongest = self.strongest.max(first);
                self.addresses += addresses;
            }
        }
    }

    fn others(&self) -> f32 {
        self.strongest + FURTHER_OF_MANY * (self.addresses as f32 - 1.0).max(0.0)
    }
}
