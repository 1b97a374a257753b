use std::net::IpAddr;

use davy_model::{Mode, Place, Timestamp, Transport};
use serde::{Deserialize, Serialize};

/// Who may reach which port, and who did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortsView {
    /// What the policy wants.
    pub mode: Mode,
    /// What holds.
    pub state: PortsState,
    /// Until when it must be confirmed, while that is awaited.
    pub confirm_until: Option<Timestamp>,
    /// How many entries of the policy open something: of the policy that holds or, where none does, of the one that would.
    pub entries: u32,
    /// Whether the policy has changed since it was applied, so that another holds than the one that is written.
    pub outdated: bool,
    /// Packets that were refused since the ports were closed.
    pub refused_packets: u64,
    /// Addresses that are let in everywhere, because an administrator is logged in from there.
    pub administrators: Vec<IpAddr>,
    /// What is wrong, in words.
    pub faults: Vec<String>,
    /// Since when it is counted who used which port.
    pub since: Timestamp,
    /// Connections that were not counted, because there were too many ports.
    pub uncounted: u64,
    /// The ports that somebody listens on, in order.
    pub ports: Vec<ListeningPort>,
}

/// Whether ports are closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PortsState {
    /// Davy closes nothing.
    Open,
    /// Closed for a trial; it undoes itself when it is not confirmed.
    Trial,
    /// Closed.
    Closed,
    /// Closed by the policy and let be for now: the agent is disarmed, or the policy says no more that it enforces.
    Suspended,
}

/// A port that somebody listens on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListeningPort {
    /// Over which protocol.
    pub transport: Transport,
    /// Its number.
    pub port: u16,
    /// At which addresses; unspecified ones are all of their kind.
    pub addresses: Vec<IpAddr>,
    /// From how far it can be reached by those addresses.
    pub reach: Place,
    /// Whether it is in a network of its own, such as a container's, where Davy closes nothing.
    pub apart: bool,
    /// Who listens, at most sixteen; several where they share the port or have each an address of it.
    pub owners: Vec<PortOwner>,
    /// Whether there are more of them than these.
    pub more_owners: bool,
    /// To whom the policy opens it.
    pub open_to: OpenTo,
    /// Connections.
    pub connections: u64,
    /// Of those, how many were let in although the policy does not open the port to them.
    pub not_covered: u64,
    /// Different sources that are remembered.
    pub sources: u64,
    /// Of those, how many are inside.
    pub inside: u64,
    /// Of those, how many are outside.
    pub outside: u64,
    /// Whether there were more sources than are remembered.
    pub more_sources: bool,
    /// When it was last used.
    pub last: Option<Timestamp>,
    /// The latest sources, at most ten.
    pub latest: Vec<PortSource>,
}

/// Who listens on a port: a program as a user in a service or a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortOwner {
    /// One process of it; `None` where it is not known who listens.
    pub pid: Option<u32>,
    /// The program's path, or its short name; empty where unknown.
    pub program: String,
    /// The user it runs as.
    pub user: String,
    /// The service's systemd unit: of those that it lies in the one nearest to the root.
    pub service: Option<String>,
    /// The container it runs in.
    pub container: Option<String>,
}

/// To whom the policy opens a port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OpenTo {
    /// The policy says nothing of ports.
    Unsaid,
    /// It is none that the policy is about: it listens on loopback alone, or in a network of its own.
    Exempt,
    /// To nobody.
    Nobody,
    /// To these, as the policy names them.
    Some(Vec<String>),
}

/// Who used a port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortSource {
    /// The address.
    pub from: IpAddr,
    /// Where it is.
    pub place: Place,
    /// Connections.
    pub connections: u64,
    /// When the latest came.
    pub last: Timestamp,
}
