//! sock_diag(7) over netlink(7), in the network namespace of the calling thread.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use davy_model::{FlowKey, FlowVolume, Transport};
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload, NetlinkSerializable,
};
use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6, IPPROTO_TCP, IPPROTO_UDP};
use netlink_packet_sock_diag::inet::nlas::Nla;
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, InetResponse, SocketId, StateFlags};
use netlink_packet_sock_diag::{SockDiagDestroy, SockDiagMessage};
use rustix::net::netlink::{SOCK_DIAG, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use super::{Socket, is_unconnected, plain};

/// The kernel fills at most 32 KiB a message in a dump.
const BUFFER: usize = 64 * 1024;

/// TCP states of include/net/tcp_states.h.
const ESTABLISHED: u8 = 1;
const LISTEN: u8 = 10;

/// How long the kernel is waited for; it answers dumps within the system call.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(5);

/// What the kernel calls a socket by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    family: u8,
    protocol: u8,
    local: SocketAddr,
    remote: SocketAddr,
    interface: u32,
    cookie: [u8; 8],
}

/// All TCP and UDP sockets but those that only wait out their time, at most `most`.
pub(super) fn dump(most: usize) -> io::Result<Vec<Socket>> {
    let socket = open()?;
    let mut sockets = Vec::new();
    for family in [AF_INET, AF_INET6] {
        for (protocol, transport) in [(IPPROTO_TCP, Transport::Tcp), (IPPROTO_UDP, Transport::Udp)] {
            match dump_one(&socket, family, protocol, transport, most, &mut sockets) {
                // A kernel without IPv6, or with udp_diag as a module that is not there, has none of these.
                Err(e) if is_absent(&e) && (family == AF_INET6 || transport == Transport::Udp) => {}
                other => other?,
            }
        }
    }
    Ok(sockets)
}

fn is_absent(error: &io::Error) -> bool {
    let absent = [rustix::io::Errno::NOENT, rustix::io::Errno::AFNOSUPPORT, rustix::io::Errno::OPNOTSUPP];
    absent.iter().any(|e| error.raw_os_error() == Some(e.raw_os_error()))
}

fn open() -> io::Result<OwnedFd> {
    let socket = rustix::net::socket_with(
        AddressFamily::NETLINK,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        Some(SOCK_DIAG),
    )?;
    rustix::net::sockopt::set_socket_timeout(&socket, rustix::net::sockopt::Timeout::Recv, Some(PATIENCE))?;
    Ok(socket)
}

fn send<M: NetlinkSerializable>(socket: &OwnedFd, flags: u16, message: M) -> io::Result<()>
where
    NetlinkPayload<M>: From<M>,
{
    let mut header = NetlinkHeader::default();
    header.flags = flags;
    header.sequence_number = 1;
    let mut packet = NetlinkMessage::new(header, NetlinkPayload::from(message));
    packet.finalize();
    let mut bytes = vec![0; packet.buffer_len()];
    packet.serialize(&mut bytes);
    rustix::net::sendto(socket, &bytes, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
    Ok(())
}

fn dump_one(
    socket: &OwnedFd,
    family: u8,
    protocol: u8,
    transport: Transport,
    most: usize,
    out: &mut Vec<Socket>,
) -> io::Result<()> {
    let states = StateFlags::all() - StateFlags::TIME_WAIT;
    let socket_id = if family == AF_INET { SocketId::new_v4() } else { SocketId::new_v6() };
    let request = InetRequest { family, protocol, extensions: ExtensionFlags::INFO, states, socket_id };
    send(socket, NLM_F_REQUEST | NLM_F_DUMP, SockDiagMessage::InetRequest(request))?;
    let mut buffer = vec![0u8; BUFFER];
    loop {
        let (length, _) = rustix::net::recv(socket, &mut buffer, RecvFlags::empty())?;
        if length == 0 {
            return Ok(());
        }
        let done = each_message(&buffer[..length.min(BUFFER)], |response| {
            if out.len() < most {
                out.extend(describe(&response, protocol, transport));
            }
        })?;
        if done {
            return Ok(());
        }
    }
}

/// Takes a datagram apart; whether it held the end of the dump or the acknowledgement. A message that cannot be read
/// is left out, because a newer kernel may word it otherwise.
fn each_message(mut bytes: &[u8], mut each: impl FnMut(InetResponse)) -> io::Result<bool> {
    while let Some(length) = bytes.first_chunk::<4>().map(|l| u32::from_ne_bytes(*l) as usize) {
        if length < 16 || length > bytes.len() {
            return Err(io::ErrorKind::InvalidData.into());
        }
        if let Ok(message) = NetlinkMessage::<SockDiagMessage>::deserialize(&bytes[..length]) {
            match message.payload {
                NetlinkPayload::Done(_) => return Ok(true),
                NetlinkPayload::Error(error) => match error.code {
                    Some(_) => return Err(error.to_io()),
                    None => return Ok(true),
                },
                NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(response)) => each(*response),
                _ => {}
            }
        }
        bytes = &bytes[length.next_multiple_of(4).min(bytes.len())..];
    }
    Ok(false)
}

