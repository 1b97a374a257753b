//! Ports that are closed to some and open to others, tried by real connections between network namespaces.
#![allow(clippy::unwrap_used, missing_docs)]

mod world;

use std::io::{Read, Write};
use std::net::UdpSocket;
use std::time::{Duration, Instant};

use davy_firewall::{Ports, Refused};
use davy_model::{AddressRange, Door, Prefix, Transport};
use world::{FAR, HOST, NEAR, World};

fn door(transport: Transport, ports: &str, from: &[&str]) -> Door {
    let range = |text: &&str| AddressRange::from(text.parse::<Prefix>().unwrap());
    let from = (!from.is_empty()).then(|| from.iter().map(range).collect());
    Door { transport, ports: ports.parse().unwrap(), from }
}

fn close(world: &World, doors: &[Door], lease: Option<Duration>) {
    world.at_host(|| Ports::open().unwrap().close_all_but(doors, &[], lease).unwrap());
}

#[test]
fn a_port_is_open_to_whom_its_door_is_for() {
    let Some(world) = World::make() else { return };
    let _listeners: Vec<_> = [22, 80, 443, 5432, 8005].map(|port| world.listen(port)).into_iter().collect();
    let doors = [
        door(Transport::Tcp, "80", &[]),
        door(Transport::Tcp, "22", &["10.77.0.2", "fd77::2"]),
        door(Transport::Tcp, "8000-8100", &["10.77.0.3"]),
        door(Transport::Tcp, "443", &["10.77.0.0/24", "192.0.2.0/24"]),
    ];
    close(&world, &doors, None);
    for (n, host) in HOST.iter().enumerate() {
        assert!(world.reaches(NEAR[n], host, 80) && world.reaches(FAR[n], host, 80), "anyone");
        assert!(world.reaches(NEAR[n], host, 22) && !world.reaches(FAR[n], host, 22), "one address");
        assert!(!world.reaches(NEAR[n], host, 5432), "no door");
        assert!(!world.reaches(NEAR[n], host, 8005));
    }
    assert!(
        world.reaches(FAR[0], HOST[0], 8005) && !world.reaches(FAR[1], HOST[1], 8005),
        "a range of ports"
    );
    assert!(world.reaches(FAR[0], HOST[0], 443) && !world.reaches(FAR[1], HOST[1], 443), "a network");

    let (standing, refused) = world.at_host(|| {
        let ports = Ports::open().unwrap();
        (ports.standing().unwrap(), ports.refused().unwrap())
    });
    assert!(standing.whole && standing.armed && standing.refused >= 8, "{standing:?}");
    for far in FAR {
        let who = Refused { transport: Transport::Tcp, port: 22, from: far.parse().unwrap() };
        assert!(refused.contains(&who), "{refused:?}");
    }
    // What the kernel holds is what nft shows: the table reads as rules.
    let listed = world.listed("list table inet davy");
    for part in [
        "iiftype loopback accept",
        "fib daddr type != unicast",
        "ct state established,related accept",
        "counter packets",
    ] {
        assert!(listed.contains(part), "{part} is not in\n{listed}");
    }

    world.at_host(|| Ports::open().unwrap().remove().unwrap());
    assert!(world.reaches(FAR[0], HOST[0], 22), "open again");
    world.at_host(|| Ports::open().unwrap().remove().unwrap());
    assert!(!world.listed("list ruleset").contains("davy"));
}

#[test]
fn loopback_answers_and_living_connections_go_on() {
    let Some(world) = World::make() else { return };
    let listener = world.listen(9000);
    // Nothing tracked connections here when this one began, so that to connection tracking it looks new.
    let client = world.connect(NEAR[0], HOST[0], 9000).unwrap();
    let (server, _) = listener.accept().unwrap();
    close(&world, &[], None);
    assert!(!world.reaches(NEAR[0], HOST[0], 9000), "new ones are refused");
    let mut buffer = [0; 5];
    for (mut one, mut other) in [(&client, &server), (&server, &client)] {
        other.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
        one.write_all(b"still").unwrap();
        other.read_exact(&mut buffer).unwrap();
    }
    assert!(world.at_host(|| std::net::TcpStream::connect(("127.0.0.1", 9000)).is_ok()), "loopback");
    assert!(world.at_host(|| std::net::TcpStream::connect((HOST[0], 9000)).is_ok()), "its own address");

    // What the host itself asks is answered, over UDP as well.
    let (asking, answering) = (
        world.at_host(|| UdpSocket::bind((HOST[0], 0)).unwrap()),
        world.elsewhere(|| UdpSocket::bind((NEAR[0], 5300)).unwrap()),
    );
    for socket in [&asking, &answering] {
        socket.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
    }
    asking.send_to(b"who?", (NEAR[0], 5300)).unwrap();
    let (_, who) = answering.recv_from(&mut buffer).unwrap();
    answering.send_to(b"me", who).unwrap();
    assert_eq!(asking.recv(&mut buffer).unwrap(), 2);
    // Neighbours are found by ICMPv6, which is not judged; the address of the link serves as well as any.
    let _six = world.listen(9001);
    close(&world, &[door(Transport::Tcp, "9001", &["fe80::/10"])], None);
    let link = world::sh(&format!("ip -n {} -6 -o addr show dev e0 scope link", world.host));
    world::sh(&format!("ip -n {} neigh flush all && ip -n {} neigh flush all", world.host, world.others));
    let link = link.split_whitespace().find_map(|word| word.strip_suffix("/64")).unwrap();
    let reached = world::sh(&format!(
        "ip netns exec {} python3 -c 'import socket; socket.create_connection((\"{link}%e0\", 9001), 3); print(1)'",
        world.others
    ));
    assert_eq!(reached.trim(), "1");
}

