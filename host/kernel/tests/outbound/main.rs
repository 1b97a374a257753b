//! The outbound allow-list in the kernel: for a cgroup of the test's own only, by processes in network namespaces of their own.
#![allow(clippy::unwrap_used, missing_docs)]

mod changes;
mod datagrams;
#[path = "../live/mod.rs"]
mod live;
mod peer;
mod ring;

use std::path::{Path, PathBuf};

use davy_kernel::{OutboundGate, cgroup2_mount};
use davy_model::{
    Capability, OutboundMode, OutboundModes, OutboundProtocol, OutboundTables, RuleSet, reversed_name,
};
use live::Live;
use live::own::OwnCgroup;

const NEEDED: [Capability; 2] = [Capability::Tracing, Capability::CgroupBpf];

/// EPERM.
const REFUSED: &str = "1";

/// Not a test: what the peers run.
#[test]
#[ignore = "run by the other tests"]
fn client() {
    peer::run();
}

/// A cgroup of the test's own, named as a unit.
struct Unit {
    own: OwnCgroup,
    name: String,
}

impl Unit {
    fn make(name: &str) -> Self {
        Self::named(format!("davy-test-{name}-{}.service", std::process::id()))
    }

    fn named(name: String) -> Self {
        Self { own: OwnCgroup::below(&cgroup2_mount().unwrap(), &name), name }
    }

    fn path(&self) -> &Path {
        &self.own.0
    }

    fn below(&self, name: &str) -> PathBuf {
        let path = self.path().join(name);
        std::fs::create_dir(&path).unwrap();
        path
    }

    fn place(&self) -> String {
        format!("/{}", self.name)
    }

    fn modes(&self, mode: OutboundMode) -> OutboundModes {
        OutboundModes { everywhere: OutboundMode::Off, places: vec![(self.place(), mode)] }
    }
}

fn one(rule: usize) -> RuleSet {
    [rule].into_iter().collect()
}

fn mapped(address: &str, bits: u8, rules: RuleSet) -> ([u8; 16], u8, RuleSet) {
    match address.parse().unwrap() {
        std::net::IpAddr::V4(v4) => (v4.to_ipv6_mapped().octets(), bits + 96, rules),
        std::net::IpAddr::V6(v6) => (v6.octets(), bits, rules),
    }
}

/// One rule: this unit may talk by TCP to 198.51.100.0/24 and 2001:db8::/32 at port 8080.
fn web(unit: &str) -> OutboundTables {
    OutboundTables {
        units: vec![(unit.to_owned(), one(0))],
        any_container: RuleSet::ALL,
        any_user: RuleSet::ALL,
        ports: vec![((OutboundProtocol::Tcp, 8080), one(0))],
        destinations: vec![mapped("198.51.100.0", 24, one(0)), mapped("2001:db8::", 32, one(0))],
        ..OutboundTables::default()
    }
}

fn gate(live: &Live) -> OutboundGate {
    live.sensors.outbound().unwrap()
}

#[test]
fn a_rule_allows_its_unit_its_destination_and_nothing_more() {
    let Some(live) = Live::start(&NEEDED) else { return };
    let unit = Unit::make("rule");
    let gate = gate(&live);
    gate.apply(&web(&unit.name), &unit.modes(OutboundMode::Enforce)).unwrap();
    let mut inside = peer::start(Some(unit.path()));
    let mut outside = peer::start(None);
    for (act, came) in [
        ("connect 198.51.100.1:8080", "ok"),
        ("connect [2001:db8::1]:8080", "ok"),
        ("mapped 198.51.100.1:8080", "ok"),
        ("multipath 198.51.100.1:8080", "ok"),
        // Loopback is not outbound, whatever its port.
        ("connect 127.0.0.1:8081", "ok"),
        ("connect [::1]:8081", "ok"),
        ("connect 198.51.100.1:8081", REFUSED),
        ("connect [2001:db8::1]:8081", REFUSED),
        ("connect 203.0.113.7:8080", REFUSED),
        ("mapped 203.0.113.7:8080", REFUSED),
        ("multipath 203.0.113.7:8080", REFUSED),
        ("datagram 198.51.100.1:8080", REFUSED),
        ("datagram [2001:db8::1]:8080", REFUSED),
        ("connected-datagram 198.51.100.1:8080", REFUSED),
        ("fast-open 203.0.113.7:8080", REFUSED),
        ("ring 203.0.113.7:8080", REFUSED),
        ("ring 198.51.100.1:8080", "ok"),
        ("raw", REFUSED),
        ("raw-v6", REFUSED),
    ] {
        assert_eq!(inside.ask(act), came, "{act}");
        assert_eq!(outside.ask(act), "ok", "{act}, outside of the scope");
    }
    let told = gate.attempts();
    assert!(
        told.iter().all(|a| a.refused && a.cgroup == unit.place() && a.uid == 0 && a.process.pid > 0),
        "{told:?}"
    );
    let of = |address: &str, port, protocol| {
        let matches = told.iter().filter(|a| {
            a.address == address.parse::<std::net::IpAddr>().unwrap()
                && a.port == port
                && a.protocol == protocol
        });
        matches.map(|a| a.count).sum::<u64>()
    };
    assert_eq!(of("203.0.113.7", 8080, OutboundProtocol::Tcp), 5);
    assert_eq!(of("198.51.100.1", 8080, OutboundProtocol::Udp), 2);
    assert_eq!(of("::", 0, OutboundProtocol::Raw), 2);
    assert_eq!(gate.attempts(), [], "told once");
}

