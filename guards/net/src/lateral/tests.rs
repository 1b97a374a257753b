#![allow(clippy::unwrap_used)]
use davy_model::{FileId, FlowKey, Naming};
use proptest::prelude::*;

use super::*;

const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);
const WEEK: f64 = 7.0 * 86_400.0;

fn talker(service: Option<&str>, container: Option<&str>, uid: u32) -> Talker {
    Talker {
        program: "/usr/bin/x".to_owned(),
        file: FileId { dev: 1, ino: 2 },
        service: service.map(str::to_owned),
        container: container.map(str::to_owned),
        uid: Some(uid),
    }
}

fn service(name: &str) -> Talker {
    talker(Some(name), None, 33)
}

fn open(remote: &str) -> FlowOpen {
    FlowOpen {
        flow: FlowKey(1),
        transport: Transport::Tcp,
        local: "10.0.0.2:41000".parse().unwrap(),
        remote: remote.parse().unwrap(),
        accepted: false,
    }
}

/// A host, told by its connections.
struct Host {
    lateral: Lateral,
    now: Timestamp,
    told: Vec<LateralMove>,
}

impl Host {
    fn new() -> Self {
        Self { lateral: Lateral::new(Services::built_in(), WEEK), now: NOW, told: Vec::new() }
    }

    fn wait(&mut self, secs: f64) {
        self.now = self.now.plus_secs(secs);
    }

    fn connect(&mut self, talker: &Talker, from: Option<&str>, remote: &str) {
        self.wait(1.0);
        self.told.extend(self.lateral.opened(self.now, &open(remote), talker, from, false));
    }

    /// The mover was seen a month ago, and talked to this.
    fn known(mut self, talker: &Talker, remotes: &[&str]) -> Self {
        self.now = NOW.plus_secs(-30.0 * 86_400.0);
        // So that it is known although it never spoke to anybody.
        self.lateral.known(Mover::of(talker).unwrap(), self.now);
        for remote in remotes {
            self.wait(WINDOW_SECS);
            self.told.extend(self.lateral.opened(self.now, &open(remote), talker, None, false));
        }
        self.now = NOW;
        self.told.clear();
        self
    }
}

#[test]
fn a_web_service_that_logs_in_elsewhere_is_told_at_once_and_once() {
    let web = service("web.service");
    let mut host = Host::new().known(&web, &["10.0.3.5:5432"]);
    host.connect(&web, Some("php-fpm"), "10.0.3.5:5432");
    host.connect(&web, Some("php-fpm"), "10.0.3.9:443");
    assert!(host.told.is_empty(), "its database and the web are its own");
    host.connect(&web, Some("php-fpm"), "10.0.3.7:22");
    let told = host.told.pop().unwrap();
    assert_eq!((told.mover.to_string().as_str(), told.from.as_deref()), ("web.service", Some("php-fpm")));
    assert_eq!(told.reached[0].technique, Technique::new("T1021.004"));
    assert!(told.words().contains("SSH at 10.0.3.7") && !told.learning, "{}", told.words());
    for _ in 0..20 {
        host.connect(&web, Some("php-fpm"), "10.0.3.7:22");
        host.wait(WINDOW_SECS / 3.0);
    }
    assert!(host.told.is_empty(), "it is told once");
}

#[test]
fn a_fan_out_grows_and_names_every_service() {
    let job = service("job.service");
    let mut host = Host::new().known(&job, &[]);
    for n in 1..=12 {
        host.connect(&job, None, &format!("10.0.3.{n}:22"));
    }
    host.connect(&job, None, "10.0.3.1:445");
    host.connect(&job, None, "10.0.3.2:6379");
    let last = host.told.last().unwrap();
    let reached: Vec<_> = last.reached.iter().map(|r| (r.service.as_str(), r.count)).collect();
    assert_eq!(reached, [("SSH", 12), ("SMB", 1), ("Redis", 1)]);
    assert_eq!(last.reached[0].addresses.len(), MAX_SHOWN);
    assert!(last.words().contains("and 4 more"), "{}", last.words());
    assert_eq!(host.told[0].reached[0].count, 3, "two hosts are not enough, three are");
    assert!(host.told.windows(2).all(|pair| pair[0].millibits < pair[1].millibits));
}

