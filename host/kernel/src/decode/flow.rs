use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use davy_model::{Direction, FlowChunk, FlowClose, FlowKey, FlowOpen, FlowVolume, Transport};

use super::read;
use crate::abi;

pub(super) fn open(record: &abi::Flow) -> FlowOpen {
    FlowOpen {
        flow: FlowKey(record.cookie),
        transport: if record.udp == 0 { Transport::Tcp } else { Transport::Udp },
        local: SocketAddr::new(address(record.local), record.local_port),
        remote: SocketAddr::new(address(record.remote), record.remote_port),
        accepted: record.accepted != 0,
    }
}

pub(super) fn close(record: &abi::FlowClose) -> FlowClose {
    FlowClose {
        flow: FlowKey(record.cookie),
        volume: FlowVolume {
            sent_bytes: record.sent_bytes,
            received_bytes: record.received_bytes,
            sent_packets: record.sent_packets,
            received_packets: record.received_packets,
        },
    }
}

pub(super) fn chunk(bytes: &[u8]) -> Option<FlowChunk> {
    let record: abi::FlowChunk = read(bytes)?;
    let captured = bytes.get(size_of::<abi::FlowChunk>()..)?.get(..usize::from(record.captured))?;
    Some(FlowChunk {
        flow: FlowKey(record.cookie),
        direction: if record.received == 0 { Direction::Sent } else { Direction::Received },
        size: record.size,
        offset: record.offset,
        bytes: captured.to_vec(),
    })
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