#[test]
fn observing_decides_alike_and_refuses_nothing() {
    let Some(live) = Live::start(&NEEDED) else { return };
    let unit = Unit::make("observe");
    let gate = gate(&live);
    gate.apply(&web(&unit.name), &unit.modes(OutboundMode::Observe)).unwrap();
    let mut inside = peer::start(Some(unit.path()));
    for act in ["connect 198.51.100.1:8080", "connect 203.0.113.7:8080", "datagram 198.51.100.1:9", "raw"] {
        assert_eq!(inside.ask(act), "ok", "{act}");
    }
    let mut told: Vec<_> =
        gate.attempts().into_iter().map(|a| (a.protocol, a.address.to_string(), a.port, a.refused)).collect();
    told.sort();
    let expected = [
        (OutboundProtocol::Tcp, "203.0.113.7".to_owned(), 8080, false),
        (OutboundProtocol::Udp, "198.51.100.1".to_owned(), 9, false),
        (OutboundProtocol::Raw, "::".to_owned(), 0, false),
    ];
    assert_eq!(told, expected);
    // What held is changed in place, also for who was looked at before.
    gate.set_modes(&unit.modes(OutboundMode::Enforce)).unwrap();
    assert_eq!(inside.ask("connect 203.0.113.7:8080"), REFUSED);
    gate.set_modes(&unit.modes(OutboundMode::Off)).unwrap();
    assert_eq!(inside.ask("connect 203.0.113.7:8080"), "ok");
    assert_eq!(gate.attempts().len(), 1);
}

#[test]
fn all_conditions_of_a_rule_must_hold() {
    let Some(live) = Live::start(&NEEDED) else { return };
    let unit = Unit::make("user");
    let gate = gate(&live);
    // The rule is for user 12345 in the unit; user 23456 is spared.
    let tables = OutboundTables {
        any_user: RuleSet::default(),
        users: vec![(12_345, one(0))],
        spared: vec![23_456],
        ..web(&unit.name)
    };
    gate.apply(&tables, &unit.modes(OutboundMode::Enforce)).unwrap();
    let act = "connect 198.51.100.1:8080";
    let mut root = peer::start(Some(unit.path()));
    assert_eq!(root.ask(act), REFUSED);
    assert_eq!(root.ask("user 12345"), "ok");
    assert_eq!(root.ask(act), "ok");
    let mut spared = peer::start(Some(unit.path()));
    assert_eq!(spared.ask("user 23456"), "ok");
    assert_eq!(spared.ask(act), "ok");
    let refused: Vec<(u32, bool)> = gate.attempts().iter().map(|a| (a.uid, a.refused)).collect();
    assert_eq!(refused, [(0, true), (23_456, false)]);
    // In another unit the same user has no rule.
    let other = Unit::make("other");
    let places = vec![(unit.place(), OutboundMode::Enforce), (other.place(), OutboundMode::Enforce)];
    gate.set_modes(&OutboundModes { everywhere: OutboundMode::Off, places }).unwrap();
    let mut elsewhere = peer::start(Some(other.path()));
    elsewhere.ask("user 12345");
    assert_eq!(elsewhere.ask(act), REFUSED);
}

