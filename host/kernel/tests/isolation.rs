//! Isolation: of a cgroup of the test's own, between two network namespaces of its own.
#![allow(clippy::unwrap_used, missing_docs)]

mod live;

use std::net::IpAddr;
use std::process::Command;
use std::time::Duration;

use davy_kernel::{Kept, boot_now};
use davy_model::Capability;
use live::Live;
use live::client::Client;
use live::own::OwnCgroup;

const NEEDED: [Capability; 2] = [Capability::Tracing, Capability::CgroupBpf];
const SECOND: u64 = 1_000_000_000;

/// Not a test: what [`Client`] runs.
#[test]
#[ignore = "run by the other tests"]
fn client() {
    live::client::serve();
}

/// Two hosts with a wire between them, as network namespaces: `here` has 10.97.1.1 and fd97::1, `there` has .2 and ::2.
struct Wire {
    here: String,
    there: String,
}

impl Wire {
    fn make(name: &str) -> Self {
        let id = std::process::id();
        let wire = Self { here: format!("davy-{name}-a-{id}"), there: format!("davy-{name}-b-{id}") };
        ip(&["netns", "add", &wire.here]);
        ip(&["netns", "add", &wire.there]);
        let peer = ["type", "veth", "peer", "name", "wire", "netns", &wire.there];
        ip(&[&["-n", &wire.here, "link", "add", "wire"], &peer[..]].concat());
        for (namespace, number) in [(&wire.here, 1), (&wire.there, 2)] {
            ip(&["-n", namespace, "address", "add", &format!("10.97.1.{number}/24"), "dev", "wire"]);
            ip(&["-n", namespace, "address", "add", &format!("fd97::{number}/64"), "dev", "wire", "nodad"]);
            ip(&["-n", namespace, "link", "set", "lo", "up"]);
            ip(&["-n", namespace, "link", "set", "wire", "up"]);
        }
        wire
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        for namespace in [&self.here, &self.there] {
            let _ = Command::new("ip").args(["netns", "delete", namespace]).status();
        }
    }
}

