//! Flows with their owners, first bytes, message sizes, volumes, and names from DNS answers.
#![allow(clippy::unwrap_used, missing_docs)]

mod live;

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use davy_model::{Capability, Captured, Direction, Event, EventKind, FlowOpen, Transport};
use live::Live;

const NEEDED: [Capability; 2] = [Capability::Tracing, Capability::CgroupBpf];

fn own() -> Option<u32> {
    Some(std::process::id())
}

fn opened(events: &[Event], pick: impl Fn(&FlowOpen) -> bool) -> Option<(Option<u32>, FlowOpen)> {
    events.iter().find_map(|event| match event.kind {
        EventKind::FlowOpen(open) if pick(&open) => Some((event.process.map(|key| key.pid), open)),
        _ => None,
    })
}

fn tcp_flow(address: &str) {
    let Some(live) = Live::start(&NEEDED) else { return };
    let Ok(listener) = TcpListener::bind((address, 0)) else {
        return eprintln!("SKIPPED: no loopback address {address}");
    };
    let server = listener.local_addr().unwrap();
    let mut client = TcpStream::connect(server).unwrap();
    let (mut accepted, _) = listener.accept().unwrap();
    let login = br#"{"id":1,"method":"login","params":{}}"#;
    for part in login.chunks(20) {
        client.write_all(part).unwrap();
        std::thread::sleep(Duration::from_millis(20));
    }
    let mut buffer = [0; 100];
    accepted.read_exact(&mut buffer[..login.len()]).unwrap();
    accepted.write_all(b"{\"result\":1}").unwrap();
    client.read_exact(&mut buffer[..12]).unwrap();
    drop((client, accepted, listener));
    let events = live.collect(Duration::from_millis(500));

    let listening = events.iter().find_map(|event| match event.kind {
        EventKind::Listen(open) if open.local == server => {
            Some((event.process.map(|key| key.pid), open.transport))
        }
        _ => None,
    });
    assert_eq!(listening, Some((own(), Transport::Tcp)));
    let (owner, out) =
        opened(&events, |open| open.remote == server && !open.accepted).expect("the client's flow");
    assert_eq!((owner, out.transport), (own(), Transport::Tcp));
    let (owner, inward) =
        opened(&events, |open| open.local == server && open.accepted).expect("the server's flow");
    assert_eq!(owner, own());
    assert_ne!(out.flow, inward.flow);

    assert_eq!(live.captured(out.flow, Direction::Sent), login);
    assert_eq!(live.captured(out.flow, Direction::Received), b"{\"result\":1}");
    assert_eq!(live.captured(inward.flow, Direction::Received), login);
    let closed: Vec<_> = events
        .iter()
        .filter_map(|event| match event.kind {
            EventKind::FlowClose(close) if close.flow == out.flow => Some(close.volume),
            _ => None,
        })
        .collect();
    assert_eq!(closed.len(), 1);
    assert_eq!((closed[0].sent_bytes, closed[0].received_bytes), (login.len() as u64, 12));
}

#[test]
fn a_tcp_flow_over_ipv4() {
    tcp_flow("127.0.0.1");
}

#[test]
fn a_tcp_flow_over_ipv6() {
    tcp_flow("::1");
}

#[test]
fn a_mapped_address_is_told_as_ipv4() {
    let Some(live) = Live::start(&NEEDED) else { return };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let Ok(_client) = TcpStream::connect(("::ffff:127.0.0.1", port)) else {
        return eprintln!("SKIPPED: no IPv6 sockets");
    };
    live.wait("the mapped flow", |event| match event.kind {
        EventKind::FlowOpen(open)
            if open.remote == SocketAddr::from(([127, 0, 0, 1], port)) && !open.accepted =>
        {
            Some(())
        }
        _ => None,
    });
}

#[test]
fn a_failed_connect_is_told_and_closed() {
    let Some(live) = Live::start(&NEEDED) else { return };
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
    let flow = live.wait("the attempt", |event| match event.kind {
        EventKind::FlowOpen(open) if open.remote.port() == port => Some(open.flow),
        _ => None,
    });
    let volume = live.wait("its end", |event| match event.kind {
        EventKind::FlowClose(close) if close.flow == flow => Some(close.volume),
        _ => None,
    });
    assert_eq!(volume.sent_bytes, 0);
}