#[test]
fn nobody_becomes_another_unit_by_a_cgroup_of_its_name() {
    let Some(live) = Live::start(&NEEDED) else { return };
    let (unit, trusted) = (Unit::make("intruder"), Unit::make("trusted"));
    let gate = gate(&live);
    gate.apply(&web(&trusted.name), &unit.modes(OutboundMode::Enforce)).unwrap();
    let act = "connect 198.51.100.1:8080";
    let disguise = unit.below(&trusted.name);
    let mut inside = peer::start(Some(&disguise));
    assert_eq!(inside.ask(act), REFUSED);
    // Nor does anyone leave the scope by going deeper than is looked.
    let mut deep = unit.path().to_owned();
    for _ in 0..270 {
        deep.push("d");
        std::fs::create_dir(&deep).unwrap();
    }
    assert_eq!(inside.ask(&format!("move {}", deep.display())), "ok");
    assert_eq!(inside.ask(act), REFUSED);
    // The one whose name it is may, and what it makes below itself is still that unit.
    let own = trusted.below("payload");
    let mut owner = peer::start(Some(&own));
    assert_eq!(owner.ask(act), "ok");
}

#[test]
fn every_instance_of_a_template_may_what_its_template_may() {
    let Some(live) = Live::start(&NEEDED) else { return };
    let template = format!("davy-test-{}@.service", std::process::id());
    let instance = |name: &str| Unit::named(template.replace('@', &format!("@{name}")));
    let (one, other, stranger) = (instance("one"), instance("two@three"), Unit::make("of-no-template"));
    let gate = gate(&live);
    let places = [&one, &other, &stranger].map(|unit| (unit.place(), OutboundMode::Enforce)).to_vec();
    let modes = OutboundModes { everywhere: OutboundMode::Off, places };
    gate.apply(&web(&template), &modes).unwrap();
    let act = "connect 198.51.100.1:8080";
    let mut inside = peer::start(Some(one.path()));
    assert_eq!(inside.ask(act), "ok");
    assert_eq!(inside.ask(&format!("move {}", other.path().display())), "ok");
    assert_eq!(inside.ask(act), "ok");
    assert_eq!(inside.ask(&format!("move {}", stranger.path().display())), "ok");
    assert_eq!(inside.ask(act), REFUSED);
    // An entry for one instance is for that one alone.
    gate.apply(&web(&one.name), &modes).unwrap();
    assert_eq!(inside.ask(&format!("move {}", other.path().display())), "ok");
    assert_eq!(inside.ask(act), REFUSED);
    assert_eq!(inside.ask(&format!("move {}", one.path().display())), "ok");
    assert_eq!(inside.ask(act), "ok");
}

#[test]
fn a_container_is_known_by_its_id() {
    let Some(live) = Live::start(&NEEDED) else { return };
    let id = format!("{:0<64}", format!("ab{:x}", std::process::id()));
    let scope = Unit::named(format!("docker-{id}.scope"));
    let gate = gate(&live);
    let key: [u8; 12] = id.as_bytes()[..12].try_into().unwrap();
    let tables = |key| OutboundTables {
        any_unit: RuleSet::ALL,
        any_container: RuleSet::default(),
        containers: vec![(key, one(0))],
        units: Vec::new(),
        ..web("")
    };
    gate.apply(&tables(key), &scope.modes(OutboundMode::Enforce)).unwrap();
    let mut inside = peer::start(Some(scope.path()));
    assert_eq!(inside.ask("connect 198.51.100.1:8080"), "ok");
    assert_eq!(inside.ask("connect 198.51.100.1:8081"), REFUSED);
    gate.apply(&tables(*b"ffffffffffff"), &scope.modes(OutboundMode::Enforce)).unwrap();
    assert_eq!(inside.ask("connect 198.51.100.1:8080"), REFUSED);
}

/// Rules by name: all below example.org, and edge.example.com itself.
fn by_name(unit: &str) -> OutboundTables {
    let below = reversed_name("example.org").unwrap();
    let apex = [below.as_slice(), &[0]].concat();
    let exactly = [reversed_name("edge.example.com").unwrap(), vec![0]].concat();
    OutboundTables {
        destinations: Vec::new(),
        names: vec![(below, one(0)), (apex, RuleSet::default()), (exactly, one(0))],
        resolvers: vec!["198.51.100.53".parse().unwrap()],
        ..web(unit)
    }
}

