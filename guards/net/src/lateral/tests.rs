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
        Self { lateral: Lateral::new(Services::built_in(), WEEK, NOW), now: NOW, told: Vec::new() }
    }

    /// A host that was watched for a month before now.
    fn watched() -> Self {
        let since = NOW.plus_secs(-30.0 * 86_400.0);
        Self { lateral: Lateral::new(Services::built_in(), WEEK, since), now: NOW, told: Vec::new() }
    }

    fn wait(&mut self, secs: f64) {
        self.now = self.now.plus_secs(secs);
    }

    fn connect(&mut self, talker: &Talker, from: Option<&str>, remote: &str) {
        self.connect_to(talker, from, remote, None);
    }

    fn connect_to(&mut self, talker: &Talker, from: Option<&str>, remote: &str, name: Option<&str>) {
        self.wait(1.0);
        let (time, open) = (self.now, &open(remote));
        self.told.extend(self.lateral.opened(&Beginning { time, open, talker, from, name, found: false }));
    }

    /// The mover, and the host, were first seen a month ago, and it talked to this.
    fn known(mut self, talker: &Talker, remotes: &[&str]) -> Self {
        self.now = NOW.plus_secs(-30.0 * 86_400.0);
        self.lateral.since = self.lateral.since.min(self.now);
        // So that it is known although it never spoke to anybody.
        self.lateral.known(Mover::of(talker).unwrap(), self.now);
        for remote in remotes {
            self.connect(talker, None, remote);
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
    let mut host = Host::watched();
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
    assert!(!host.lateral.seen(NOW, &udp, &web) && !host.lateral.seen(NOW, &accepted, &web));
    assert!(host.lateral.seen(NOW, &open("10.0.3.8:22"), &web));
}

fn hosts(port: u16, from: u32, count: u32) -> Vec<String> {
    (from..from + count).map(|n| format!("10.0.{}.{}:{port}", n / 250, n % 250 + 3)).collect()
}

/// What somebody does every day: who, the profile that strangers talk to, what they spoke to for weeks, and what is new today.
type Shape = (&'static str, Talker, Option<&'static str>, Vec<String>, Vec<String>);

fn everyday() -> Vec<Shape> {
    let container = || talker(None, Some("0123456789ab"), 0);
    let both = |a: Vec<String>, b: Vec<String>| [a, b].concat();
    vec![
        (
            "Prometheus scrapes its targets",
            service("prometheus.service"),
            None,
            hosts(9100, 0, 200),
            hosts(9100, 200, 50),
        ),
        (
            "Prometheus scrapes kubelets",
            service("prometheus.service"),
            None,
            hosts(10250, 0, 100),
            hosts(10250, 100, 20),
        ),
        (
            "the first nodes of a cluster grow",
            service("prometheus.service"),
            None,
            vec![],
            hosts(10250, 0, 10),
        ),
        (
            "kubelet looks at new pods",
            service("kubelet.service"),
            None,
            vec![],
            both(hosts(6379, 0, 15), hosts(5432, 20, 10)),
        ),
        ("Nagios looks in by SSH", service("nagios.service"), None, hosts(22, 0, 100), hosts(22, 100, 10)),
        ("backups by SSH out of cron", service("cron.service"), None, hosts(22, 0, 20), hosts(22, 20, 5)),
        ("an Ansible controller", talker(None, None, 1000), None, hosts(22, 0, 300), hosts(22, 300, 20)),
        ("a bastion host", talker(None, None, 1001), None, hosts(22, 0, 40), hosts(22, 40, 6)),
        (
            "nginx, whose database failed over",
            service("nginx.service"),
            Some("nginx"),
            hosts(5432, 0, 1),
            hosts(5432, 1, 1),
        ),
        (
            "php-fpm, whose database was made anew",
            container(),
            Some("php-fpm"),
            hosts(3306, 0, 1),
            hosts(3306, 1, 1),
        ),
        (
            "Java, whose caches failed over",
            service("app.service"),
            Some("java-server"),
            hosts(6379, 0, 3),
            hosts(6379, 3, 3),
        ),
        (
            "Elasticsearch grows",
            service("es.service"),
            Some("java-server"),
            hosts(9200, 0, 3),
            hosts(9200, 3, 12),
        ),
        ("Kafka grows", service("kafka.service"), Some("java-server"), hosts(9092, 0, 3), hosts(9092, 3, 12)),
        (
            "Flink speaks to new stores",
            service("flink.service"),
            Some("java-server"),
            hosts(9042, 0, 3),
            hosts(9042, 3, 9),
        ),
        (
            "a pool of database connections",
            service("app.service"),
            None,
            hosts(5432, 0, 3),
            hosts(5432, 3, 3),
        ),
        ("a cache and its replicas", container(), None, hosts(6379, 0, 6), hosts(6379, 6, 6)),
        ("a master of Salt", service("salt-master.service"), None, hosts(4505, 0, 50), hosts(4505, 50, 5)),
    ]
}

#[test]
fn everyday_shapes_are_told_no_more_once_they_are_learned() {
    for (what, talker, from, usual, new) in everyday() {
        let learned: Vec<&str> = usual.iter().map(String::as_str).collect();
        let mut host = Host::new().known(&talker, &learned);
        for remote in usual.iter().chain(&usual).chain(&new) {
            host.connect(&talker, from, remote);
        }
        assert!(host.told.is_empty(), "{what}: {:?}", host.told);
        // One host more is no move either, unless a stranger may be behind it.
        host.wait(WINDOW_SECS);
        host.connect(&talker, None, "10.9.9.9:22");
        assert!(host.told.is_empty(), "{what}");
    }
}

#[test]
fn nobody_is_accused_on_the_first_day_and_what_was_learned_then_is_work() {
    for (what, talker, _, usual, new) in everyday() {
        let mut host = Host::new();
        for remote in usual.iter().chain(&new) {
            host.connect(&talker, None, remote);
        }
        assert!(host.told.is_empty(), "{what}, installed today: {:?}", host.told);
    }
    // The same services, installed on a host that is known: their first round.
    let people = |talker: &Talker| matches!(Mover::of(talker), Some(Mover::User(_)));
    for (what, talker, ..) in everyday().into_iter().filter(|(_, talker, ..)| !people(talker)) {
        let mut host = Host::watched();
        for remote in hosts(22, 0, 100).iter().chain(&hosts(5432, 0, 10)) {
            host.connect(&talker, None, remote);
        }
        host.wait(FIRST_SECS);
        host.connect(&talker, None, "10.9.9.9:22");
        assert!(host.told.is_empty(), "{what}: {:?}", host.told);
    }
}

#[test]
fn a_store_is_looked_for_everywhere_and_that_is_told() {
    let job = service("job.service");
    let mut host = Host::new().known(&job, &[]);
    for remote in hosts(6379, 0, 200) {
        host.connect(&job, None, &remote);
    }
    assert!((20..=40).contains(&host.told[0].reached[0].count), "{:?}", host.told[0]);
}

#[test]
fn a_new_address_of_a_known_name_is_no_new_peer() {
    let web = service("web.service");
    let mut host = Host::new().known(&web, &[]);
    host.lateral.known(Mover::of(&web).unwrap(), NOW).learn_name(22, "files.internal");
    host.connect_to(&web, Some("php-fpm"), "10.0.3.7:22", Some("files.internal"));
    assert!(host.told.is_empty());
    host.connect_to(&web, Some("php-fpm"), "10.0.3.8:22", Some("other.internal"));
    assert_eq!(host.told.len(), 1);
}

#[test]
fn a_service_that_only_served_is_known_from_then_on() {
    let web = service("web.service");
    let mut host = Host::watched();
    let accepted = FlowOpen { accepted: true, ..open("10.0.3.8:443") };
    assert!(!host.lateral.seen(NOW.plus_secs(-20.0 * 86_400.0), &accepted, &web));
    host.connect(&web, Some("nginx"), "10.0.3.7:22");
    assert!(host.told.first().is_some_and(|told| !told.learning), "{:?}", host.told);
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
        row(2, &web, 0, Peer::Others, &[]),
    ];
    let mut host = Host::new();
    host.lateral.restore(&kept[..1], NOW);
    for remote in ["10.0.3.5:5432", "10.0.3.6:5432"] {
        host.connect(&web, Some("nginx"), remote);
    }
    assert!(host.told.is_empty());
    host.connect_to(&web, Some("nginx"), "10.0.3.8:5432", Some("db.internal"));
    host.connect(&web, Some("nginx"), "10.0.3.7:22");
    assert!(!host.told[0].learning, "it was first seen a month ago");
    assert_eq!(host.told[0].reached.len(), 1);
    // Names with many addresses, and what cannot be inside at such a port, leave nothing unknown.
    let many = |row: Connection| Connection { more_addresses: true, ..row };
    let kept = [
        many(row(1, &web, 5432, Peer::Name("db.internal".to_owned()), &["10.0.3.5"])),
        many(row(2, &web, 443, Peer::Name("cdn.example".to_owned()), &["203.0.113.9"])),
        Connection { place: Some(Place::Host), ..row(3, &web, 0, Peer::Others, &[]) },
    ];
    let mut host = Host::new();
    host.lateral.restore(&kept, NOW);
    host.connect(&web, Some("nginx"), "10.0.3.7:22");
    assert!(!host.told[0].learning);
    let kept = [row(1, &web, 0, Peer::Others, &[])];
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
    let (time, open) = (host.now, &open("10.0.3.7:22"));
    let begun = Beginning { time, open, talker: &web, from: Some("nginx"), name: None, found: true };
    assert_eq!(host.lateral.opened(&begun), None);
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
            let (who, name) = (service(&format!("s{}.service", who)), format!("h{a}.{b}"));
            host.connect_to(&who, None, &format!("10.0.{a}.{b}:{port}"), Some(&name));
        }
        prop_assert!(host.lateral.movers.len() <= MAX_MOVERS);
        for known in host.lateral.movers.values() {
            prop_assert!(known.peers.len() <= MAX_PEERS && known.fresh.len() <= MAX_FRESH);
            prop_assert!(known.names.len() <= MAX_NAMES);
        }
        for told in &host.told {
            prop_assert!(told.reached.iter().all(|r| r.addresses.len() <= MAX_SHOWN));
        }
    }
}
