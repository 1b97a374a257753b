use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::{PortRange, Prefix, Transport};

/// Addresses from the first to the last, both of the same family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AddressRange {
    /// The lowest.
    pub first: IpAddr,
    /// The highest.
    pub last: IpAddr,
}

impl From<Prefix> for AddressRange {
    fn from(prefix: Prefix) -> Self {
        Self { first: prefix.address(), last: prefix.last() }
    }
}

/// Ports of this host that are open to some addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Door {
    /// Over which protocol.
    pub transport: Transport,
    /// Which ports.
    pub ports: PortRange,
    /// For whom; `None` for everybody.
    pub from: Option<Vec<AddressRange>>,
}
