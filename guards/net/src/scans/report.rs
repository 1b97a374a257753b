//! A scan as it is told.

use std::net::IpAddr;

use davy_model::{Place, Prefix, ProbeKinds, Severity, Timestamp};

use super::shape::Tool;
use super::weight::NEEDED;

/// Ports from which on a scan is a search for anything that answers.
const MANY_PORTS: u32 = 20;

/// Of a thousand sources that are watched so closely one is a scanner: what the evidence must outweigh, in bits.
const PRIOR: f32 = -10.0;

/// Who scans.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scanner {
    /// One address.
    Address(IpAddr),
    /// One of these at most: their packets are the same and come at the same time (decoys).
    OneOf {
        /// All of them, in order; bounded.
        addresses: Vec<IpAddr>,
        /// The one that proved to be the sender's own.
        real: Option<IpAddr>,
    },
    /// Addresses of one network together.
    Network {
        /// Which.
        network: Prefix,
        /// How many addresses took part.
        sources: u32,
    },
    /// Many addresses, of which none stands out: a scan from many places, or one with forged addresses.
    Many {
        /// How many addresses took part.
        sources: u32,
        /// Some of them, in order.
        some: Vec<IpAddr>,
    },
}

/// A scan of this host.
#[derive(Clone, Debug, PartialEq)]
pub struct PortScan {
    /// Its number, counted from one; it stays the same as the scan grows.
    pub number: u64,
    /// Whether it was told before, and this renews it.
    pub renewed: bool,
    /// Whether it goes on.
    pub running: bool,
    /// Whether it went on when nobody watched any more; then it is not running either, as far as anybody knows.
    pub cut_short: bool,
    /// Who.
    pub scanner: Scanner,
    /// Where the scanner is.
    pub place: Place,
    /// Whether the address is known to be the sender's own. False does not mean that it is forged.
    pub proven: bool,
    /// The first probe.
    pub first: Timestamp,
    /// The last one.
    pub last: Timestamp,
    /// When it became known for a scan.
    pub detected: Timestamp,
    /// Visits to ports until then.
    pub visits_needed: u32,
    /// Probes that came, as far as they could be counted.
    pub probes: u32,
    /// Ports tried.
    pub ports: u32,
    /// Of those, how many refused or did not answer.
    pub failed: u32,
    /// Ports found open; bounded.
    pub open: Vec<u16>,
    /// Decoys that were touched; bounded.
    pub decoys: Vec<u16>,
    /// Packets that no honest sender makes.
    pub forbidden: u32,
    /// How it tries.
    pub kinds: ProbeKinds,
    /// The tool whose packets look like these.
    pub tool: Option<Tool>,
    /// What speaks for it, in bits.
    pub bits: f32,
    /// How often a visit to this host succeeds, as learned.
    pub base_rate: f64,
    /// How many of the packets look alike, 0 to 1; for many addresses.
    pub alike: Option<f64>,
}

impl PortScan {
    /// How bad it is. From the inside it is more than the noise of the internet: somebody got in there.
    #[must_use]
    pub fn severity(&self) -> Severity {
        let alone = matches!(self.scanner, Scanner::Address(_));
        let much = self.ports >= MANY_PORTS || !self.decoys.is_empty() || !alone;
        match (self.place, much) {
            (Place::Outside, false) => Severity::Low,
            (Place::Outside, true) | (Place::Inside | Place::Host, false) => Severity::Medium,
            (Place::Inside | Place::Host, true) => Severity::High,
        }
    }

    /// Probability that it is one.
    #[must_use]
    pub fn confidence(&self) -> f64 {
        let odds = f64::from(self.bits.max(NEEDED) + PRIOR).exp2();
        (odds / (1.0 + odds)).min(0.999)
    }

    /// The technique of ATT&CK: scanning from outside, or looking around from within.
    #[must_use]
    pub const fn technique(&self) -> &'static str {
        match self.place {
            Place::Outside => "T1595.001",
            Place::Inside | Place::Host => "T1046",
        }
    }
}
