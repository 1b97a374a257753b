//! `/proc/PID/net/{tcp,tcp6,udp,udp6}` (proc_pid_net(5)), for hosts that refuse sock_diag. No cookies, no volumes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use davy_model::{FlowKey, FlowVolume, Transport};

use super::namespaces::Namespace;
use super::{Socket, is_unconnected, plain};
use crate::procfs::ProcFs;

/// At most so many bytes of one table are read: about 100,000 sockets.
const MAX_TABLE: usize = 16 * 1024 * 1024;

/// States as the tables write them.
const ESTABLISHED: u8 = 1;
const TIME_WAIT: u8 = 6;
const LISTEN: u8 = 10;

/// Set in flow keys that are made of an inode.
const NO_COOKIE: u64 = 1 << 63;

pub(super) fn read(proc: &ProcFs, namespace: &Namespace, most: usize) -> Vec<Socket> {
    let Some(folder) = proc.open(namespace.pid) else { return Vec::new() };
    let tables = [
        ("tcp", Transport::Tcp),
        ("tcp6", Transport::Tcp),
        ("udp", Transport::Udp),
        ("udp6", Transport::Udp),
    ];
    let rows = tables.iter().flat_map(|(name, transport)| {
        let text = folder.text(&format!("net/{name}"), MAX_TABLE).unwrap_or_default();
        text.lines().filter_map(|line| row(line, *transport)).collect::<Vec<_>>()
    });
    rows.take(most).map(|socket| Socket { namespace: namespace.inode, ..socket }).collect()
}

fn row(line: &str, transport: Transport) -> Option<Socket> {
    let mut words = line.split_ascii_whitespace();
    let number = words.next()?;
    number.strip_suffix(':')?.parse::<u64>().ok()?;
    let (local, remote) = (end(words.next()?)?, end(words.next()?)?);
    let state = u8::from_str_radix(words.next()?, 16).ok()?;
    let uid = words.nth(3)?.parse().ok()?;
    let inode: u64 = words.nth(1)?.parse().ok()?;
    if state == TIME_WAIT && transport == Transport::Tcp {
        return None;
    }
    let listening = match transport {
        Transport::Tcp => state == LISTEN,
        Transport::Udp => state != ESTABLISHED && is_unconnected(&remote) && local.port() != 0,
    };
    Some(Socket {
        flow: FlowKey(inode | NO_COOKIE),
        transport,
        local,
        remote,
        listening,
        volume: FlowVolume::default(),
        inode,
        owners: Vec::new(),
        uid,
        namespace: 0,
        id: None,
    })
}

/// An end such as `0100007F:0CEA`: the address as 32-bit words in the host's byte order, the port as a number.
fn end(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    if !address.is_ascii() {
        return None;
    }
    let mut bytes = [0u8; 16];
    let words = address.len() / 8;
    if !address.len().is_multiple_of(8) || !(words == 1 || words == 4) {
        return None;
    }
    for i in 0..words {
        let word = u32::from_str_radix(&address[i * 8..i * 8 + 8], 16).ok()?;
        bytes[i * 4..i * 4 + 4].copy_from_slice(&word.to_ne_bytes());
    }
    let address = if words == 1 {
        IpAddr::V4(Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]))
    } else {
        plain(IpAddr::V6(Ipv6Addr::from(bytes)))
    };
    Some(SocketAddr::new(address, port))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn rows_of_the_kernel_are_read() {
        let listen = "   0: 0100007F:0CEA 00000000:0000 0A 00000000:00000000 00:00000000 00000000   106        0 4711 1 0 100 0";
        let socket = row(listen, Transport::Tcp).unwrap();
        assert_eq!(socket.local.to_string(), "127.0.0.1:3306");
        assert_eq!((socket.listening, socket.uid, socket.inode), (true, 106, 4711));
        let mapped = "   1: 0000000000000000FFFF00000100007F:1F90 0000000000000000FFFF00000200007F:C350 01 \
            00000000:00000000 00:00000000 00000000  1000        0 12 1 0 20";
        let socket = row(mapped, Transport::Tcp).unwrap();
        assert_eq!(
            (socket.local.to_string(), socket.remote.to_string()),
            ("127.0.0.1:8080".into(), "127.0.0.2:50000".into())
        );
        assert!(socket.id.is_none(), "it is not named well enough to be ended");
        let header = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode";
        assert!(row(header, Transport::Tcp).is_none());
    }

    #[test]
    fn the_hosts_own_tables_show_a_connection_of_this_process() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let proc = ProcFs::host();
        let mut rows = read(proc, &super::super::namespaces::own(proc), 100_000);
        super::super::Owners::new().fill(proc, &mut rows);
        let found = rows.iter().find(|s| s.local == client.local_addr().unwrap()).unwrap();
        assert_eq!(found.remote, listener.local_addr().unwrap());
        assert!(found.owners.iter().any(|owner| owner.pid == std::process::id()));
        assert!(rows.iter().any(|s| s.listening && s.local == listener.local_addr().unwrap()));
    }

    proptest! {
        #[test]
        fn no_line_makes_it_panic(line in "[0-9A-F: é]{0,150}") {
            let _ = row(&line, Transport::Udp);
        }

        #[test]
        fn no_end_makes_it_panic(text in "\\PC{0,40}") {
            let _ = end(&text);
        }
    }
}