#[test]
fn capture_ends_at_its_bound_and_bulk_is_not_told_packet_by_packet() {
    let Some(live) = Live::start(&NEEDED) else { return };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = listener.local_addr().unwrap();
    let mut client = TcpStream::connect(server).unwrap();
    let (mut accepted, _) = listener.accept().unwrap();
    let reader = std::thread::spawn(move || {
        let mut all = Vec::new();
        accepted.read_to_end(&mut all).unwrap();
        all.len()
    });
    let block = vec![b'x'; 1 << 14];
    for _ in 0..2000 {
        client.write_all(&block).unwrap();
    }
    drop(client);
    assert_eq!(reader.join().unwrap(), 2000 << 14);
    let events = live.collect(Duration::from_millis(500));
    let (_, out) = opened(&events, |open| open.remote == server && !open.accepted).unwrap();
    assert_eq!(live.captured(out.flow, Direction::Sent).len(), 2048);
    let chunks = events
        .iter()
        .filter(|event| matches!(&event.kind, EventKind::FlowChunk(chunk) if chunk.flow == out.flow))
        .count();
    assert!(chunks < 150, "{chunks} messages were told of a bulk flow");
}

#[test]
fn small_messages_over_a_long_time_are_all_told() {
    let Some(live) = Live::start(&NEEDED) else { return };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = listener.local_addr().unwrap();
    let mut client = TcpStream::connect(server).unwrap();
    client.set_nodelay(true).unwrap();
    let (mut accepted, _) = listener.accept().unwrap();
    let mut buffer = [0; 300];
    for _ in 0..50 {
        client.write_all(&[b'a'; 200]).unwrap();
        accepted.read_exact(&mut buffer[..200]).unwrap();
    }
    let events = live.collect(Duration::from_millis(400));
    let (_, out) = opened(&events, |open| open.remote == server && !open.accepted).unwrap();
    let sizes: Vec<u32> = events
        .iter()
        .filter_map(|event| match &event.kind {
            EventKind::FlowChunk(chunk) if (chunk.flow, chunk.direction) == (out.flow, Direction::Sent) => {
                Some(chunk.size)
            }
            _ => None,
        })
        .collect();
    assert_eq!(sizes, [200; 50]);
}

#[test]
fn a_udp_flow_has_an_owner_bytes_and_an_end() {
    let Some(live) = Live::start(&NEEDED) else { return };
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.send_to(b"first", server.local_addr().unwrap()).unwrap();
    let mut buffer = [0; 100];
    let (got, peer) = server.recv_from(&mut buffer).unwrap();
    server.send_to(&buffer[..got], peer).unwrap();
    client.recv_from(&mut buffer).unwrap();
    let (remote, local) = (server.local_addr().unwrap(), client.local_addr().unwrap());
    drop((client, server));
    let events = live.collect(Duration::from_millis(400));
    let (owner, out) =
        opened(&events, |open| open.remote == remote && !open.accepted).expect("the client's flow");
    assert_eq!((owner, out.transport, out.local), (own(), Transport::Udp, local));
    assert_eq!(live.captured(out.flow, Direction::Sent), b"first");
    assert_eq!(live.captured(out.flow, Direction::Received), b"first");
    let volume = events.iter().find_map(|event| match event.kind {
        EventKind::FlowClose(close) if close.flow == out.flow => Some(close.volume),
        _ => None,
    });
    let volume = volume.expect("the end of the flow");
    assert_eq!((volume.sent_bytes, volume.received_bytes), (5, 5));
    assert_eq!((volume.sent_packets, volume.received_packets), (1, 1));
}

#[test]
fn a_dns_answer_gives_an_address_its_name() {
    use simple_dns::rdata::{A, CNAME, RData};
    use simple_dns::{CLASS, Name, Packet, Question, ResourceRecord, TYPE};
    let Some(live) = Live::start(&NEEDED) else { return };
    // An address of its own, so that a resolver of the host does not stand in the way.
    let Ok(server) = UdpSocket::bind("127.53.53.53:53") else {
        return eprintln!("SKIPPED: port 53 cannot be bound");
    };
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.send_to(b"question", "127.53.53.53:53").unwrap();
    let mut buffer = [0; 100];
    let (_, peer) = server.recv_from(&mut buffer).unwrap();
    let mut answer = Packet::new_reply(1);
    answer.questions.push(Question::new(
        Name::new_unchecked("pool.example"),
        TYPE::A.into(),
        CLASS::IN.into(),
        false,
    ));
    let alias = RData::CNAME(CNAME(Name::new_unchecked("edge.example")));
    answer.answers.push(ResourceRecord::new(Name::new_unchecked("pool.example"), CLASS::IN, 60, alias));
    let address = RData::A(A { address: 0xc633_6407 });
    answer.answers.push(ResourceRecord::new(Name::new_unchecked("edge.example"), CLASS::IN, 60, address));
    server.send_to(&answer.build_bytes_vec_compressed().unwrap(), peer).unwrap();
    client.recv_from(&mut buffer).unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    let (owner, name) = loop {
        let answer = live.captures().into_iter().find_map(|capture| match capture.content {
            Captured::NameAnswer { bytes } => {
                let name = davy_inspect::answers(&bytes).into_iter().next()?;
                Some((capture.process.map(|key| key.pid), name))
            }
            _ => None,
        });
        if let Some(answer) = answer {
            break answer;
        }
        assert!(Instant::now() < deadline, "no answer was captured");
        std::thread::sleep(Duration::from_millis(20));
    };
    assert_eq!(owner, own());
    assert_eq!((name.name.as_str(), name.address), ("pool.example", IpAddr::from([198, 51, 100, 7])));
}