#[test]
fn who_goes_on_for_hours_is_told_again_and_again() {
    let job = service("job.service");
    let mut host = Host::new().known(&job, &[]);
    for n in 0..60 {
        host.connect(&job, None, &format!("10.0.3.{n}:22"));
        host.wait(180.0);
    }
    let moves: BTreeSet<Timestamp> = host.told.iter().map(|told| told.began).collect();
    assert!(moves.len() >= 10, "{moves:?}");
    assert!(host.told.last().unwrap().words().contains("10.0.3.59"), "{:?}", host.told.last());
}

#[test]
fn one_new_peer_of_a_service_that_nobody_outside_talks_to_is_no_move() {
    for remote in ["10.0.3.7:22", "10.0.3.7:445", "10.0.3.7:5432", "10.0.3.7:2375"] {
        let job = service("job.service");
        let mut host = Host::new().known(&job, &[]);
        host.connect(&job, None, remote);
        assert!(host.told.is_empty(), "{remote}");
    }
}

#[test]
fn who_is_new_is_learned_and_only_told_when_it_is_glaring() {
    let web = service("web.service");
    let mut host = Host::new();
    for port in [5432, 6379, 9200, 2379] {
        for n in 1..=6 {
            host.connect(&web, Some("nginx"), &format!("10.0.3.{n}:{port}"));
        }
    }
    assert!(host.told.is_empty(), "a shop that is being set up, with a cluster of each");
    let mut host = Host::new();
    for n in 1..=20 {
        host.connect(&web, Some("nginx"), &format!("10.0.3.{n}:22"));
    }
    assert!(host.told.first().is_some_and(|told| told.learning && told.reached[0].count == 5));
}

#[test]
fn what_is_outside_or_this_host_itself_is_another_matter() {
    let web = service("web.service");
    let mut host = Host::new().known(&web, &[]);
    for remote in ["203.0.113.7:22", "127.0.0.1:6379", "10.0.0.2:22", "[2001:db8::7]:22", "[::1]:5432"] {
        host.connect(&web, Some("nginx"), remote);
    }
    assert!(host.told.is_empty());
    host.connect(&web, Some("nginx"), "[::ffff:10.0.3.7]:22");
    assert!(host.told[0].words().contains("SSH at 10.0.3.7;"), "{}", host.told[0].words());
    let udp = FlowOpen { transport: Transport::Udp, ..open("10.0.3.8:22") };
    let accepted = FlowOpen { accepted: true, ..open("10.0.3.8:22") };
    assert!(!host.lateral.concerns(&udp) && !host.lateral.concerns(&accepted));
}

/// A day of each, after what it usually does was learned.
#[test]
fn everyday_shapes_are_told_no_more_once_they_are_learned() {
    let hosts = |port: u16, count: u32| -> Vec<String> {
        (0..count).map(|n| format!("10.0.{}.{}:{port}", n / 250, n % 250 + 3)).collect()
    };
    let shapes: [(&str, Talker, Vec<String>); 8] = [
        ("Prometheus scrapes its targets", service("prometheus.service"), hosts(9100, 200)),
        ("Prometheus scrapes kubelets", service("prometheus.service"), hosts(10250, 100)),
        ("Nagios looks in by SSH", service("nagios.service"), hosts(22, 100)),
        ("backups by SSH out of cron", service("cron.service"), hosts(22, 20)),
        ("an Ansible controller", talker(None, None, 1000), hosts(22, 300)),
        ("a pool of database connections", service("app.service"), hosts(5432, 3)),
        ("a cache and its replicas", talker(None, Some("0123456789ab"), 0), hosts(6379, 6)),
        ("a master of Salt", service("salt-master.service"), hosts(4505, 50)),
    ];
    for (what, talker, remotes) in shapes {
        let learned: Vec<&str> = remotes.iter().map(String::as_str).collect();
        let mut host = Host::new().known(&talker, &learned);
        for _ in 0..3 {
            for remote in &remotes {
                host.connect(&talker, None, remote);
            }
        }
        assert!(host.told.is_empty(), "{what}: {:?}", host.told);
        // One host more is no move either.
        host.connect(&talker, None, "10.9.9.9:22");
        assert!(host.told.is_empty(), "{what}");
    }
}

