//! How strongly one visit speaks for or against a scan: sequential hypothesis testing (Jung, Paxson, Berger and Balakrishnan,
//! Fast Portscan Detection Using Sequential Hypothesis Testing, 2004), with likelihood ratios as bits.

use davy_model::{PortProbeKind, PortSight, Timestamp};

/// How often a scanner's visit succeeds: it does not know which ports are open.
const SCANNER_SUCCESS: f64 = 0.2;

/// The bits from which on it is a scan: a visitor is taken for a scanner once in a million.
pub(super) const NEEDED: f32 = 20.0;

/// What visits that succeed can add up to against a scan. More would let a visitor buy itself free before it scans.
const LEAST: f32 = -6.0;

/// Evidence weighs half after so long, in seconds: a week, because who tries a port in ten minutes needs days.
pub(super) const HALF_LIFE: f64 = 7.0 * 86_400.0;

/// How much evidence may grow old before it is made less, in seconds.
const FADES_EVERY: f64 = 3600.0;

/// Ports that must have failed by ordinary packets, whatever the bits say. Who knocks on three to five ports before ssh is let
/// in, or watches five of which all are down, is no scanner, nor is a mail program that finds out its settings: it tries seven.
pub(super) const LEAST_FAILED: u32 = 8;

/// Packets that no honest sender makes.
const FORBIDDEN: f32 = 10.0;

/// A protocol that hardly anybody uses.
const RARE_PROTOCOL: f32 = 5.0;

/// A port that the policy says nobody should touch.
pub(super) const DECOY: f32 = NEEDED;

/// IGMP, tunnels, IPsec, OSPF, PIM, VRRP, SCTP.
const USUAL_PROTOCOLS: [u8; 10] = [2, 4, 41, 47, 50, 51, 89, 103, 112, 132];

/// Where traceroute sends its datagrams, and how far the last of them still go when they arrive: it sends few hops ahead.
const TRACED_PORTS: std::ops::RangeInclusive<u16> = 33_434..=33_534;
const TRACED_TTL: u8 = 16;

/// What became of a visit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Outcome {
    /// Nothing yet.
    Pending,
    /// The port took it, and nothing more was heard.
    HalfOpen,
    /// A connection, or an answer over UDP.
    Success,
    /// This host said that nobody is there.
    Refused,
    /// This host said nothing.
    Silent,
    /// It said nothing to what belongs to a connection that is not known. Where nobody has that connection the port says so, so
    /// that it is most likely one from before the watch began, or one that the tables have no place for.
    Unclear,
}

impl Outcome {
    /// Whether it found nothing.
    pub(super) const fn failed(self) -> bool {
        matches!(self, Self::Refused | Self::Silent)
    }
}

/// Evidence that adds up, and fades.
#[derive(Clone, Copy, Debug)]
pub(super) struct Evidence {
    bits: f32,
    aged: Timestamp,
}

impl Evidence {
    /// None yet.
    pub(super) const fn new(now: Timestamp) -> Self {
        Self { bits: 0.0, aged: now }
    }

    /// What it adds up to.
    pub(super) const fn bits(self) -> f32 {
        self.bits
    }

    /// Adds some.
    pub(super) fn add(&mut self, now: Timestamp, bits: f32) {
        let age = now.secs_since(self.aged);
        if age > FADES_EVERY {
            self.bits *= (-age / HALF_LIFE).exp2() as f32;
            self.aged = now;
        }
        self.bits = (self.bits + bits).max(LEAST);
    }
}

/// Whether a packet of this kind is one that no honest sender makes.
pub(super) const fn is_forbidden(kind: PortProbeKind, protocol: u8) -> bool {
    use PortProbeKind::{Fin, Fragment, Null, Odd, Xmas};
    matches!(kind, Fin | Null | Xmas | Fragment) || (matches!(kind, Odd) && protocol == 6)
}

/// Whether it is what traceroute sends to find its way here.
pub(super) fn is_traceroute(sight: &PortSight, kind: PortProbeKind, ttl: u8) -> bool {
    kind == PortProbeKind::Udp && TRACED_PORTS.contains(&sight.port) && ttl <= TRACED_TTL
}

/// Bits for a scan that a visit weighs; negative ones speak against it. `rate` is how often visits to this host succeed.
pub(super) fn bits(kind: PortProbeKind, protocol: u8, outcome: Outcome, rate: f64) -> f32 {
    use PortProbeKind::{
        Ack, Echo, Fin, Fragment, Maimon, Mask, Null, Odd, Protocol, Syn, Timestamp, Udp, Xmas,
    };
    let failure = ((1.0 - SCANNER_SUCCESS) / (1.0 - rate)).log2() as f32;
    let success = (SCANNER_SUCCESS / rate).log2() as f32;
    match (kind, outcome) {
        (Fin | Null | Xmas | Fragment, _) => FORBIDDEN,
        (Odd, _) if protocol == 6 => FORBIDDEN,
        (Odd | Mask, _) => 2.0,
        (Timestamp, _) => 1.0,
        (Echo, _) => 0.0,
        (Protocol, Outcome::Refused) if USUAL_PROTOCOLS.contains(&protocol) => failure,
        (Protocol, _) if USUAL_PROTOCOLS.contains(&protocol) => 0.0,
        (Protocol, _) => RARE_PROTOCOL,
        (_, Outcome::Pending | Outcome::HalfOpen | Outcome::Unclear) => 0.0,
        (Syn | Udp, Outcome::Success) => success,
        (Ack | Maimon, Outcome::Success) => 0.0,
        // A service need not answer a datagram that it does not understand.
        (Udp, Outcome::Silent) => failure / 2.0,
        (Syn | Ack | Maimon | Udp, Outcome::Refused | Outcome::Silent) => failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_needed_follow_the_rate() {
        let needed = |rate| (NEEDED / bits(PortProbeKind::Syn, 6, Outcome::Refused, rate)).ceil();
        assert_eq!((needed(0.8), needed(0.9), needed(0.98)), (10.0, 7.0, 4.0));
    }

    #[test]
    fn two_forbidden_packets_or_one_on_a_decoy_are_enough() {
        for kind in [PortProbeKind::Fin, PortProbeKind::Null, PortProbeKind::Xmas, PortProbeKind::Fragment] {
            assert!(is_forbidden(kind, 6) && 2.0 * bits(kind, 6, Outcome::Silent, 0.8) >= NEEDED);
        }
        const { assert!(DECOY >= NEEDED) };
    }
}
