//! What the addresses of one network try together.

use std::collections::BTreeSet;
use std::net::IpAddr;

use davy_model::{PortProbeKind, Prefix, ProbeKinds, Timestamp};

use super::track::{Contact, Verdict};
use super::weight::{self, LEAST, NEEDED};

/// Addresses that must take part, and ports that must have failed: one address alone has a test of its own.
pub(super) const LEAST_SOURCES: usize = 3;
const LEAST_PORTS: usize = 12;

/// Addresses and ports remembered of each. What comes beyond is counted with those that are known.
const MAX_SOURCES: usize = 64;
const MAX_PORTS: usize = 256;

/// The network that an address belongs to: /24, or /56 as customers are given.
pub(super) fn network_of(address: IpAddr) -> Prefix {
    Prefix::of(address, if address.is_ipv4() { 24 } else { 56 })
}

/// What one network tried.
#[derive(Clone, Debug)]
pub(super) struct NetworkTrack {
    pub(super) first: Timestamp,
    pub(super) last: Timestamp,
    pub(super) sources: BTreeSet<IpAddr>,
    failed: BTreeSet<(u8, u16, u8)>,
    pub(super) kinds: ProbeKinds,
    pub(super) verdict: Option<Verdict>,
    pub(super) told: Option<u64>,
    bits: f32,
}

impl NetworkTrack {
    pub(super) fn new(now: Timestamp) -> Self {
        Self {
            first: now,
            last: now,
            sources: BTreeSet::new(),
            failed: BTreeSet::new(),
            kinds: ProbeKinds::default(),
            verdict: None,
            told: None,
            bits: 0.0,
        }
    }

    pub(super) const fn bits(&self) -> f32 {
        self.bits
    }

    /// Ports that failed.
    pub(super) fn ports(&self) -> u32 {
        u32::try_from(self.failed.len()).unwrap_or(u32::MAX)
    }

    /// Takes in a visit of one of its addresses that is settled now.
    pub(super) fn visit(&mut self, source: IpAddr, contact: &Contact, now: Timestamp, rate: f64) {
        self.last = self.last.max(now);
        let failed = contact.outcome.failed();
        if failed {
            if self.sources.len() < MAX_SOURCES {
                self.sources.insert(source);
            }
            self.kinds.add(contact.kind);
            let port = (contact.local, contact.port, contact.protocol);
            if self.failed.len() >= MAX_PORTS || !self.failed.insert(port) {
                return;
            }
        } else if contact.kind != PortProbeKind::Syn {
            return;
        }
        let bits = weight::bits(contact.kind, contact.protocol, contact.outcome, rate);
        self.bits = (self.bits + bits).max(LEAST);
        if self.verdict.is_none()
            && self.bits >= NEEDED
            && self.sources.len() >= LEAST_SOURCES
            && self.failed.len() >= LEAST_PORTS
        {
            self.verdict = Some(Verdict { time: now, visits: self.ports() });
        }
    }

    /// Forgets what an address did that has a finding of its own.
    pub(super) fn leaves(&mut self, source: IpAddr) {
        self.sources.remove(&source);
    }
}
