use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::Transport;

/// Somebody reached, or wanted to reach, a port that the policy does not open to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InboundRefusal {
    /// Over which protocol.
    pub transport: Transport,
    /// The port of this host.
    pub port: u16,
    /// Who. Over UDP, and of a first packet alone, a sender can write any address.
    pub from: IpAddr,
    /// Whether it was refused; else it would have been, and was let in.
    pub refused: bool,
}