#[test]
fn udp_is_judged_by_its_own_doors() {
    let Some(world) = World::make() else { return };
    for (host, port) in [(HOST[0], 53), (HOST[0], 123), (HOST[1], 53)] {
        world.echo(host, port);
    }
    close(&world, &[door(Transport::Udp, "53", &["10.77.0.0/24"]), door(Transport::Tcp, "123", &[])], None);
    assert!(world.is_echoed(NEAR[0], HOST[0], 53));
    assert!(!world.is_echoed(NEAR[0], HOST[0], 123), "a door for TCP is none for UDP");
    assert!(!world.is_echoed(NEAR[1], HOST[1], 53));
}

#[test]
fn a_lease_that_nobody_renews_opens_by_itself() {
    let Some(world) = World::make() else { return };
    let _listener = world.listen(22);
    close(&world, &[], Some(Duration::from_secs(2)));
    assert!(!world.reaches(NEAR[0], HOST[0], 22));
    // Whoever closed it is gone by now: the thread and its socket have ended.
    std::thread::sleep(Duration::from_millis(2300));
    assert!(world.reaches(NEAR[0], HOST[0], 22), "the lease is over");
    let standing = || world.at_host(|| Ports::open().unwrap().standing().unwrap());
    assert!(standing().whole && !standing().armed);
    world.at_host(|| Ports::open().unwrap().renew(Some(Duration::from_secs(60))).unwrap());
    assert!(!world.reaches(NEAR[0], HOST[0], 22), "a lease that ran out can be taken up again");
    world.at_host(|| Ports::open().unwrap().renew(None).unwrap());
    assert!(standing().armed);
}

#[test]
fn the_administrator_is_let_in_whatever_the_doors_say() {
    let Some(world) = World::make() else { return };
    let _listener = world.listen(22);
    close(&world, &[], None);
    let spare = |who: &[&str]| {
        let who: Vec<std::net::IpAddr> = who.iter().map(|a| a.parse().unwrap()).collect();
        world.at_host(|| Ports::open().unwrap().spare(&who).unwrap());
    };
    spare(&[NEAR[0], FAR[1], NEAR[0]]);
    assert!(world.reaches(NEAR[0], HOST[0], 22) && world.reaches(FAR[1], HOST[1], 22));
    assert!(!world.reaches(FAR[0], HOST[0], 22));
    spare(&[FAR[0]]);
    assert!(world.reaches(FAR[0], HOST[0], 22) && !world.reaches(NEAR[0], HOST[0], 22));
}

#[test]
fn a_change_that_is_refused_changes_nothing() {
    let Some(world) = World::make() else { return };
    let _listener = world.listen(80);
    close(&world, &[door(Transport::Tcp, "80", &[])], None);
    let before = world.listed("list table inet davy");
    let overlapping = [door(Transport::Tcp, "80-90", &[]), door(Transport::Tcp, "85", &[])];
    let outcome = world.at_host(|| Ports::open().unwrap().close_all_but(&overlapping, &[], None));
    assert!(outcome.unwrap_err().to_string().contains("overlap"));
    assert_eq!(world.listed("list table inet davy"), before);
    assert!(world.reaches(NEAR[0], HOST[0], 80));
}

#[test]
fn many_networks_are_one_transaction() {
    let Some(world) = World::make() else { return };
    let _listener = world.listen(443);
    let mut from: Vec<AddressRange> = (0..20_000u32)
        .map(|n| Prefix::of(std::net::Ipv4Addr::from_bits(0x2000_0000 + n * 512).into(), 24).into())
        .collect();
    from.push("10.77.0.3".parse::<Prefix>().unwrap().into());
    from.sort();
    let doors = [Door { transport: Transport::Tcp, ports: "443".parse().unwrap(), from: Some(from) }];
    let began = Instant::now();
    close(&world, &doors, None);
    println!("20,001 networks in {:?}", began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(5));
    assert!(world.reaches(FAR[0], HOST[0], 443) && !world.reaches(NEAR[0], HOST[0], 443));
}
