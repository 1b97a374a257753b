//! The room against the machine it runs on: own sockets over loopback, and one in a network of its own.
#![allow(clippy::unwrap_used, missing_docs)]

mod own;

use std::io::{Read, Write};
use std::net::{TcpListener, UdpSocket};

use davy_model::{EventKind, Timestamp, Transport};
use davy_proc::sockets::{self, DestroyError};
use davy_proc::{PollOptions, Poller};
use own::{connection, inside, line_with};

#[test]
fn sockets_have_cookies_volumes_and_owners() {
    if let Err(error) = sockets::probe_list() {
        println!("SKIPPED: sock_diag: {error}");
        return;
    }
    let (listener, mut client, mut server, cookie) = connection();
    client.write_all(&[7; 1000]).unwrap();
    server.read_exact(&mut [0; 1000]).unwrap();
    server.write_all(&[7; 300]).unwrap();
    client.read_exact(&mut [0; 300]).unwrap();
    let udp = UdpSocket::bind("[::1]:0");
    let all = sockets::list();
    let own = davy_proc::key(std::process::id()).unwrap();
    let found = all.iter().find(|s| s.flow == cookie).unwrap();
    assert_eq!((found.local, found.remote), (client.local_addr().unwrap(), client.peer_addr().unwrap()));
    assert_eq!((found.volume.sent_bytes, found.volume.received_bytes), (1000, 300));
    assert!(found.volume.sent_packets >= 1 && found.volume.received_packets >= 1);
    assert_eq!(found.owners, vec![own]);
    assert!(!found.listening);
    let listening = all.iter().find(|s| s.listening && s.local == listener.local_addr().unwrap()).unwrap();
    assert!(listening.remote.ip().is_unspecified());
    if let Ok(udp) = udp {
        let local = udp.local_addr().unwrap();
        assert!(
            all.iter().any(|s| s.transport == Transport::Udp && s.local == local && s.owners == vec![own])
        );
    }
}

#[test]
fn a_destroyed_connection_is_reset_and_no_other_is_touched() {
    let (_listener, mut client, _server, cookie) = connection();
    let (_other_listener, mut other, mut other_server, _) = connection();
    let Some(socket) = sockets::list().into_iter().find(|s| s.flow == cookie) else {
        println!("SKIPPED: sock_diag does not list sockets here");
        return;
    };
    match sockets::destroy(&socket) {
        Ok(()) => {}
        Err(error @ DestroyError::Refused(_)) => {
            println!("SKIPPED: {error}");
            return;
        }
        Err(error) => panic!("{error}"),
    }
    assert!(client.read(&mut [0]).is_err(), "the connection still stands");
    other.write_all(b"x").unwrap();
    other_server.read_exact(&mut [0]).unwrap();
    sockets::destroy(&socket).expect("one that is gone counts as ended");
}

#[test]
fn polls_tell_of_flows_and_their_sizes() {
    if sockets::probe_list().is_err() {
        println!("SKIPPED: sock_diag does not list sockets here");
        return;
    }
    let mut poller = Poller::new(PollOptions::default());
    let now = Timestamp::from_secs(1);
    poller.poll(now);
    let (listener, mut client, mut server, cookie) = connection();
    let of = |events: Vec<davy_model::Event>| -> Vec<EventKind> {
        let is_ours = |kind: &EventKind| match kind {
            EventKind::FlowOpen(f) => f.flow == cookie,
            EventKind::FlowChunk(c) => c.flow == cookie,
            EventKind::FlowClose(c) => c.flow == cookie,
            EventKind::Listen(f) => f.local == listener.local_addr().unwrap(),
            _ => false,
        };
        events.into_iter().map(|e| e.kind).filter(is_ours).collect()
    };
    let opened = of(poller.poll(now));
    assert!(opened.iter().any(|k| matches!(k, EventKind::FlowOpen(f) if !f.accepted)));
    assert!(opened.iter().any(|k| matches!(k, EventKind::Listen(_))));
    client.write_all(&[1; 203]).unwrap();
    server.read_exact(&mut [0; 203]).unwrap();
    let grown = of(poller.poll(now));
    assert!(
        matches!(grown.as_slice(), [EventKind::FlowChunk(c)] if c.size == 203 && c.offset == 0),
        "{grown:?}"
    );
    drop((client, server));
    let closed = of(poller.poll(now));
    assert!(
        matches!(closed.last(), Some(EventKind::FlowClose(c)) if c.volume.sent_bytes == 203),
        "{closed:?}"
    );
}

#[test]
fn sockets_of_other_network_namespaces_are_seen() {
    let Some(mut own) = inside(&["-n"], "child_listens_in_its_own_network") else { return };
    let port: u16 = line_with(&mut own, "port=").split("port=").nth(1).unwrap().trim().parse().unwrap();
    let all = sockets::list();
    let found = all
        .iter()
        .find(|s| s.listening && s.local.port() == port && s.owners.iter().any(|o| o.pid == own.0.id()));
    let here = davy_proc::read(std::process::id()).unwrap().ns.net;
    assert_ne!(found.expect("the socket is not listed").namespace, here);
}

#[test]
#[ignore = "is run by another test in a network namespace"]
fn child_listens_in_its_own_network() {
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    println!("\nport={}", listener.local_addr().unwrap().port());
    let _ = std::io::stdin().read(&mut [0]);
}
