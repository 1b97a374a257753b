use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::{Prefix, Timestamp};

/// How somebody looks for what answers on this host, by what the packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PortProbeKind {
    /// A TCP SYN, as every connection begins with.
    Syn,
    /// A TCP FIN without a connection.
    Fin,
    /// A TCP segment without any flag.
    Null,
    /// FIN, PSH and URG together.
    Xmas,
    /// An acknowledgement of nothing.
    Ack,
    /// FIN and ACK without a connection.
    Maimon,
    /// Flags that no connection has together, or an echo request with a code.
    Odd,
    /// A TCP header cut into fragments.
    Fragment,
    /// A UDP datagram.
    Udp,
    /// An ICMP echo request.
    Echo,
    /// An ICMP timestamp request.
    Timestamp,
    /// An ICMP address mask request.
    Mask,
    /// A protocol of IP other than TCP, UDP and ICMP.
    Protocol,
}

impl PortProbeKind {
    /// All of them, in order.
    pub const ALL: [Self; 13] = [
        Self::Syn,
        Self::Fin,
        Self::Null,
        Self::Xmas,
        Self::Ack,
        Self::Maimon,
        Self::Odd,
        Self::Fragment,
        Self::Udp,
        Self::Echo,
        Self::Timestamp,
        Self::Mask,
        Self::Protocol,
    ];

    /// For people.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Syn => "SYN",
            Self::Fin => "FIN",
            Self::Null => "NULL",
            Self::Xmas => "XMAS",
            Self::Ack => "ACK",
            Self::Maimon => "FIN+ACK",
            Self::Odd => "odd flags",
            Self::Fragment => "fragments",
            Self::Udp => "UDP",
            Self::Echo => "ICMP echo",
            Self::Timestamp => "ICMP timestamp",
            Self::Mask => "ICMP mask",
            Self::Protocol => "IP protocols",
        }
    }

    const fn bit(self) -> u16 {
        1 << self as u16
    }
}

/// Several kinds of probes; in JSON a list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "Vec<PortProbeKind>", into = "Vec<PortProbeKind>")]
pub struct ProbeKinds(u16);

impl ProbeKinds {
    /// Adds one.
    pub fn add(&mut self, kind: PortProbeKind) {
        self.0 |= kind.bit();
    }

    /// Adds all of another set.
    pub fn join(&mut self, other: Self) {
        self.0 |= other.0;
    }

    /// Whether one is among them.
    #[must_use]
    pub const fn has(self, kind: PortProbeKind) -> bool {
        self.0 & kind.bit() != 0
    }

    /// Each of them, in order.
    pub fn iter(self) -> impl Iterator<Item = PortProbeKind> {
        PortProbeKind::ALL.into_iter().filter(move |kind| self.has(*kind))
    }

    /// For people: `SYN, UDP`.
    #[must_use]
    pub fn words(self) -> String {
        self.iter().map(PortProbeKind::words).collect::<Vec<_>>().join(", ")
    }
}

impl From<Vec<PortProbeKind>> for ProbeKinds {
    fn from(kinds: Vec<PortProbeKind>) -> Self {
        let mut all = Self::default();
        kinds.into_iter().for_each(|kind| all.add(kind));
        all
    }
}

impl From<ProbeKinds> for Vec<PortProbeKind> {
    fn from(kinds: ProbeKinds) -> Self {
        kinds.iter().collect()
    }
}

/// What a probe's headers are like. All of it is the sender's to choose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct PacketShape {
    /// TCP sequence number.
    pub sequence: u32,
    /// The sender's port.
    pub source_port: u16,
    /// TCP window.
    pub window: u16,
    /// IPv4 identification.
    pub ip_id: u16,
    /// Time to live, or hop limit, when it arrived.
    pub ttl: u8,
    /// Length of the TCP header in words of four bytes: five without options.
    pub header_words: u8,
    /// The number of the first TCP option, zero for none.
    pub first_option: u8,
    /// Whether IPv4 says not to fragment.
    pub dont_fragment: bool,
}

/// What was seen between an address and a port of this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortNews {
    /// The first probe of its kind.
    Probe {
        /// Which kind.
        kind: PortProbeKind,
        /// Its headers.
        shape: PacketShape,
        /// Whether the port took connections lately.
        open: bool,
    },
    /// The port took it.
    Open,
    /// The port refused it.
    Refused,
    /// The other end completed a TCP handshake, which it could not without having received what this host sent it.
    Handshake {
        /// Time to live when it arrived.
        ttl: u8,
    },
}

/// The first time that something was seen between an address and a port of this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortSight {
    /// When.
    pub time: Timestamp,
    /// The other end; IPv4-mapped addresses are given as IPv4. Anybody can write any address there.
    pub source: IpAddr,
    /// This host's address.
    pub local: IpAddr,
    /// The port; the number of the protocol for [`PortProbeKind::Protocol`]; zero for ICMP.
    pub port: u16,
    /// The protocol's number (6 TCP, 17 UDP).
    pub protocol: u8,
    /// What.
    pub news: PortNews,
    /// Probes of this source so far, those that were not told included.
    pub seen: u32,
}

/// Who looks for what answers on this host, or may: one line of `davy scans`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScanSource {
    /// One address, or a network whose addresses together look for ports.
    pub source: Prefix,
    /// How strongly it speaks for a scan, in bits.
    pub bits: f32,
    /// The bits from which on it is told.
    pub needed: f32,
    /// Whether it was told as a finding.
    pub told: bool,
    /// Whether the address is known to be the sender's own: it completed handshakes in the same way as it probes.
    pub proven: bool,
    /// Ports tried.
    pub ports: u32,
    /// Of those, how many refused or did not answer.
    pub failed: u32,
    /// How it tries.
    pub kinds: ProbeKinds,
    /// The tool whose packets look like these.
    pub tool: Option<String>,
    /// The first probe kept.
    pub first: Timestamp,
    /// The last probe.
    pub last: Timestamp,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn kinds_are_a_list_in_json_and_in_words() {
        let kinds = ProbeKinds::from(vec![PortProbeKind::Udp, PortProbeKind::Syn, PortProbeKind::Udp]);
        assert_eq!(kinds.words(), "SYN, UDP");
        let json = serde_json::to_string(&kinds).unwrap();
        assert_eq!(json, r#"["syn","udp"]"#);
        assert_eq!(serde_json::from_str::<ProbeKinds>(&json).unwrap(), kinds);
        assert_eq!(PortProbeKind::ALL.iter().map(|kind| kind.bit()).fold(0, |all, bit| all | bit), 0x1fff);
    }
}
