//! The engine on made-up traffic, with a clock that is passed in.
#![allow(clippy::unwrap_used)]

mod bounds;
mod everyday;
mod scanners;

use std::net::{IpAddr, Ipv4Addr};

use davy_model::{PacketShape, PortNews, PortProbeKind, PortSight, Timestamp};

use super::{PortScan, Scans, Settings};

pub(super) const START: Timestamp = Timestamp::from_secs(1_800_000_000);
pub(super) const HOST: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 5));

/// How this host answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// It takes the connection, and the visitor completes it.
    Takes,
    /// It would take the connection, but the visitor leaves it half open.
    HalfOpen,
    Refuses,
    Silent,
}

/// An engine and a clock.
pub(super) struct Scene {
    pub(super) scans: Scans,
    pub(super) now: Timestamp,
    pub(super) told: Vec<PortScan>,
}

/// The SYN of a Linux client.
pub(super) const CLIENT: PacketShape = PacketShape {
    sequence: 1,
    source_port: 40_000,
    window: 64_240,
    ip_id: 7,
    ttl: 57,
    header_words: 10,
    first_option: 2,
    dont_fragment: true,
};

/// The SYN of nmap -sS.
pub(super) const NMAP: PacketShape = PacketShape {
    sequence: 99,
    source_port: 51_234,
    window: 1024,
    ip_id: 7,
    ttl: 44,
    header_words: 6,
    first_option: 2,
    dont_fragment: false,
};

impl Scene {
    pub(super) fn new() -> Self {
        Self::with(Settings::default())
    }

    pub(super) fn with(settings: Settings) -> Self {
        Self { scans: Scans::new(settings, 1, START), now: START, told: Vec::new() }
    }

    /// Time goes by, and the engine concludes every half second of it, but at most a thousand times.
    pub(super) fn pass(&mut self, seconds: f64) {
        let end = self.now.plus_secs(seconds);
        let step = (seconds / 1000.0).max(0.5);
        while self.now < end {
            self.now = self.now.plus_secs(step.min(end.secs_since(self.now)));
            self.told.extend(self.scans.conclude(self.now));
        }
    }

    pub(super) fn see(&mut self, source: IpAddr, port: u16, protocol: u8, news: PortNews) {
        self.scans.observe(&PortSight { time: self.now, source, local: HOST, port, protocol, news, seen: 1 });
    }

    pub(super) fn probe(&mut self, source: IpAddr, port: u16, kind: PortProbeKind, shape: PacketShape) {
        let protocol = match kind {
            PortProbeKind::Udp => 17,
            PortProbeKind::Echo | PortProbeKind::Timestamp | PortProbeKind::Mask => 1,
            PortProbeKind::Protocol => u8::try_from(port).unwrap(),
            _ => 6,
        };
        self.see(source, port, protocol, PortNews::Probe { kind, shape, open: false });
    }

    /// One visit over TCP with this shape.
    pub(super) fn visit(&mut self, source: IpAddr, port: u16, answer: Answer, shape: PacketShape) {
        self.probe(source, port, PortProbeKind::Syn, shape);
        match answer {
            Answer::Takes => {
                self.see(source, port, 6, PortNews::Open);
                self.see(source, port, 6, PortNews::Handshake { ttl: shape.ttl });
            }
            Answer::HalfOpen => self.see(source, port, 6, PortNews::Open),
            Answer::Refuses => self.see(source, port, 6, PortNews::Refused),
            Answer::Silent => {}
        }
    }

    /// The scans that were told, each once.
    pub(super) fn new_scans(&self) -> Vec<&PortScan> {
        self.told.iter().filter(|scan| !scan.renewed).collect()
    }
}

pub(super) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}
