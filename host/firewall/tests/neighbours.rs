//! Other firewalls beside Davy's: nothing of theirs changes, what they refuse stays refused, and what becomes of Davy's table
//! when they reload is seen.
#![allow(clippy::unwrap_used, missing_docs)]

mod world;

use davy_firewall::{BanKind, Bans, Ports, Sentence};
use davy_model::{Door, Prefix, Transport};
use world::{FAR, HOST, NEAR, World, sh};

/// As Docker 24 to 27 make it with iptables-nft, for a container at 172.30.0.2 whose port 80 is published as 8080.
const DOCKER: &str = r#"
table ip nat {
    chain DOCKER {
        iifname "docker0" counter return
        iifname != "docker0" tcp dport 8080 counter dnat to 172.30.0.2:80
    }
    chain PREROUTING {
        type nat hook prerouting priority dstnat; policy accept;
        fib daddr type local counter jump DOCKER
    }
    chain OUTPUT {
        type nat hook output priority -100; policy accept;
        ip daddr != 127.0.0.0/8 fib daddr type local counter jump DOCKER
    }
    chain POSTROUTING {
        type nat hook postrouting priority srcnat; policy accept;
        oifname != "docker0" ip saddr 172.30.0.0/16 counter masquerade
    }
}
table ip filter {
    chain DOCKER {
        iifname != "docker0" oifname "docker0" ip daddr 172.30.0.2 tcp dport 80 counter accept
    }
    chain DOCKER-ISOLATION-STAGE-1 {
        iifname "docker0" oifname != "docker0" counter jump DOCKER-ISOLATION-STAGE-2
        counter return
    }
    chain DOCKER-ISOLATION-STAGE-2 {
        oifname "docker0" counter drop
        counter return
    }
    chain DOCKER-USER {
        counter return
    }
    chain FORWARD {
        type filter hook forward priority filter; policy drop;
        counter jump DOCKER-USER
        counter jump DOCKER-ISOLATION-STAGE-1
        oifname "docker0" ct state related,established counter accept
        oifname "docker0" counter jump DOCKER
        iifname "docker0" oifname != "docker0" counter accept
        iifname "docker0" oifname "docker0" counter accept
    }
}
"#;

/// As an administrator writes it by hand.
const BY_HAND: &str = r#"
table inet filter {
    set blocked { type ipv4_addr; elements = { 10.77.0.3 } }
    chain input {
        type filter hook input priority filter; policy drop;
        iif lo accept
        ct state established,related accept
        ip saddr @blocked drop
        meta l4proto { icmp, icmpv6 } accept
        tcp dport { 22, 80 } accept
    }
}
"#;

fn door(port: &str, from: &[&str]) -> Door {
    let from = (!from.is_empty()).then(|| from.iter().map(|t| t.parse::<Prefix>().unwrap().into()).collect());
    Door { transport: Transport::Tcp, ports: port.parse().unwrap(), from }
}

/// Everybody else's tables, without counters that go up by themselves.
fn theirs(world: &World) -> String {
    let tables = world.listed("-s list tables");
    let others = tables.lines().filter(|line| !line.contains("davy"));
    others.map(|table| world.listed(&format!("-s list {table}"))).collect()
}

fn close(world: &World, doors: &[Door]) {
    world.at_host(|| Ports::open().unwrap().close_all_but(doors, &[], None).unwrap());
}

#[test]
fn nothing_of_dockers_changes_and_published_ports_are_judged() {
    let Some(world) = World::make() else { return };
    // The container: a namespace behind a bridge.
    let container = format!("{}c", world.host);
    sh(&format!(
        "ip netns add {c} && ip -n {h} link add docker0 type bridge && ip -n {h} addr add 172.30.0.1/16 dev docker0 && \
         ip -n {h} link set docker0 up && ip -n {h} link add v0 type veth peer name eth0 netns {c} && \
         ip -n {h} link set v0 master docker0 up && ip -n {c} addr add 172.30.0.2/16 dev eth0 && \
         ip -n {c} link set eth0 up && ip -n {c} link set lo up && ip -n {c} route add default via 172.30.0.1 && \
         ip netns exec {h} sh -c 'echo 1 >/proc/sys/net/ipv4/ip_forward'",
        h = world.host,
        c = container
    ));
    let inner = World { host: container, others: String::new() };
    let _web = inner.listen(80);
    world.nft(DOCKER);
    assert!(world.reaches(NEAR[0], HOST[0], 8080), "the container is reached before anything is closed");
    let before = theirs(&world);

    close(&world, &[door("8080", &[NEAR[0]])]);
    assert!(world.reaches(NEAR[0], HOST[0], 8080));
    assert!(
        !world.reaches(FAR[0], HOST[0], 8080),
        "a port that is published is closed by the number it is published as"
    );
    world.at_host(|| {
        let length = std::time::Duration::from_secs(60);
        let sentence = Sentence { who: NEAR[0].parse().unwrap(), kind: BanKind::default(), length };
        Bans::open().unwrap().ban(&[sentence]).unwrap();
    });
    assert!(!world.reaches(NEAR[0], HOST[0], 8080), "who is banned does not reach containers either");
    assert_eq!(theirs(&world), before);
    world.at_host(|| {
        Ports::open().unwrap().remove().unwrap();
        Bans::open().unwrap().remove().unwrap();
    });
    assert!(world.reaches(FAR[0], HOST[0], 8080));
    assert_eq!(theirs(&world), before);
}

#[test]
fn what_another_firewall_refuses_stays_refused() {
    let Some(world) = World::make() else { return };
    let _listeners: Vec<_> = [22, 80, 443].map(|port| world.listen(port)).into_iter().collect();
    world.nft(BY_HAND);
    let before = theirs(&world);
    close(&world, &[door("80", &[]), door("443", &[])]);
    assert!(world.reaches(NEAR[0], HOST[0], 80), "both let it in");
    assert!(!world.reaches(FAR[0], HOST[0], 80), "theirs refuses it");
    assert!(!world.reaches(NEAR[0], HOST[0], 443), "theirs refuses it");
    assert!(!world.reaches(NEAR[0], HOST[0], 22), "ours refuses it");
    assert_eq!(theirs(&world), before);
}

#[test]
fn a_reload_of_theirs_that_takes_ours_away_is_seen() {
    let Some(world) = World::make() else { return };
    let _listener = world.listen(22);
    close(&world, &[]);
    let (generation, standing) = world.at_host(|| {
        let ports = Ports::open().unwrap();
        (ports.generation().unwrap(), ports.standing().unwrap())
    });
    assert!(standing.whole && standing.armed);
    // As `systemctl reload nftables` does it.
    world.nft(&format!("flush ruleset\n{BY_HAND}"));
    assert!(world.reaches(NEAR[0], HOST[0], 22), "ours is gone");
    let (later, standing) = world.at_host(|| {
        let ports = Ports::open().unwrap();
        (ports.generation().unwrap(), ports.standing().unwrap())
    });
    assert_ne!(generation, later, "the generation says that somebody changed something");
    assert!(!standing.whole && !standing.armed, "{standing:?}");
    // A part of it is no better than nothing.
    close(&world, &[]);
    world.nft("flush chain inet davy judge");
    assert!(!world.at_host(|| Ports::open().unwrap().standing().unwrap()).whole);
}