#[test]
fn a_name_is_allowed_as_soon_as_it_is_answered_and_no_other_name_is() {
    let Some(live) = Live::start(&NEEDED) else { return };
    let unit = Unit::make("names");
    let gate = gate(&live);
    gate.apply(&by_name(&unit.name), &unit.modes(OutboundMode::Enforce)).unwrap();
    let mut inside = peer::start(Some(unit.path()));
    let act = "connect 203.0.113.7:8080";
    assert_eq!(inside.ask("serve-names 198.51.100.53 203.0.113.7"), "ok");
    for name in ["example.org", "example.org.evil.example", "notexample.org", "a.edge.example.com"] {
        assert_eq!(inside.ask(&format!("resolve 198.51.100.53 {name}")), "ok");
        assert_eq!(inside.ask(act), REFUSED, "{name}");
    }
    assert_eq!(inside.ask("resolve 198.51.100.53 DEB.Example.org"), "ok");
    assert_eq!(inside.ask(act), "ok");
    assert_eq!(inside.ask("connect 203.0.113.7:8081"), REFUSED, "the port is another");
    let answered = gate.answered();
    let deb = answered.iter().find(|a| a.name == "deb.example.org").unwrap();
    assert_eq!(deb.address.to_string(), "203.0.113.7");
    let left = deb.until.secs_since(now());
    assert!((50.0..61.0).contains(&left), "a second is made a minute, and {left} s are left");
    assert_eq!(answered.len(), 5, "{answered:?}");
    // The next policy knows what was answered before it.
    gate.apply(&by_name(&unit.name), &unit.modes(OutboundMode::Enforce)).unwrap();
    assert_eq!(inside.ask(act), "ok");
    // What one network namespace was answered says nothing of an address in another.
    let mut other = peer::start(Some(unit.path()));
    assert_eq!(other.ask(act), REFUSED);
    assert_eq!(other.ask("serve-names 198.51.100.53 203.0.113.7"), "ok");
    assert_eq!(other.ask("resolve 198.51.100.53 edge.example.com"), "ok");
    assert_eq!(other.ask(act), "ok");
}

fn now() -> davy_model::Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    davy_model::Timestamp::from_secs(since.as_secs().cast_signed())
}

#[test]
fn answers_that_nobody_asked_for_are_not_believed() {
    let Some(live) = Live::start(&NEEDED) else { return };
    let unit = Unit::make("forged");
    let gate = gate(&live);
    gate.apply(&by_name(&unit.name), &unit.modes(OutboundMode::Enforce)).unwrap();
    let mut inside = peer::start(Some(unit.path()));
    let act = "connect 203.0.113.7:8080";
    // From outside the scope anyone may talk to anyone, also in the same namespace of the network.
    assert_eq!(inside.ask(&format!("move {}", cgroup2_mount().unwrap().display())), "ok");
    assert_eq!(inside.ask("forge 198.51.100.53 deb.example.org 203.0.113.7"), "ok");
    assert_eq!(inside.ask("serve-names 203.0.113.8 203.0.113.7"), "ok");
    assert_eq!(
        inside.ask("resolve 203.0.113.8 deb.example.org"),
        "ok",
        "of a name server that is not the host's"
    );
    // Whoever may listen at port 53 of loopback could else name any address.
    assert_eq!(inside.ask("serve-names 127.0.0.1 203.0.113.7"), "ok");
    assert_eq!(inside.ask("resolve 127.0.0.1 deb.example.org"), "ok", "of a process on loopback");
    assert_eq!(inside.ask(&format!("move {}", unit.path().display())), "ok");
    assert_eq!(inside.ask(act), REFUSED);
    assert_eq!(gate.answered(), []);
    // Listed, it is the host's own, as the stub of systemd-resolved is.
    let tables = OutboundTables { resolvers: vec!["127.0.0.1".parse().unwrap()], ..by_name(&unit.name) };
    gate.apply(&tables, &unit.modes(OutboundMode::Enforce)).unwrap();
    assert_eq!(inside.ask("resolve 127.0.0.1 deb.example.org"), "ok");
    assert_eq!(inside.ask(act), "ok");
}

#[test]
fn what_is_open_goes_on_and_what_is_made_is_not_yet_open() {
    let Some(live) = Live::start(&NEEDED) else { return };
    let unit = Unit::make("open");
    let gate = gate(&live);
    let mut inside = peer::start(Some(unit.path()));
    assert_eq!(inside.ask("connect 203.0.113.7:8080"), "ok");
    assert_eq!(inside.ask("make"), "ok");
    gate.apply(&web(&unit.name), &unit.modes(OutboundMode::Enforce)).unwrap();
    // A limit, and published as one: who was connected before the policy came stays connected.
    assert_eq!(inside.ask("talk"), "ok");
    // A socket that was made or passed before is judged by who connects it, and when.
    assert_eq!(inside.ask("use 203.0.113.7:8080"), REFUSED);
    // So does whoever is handed an open connection by somebody else, or has a proxy behind a Unix socket.
    let folder = tempfile::tempdir().unwrap();
    let door = folder.path().join("door");
    let mut outside = peer::start(None);
    assert_eq!(outside.ask(&format!("offer {} 203.0.113.7:8080", door.display())), "ok");
    assert_eq!(inside.ask(&format!("take {}", door.display())), "ok");
    // Another limit: frames of one's own making pass no hook of the cgroup's.
    assert_eq!(inside.ask("packet"), "ok");
}
