use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

/// The transport protocol of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Transport {
    /// TCP (RFC 9293).
    Tcp,
    /// UDP (RFC 768).
    Udp,
}

/// A flow's identity: the kernel's socket cookie, unique within one boot and network stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FlowKey(pub u64);

/// Which way bytes went, seen from this host's process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// From the process to its peer.
    Sent,
    /// From the peer to the process.
    Received,
}

/// A flow began. IPv4-mapped IPv6 addresses are given as IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowOpen {
    /// Which flow.
    pub flow: FlowKey,
    /// TCP or UDP.
    pub transport: Transport,
    /// This host's end; port zero where it is not yet bound.
    pub local: SocketAddr,
    /// The other end; unspecified for a listening socket.
    pub remote: SocketAddr,
    /// Whether the other end began it.
    pub accepted: bool,
}

/// A message on a flow. Its first bytes go a way of their own, as a [`crate::Capture`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowChunk {
    /// Which flow.
    pub flow: FlowKey,
    /// Which way.
    pub direction: Direction,
    /// Payload bytes of this packet (before segmentation offload is undone).
    pub size: u32,
    /// Offset of the message in its direction of the flow, where the sensor knows it.
    pub offset: u64,
}

/// Volume of a living or ended flow since its beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowVolume {
    /// Payload bytes sent.
    pub sent_bytes: u64,
    /// Payload bytes received.
    pub received_bytes: u64,
    /// Packets sent.
    pub sent_packets: u64,
    /// Packets received.
    pub received_packets: u64,
}

/// A flow ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowClose {
    /// Which flow.
    pub flow: FlowKey,
    /// What went over it.
    pub volume: FlowVolume,
}

/// Flows that ended without being told one by one: a process opened many to one destination, or many were accepted at
/// one port, and these carried nothing, or over UDP no more than a question and an answer. The event's time is when
/// the latest of them began; each event counts what ended since the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowAggregate {
    /// TCP or UDP.
    pub transport: Transport,
    /// For accepted flows the port they came to; else unspecified.
    pub local: SocketAddr,
    /// The destination; unspecified for accepted flows.
    pub remote: SocketAddr,
    /// Whether the other ends began them.
    pub accepted: bool,
    /// How many.
    pub flows: u64,
    /// What went over them together.
    pub volume: FlowVolume,
}

/// A name was resolved to an address by an answer this host received (RFC 1035).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameAnswer {
    /// The name that was asked for, lower case, without the last dot.
    pub name: String,
    /// One address it led to, through any CNAME records.
    pub address: IpAddr,
    /// Time to live in seconds.
    pub ttl_secs: u32,
}
