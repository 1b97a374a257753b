//! Many sources, of which each tries so few ports that none stands out.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::IpAddr;

use davy_model::{PortProbeKind, ProbeKinds, Timestamp};

use super::shape::Look;
use super::track::Contact;

/// Failed visits kept. When full the oldest goes.
const MAX_VISITS: usize = 4096;

/// For how long they are kept, in seconds.
const HORIZON: f64 = 600.0;

/// Sources and ports that must be among them.
const LEAST_SOURCES: usize = 20;
const LEAST_PORTS: usize = 20;

/// Failed visits within the horizon that are too many on any host, and before it is known how many are usual here.
const LEAST: f64 = 100.0;
const LEAST_AT_FIRST: f64 = 300.0;

/// How many times the usual number is too many.
const TIMES: f64 = 4.0;

/// Seconds until the usual number is known, and how fast it follows by the minute; while too many come, hardly at all.
const LEARNING: f64 = 3600.0;
const FOLLOWS: f64 = 1.0 / 60.0;
const FOLLOWS_MANY: f64 = 1.0 / 1440.0;

#[derive(Clone, Copy, Debug)]
struct Visit {
    time: Timestamp,
    source: IpAddr,
    port: u16,
    kind: PortProbeKind,
    look: Look,
}

/// Failed visits of sources that are no scanners by themselves.
#[derive(Debug)]
pub(super) struct Crowd {
    visits: VecDeque<Visit>,
    since: Timestamp,
    minute: Timestamp,
    usual: f64,
    /// When it became too many.
    pub(super) since_when: Option<Timestamp>,
}

/// A crowd that is larger than usual.
#[derive(Clone, Debug)]
pub(super) struct Gathering {
    pub(super) began: Timestamp,
    pub(super) first: Timestamp,
    pub(super) last: Timestamp,
    pub(super) visits: usize,
    pub(super) usual: f64,
    pub(super) sources: usize,
    pub(super) ports: usize,
    pub(super) kinds: ProbeKinds,
    /// How many of all look like most of them, 0 to 1.
    pub(super) alike: f64,
    pub(super) some: Vec<IpAddr>,
}

impl Crowd {
    pub(super) fn new(now: Timestamp) -> Self {
        Self { visits: VecDeque::new(), since: now, minute: now, usual: 0.0, since_when: None }
    }

    /// Notes a visit that failed.
    pub(super) fn note(&mut self, time: Timestamp, source: IpAddr, contact: &Contact) {
        if self.visits.len() >= MAX_VISITS {
            self.visits.pop_front();
        }
        self.visits.push_back(Visit {
            time,
            source,
            port: contact.port,
            kind: contact.kind,
            look: contact.look,
        });
    }

    /// A source turned out to be a scanner by itself, so its visits are no crowd's.
    pub(super) fn leaves(&mut self, source: IpAddr) {
        self.visits.retain(|visit| visit.source != source);
    }

    /// The crowd, when it is larger than usual. To be asked about once a second.
    pub(super) fn look(&mut self, now: Timestamp) -> Option<Gathering> {
        while self.visits.front().is_some_and(|visit| now.secs_since(visit.time) > HORIZON) {
            self.visits.pop_front();
        }
        let visits = self.visits.len() as f64;
        if now.secs_since(self.minute) >= 60.0 {
            self.minute = now;
            let pace = if self.since_when.is_some() { FOLLOWS_MANY } else { FOLLOWS };
            self.usual += (visits - self.usual) * pace;
        }
        let known = now.secs_since(self.since) >= LEARNING;
        let bound = (self.usual * TIMES).max(if known { LEAST } else { LEAST_AT_FIRST });
        if visits < if self.since_when.is_some() { bound / 2.0 } else { bound } {
            self.since_when = None;
            return None;
        }
        let sources: HashSet<IpAddr> = self.visits.iter().map(|visit| visit.source).collect();
        let ports: HashSet<u16> = self.visits.iter().map(|visit| visit.port).collect();
        if sources.len() < LEAST_SOURCES || ports.len() < LEAST_PORTS {
            self.since_when = None;
            return None;
        }
        let began = *self.since_when.get_or_insert(now);
        let mut kinds = ProbeKinds::default();
        self.visits.iter().for_each(|visit| kinds.add(visit.kind));
        let mut looks: HashMap<Look, usize> = HashMap::new();
        for visit in &self.visits {
            *looks.entry(visit.look.without_distance()).or_default() += 1;
        }
        let most = looks.values().max().copied().unwrap_or(0);
        let mut some: Vec<IpAddr> = sources.iter().copied().collect();
        some.sort_unstable();
        some.truncate(8);
        Some(Gathering {
            began,
            first: self.visits.front().map_or(now, |visit| visit.time),
            last: self.visits.back().map_or(now, |visit| visit.time),
            visits: self.visits.len(),
            usual: self.usual,
            sources: sources.len(),
            ports: ports.len(),
            kinds,
            alike: most as f64 / visits,
            some,
        })
    }
}
