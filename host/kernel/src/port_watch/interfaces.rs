//! The interfaces of a network namespace, their addresses, and the news that these changed, by rtnetlink(7).

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

/// Interfaces that are watched. Those with a higher number are not.
pub(super) const MAX_INTERFACES: usize = 64;

/// The kernel fills at most 32 KiB a datagram.
const BUFFER: usize = 64 * 1024;

/// How long an answer of the kernel's is waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// News taken at once; what is left is taken the next time.
const MAX_NEWS: usize = 256;

/// How often a list is asked for again that changed while it was made.
const TRIES: usize = 4;

const ERROR: u16 = 2;
const DONE: u16 = 3;
const NEW_LINK: u16 = 16;
const GET_LINK: u16 = 18;
const NEW_ADDRESS: u16 = 20;
const GET_ADDRESS: u16 = 22;

const REQUEST: u16 = 1;
const DUMP: u16 = 0x300;
/// The list changed while it was made.
const INTERRUPTED: u16 = 0x10;

/// Interfaces, and addresses of both families.
const GROUPS: u32 = 1 | 0x10 | 0x100;

const IS_LOOPBACK: u32 = 8;

/// Lengths of what stands before the attributes.
const LINK: usize = 16;
const ADDRESS: usize = 8;

/// Told when interfaces or addresses change.
pub(super) struct News(OwnedFd);

impl News {
    /// News of the calling thread's network namespace, from now on.
    pub(super) fn open() -> io::Result<Self> {
        let socket = open(SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
        rustix::net::bind(&socket, &SocketAddrNetlink::new(0, GROUPS))?;
        Ok(Self(socket))
    }

    /// Whether something changed since it was asked last.
    pub(super) fn take(&self) -> bool {
        // What it says is listed anyway, and cut off here; what the kernel had no room to tell is news as well.
        let mut buffer = [0; 16];
        let more =
            || !matches!(rustix::net::recv(&self.0, &mut buffer, RecvFlags::empty()), Err(Errno::AGAIN));
        std::iter::repeat_with(more).take(MAX_NEWS).take_while(|more| *more).count() > 0
    }
}

/// What there is of interfaces now.
#[derive(Debug, Default)]
pub(super) struct Interfaces {
    /// Their own addresses.
    pub(super) addresses: HashSet<IpAddr>,
    /// The numbers of those that others reach, lowest first.
    pub(super) reached: Vec<u32>,
}

impl Interfaces {
    /// Those of the calling thread's network namespace.
    pub(super) fn list() -> io::Result<Self> {
        let socket = open(SocketFlags::CLOEXEC)?;
        set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
        for _ in 0..TRIES {
            let (mut links, mut addresses) = (Vec::new(), Vec::new());
            let whole = dump(&socket, GET_LINK, LINK, |kind, body| {
                links.extend((kind == NEW_LINK).then(|| Link::read(body)).flatten());
            })?;
            let all = dump(&socket, GET_ADDRESS, ADDRESS, |kind, body| {
                addresses.extend((kind == NEW_ADDRESS).then(|| read_address(body)).flatten());
            })?;
            if whole && all {
                return Ok(Self::of(&links, &addresses));
            }
        }
        Err(io::Error::other("interfaces change faster than they can be listed"))
    }

    fn of(links: &[Link], addresses: &[(u32, IpAddr)]) -> Self {
        let mut named: BTreeMap<u32, bool> = BTreeMap::new();
        for (index, address) in addresses {
            *named.entry(*index).or_default() |= !is_link_local(*address);
        }
        let reached = links.iter().filter(|link| link.is_reached(named.get(&link.index) == Some(&true)));
        let mut reached: Vec<u32> = reached.map(|link| link.index).collect();
        reached.sort_unstable();
        let addresses = addresses.iter().map(|(_, address)| *address).filter(|a| !a.is_loopback());
        Self { addresses: addresses.collect(), reached }
    }
}

/// Every interface may have one, also those that are ends of containers.
fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local())
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Link {
    index: u32,
    loopback: bool,
    kind: Vec<u8>,
    /// Whether its frames go on to another interface of this host, and are seen there.
    part_of_another: bool,
}