fn describe(response: &InetResponse, protocol: u8, transport: Transport) -> Option<Socket> {
    let header = &response.header;
    let id = &header.socket_id;
    let local = SocketAddr::new(plain(id.source_address), id.source_port);
    let remote = SocketAddr::new(plain(id.destination_address), id.destination_port);
    let listening = match transport {
        Transport::Tcp => header.state == LISTEN,
        Transport::Udp => header.state != ESTABLISHED && is_unconnected(&remote) && local.port() != 0,
    };
    Some(Socket {
        flow: FlowKey(u64::from_ne_bytes(id.cookie)),
        transport,
        local,
        remote,
        listening,
        volume: volume(response),
        inode: u64::from(header.inode),
        owners: Vec::new(),
        uid: header.uid,
        namespace: 0,
        id: Some(Identity {
            family: header.family,
            protocol,
            local: SocketAddr::new(id.source_address, id.source_port),
            remote: SocketAddr::new(id.destination_address, id.destination_port),
            interface: id.interface_id,
            cookie: id.cookie,
        }),
    })
}

/// Payload counts of TCP (`struct tcp_info`, include/uapi/linux/tcp.h).
fn volume(response: &InetResponse) -> FlowVolume {
    let info =
        response.nlas.iter().find_map(|nla| if let Nla::TcpInfo(info) = nla { Some(info) } else { None });
    let Some(info) = info else { return FlowVolume::default() };
    FlowVolume {
        sent_bytes: info.bytes_sent.saturating_sub(info.bytes_retrans),
        received_bytes: info.bytes_received,
        sent_packets: u64::from(info.data_segs_out),
        received_packets: u64::from(info.data_segs_in),
    }
}

/// Ends one socket of the calling thread's namespace.
pub(super) fn destroy(id: &Identity) -> io::Result<()> {
    let socket = open()?;
    let request = InetRequest {
        family: id.family,
        protocol: id.protocol,
        extensions: ExtensionFlags::empty(),
        states: StateFlags::all(),
        socket_id: SocketId {
            source_port: id.local.port(),
            destination_port: id.remote.port(),
            source_address: id.local.ip(),
            destination_address: id.remote.ip(),
            interface_id: id.interface,
            cookie: id.cookie,
        },
    };
    send(&socket, NLM_F_REQUEST | NLM_F_ACK, SockDiagDestroy::new(SockDiagMessage::InetRequest(request)))?;
    let mut buffer = vec![0u8; BUFFER];
    let (length, _) = rustix::net::recv(&socket, &mut buffer, RecvFlags::empty())?;
    each_message(&buffer[..length.min(BUFFER)], |_| {}).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_datagram_makes_it_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..400), length in 0u32..400) {
            if let Some(first) = bytes.first_chunk_mut::<4>() {
                *first = length.to_ne_bytes();
            }
            if bytes.len() > 17 {
                bytes[4] = 20;
                bytes[5] = 0;
                bytes[16] = AF_INET;
            }
            let _ = each_message(&bytes, |response| {
                let _ = describe(&response, IPPROTO_TCP, Transport::Tcp);
            });
        }
    }
}
