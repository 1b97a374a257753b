use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::{FileId, Timestamp, Transport};

/// Where the other end of a connection is, seen from this host; in order of distance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// On this host itself.
    Host,
    /// In a network that is not reached from the internet: private, shared or link-local addresses.
    Inside,
    /// On the internet.
    Outside,
}

impl Place {
    /// Its name in JSON and for people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Inside => "inside",
            Self::Outside => "outside",
        }
    }
}

/// Which end began a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Heading {
    /// The process of this host.
    Outbound,
    /// The other end.
    Inbound,
}

/// The other end of connections.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind", content = "value")]
pub enum Peer {
    /// What it was called by, lower case.
    Name(String),
    /// Its address, where no name is known.
    Address(IpAddr),
    /// Several that are not told apart: too many, or counted by the kernel.
    Others,
}

/// How the name of the other end is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Naming {
    /// A name server's answer led to the address (RFC 1035). Of several names that share an address it is the one answered last.
    Dns,
    /// The process asked for it in its TLS hello (RFC 6066).
    Tls,
    /// The process asked for it in an HTTP request or of a proxy (RFC 9110, RFC 1928).
    Http,
}

/// Who talks: what all processes of one program in one service or container and of one user share.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Talker {
    /// The program's path, for people; empty where the process is not known.
    pub program: String,
    /// Its device and inode; zero where unknown.
    pub file: FileId,
    /// The systemd service it runs in.
    pub service: Option<String>,
    /// The container it runs in, as in [`crate::ProcessInfo`].
    pub container: Option<String>,
    /// Its effective user id; `None` where the process is not known.
    pub uid: Option<u32>,
}

/// Connections of one talker with one other end at one port, summed up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connection {
    /// Its number, given once and never to another.
    pub id: u64,
    /// Who talks.
    #[serde(flatten)]
    pub talker: Talker,
    /// Which end began.
    pub direction: Heading,
    /// TCP or UDP.
    pub transport: Transport,
    /// The port that was connected to: the other end's when outbound, this host's when inbound. Zero where several are not
    /// told apart.
    pub port: u16,
    /// With whom.
    pub peer: Peer,
    /// How a name is known; `None` where there is none.
    pub named_by: Option<Naming>,
    /// Addresses it had, the one seen first first; bounded.
    pub addresses: Vec<IpAddr>,
    /// Whether it had more than those.
    pub more_addresses: bool,
    /// The farthest place of its addresses; `None` where none is known.
    pub place: Option<Place>,
    /// Whether any of them was encrypted by TLS.
    pub tls: bool,
    /// First words of the HTTP requests seen in the clear, the latest last; bounded. Inbound ones name the host that was asked for.
    pub requests: Vec<String>,
    /// How many connections there were.
    pub connections: u64,
    /// How many of them are open now.
    pub open: u64,
    /// Payload bytes sent.
    pub sent_bytes: u64,
    /// Payload bytes received.
    pub received_bytes: u64,
    /// When the first one began.
    pub first: Timestamp,
    /// When anything last went over one of them.
    pub last: Timestamp,
}

/// The systemd unit that a cgroup path leads into: the one nearest to the root, since what lies below it is the unit's own to name.
#[must_use]
pub fn unit_of(cgroup: &str) -> Option<&str> {
    let is_one = |part: &str, kind: &str| part.len() > kind.len() && part.ends_with(kind);
    cgroup.split('/').find(|part| is_one(part, ".service") || is_one(part, ".scope"))
}

/// The systemd service that a cgroup path leads into: its unit, where that is one. Scopes are none, for they are made for each
/// login and each container.
#[must_use]
pub fn service_of(cgroup: &str) -> Option<&str> {
    unit_of(cgroup).filter(|unit| unit.ends_with(".service"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_service_nearest_to_the_root_is_the_one() {
        for (cgroup, expected) in [
            ("/system.slice/nginx.service", Some("nginx.service")),
            ("/system.slice/system-getty.slice/getty@tty1.service", Some("getty@tty1.service")),
            (
                "/user.slice/user-1000.slice/user@1000.service/app.slice/app-x.scope",
                Some("user@1000.service"),
            ),
            ("/system.slice/a.service/payload/b.service/inner", Some("a.service")),
            (
                "/user.slice/user-1000.slice/user@1000.service/app.slice/nagios.service",
                Some("user@1000.service"),
            ),
            ("/user.slice/user-0.slice/session-3.scope", None),
            ("/machine.slice/vm.scope/payload/system.slice/nagios.service", None),
            ("/system.slice/.service", None),
            ("", None),
        ] {
            assert_eq!(service_of(cgroup), expected, "{cgroup}");
        }
        assert_eq!(unit_of("/user.slice/user-0.slice/session-3.scope/a.service"), Some("session-3.scope"));
        assert_eq!(unit_of("/davy-test"), None);
    }
}
