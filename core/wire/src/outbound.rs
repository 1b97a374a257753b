use std::net::IpAddr;

use davy_model::{Mode, Timestamp};
use serde::{Deserialize, Serialize};

/// Who may connect to what, in numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutboundSummary {
    /// What the policy wants done with a connection that no entry allows.
    pub mode: Mode,
    /// Entries of the policy.
    pub rules: u64,
    /// Name servers that everyone may ask, and whose answers are believed.
    pub resolvers: Vec<IpAddr>,
    /// What the names of entries lead to now.
    pub names: Vec<OutboundName>,
    /// Connections that were refused since the agent started.
    pub refused: u64,
    /// Connections that no entry allows and that were let go since then.
    pub would: u64,
    /// What is wrong, in words.
    pub faults: Vec<String>,
}

/// A name that an entry is about, and where it leads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutboundName {
    /// The name.
    pub name: String,
    /// One of its addresses.
    pub address: IpAddr,
    /// Until when it is remembered.
    pub until: Timestamp,
    /// Other names that lead to the same address: who may talk to one of them may talk to all.
    pub shared_with: Vec<String>,
}
