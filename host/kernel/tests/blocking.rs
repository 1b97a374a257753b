//! Closed destinations: for a cgroup of the test's own only, with time limits, and kept by pins.
#![allow(clippy::unwrap_used, missing_docs)]

mod live;

use std::io::Read;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use davy_kernel::{SensorConfig, boot_now};
use davy_model::{Capability, Destination};
use live::Live;
use live::client::Client;
use live::own::{OwnBpfFileSystem, OwnCgroup};

const NEEDED: [Capability; 2] = [Capability::Tracing, Capability::CgroupBpf];

/// Not a test: what [`Client`] runs.
#[test]
#[ignore = "run by the other tests"]
fn client() {
    live::client::serve();
}

fn destination(address: SocketAddr) -> Destination {
    Destination { address: address.ip(), port: address.port() }
}

#[test]
fn a_scope_is_cut_off_and_nobody_else() {
    let Some(live) = Live::start(&NEEDED) else { return };
    let cgroup = OwnCgroup::make("scope");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut inside = Client::start(Some(&cgroup.0));
    let mut outside = Client::start(None);
    let blocker = live.sensors.blocker().unwrap();

    assert_eq!(inside.ask(&format!("connect {address}")), "ok");
    let (mut accepted, _) = listener.accept().unwrap();
    let mut buffer = [0; 3];
    assert_eq!(inside.ask("send one"), "ok");
    accepted.read_exact(&mut buffer).unwrap();

    blocker.block(destination(address), cgroup.scope(), None).unwrap();
    assert_eq!(blocker.list().unwrap().len(), 1);

    // What lives is cut: the bytes leave the process and reach nobody.
    accepted.set_read_timeout(Some(Duration::from_millis(600))).unwrap();
    assert_eq!(inside.ask("send two"), "ok");
    assert!(accepted.read_exact(&mut buffer).is_err());
    // What is new is refused, for TCP as for UDP; for those outside nothing changed.
    let mut second = Client::start(Some(&cgroup.0));
    assert_eq!(second.ask(&format!("connect {address}")), "1");
    assert_eq!(second.ask(&format!("datagram {address}")), "1");
    assert_eq!(second.ask("datagram 127.0.0.1:9"), "ok");
    assert_eq!(outside.ask(&format!("connect {address}")), "ok");
    assert_eq!(outside.ask(&format!("datagram {address}")), "ok");

    assert!(blocker.unblock(destination(address), cgroup.scope()).unwrap());
    assert!(!blocker.unblock(destination(address), cgroup.scope()).unwrap());
    assert_eq!(second.ask(&format!("connect {address}")), "ok");
    // The living flow goes on where it was, by retransmission.
    accepted.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    accepted.read_exact(&mut buffer).unwrap();
    assert_eq!(&buffer, b"two");
}

#[test]
fn a_block_ends_at_its_moment() {
    let Some(live) = Live::start(&NEEDED) else { return };
    let cgroup = OwnCgroup::make("expiry");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut inside = Client::start(Some(&cgroup.0));
    let blocker = live.sensors.blocker().unwrap();
    // Every port of the address, told by port zero.
    let all_ports = Destination { port: 0, ..destination(address) };
    blocker.block(all_ports, cgroup.scope(), Some(boot_now() + 1_000_000_000)).unwrap();
    assert_eq!(inside.ask(&format!("connect {address}")), "1");
    std::thread::sleep(Duration::from_millis(1100));
    assert_eq!(inside.ask(&format!("connect {address}")), "ok");
    assert_eq!(blocker.list().unwrap(), []);
}

#[test]
fn a_cgroup_below_the_scope_is_in_it() {
    let Some(live) = Live::start(&NEEDED) else { return };
    let cgroup = OwnCgroup::make("above");
    let below = OwnCgroup(cgroup.0.join("below"));
    std::fs::create_dir(&below.0).unwrap();
    let listener = TcpListener::bind("[::1]:0").or_else(|_| TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    let mut inside = Client::start(Some(&below.0));
    let blocker = live.sensors.blocker().unwrap();
    blocker.block(destination(address), cgroup.scope(), None).unwrap();
    assert_eq!(inside.ask(&format!("connect {address}")), "1");
    drop(inside);
    drop(below);
}

#[test]
fn a_full_table_says_so_and_keeps_what_it_has() {
    let Some(live) = Live::start(&NEEDED) else { return };
    let cgroup = OwnCgroup::make("full");
    let blocker = live.sensors.blocker().unwrap();
    let to =
        |number: u32| Destination { address: std::net::Ipv4Addr::from(0x0a00_0000 + number).into(), port: 1 };
    for number in 0..4096 {
        blocker.block(to(number), cgroup.scope(), None).unwrap();
    }
    let full = blocker.block(to(4096), cgroup.scope(), None);
    assert!(matches!(full, Err(davy_kernel::Error::Full { bound: 4096, .. })), "{full:?}");
    assert_eq!(blocker.list().unwrap().len(), 4096);
    assert!(blocker.unblock(to(7), cgroup.scope()).unwrap());
    blocker.block(to(4096), cgroup.scope(), None).unwrap();
}

#[test]
fn pinned_blocks_outlive_their_agent_and_are_adopted() {
    if !live::have(&NEEDED) {
        return;
    }
    let bpffs = OwnBpfFileSystem::mount();
    let cgroup = OwnCgroup::make("pinned");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut inside = Client::start(Some(&cgroup.0));
    let config = SensorConfig { pin: Some(bpffs.0.path().join("davy")), ..SensorConfig::new(live::BOOT) };

    let live = Live::configured(&NEEDED, config.clone()).unwrap();
    live.sensors.blocker().unwrap().block(destination(address), cgroup.scope(), None).unwrap();
    assert_eq!(inside.ask(&format!("connect {address}")), "1");
    drop(live);
    assert_eq!(inside.ask(&format!("connect {address}")), "1", "closed although the agent is gone");

    let live = Live::configured(&NEEDED, config.clone()).unwrap();
    let blocker = live.sensors.blocker().unwrap();
    let listed = blocker.list().unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!((listed[0].destination, listed[0].scope), (destination(address), cgroup.scope()));
    assert_eq!(inside.ask(&format!("connect {address}")), "1", "closed under the next agent");
    blocker.release().unwrap();
    assert_eq!(inside.ask(&format!("connect {address}")), "ok", "open once released");
    assert!(!config.pin.unwrap().exists());
}