#[test]
fn sockets_that_were_there_before_have_owners() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let Some(live) = Live::start(&NEEDED) else { return };
    let server = listener.local_addr().unwrap();
    let _client = TcpStream::connect(server).unwrap();
    let owner = live.wait("the accepted flow", |event| match event.kind {
        EventKind::FlowOpen(open) if open.accepted && open.local == server => {
            Some(event.process.map(|key| key.pid))
        }
        _ => None,
    });
    assert_eq!(owner, own());
}

/// Opens connections that carry nothing, and gives how many of them were told singly and how many counted, at each end.
#[test]
fn of_many_flows_to_one_destination_the_first_are_told_and_the_rest_are_counted() {
    const MANY: u64 = 1_000;
    let Some(live) = Live::start(&NEEDED) else { return };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = listener.local_addr().unwrap();
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let deaf = silent.local_addr().unwrap();
    for _ in 0..MANY {
        let client = TcpStream::connect(server).unwrap();
        drop((listener.accept().unwrap(), client));
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.send_to(b"datagram", deaf).unwrap();
    }
    // Counts are told once a second.
    let events = live.collect(Duration::from_millis(2_500));
    for (at, accepted) in [(server, false), (server, true), (deaf, false)] {
        let end = |local: SocketAddr, remote: SocketAddr| if accepted { local.port() } else { remote.port() };
        let (mut single, mut counted, mut bytes) = (0, 0, 0);
        for event in &events {
            match &event.kind {
                EventKind::FlowOpen(open)
                    if open.accepted == accepted && end(open.local, open.remote) == at.port() =>
                {
                    assert_eq!(event.process.map(|key| key.pid), own());
                    single += 1;
                }
                EventKind::Flows(flows)
                    if flows.accepted == accepted && end(flows.local, flows.remote) == at.port() =>
                {
                    assert_eq!(event.process.map(|key| key.pid), own());
                    counted += flows.flows;
                    bytes += flows.volume.sent_bytes;
                }
                _ => {}
            }
        }
        assert_eq!(single + counted, MANY, "{at} accepted {accepted}: {single} told, {counted} counted");
        assert!((64..MANY / 2).contains(&single), "{at} accepted {accepted}: {single} told singly");
        assert_eq!(bytes, if at == deaf { 8 * counted } else { 0 }, "{at} accepted {accepted}");
    }
    assert_eq!(live.sensors.drops(), []);
}

#[test]
fn a_flow_that_was_not_told_is_told_as_soon_as_it_carries_something() {
    let Some(live) = Live::start(&NEEDED) else { return };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = listener.local_addr().unwrap();
    for _ in 0..500 {
        let client = TcpStream::connect(server).unwrap();
        drop((listener.accept().unwrap(), client));
    }
    let mut client = TcpStream::connect(server).unwrap();
    let (mut accepted, _) = listener.accept().unwrap();
    let near = client.local_addr().unwrap();
    client.write_all(b"{\"method\":\"login\"}").unwrap();
    accepted.read_exact(&mut [0; 18]).unwrap();
    let events = live.collect(Duration::from_millis(500));
    let (owner, out) =
        opened(&events, |open| open.local == near && !open.accepted).expect("the client's flow");
    assert_eq!((owner, out.remote), (own(), server));
    assert_eq!(live.captured(out.flow, Direction::Sent), b"{\"method\":\"login\"}");
    let (owner, back) =
        opened(&events, |open| open.remote == near && open.accepted).expect("the server's flow");
    assert_eq!(owner, own());
    assert_eq!(live.captured(back.flow, Direction::Received), b"{\"method\":\"login\"}");
}