impl Link {
    fn read(body: &[u8]) -> Option<Self> {
        let word = |at: usize| Some(u32::from_ne_bytes(*body.get(at..)?.first_chunk()?));
        let (index, flags) = (word(4)?, word(8)?);
        let mut link = Self { index, loopback: flags & IS_LOOPBACK != 0, ..Self::default() };
        let (mut master, mut under) = (false, Vec::new());
        for (kind, value) in attributes(body.get(LINK..)?) {
            match kind {
                10 => master = value.iter().any(|byte| *byte != 0),
                18 => {
                    for (kind, value) in attributes(value) {
                        match kind {
                            1 => link.kind = text(value),
                            4 => under = text(value),
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
        // A routing domain (VRF) takes no frames over; they are seen at its members alone.
        link.part_of_another = master && under != b"vrf";
        Some(link)
    }

    /// Whether others reach this host by it, itself and not something behind it. A pair of ends (veth) without an address of its own
    /// leads to a container; what comes from there to this host comes by a bridge, or is routed to an address elsewhere.
    fn is_reached(&self, has_address: bool) -> bool {
        match self.kind.as_slice() {
            _ if self.loopback || self.part_of_another => false,
            b"dummy" | b"ifb" | b"nlmon" | b"vrf" => false,
            b"veth" => has_address,
            _ => true,
        }
    }
}

/// An address, and whose it is.
fn read_address(body: &[u8]) -> Option<(u32, IpAddr)> {
    let index = u32::from_ne_bytes(*body.get(4..)?.first_chunk()?);
    let (mut own, mut any) = (None, None);
    for (kind, value) in attributes(body.get(ADDRESS..)?) {
        let address = match value.len() {
            4 => value.first_chunk::<4>().map(|octets| IpAddr::from(*octets)),
            16 => value.first_chunk::<16>().map(|octets| IpAddr::from(*octets)),
            _ => None,
        };
        match kind {
            // Between two ends the first is the other's, and the second its own.
            1 => any = address,
            2 => own = address,
            _ => {}
        }
    }
    Some((index, own.or(any)?))
}

fn text(value: &[u8]) -> Vec<u8> {
    value.iter().copied().take_while(|byte| *byte != 0).collect()
}

fn open(flags: SocketFlags) -> io::Result<OwnedFd> {
    // Without a protocol it is that of routes and interfaces, which has number zero.
    Ok(rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?)
}

/// Asks for a list and gives each of its messages; whether it stayed the same meanwhile. `head` is how long the request is.
fn dump(socket: &OwnedFd, kind: u16, head: usize, mut each: impl FnMut(u16, &[u8])) -> io::Result<bool> {
    let mut request = Vec::with_capacity(16 + LINK);
    request.extend(u32::try_from(16 + head).unwrap_or(0).to_ne_bytes());
    request.extend(kind.to_ne_bytes());
    request.extend((REQUEST | DUMP).to_ne_bytes());
    request.resize(16 + head, 0);
    rustix::net::sendto(socket, &request, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
    let (mut buffer, mut whole) = (vec![0; BUFFER], true);
    loop {
        let (length, _) = rustix::net::recv(socket, &mut buffer, RecvFlags::empty())?;
        for message in messages(&buffer[..length.min(BUFFER)]) {
            whole &= message.flags & INTERRUPTED == 0;
            match message.kind {
                DONE => return Ok(whole),
                ERROR => {
                    let code = message.body.first_chunk().map_or(0, |code| i32::from_ne_bytes(*code));
                    return Err(io::Error::from_raw_os_error(code.saturating_neg()));
                }
                kind => each(kind, message.body),
            }
        }
    }
}

struct Message<'a> {
    kind: u16,
    flags: u16,
    body: &'a [u8],
}

fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let length = u32::from_ne_bytes(*bytes.first_chunk()?) as usize;
        let kind = u16::from_ne_bytes(*bytes.get(4..)?.first_chunk()?);
        let flags = u16::from_ne_bytes(*bytes.get(6..)?.first_chunk()?);
        let body = bytes.get(16..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Message { kind, flags, body })
    })
}

/// Attributes, without the marks that they may bear.
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(*bytes.first_chunk()?));
        let kind = u16::from_ne_bytes(*bytes.get(2..)?.first_chunk()?) & 0x3fff;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn link(index: u32, kind: &str) -> Link {
        Link { index, kind: kind.as_bytes().to_vec(), ..Link::default() }
    }

    #[test]
    fn others_reach_neither_loopback_nor_ends_of_containers_nor_parts_of_a_bridge() {
        let links = [
            Link { loopback: true, ..link(1, "") },
            link(2, ""),
            Link { part_of_another: true, ..link(3, "") },
            link(4, "bridge"),
            Link { part_of_another: true, ..link(5, "veth") },
            link(6, "veth"),
            link(7, "veth"),
            link(8, "wireguard"),
            link(9, "dummy"),
        ];
        let addresses = [(1, "127.0.0.1"), (6, "fe80::1"), (7, "fe80::2"), (7, "10.0.0.1"), (2, "fe80::3")];
        let addresses = addresses.map(|(index, address)| (index, address.parse::<IpAddr>().unwrap()));
        let found = Interfaces::of(&links, &addresses);
        assert_eq!(found.reached, [2, 4, 7, 8]);
        assert_eq!(found.addresses.len(), 4);
    }

    proptest! {
        #[test]
        fn nothing_that_is_read_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            for message in messages(&bytes) {
                let _ = (message.kind, message.flags, message.body.len());
            }
            let _ = (Link::read(&bytes), read_address(&bytes), attributes(&bytes).count());
        }
    }
}
