//! Brings the loopback of a new network namespace up and gives it one more address, by rtnetlink(7).

use std::net::Ipv4Addr;

use anyhow::{Context, bail};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

/// The loopback's number in every network namespace.
const LOOPBACK: i32 = 1;

const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_CREATE: u16 = 0x400;
const NLMSG_ERROR: u16 = 2;
const IFF_UP: u32 = 1;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const AF_INET: u8 = 2;

/// Brings the loopback up.
///
/// # Errors
/// What the kernel says, for example without CAP_NET_ADMIN.
pub(crate) fn raise_loopback() -> anyhow::Result<()> {
    // struct ifinfomsg: family, pad, type, index, flags, change
    let mut body = vec![0, 0, 0, 0];
    body.extend(LOOPBACK.to_ne_bytes());
    body.extend(IFF_UP.to_ne_bytes());
    body.extend(IFF_UP.to_ne_bytes());
    ask(RTM_NEWLINK, 0, &body).context("bring the loopback up")
}

/// Gives the loopback this address too.
///
/// # Errors
/// What the kernel says.
pub(crate) fn add_to_loopback(address: Ipv4Addr) -> anyhow::Result<()> {
    // struct ifaddrmsg: family, prefix length, flags, scope (global), index
    let mut body = vec![AF_INET, 32, 0, 0];
    body.extend(LOOPBACK.to_ne_bytes());
    for kind in [IFA_LOCAL, IFA_ADDRESS] {
        body.extend(8_u16.to_ne_bytes());
        body.extend(kind.to_ne_bytes());
        body.extend(address.octets());
    }
    ask(RTM_NEWADDR, NLM_F_CREATE, &body).with_context(|| format!("give the loopback {address}"))
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
