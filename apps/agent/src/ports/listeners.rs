//! Who listens where, now.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use davy_model::{ImageKind, Place, Transport, service_of};
use davy_net::inbound::{Listener, PortKey};
use davy_net::place_of;
use davy_proc::sockets;

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

    fn plain(&self) -> Listener {
        Listener { transport: self.key.transport, port: self.key.port, service: self.service.clone() }
    }
}

/// Those that the policy is about, as a plan wants them.
pub(super) fn ours(all: &[Listening]) -> Vec<Listener> {
    all.iter().filter(|one| one.is_ours()).map(Listening::plain).collect()
}

/// The same without those that most likely only ask: what a service asks from is none of its doors.
pub(super) fn lasting(all: &[Listening]) -> Vec<Listener> {
    all.iter().filter(|one| one.is_ours() && !one.passing).map(Listening::plain).collect()
}

/// Every port in every network that somebody listens on, in order. `own` is the network of the agent.
pub(super) fn gather(own: u64) -> Vec<Listening> {
    let mut all: BTreeMap<PortKey, Listening> = BTreeMap::new();
    let chosen = ports_of_the_kernels_choice();
    for socket in sockets::list().into_iter().filter(|socket| socket.listening) {
        let transport = socket.transport;
        let key = PortKey { network: socket.namespace, transport, port: socket.local.port() };
        let owner = socket.owners.first().and_then(|key| davy_proc::read(key.pid));
        let found = all.entry(key).or_insert_with(|| {
            let info = owner.as_ref();
            Listening {
                key,
                addresses: Vec::new(),
                passing: transport == Transport::Udp && chosen.contains(&socket.local.port()),
                apart: own != 0 && socket.namespace != 0 && socket.namespace != own,
                pid: info.map(|info| info.key.pid),
                program: info.map_or_else(String::new, |info| match info.image.kind {
                    ImageKind::File if !info.image.path.is_empty() => info.image.path.clone(),
                    _ => info.comm.clone(),
                }),
                uid: info.map_or(socket.uid, |info| info.creds.euid),
                service: info.and_then(|info| service_of(&info.cgroup)).map(str::to_owned),
                container: info.and_then(|info| info.container.clone()),
            }
        });
        if !found.addresses.contains(&socket.local.ip()) {
            found.addresses.push(socket.local.ip());
            found.addresses.sort_unstable();
        }
    }
    all.into_values().collect()
}

/// The ports that the kernel gives to whoever names none (`net.ipv4.ip_local_port_range`).
fn ports_of_the_kernels_choice() -> RangeInclusive<u16> {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut ends = text.split_whitespace().filter_map(|end| end.parse::<u16>().ok());
    ends.next().unwrap_or(32_768)..=ends.next().unwrap_or(60_999)
}