fn ip(arguments: &[&str]) {
    let done = Command::new("ip").args(arguments).output().unwrap();
    assert!(done.status.success(), "ip {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
}

fn in_a_minute() -> u64 {
    boot_now() + 60 * SECOND
}

#[test]
fn an_isolated_cgroup_reaches_nobody_and_nobody_reaches_it() {
    let Some(live) = Live::start(&NEEDED) else { return };
    let (cgroup, wire) = (OwnCgroup::make("isolated"), Wire::make("cut"));
    let mut inside = Client::start_in(&wire.here, Some(&cgroup.0));
    let mut neighbour = Client::start_in(&wire.here, None);
    let mut stranger = Client::start_in(&wire.there, None);
    for address in ["10.97.1.2:8080", "[fd97::2]:8080"] {
        assert_eq!(stranger.ask(&format!("listen {address}")), "ok");
    }
    for address in ["10.97.1.1:8080", "[fd97::1]:8080", "127.0.0.1:8081"] {
        assert_eq!(inside.ask(&format!("listen {address}")), "ok");
    }
    let mut talking = Client::start_in(&wire.here, Some(&cgroup.0));
    assert_eq!(talking.ask("connect 10.97.1.2:8080"), "ok");
    assert_eq!((talking.ask("send before"), talking.ask("receive")), ("ok".into(), "before".into()));

    let blocker = live.sensors.blocker().unwrap();
    blocker.isolate(cgroup.scope(), in_a_minute(), &Kept::default()).unwrap();
    assert_eq!(blocker.isolated().len(), 1);

    // What is new is refused at once, what lives is silent, and nobody gets in.
    for address in ["10.97.1.2:8080", "[fd97::2]:8080"] {
        assert_eq!(inside.ask(&format!("connect {address}")), "1");
        assert_eq!(inside.ask(&format!("datagram {address}")), "1");
        assert_eq!(neighbour.ask(&format!("connect {address}")), "ok", "others are not isolated");
    }
    assert_eq!(talking.ask("send now"), "ok");
    assert_eq!(talking.ask("receive"), "timeout");
    for address in ["10.97.1.1:8080", "[fd97::1]:8080"] {
        assert_eq!(stranger.ask(&format!("connect {address}")), "timeout");
    }
    // Within the host it goes on.
    assert_eq!(inside.ask("connect 127.0.0.1:8081"), "ok");
    assert_eq!(neighbour.ask("connect 127.0.0.1:8081"), "ok");

    assert!(blocker.rejoin(cgroup.scope()).unwrap());
    assert!(!blocker.rejoin(cgroup.scope()).unwrap());
    assert_eq!(inside.ask("connect 10.97.1.2:8080"), "ok");
    assert_eq!(stranger.ask("connect 10.97.1.1:8080"), "ok");
}

#[test]
fn sessions_and_networks_that_stay_stay() {
    let Some(live) = Live::start(&NEEDED) else { return };
    let (cgroup, wire) = (OwnCgroup::make("kept"), Wire::make("kept"));
    let mut inside = Client::start_in(&wire.here, Some(&cgroup.0));
    let mut administrator = Client::start_in(&wire.there, None);
    for address in ["10.97.1.1:2222", "[fd97::1]:2222", "10.97.1.1:8080"] {
        assert_eq!(inside.ask(&format!("listen {address}")), "ok");
    }
    for address in ["10.97.1.2:8080", "[fd97::2]:8080"] {
        assert_eq!(administrator.ask(&format!("listen {address}")), "ok");
    }
    assert_eq!(administrator.ask("connect 10.97.1.1:2222"), "ok");

    let address: IpAddr = "10.97.1.2".parse().unwrap();
    let blocker = live.sensors.blocker().unwrap();
    let kept = Kept { sessions: vec![(address, 2222)], networks: vec![("fd97::".parse().unwrap(), 64)] };
    blocker.isolate(cgroup.scope(), in_a_minute(), &kept).unwrap();

    // The session goes on, and can be begun again; the same address reaches no other port, and is reached at none.
    assert_eq!(
        (administrator.ask("send alive"), administrator.ask("receive")),
        ("ok".into(), "alive".into())
    );
    let mut again = Client::start_in(&wire.there, None);
    assert_eq!(again.ask("connect 10.97.1.1:2222"), "ok");
    assert_eq!(again.ask("connect 10.97.1.1:8080"), "timeout");
    assert_eq!(inside.ask("connect 10.97.1.2:8080"), "1");
    // The network stays in both directions.
    assert_eq!(again.ask("connect [fd97::1]:2222"), "ok");
    assert_eq!(inside.ask("connect [fd97::2]:8080"), "ok");
    assert_eq!(inside.ask("datagram [fd97::2]:53"), "ok");

    // What stays is what the latest order names, and not what an earlier one did.
    let kept = Kept { sessions: vec![(address, 2222)], networks: Vec::new() };
    blocker.isolate(cgroup.scope(), in_a_minute(), &kept).unwrap();
    assert_eq!(inside.ask("connect [fd97::2]:8080"), "1");
    assert_eq!(again.ask("connect 10.97.1.1:2222"), "ok");

    // What stayed for one isolation does not stay for the next.
    assert!(blocker.rejoin(cgroup.scope()).unwrap());
    blocker.isolate(cgroup.scope(), in_a_minute(), &Kept::default()).unwrap();
    assert_eq!(inside.ask("connect [fd97::2]:8080"), "1");
    assert_eq!(again.ask("connect 10.97.1.1:2222"), "timeout");
}

#[test]
fn an_isolation_ends_at_its_moment() {
    let Some(live) = Live::start(&NEEDED) else { return };
    let (cgroup, wire) = (OwnCgroup::make("ends"), Wire::make("ends"));
    let mut inside = Client::start_in(&wire.here, Some(&cgroup.0));
    let mut stranger = Client::start_in(&wire.there, None);
    assert_eq!(stranger.ask("listen 10.97.1.2:8080"), "ok");
    let blocker = live.sensors.blocker().unwrap();
    blocker.isolate(cgroup.scope(), boot_now() + SECOND, &Kept::default()).unwrap();
    assert_eq!(inside.ask("connect 10.97.1.2:8080"), "1");
    std::thread::sleep(Duration::from_millis(1100));
    assert_eq!(inside.ask("connect 10.97.1.2:8080"), "ok");
    assert_eq!(blocker.isolated(), []);
}

#[test]
fn a_full_table_isolates_nobody_and_says_so() {
    let Some(live) = Live::start(&NEEDED) else { return };
    let cgroup = OwnCgroup::make("full-kept");
    let blocker = live.sensors.blocker().unwrap();
    let sessions = (0..4200_u32).map(|n| (std::net::Ipv4Addr::from(0x0a00_0000 + n).into(), 22)).collect();
    let full = blocker.isolate(cgroup.scope(), in_a_minute(), &Kept { sessions, networks: Vec::new() });
    assert!(matches!(full, Err(davy_kernel::Error::Full { bound: 4096, .. })), "{full:?}");
    assert_eq!(blocker.isolated(), []);
    let networks = (0..4096_u32).map(|n| (std::net::Ipv4Addr::from(0x0a00_0000 + n).into(), 32)).collect();
    let kept = Kept { sessions: Vec::new(), networks };
    blocker.isolate(cgroup.scope(), in_a_minute(), &kept).unwrap();
}
