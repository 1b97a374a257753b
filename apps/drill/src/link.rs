//! The links of a network namespace of one's own: its loopback, and a cable to another, by rtnetlink(7).

use std::net::Ipv4Addr;

use anyhow::{Context, bail};
use rustix::net::netdevice::name_to_index;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

/// The loopback's number in every network namespace.
const LOOPBACK: u32 = 1;

/// The networks of cables have four addresses.
const CABLE_LENGTH: u8 = 30;

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_NEWADDR: u16 = 20;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_EXCL: u16 = 0x200;
const NLM_F_CREATE: u16 = 0x400;
const NLMSG_ERROR: u16 = 2;
const IFF_UP: u32 = 1;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFLA_IFNAME: u16 = 3;
const IFLA_LINKINFO: u16 = 18;
const IFLA_NET_NS_PID: u16 = 19;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
const AF_INET: u8 = 2;

/// Brings the loopback up.
///
/// # Errors
/// What the kernel says, for example without CAP_NET_ADMIN.
pub(crate) fn raise_loopback() -> anyhow::Result<()> {
    raise(LOOPBACK).context("bring the loopback up")
}

/// Gives the loopback this address too.
///
/// # Errors
/// What the kernel says.
pub(crate) fn add_to_loopback(address: Ipv4Addr) -> anyhow::Result<()> {
    add(LOOPBACK, address, 32).with_context(|| format!("give the loopback {address}"))
}

/// Lays a cable from here to the network namespace of a process. Both ends bear the name, and are down. It goes away with either
/// namespace.
///
/// # Errors
/// What the kernel says, for example where it has no virtual Ethernet.
pub(crate) fn lay_cable(name: &str, process: u32) -> anyhow::Result<()> {
    let name_of_end = attribute(IFLA_IFNAME, &[name.as_bytes(), b"\0"].concat());
    let mut peer = head(0, 0);
    peer.extend(&name_of_end);
    peer.extend(attribute(IFLA_NET_NS_PID, &process.to_ne_bytes()));
    let mut kind = attribute(IFLA_INFO_KIND, b"veth");
    kind.extend(attribute(IFLA_INFO_DATA, &attribute(VETH_INFO_PEER, &peer)));
    let mut body = head(0, 0);
    body.extend(&name_of_end);
    body.extend(attribute(IFLA_LINKINFO, &kind));
    ask(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &body).with_context(|| format!("lay the cable {name}"))
}

/// Gives an end of a cable its address, and brings it up.
///
/// # Errors
/// What the kernel says.
pub(crate) fn address(name: &str, address: Ipv4Addr) -> anyhow::Result<()> {
    let index = number(name)?;
    add(index, address, CABLE_LENGTH).with_context(|| format!("give {name} {address}"))?;
    raise(index).with_context(|| format!("bring {name} up"))
}

/// Takes a cable away, both ends.
///
/// # Errors
/// When it is gone, or what the kernel says.
pub(crate) fn take_away(name: &str) -> anyhow::Result<()> {
    let what = || format!("take the cable {name} away");
    ask(RTM_DELLINK, 0, &head(number(name)?, 0)).with_context(what)
}

fn number(name: &str) -> anyhow::Result<u32> {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    name_to_index(&socket, name).with_context(|| format!("look up {name}"))
}

fn raise(index: u32) -> anyhow::Result<()> {
    ask(RTM_NEWLINK, 0, &head(index, IFF_UP))
}

fn add(index: u32, address: Ipv4Addr, length: u8) -> anyhow::Result<()> {
    // struct ifaddrmsg: family, prefix length, flags, scope (global), index
    let mut body = vec![AF_INET, length, 0, 0];
    body.extend(index.to_ne_bytes());
    for kind in [IFA_LOCAL, IFA_ADDRESS] {
        body.extend(attribute(kind, &address.octets()));
    }
    ask(RTM_NEWADDR, NLM_F_CREATE, &body)
}

/// struct ifinfomsg: family, pad, type, index, flags, which of them change
fn head(index: u32, flags: u32) -> Vec<u8> {
    let mut head = vec![0; 4];
    for word in [index, flags, flags] {
        head.extend(word.to_ne_bytes());
    }
    head
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    let mut attribute = Vec::from(length.to_ne_bytes());
    attribute.extend(kind.to_ne_bytes());
    attribute.extend(value);
    attribute.resize(attribute.len().next_multiple_of(4), 0);
    attribute
}

fn ask(kind: u16, flags: u16, body: &[u8]) -> anyhow::Result<()> {
    // No protocol means the first, which is NETLINK_ROUTE.
    let (family, kind_of_socket) = (AddressFamily::NETLINK, SocketType::RAW);
    let socket = rustix::net::socket_with(family, kind_of_socket, SocketFlags::CLOEXEC, None)?;
    let length = u32::try_from(16 + body.len())?;
    let mut message = Vec::new();
    message.extend(length.to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend((NLM_F_REQUEST | NLM_F_ACK | flags).to_ne_bytes());
    message.extend(1_u32.to_ne_bytes());
    message.extend(0_u32.to_ne_bytes());
    message.extend(body);
    rustix::net::send(&socket, &message, SendFlags::empty())?;
    let mut answer = [0_u8; 1024];
    let (count, _) = rustix::net::recv(&socket, answer.as_mut_slice(), RecvFlags::empty())?;
    let answer = &answer[..count.min(answer.len())];
    match (answer.get(4..6), answer.get(16..20)) {
        (Some(kind), Some(code)) if kind == NLMSG_ERROR.to_ne_bytes() => {
            let code = i32::from_ne_bytes([code[0], code[1], code[2], code[3]]);
            if code == 0 { Ok(()) } else { Err(std::io::Error::from_raw_os_error(-code).into()) }
        }
        _ => bail!("the kernel's answer is not an acknowledgement"),
    }
}