#[test]
fn a_person_who_logs_in_here_and_there_is_no_move_and_one_who_goes_through_the_network_is() {
    let admin = talker(None, None, 1000);
    let mut host = Host::new().known(&admin, &[]);
    for n in 1..=4 {
        host.connect(&admin, None, &format!("10.0.3.{n}:22"));
    }
    assert!(host.told.is_empty());
    host.connect(&admin, None, "10.0.3.5:22");
    assert!(host.told[0].words().starts_with("of user 1000 reached"), "{}", host.told[0].words());
}

fn row(id: u64, talker: &Talker, port: u16, peer: Peer, addresses: &[&str]) -> Connection {
    Connection {
        id,
        talker: talker.clone(),
        direction: Heading::Outbound,
        transport: Transport::Tcp,
        port,
        peer,
        named_by: None::<Naming>,
        addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
        more_addresses: false,
        place: Some(Place::Inside),
        tls: false,
        requests: Vec::new(),
        connections: 1,
        open: 0,
        sent_bytes: 0,
        received_bytes: 0,
        first: NOW.plus_secs(-30.0 * 86_400.0),
        last: NOW.plus_secs(-60.0),
    }
}

#[test]
fn what_the_map_kept_is_known_after_a_restart() {
    let web = service("web.service");
    let kept = [
        row(1, &web, 5432, Peer::Name("db.internal".to_owned()), &["10.0.3.5", "10.0.3.6"]),
        row(2, &web, 443, Peer::Others, &[]),
    ];
    let mut host = Host::new();
    host.lateral.restore(&kept[..1], NOW);
    for remote in ["10.0.3.5:5432", "10.0.3.6:5432"] {
        host.connect(&web, Some("nginx"), remote);
    }
    assert!(host.told.is_empty());
    host.connect(&web, Some("nginx"), "10.0.3.7:5432");
    assert!(!host.told[0].learning, "it was first seen a month ago");
    // Of this one the map did not tell all peers apart.
    let mut host = Host::new();
    host.lateral.restore(&kept, NOW);
    host.connect(&web, Some("nginx"), "10.0.3.7:22");
    assert!(host.told.is_empty(), "it is learned anew");
}

#[test]
fn what_was_there_before_the_agent_is_learned() {
    let web = service("web.service");
    let mut host = Host::new().known(&web, &[]);
    let found = host.lateral.opened(host.now, &open("10.0.3.7:22"), &web, Some("nginx"), true);
    assert_eq!(found, None);
    host.connect(&web, Some("nginx"), "10.0.3.7:22");
    assert!(host.told.is_empty());
}

#[test]
fn who_speaks_to_thousands_says_nothing_by_one_more() {
    let scanner = service("scanner.service");
    let mut host = Host::new().known(&scanner, &[]);
    for n in 0..MAX_PEERS + 500 {
        host.connect(&scanner, None, &format!("10.{}.{}.{}:22", n / 60_000, n / 250 % 250, n % 250 + 1));
        host.wait(WINDOW_SECS);
    }
    assert_eq!(host.lateral.movers.values().next().unwrap().peers.len(), MAX_PEERS);
}

proptest! {
    #[test]
    fn everything_stays_within_bounds(
        flows in proptest::collection::vec((0u32..1_500, any::<[u8; 2]>(), 0usize..4), 0..3_000)
    ) {
        let mut host = Host::new();
        for (who, [a, b], port) in flows {
            let port = [22, 445, 6379, 80][port];
            host.connect(&service(&format!("s{who}.service")), None, &format!("10.0.{a}.{b}:{port}"));
        }
        prop_assert!(host.lateral.movers.len() <= MAX_MOVERS);
        for known in host.lateral.movers.values() {
            prop_assert!(known.peers.len() <= MAX_PEERS && known.fresh.len() <= MAX_FRESH);
        }
        for told in &host.told {
            prop_assert!(told.reached.iter().all(|r| r.addresses.len() <= MAX_SHOWN));
        }
    }
}
