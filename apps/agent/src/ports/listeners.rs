//! Who listens where, now.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use davy_model::{ImageKind, Place, ProcessInfo, Transport, service_of};
use davy_net::inbound::{Listener, PortKey};
use davy_net::place_of;
use davy_proc::sockets;

/// The most different owners that are kept of one port; there are more where a hundred users listen on it side by side.
const MAX_OWNERS: usize = 16;

/// The most processes that are looked at of those that hold one socket: those of one service are alike.
const MAX_HOLDERS: usize = 64;

/// A port that somebody listens on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Listening {
    pub(super) key: PortKey,
    /// At which addresses.
    pub(super) addresses: Vec<IpAddr>,
    /// Whether it is in another network than the agent's own.
    pub(super) apart: bool,
    /// Whether it most likely only asks: over UDP, from a port of the kernel's choice.
    pub(super) passing: bool,
    /// Who listens, each once: several do where they share the port, or have each an address of it.
    pub(super) owners: Vec<Owner>,
    /// Whether there are more than are kept.
    pub(super) more_owners: bool,
}

/// Who listens on a port: a program as a user in a service or a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    /// One process of it.
    pub(super) pid: Option<u32>,
    pub(super) program: String,
    pub(super) uid: u32,
    pub(super) service: Option<String>,
    pub(super) container: Option<String>,
}

impl Listening {
    /// From how far it can be reached.
    pub(super) fn reach(&self) -> Place {
        let place = |address: &IpAddr| {
            if address.is_unspecified() { Place::Outside } else { place_of(*address, None) }
        };
        self.addresses.iter().map(place).max().unwrap_or(Place::Host)
    }

    /// Whether the policy is about it.
    pub(super) fn is_ours(&self) -> bool {
        !self.apart && self.reach() != Place::Host
    }

    fn plain(&self) -> impl Iterator<Item = Listener> {
        let listener = |service: &Option<String>| Listener {
            transport: self.key.transport,
            port: self.key.port,
            service: service.clone(),
        };
        self.owners.iter().map(move |owner| listener(&owner.service))
    }

    fn own(&mut self, owner: Owner) {
        let same = |one: &Owner| {
            (&one.program, one.uid, &one.service, &one.container)
                == (&owner.program, owner.uid, &owner.service, &owner.container)
        };
        if self.owners.iter().any(same) {
            return;
        }
        if self.owners.len() >= MAX_OWNERS {
            self.more_owners = true;
            return;
        }
        self.owners.push(owner);
    }
}

/// Those that the policy is about, as a plan wants them.
pub(super) fn ours(all: &[Listening]) -> Vec<Listener> {
    all.iter().filter(|one| one.is_ours()).flat_map(Listening::plain).collect()
}

/// The same without those that most likely only ask: what a service asks from is none of its doors.
pub(super) fn lasting(all: &[Listening]) -> Vec<Listener> {
    all.iter().filter(|one| one.is_ours() && !one.passing).flat_map(Listening::plain).collect()
}

/// Every port in every network that somebody listens on, in order. `own` is the network of the agent.
pub(super) fn gather(own: u64) -> Vec<Listening> {
    let mut all: BTreeMap<PortKey, Listening> = BTreeMap::new();
    let chosen = ports_of_the_kernels_choice();
    for socket in sockets::list().into_iter().filter(|socket| socket.listening) {
        let transport = socket.transport;
        let key = PortKey { network: socket.namespace, transport, port: socket.local.port() };
        let found = all.entry(key).or_insert_with(|| Listening {
            key,
            addresses: Vec::new(),
            passing: transport == Transport::Udp && chosen.contains(&socket.local.port()),
            apart: own != 0 && socket.namespace != 0 && socket.namespace != own,
            owners: Vec::new(),
            more_owners: false,
        });
        if !found.addresses.contains(&socket.local.ip()) {
            found.addresses.push(socket.local.ip());
            found.addresses.sort_unstable();
        }
        let holders = socket.owners.iter().take(MAX_HOLDERS);
        let mut holders = holders.filter_map(|key| davy_proc::read(key.pid)).peekable();
        if holders.peek().is_none() {
            found.own(Owner {
                pid: None,
                program: String::new(),
                uid: socket.uid,
                service: None,
                container: None,
            });
        }
        holders.for_each(|info| found.own(owner(&info)));
        found.more_owners |= socket.owners.len() > MAX_HOLDERS;
    }
    all.into_values().collect()
}

fn owner(info: &ProcessInfo) -> Owner {
    Owner {
        pid: Some(info.key.pid),
        program: match info.image.kind {
            ImageKind::File if !info.image.path.is_empty() => info.image.path.clone(),
            _ => info.comm.clone(),
        },
        uid: info.creds.euid,
        service: service_of(&info.cgroup).map(str::to_owned),
        container: info.container.clone(),
    }
}

/// The ports that the kernel gives to whoever names none (`net.ipv4.ip_local_port_range`).
fn ports_of_the_kernels_choice() -> RangeInclusive<u16> {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut ends = text.split_whitespace().filter_map(|end| end.parse::<u16>().ok());
    ends.next().unwrap_or(32_768)..=ends.next().unwrap_or(60_999)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(program: &str, pid: u32, service: Option<&str>) -> Owner {
        Owner {
            pid: Some(pid),
            program: program.to_owned(),
            uid: 33,
            service: service.map(str::to_owned),
            container: None,
        }
    }

    #[test]
    fn a_users_own_unit_is_no_service_of_the_hosts() {
        for (cgroup, service) in [
            ("/system.slice/nginx.service", Some("nginx.service")),
            ("/system.slice/nginx.service/below.service", Some("nginx.service")),
            (
                "/user.slice/user-1000.slice/user@1000.service/app.slice/nginx.service",
                Some("user@1000.service"),
            ),
            ("/user.slice/user-0.slice/session-3.scope/nginx.service", None),
            ("/", None),
        ] {
            assert_eq!(service_of(cgroup), service, "{cgroup}");
        }
    }

    #[test]
    fn all_who_share_a_port_are_kept_within_bounds() {
        let key = PortKey { network: 1, transport: Transport::Tcp, port: 80 };
        let mut port = Listening {
            key,
            addresses: vec![std::net::Ipv4Addr::UNSPECIFIED.into()],
            apart: false,
            passing: false,
            owners: Vec::new(),
            more_owners: false,
        };
        port.own(owner("/usr/sbin/nginx", 10, Some("nginx.service")));
        port.own(owner("/usr/sbin/nginx", 11, Some("nginx.service")));
        port.own(owner("/tmp/nginx", 12, Some("user@1000.service")));
        assert_eq!(port.owners.iter().map(|owner| owner.pid).collect::<Vec<_>>(), [Some(10), Some(12)]);
        let services: Vec<_> =
            lasting(std::slice::from_ref(&port)).into_iter().filter_map(|l| l.service).collect();
        assert_eq!(services, ["nginx.service", "user@1000.service"], "either service is heard there");
        for pid in 100..200 {
            port.own(owner(&format!("/tmp/{pid}"), pid, None));
        }
        assert!(port.owners.len() == MAX_OWNERS && port.more_owners);
    }
}
