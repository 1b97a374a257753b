use serde::{Deserialize, Serialize};

use crate::{Dialogue, Direction, FlowKey, NameAnswer, ProcessKey, Timestamp};

/// Bytes that strangers wrote, as a sensor took them off the wire. They are read in an unprivileged worker only; what
/// it makes of them comes back as [`Said`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capture {
    /// When.
    pub time: Timestamp,
    /// Whose flow it is, where that is known.
    pub process: Option<ProcessKey>,
    /// What was captured.
    pub content: Captured,
}

/// What was captured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Captured {
    /// Some of the first bytes of a flow.
    Flow {
        /// Which flow.
        flow: FlowKey,
        /// Which way they went.
        direction: Direction,
        /// Where they stand in their direction of the flow.
        offset: u64,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// A flow ended of which bytes were captured: nothing more of it comes.
    FlowEnd {
        /// Which flow.
        flow: FlowKey,
    },
    /// An answer of a name server (RFC 1035).
    NameAnswer {
        /// The message.
        bytes: Vec<u8>,
    },
}

/// What captured bytes say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Said {
    /// Something new of a flow.
    Flow(FlowReading),
    /// A name has an address.
    Name(NameAnswer),
}

/// All that the first bytes of a flow have said so far; a later reading of the same flow replaces an earlier one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowReading {
    /// Which flow.
    pub flow: FlowKey,
    /// Whether it is encrypted by TLS.
    pub tls: bool,
    /// The name of the other end: from TLS (RFC 6066), HTTP, or a proxy's greeting (RFC 1928).
    pub name: Option<String>,
    /// The first words of its first HTTP request, without the query.
    pub request: Option<String>,
    /// Whether the first 64 bytes sent look random, as a key does.
    pub random_start: bool,
    /// What it says of mining.
    pub dialogue: Dialogue,
}
