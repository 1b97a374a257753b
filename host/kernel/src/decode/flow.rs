use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use davy_model::{
    Capture, Captured, Direction, Event, EventKind, FlowAggregate, FlowChunk, FlowClose, FlowKey, FlowOpen,
    FlowVolume, ProcessKey, Timestamp, Transport,
};

use super::{Decoder, read};
use crate::abi::{self, kind};

impl Decoder {
    /// A flow's event, with the process that owns it: told by the record, or remembered from the flow's beginning, or
    /// the one that listens on the port it was accepted at.
    pub(super) fn flow(
        &mut self,
        of: u16,
        told: Option<ProcessKey>,
        bytes: &[u8],
        time: Timestamp,
    ) -> Option<Event> {
        let (owner, kind) = match of {
            kind::LISTEN => {
                let record: abi::Flow = read(bytes)?;
                self.remember_listener(&record, told);
                (told, EventKind::Listen(open(&record)))
            }
            kind::FLOW_OPEN => {
                let record: abi::Flow = read(bytes)?;
                let owner = told.or_else(|| {
                    self.owners.listeners.get((record.netns, record.udp != 0, record.local_port))
                });
                if let Some(owner) = owner {
                    self.owners.flows.insert(record.cookie, owner);
                }
                (owner, EventKind::FlowOpen(open(&record)))
            }
            kind::FLOW_CLOSE => {
                let record: abi::FlowClose = read(bytes)?;
                let known = self.owners.flows.remove(record.cookie);
                let close = close(&record);
                let owner = told.or(known);
                if close.volume.sent_bytes > 0 || close.volume.received_bytes > 0 {
                    let content = Captured::FlowEnd { flow: close.flow };
                    self.captures.push(Capture { time, process: owner, content });
                }
                (owner, EventKind::FlowClose(close))
            }
            _ => {
                let (chunk, payload) = chunk(bytes)?;
                let owner = told.or_else(|| self.owners.flows.get(chunk.flow.0));
                if !payload.is_empty() {
                    let (flow, direction, offset) = (chunk.flow, chunk.direction, chunk.offset);
                    let content = Captured::Flow { flow, direction, offset, bytes: payload.to_vec() };
                    self.captures.push(Capture { time, process: owner, content });
                }
                (owner, EventKind::FlowChunk(chunk))
            }
        };
        Some(Event { time, process: owner, kind })
    }

    /// Takes in a socket that was there before the sensors; tells nothing.
    pub(crate) fn adopt(&mut self, bytes: &[u8]) {
        let Some(record) = read::<abi::Flow>(bytes) else { return };
        let owner = self.key(record.head.pid, record.head.start);
        if record.head.kind == kind::LISTEN {
            self.remember_listener(&record, Some(owner));
        } else if self.owners.flows.get(record.cookie).is_none() {
            self.owners.flows.insert(record.cookie, owner);
        }
    }

    /// Flows that ended since `before` was read, with their process: the one that opened them, or the one that listens on
    /// the port they were accepted at.
    pub(crate) fn aggregate(
        &mut self,
        key: &abi::AggregateKey,
        before: &abi::Aggregate,
        now: &abi::Aggregate,
    ) -> Event {
        let unspecified = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        let end = SocketAddr::new(address(key.address), key.port);
        let (process, local, remote) = if key.accepted == 0 {
            (Some(self.key(key.owner, key.start)), SocketAddr::new(unspecified, 0), end)
        } else {
            let listener = self.owners.listeners.get((key.owner, key.udp != 0, key.port));
            (listener, SocketAddr::new(unspecified, key.port), SocketAddr::new(unspecified, 0))
        };
        let (before_volume, now_volume) = (&before.volume, &now.volume);
        let kind = EventKind::Flows(FlowAggregate {
            transport: transport(key.udp),
            local,
            remote,
            accepted: key.accepted != 0,
            flows: now.flows.saturating_sub(before.flows),
            volume: FlowVolume {
                sent_bytes: now_volume.sent_bytes.saturating_sub(before_volume.sent_bytes),
                received_bytes: now_volume.received_bytes.saturating_sub(before_volume.received_bytes),
                sent_packets: now_volume.sent_packets.saturating_sub(before_volume.sent_packets),
                received_packets: now_volume.received_packets.saturating_sub(before_volume.received_packets),
            },
        });
        Event { time: self.clock.at(now.touched), process, kind }
    }

    fn remember_listener(&mut self, record: &abi::Flow, owner: Option<ProcessKey>) {
        if let Some(owner) = owner {
            self.owners.listeners.insert((record.netns, record.udp != 0, record.local_port), owner);
        }
    }
}

pub(super) fn open(record: &abi::Flow) -> FlowOpen {
    FlowOpen {
        flow: FlowKey(record.cookie),
        transport: transport(record.udp),
        local: SocketAddr::new(address(record.local), record.local_port),
        remote: SocketAddr::new(address(record.remote), record.remote_port),
        accepted: record.accepted != 0,
    }
}

fn transport(udp: u8) -> Transport {
    if udp == 0 { Transport::Tcp } else { Transport::Udp }
}

pub(super) fn close(record: &abi::FlowClose) -> FlowClose {
    FlowClose { flow: FlowKey(record.cookie), volume: volume(&record.volume) }
}

fn volume(told: &abi::Volume) -> FlowVolume {
    FlowVolume {
        sent_bytes: told.sent_bytes,
        received_bytes: told.received_bytes,
        sent_packets: told.sent_packets,
        received_packets: told.received_packets,
    }
}

/// A message, and what was captured of it.
pub(super) fn chunk(bytes: &[u8]) -> Option<(FlowChunk, &[u8])> {
    let record: abi::FlowChunk = read(bytes)?;
    let captured = bytes.get(size_of::<abi::FlowChunk>()..)?.get(..usize::from(record.captured))?;
    let chunk = FlowChunk {
        flow: FlowKey(record.cookie),
        direction: if record.received == 0 { Direction::Sent } else { Direction::Received },
        size: record.size,
        offset: record.offset,
    };
    Some((chunk, captured))
}

/// An address as people write it: mapped ones as IPv4. The unspecified addresses of both families are kept apart.
fn address(octets: [u8; 16]) -> IpAddr {
    IpAddr::V6(Ipv6Addr::from(octets)).to_canonical()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mapped_addresses_are_ipv4() {
        let mut octets = [0; 16];
        octets[10..].copy_from_slice(&[0xff, 0xff, 192, 0, 2, 1]);
        assert_eq!(address(octets).to_string(), "192.0.2.1");
        assert_eq!(address([0; 16]).to_string(), "::");
        let mut loopback = [0; 16];
        loopback[15] = 1;
        assert_eq!(address(loopback).to_string(), "::1");
    }
}
