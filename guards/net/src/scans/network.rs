//! What the addresses of one network try together.

use std::collections::BTreeMap;
use std::net::IpAddr;

use davy_model::{PortProbeKind, Prefix, ProbeKinds, Timestamp};

use super::track::{Contact, Verdict};
use super::weight::{self, Evidence, HALF_LIFE, NEEDED};

/// Addresses that must take part, and ports that must have failed: one address alone has a test of its own.
pub(super) const LEAST_SOURCES: usize = 3;
const LEAST_PORTS: usize = 12;

/// Addresses and ports remembered of each. What comes beyond is counted with those that are known.
pub(super) const MAX_SOURCES: usize = 64;
pub(super) const MAX_PORTS: usize = 256;

/// An address and a port are forgotten that failed last so long ago, in seconds; by then a quarter is left of what they weighed.
const FORGOTTEN: f64 = 2.0 * HALF_LIFE;

/// The network that an address belongs to: /24, or /56 as customers are given.
pub(super) fn network_of(address: IpAddr) -> Prefix {
    Prefix::of(address, if address.is_ipv4() { 24 } else { 56 })
}

/// What one network tried.
#[derive(Clone, Debug)]
pub(super) struct NetworkTrack {
    pub(super) first: Timestamp,
    pub(super) last: Timestamp,
    /// Addresses that failed, and ports (of which own address, by which protocol), each with when it did last.
    sources: BTreeMap<IpAddr, Timestamp>,
    failed: BTreeMap<(u8, u16, u8), Timestamp>,
    pub(super) kinds: ProbeKinds,
    pub(super) verdict: Option<Verdict>,
    pub(super) told: Option<u64>,
    evidence: Evidence,
    tidied: Timestamp,
}

impl NetworkTrack {
    pub(super) fn new(now: Timestamp) -> Self {
        Self {
            first: now,
            last: now,
            sources: BTreeMap::new(),
            failed: BTreeMap::new(),
            kinds: ProbeKinds::default(),
            verdict: None,
            told: None,
            evidence: Evidence::new(now),
            tidied: now,
        }
    }

    pub(super) const fn bits(&self) -> f32 {
        self.evidence.bits()
    }

    /// Addresses that failed.
    pub(super) fn sources(&self) -> usize {
        self.sources.len()
    }

    /// Ports that failed.
    pub(super) fn ports(&self) -> u32 {
        u32::try_from(self.failed.len()).unwrap_or(u32::MAX)
    }

    /// Takes in a visit of one of its addresses that is settled now.
    pub(super) fn visit(&mut self, source: IpAddr, contact: &Contact, now: Timestamp, rate: f64) {
        self.last = self.last.max(now);
        self.forget(now);
        if contact.outcome.failed() {
            if self.sources.len() < MAX_SOURCES || self.sources.contains_key(&source) {
                self.sources.insert(source, now);
            }
            self.kinds.add(contact.kind);
            let port = (contact.local, contact.port, contact.protocol);
            let full = self.failed.len() >= MAX_PORTS;
            if let Some(last) = self.failed.get_mut(&port) {
                *last = now;
                return;
            }
            if full {
                return;
            }
            self.failed.insert(port, now);
        } else if contact.kind != PortProbeKind::Syn {
            return;
        }
        self.evidence.add(now, weight::bits(contact.kind, contact.protocol, contact.outcome, rate));
        if self.verdict.is_none()
            && self.bits() >= NEEDED
            && self.sources.len() >= LEAST_SOURCES
            && self.failed.len() >= LEAST_PORTS
        {
            self.verdict = Some(Verdict { time: now, visits: self.ports() });
        }
    }

    /// Lets go of what is long ago; looks for it once in an hour.
    fn forget(&mut self, now: Timestamp) {
        if now.secs_since(self.tidied) >= 3600.0 {
            self.tidied = now;
            self.sources.retain(|_, last| now.secs_since(*last) < FORGOTTEN);
            self.failed.retain(|_, last| now.secs_since(*last) < FORGOTTEN);
        }
    }

    /// Forgets what an address did that has a finding of its own.
    pub(super) fn leaves(&mut self, source: IpAddr) {
        self.sources.remove(&source);
    }
}
