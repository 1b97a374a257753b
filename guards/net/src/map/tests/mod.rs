#![allow(clippy::unwrap_used)]

mod any_order;

use davy_model::{Dialogue, Direction, Place, Transport};

use super::*;

const START: Timestamp = Timestamp::from_secs(1_770_000_000);

fn at(secs: f64) -> Timestamp {
    START.plus_secs(secs)
}

fn talker(program: &str) -> Talker {
    Talker {
        program: program.to_owned(),
        service: Some("web.service".to_owned()),
        uid: Some(33),
        ..Talker::default()
    }
}

fn open(flow: u64, remote: &str) -> FlowOpen {
    FlowOpen {
        flow: FlowKey(flow),
        transport: Transport::Tcp,
        local: "10.0.0.1:40000".parse().unwrap(),
        remote: remote.parse().unwrap(),
        accepted: false,
    }
}

fn chunk(flow: u64, direction: Direction, offset: u64, size: u32) -> FlowChunk {
    FlowChunk { flow: FlowKey(flow), direction, size, offset }
}

fn volume(sent_bytes: u64, received_bytes: u64) -> FlowVolume {
    FlowVolume { sent_bytes, received_bytes, ..FlowVolume::default() }
}

fn reading(flow: u64, name: &str, tls: bool, request: Option<&str>) -> FlowReading {
    FlowReading {
        flow: FlowKey(flow),
        tls,
        name: Some(name.to_owned()),
        request: request.map(str::to_owned),
        random_start: false,
        dialogue: Dialogue::default(),
    }
}

/// A map, and the names that addresses were answered for.
#[derive(Default)]
struct Scene {
    map: Map,
    names: std::collections::HashMap<IpAddr, String>,
}

impl Scene {
    fn named(name: &str, address: &str) -> Self {
        let mut scene = Self::default();
        scene.names.insert(address.parse().unwrap(), name.to_owned());
        scene
    }

    fn opens(&mut self, secs: f64, flow: u64, remote: &str) {
        self.map.opened(at(secs), &open(flow, remote), None, Some(talker("/usr/bin/curl")), false);
    }

    fn settle(&mut self, secs: f64) {
        let names = &self.names;
        self.map
            .settle(at(secs), false, |_, address| Known { talker: None, name: names.get(&address).cloned() });
    }

    fn rows(&self) -> Vec<Connection> {
        self.map.select(&Filter::default())
    }
}

#[test]
fn connections_of_one_program_with_one_name_are_one_row() {
    let mut scene = Scene::named("deb.example", "198.51.100.7");
    scene.names.insert("198.51.100.8".parse().unwrap(), "deb.example".to_owned());
    for (flow, remote) in [(1, "198.51.100.7:443"), (2, "198.51.100.8:443"), (3, "198.51.100.7:443")] {
        scene.opens(0.0, flow, remote);
        scene.map.grew(at(0.2), &chunk(flow, Direction::Sent, 0, 100));
        scene.map.closed(at(0.5), FlowKey(flow), volume(150, 1000));
    }
    assert!(scene.rows().is_empty(), "they wait for a name");
    scene.settle(1.0);
    let rows = scene.rows();
    assert_eq!(rows.len(), 1, "{rows:?}");
    let row = &rows[0];
    assert_eq!((row.connections, row.open, row.sent_bytes, row.received_bytes), (3, 0, 450, 3000));
    assert_eq!((&row.peer, row.named_by), (&Peer::Name("deb.example".to_owned()), Some(Naming::Dns)));
    assert_eq!((row.addresses.len(), row.port, row.place), (2, 443, Some(Place::Outside)));
    assert_eq!((row.first, row.last), (at(0.0), at(0.5)));
    scene.opens(5.0, 4, "198.51.100.9:443");
    scene.settle(6.0);
    assert_eq!(scene.rows().len(), 2, "an address that nobody named is a row of its own");
}

#[test]
fn what_a_flow_asks_for_counts_more_than_an_answer_that_led_to_its_address() {
    let mut scene = Scene::named("first.example", "198.51.100.7");
    scene.opens(0.0, 1, "198.51.100.7:443");
    scene.settle(1.0);
    assert_eq!(scene.rows()[0].peer, Peer::Name("first.example".to_owned()));
    scene.map.grew(at(1.1), &chunk(1, Direction::Sent, 0, 517));
    scene.map.read(&reading(1, "Second.example", true, None));
    let rows = scene.rows();
    assert_eq!(rows.len(), 1, "the row that nothing is left of goes: {rows:?}");
    assert_eq!(
        (&rows[0].peer, rows[0].named_by),
        (&Peer::Name("second.example".to_owned()), Some(Naming::Tls))
    );
    assert_eq!((rows[0].sent_bytes, rows[0].open, rows[0].tls), (517, 1, true));
    assert_eq!(scene.map.take_changes().gone.len(), 1);
}

#[test]
fn a_name_that_comes_late_is_taken_and_an_old_flow_keeps_its_address() {
    let mut scene = Scene::default();
    scene.opens(0.0, 1, "198.51.100.7:443");
    scene.settle(1.0);
    scene.opens(2.0, 2, "198.51.100.7:443");
    scene.map.closed(at(2.1), FlowKey(2), volume(5, 5));
    scene.settle(3.0);
    scene.settle(5.5);
    assert_eq!(scene.rows()[0].peer, Peer::Address("198.51.100.7".parse().unwrap()));
    scene.names.insert("198.51.100.7".parse().unwrap(), "late.example".to_owned());
    scene.settle(6.0);
    let rows = scene.rows();
    assert_eq!((rows[0].connections, rows[1].connections), (1, 1), "{rows:?}");
    assert_eq!((&rows[1].peer, rows[1].sent_bytes), (&Peer::Name("late.example".to_owned()), 5));
    assert_eq!(scene.map.sizes().1, 2);
    scene.settle(8.0);
    assert_eq!(scene.map.sizes().1, 1, "the one that ended is forgotten");
}

#[test]
fn requests_are_kept_and_name_the_host_where_they_come_in() {
    let mut scene = Scene::default();
    scene.opens(0.0, 1, "10.0.0.2:80");
    scene.map.read(&reading(1, "shop.example:80", false, Some("GET /basket")));
    scene.map.opened(at(0.0), &FlowOpen { accepted: true, ..open(2, "203.0.113.9:5555") }, None, None, false);
    scene.map.read(&reading(2, "shop.example", false, Some("POST /upload.php")));
    scene.settle(1.0);
    let rows = scene.rows();
    let (sent, received) = (&rows[0], &rows[1]);
    assert_eq!(
        (&sent.peer, &sent.requests[..]),
        (&Peer::Name("shop.example".to_owned()), &["GET /basket".to_owned()][..])
    );
    assert_eq!((received.direction, received.port), (Heading::Inbound, 40_000));
    assert_eq!(received.peer, Peer::Address("203.0.113.9".parse().unwrap()));
    assert_eq!(received.requests, ["POST shop.example/upload.php"]);
    assert_eq!(received.talker, Talker::default(), "nobody knows whose it is");
}

#[test]
fn a_socket_that_talks_to_several_peers_is_a_connection_with_each() {
    let mut scene = Scene::default();
    let udp = |remote: &str| FlowOpen { transport: Transport::Udp, ..open(1, remote) };
    scene.map.opened(at(0.0), &udp("10.0.0.2:53"), None, None, false);
    scene.map.grew(at(0.0), &chunk(1, Direction::Sent, 0, 40));
    scene.map.opened(at(0.1), &udp("10.0.0.3:53"), None, None, false);
    scene.map.grew(at(0.1), &chunk(1, Direction::Sent, 40, 60));
    scene.map.closed(at(0.2), FlowKey(1), volume(100, 500));
    scene.settle(1.0);
    scene.settle(1.1);
    let sums: Vec<_> =
        scene.rows().iter().map(|r| (r.addresses[0].to_string(), r.sent_bytes, r.received_bytes)).collect();
    assert_eq!(sums, [("10.0.0.2".to_owned(), 40, 0), ("10.0.0.3".to_owned(), 60, 500)]);
}

#[test]
fn what_was_there_before_is_not_counted_twice_after_a_restart() {
    let mut scene = Scene::default();
    scene.opens(0.0, 1, "10.0.0.2:5432");
    scene.names.insert("10.0.0.2".parse().unwrap(), "db.example".to_owned());
    scene.map.grew(at(0.5), &chunk(1, Direction::Sent, 0, 1000));
    scene.settle(1.0);
    let kept = scene.map.take_changes().written;
    let mut scene = Scene::default();
    scene.map.restore(kept.clone());
    assert_eq!(scene.rows()[0].open, 0, "nobody knows whether it is still open");
    scene.map.opened(at(9.0), &open(1, "10.0.0.2:5432"), None, Some(talker("/usr/bin/curl")), true);
    scene.map.opened(at(9.0), &open(2, "10.0.0.3:5432"), None, Some(talker("/usr/bin/curl")), true);
    scene.settle(10.0);
    scene.map.grew(at(11.0), &chunk(1, Direction::Sent, 1_000_000, 5));
    scene.map.grew(at(11.0), &chunk(1, Direction::Sent, 1_000_005, 5));
    scene.map.closed(at(12.0), FlowKey(1), volume(1_000_010, 0));
    let rows = scene.rows();
    let (new, old) = (&rows[0], &rows[1]);
    assert_eq!((old.id, old.connections, old.sent_bytes), (kept[0].id, 1, 1010));
    assert_eq!(old.peer, Peer::Name("db.example".to_owned()), "though nobody answers for it any more");
    assert_eq!((new.connections, new.open), (1, 1), "of one that no row knows the connection counts");
    assert!(new.id > old.id, "numbers are never given again");
}

#[test]
fn what_is_found_and_then_told_to_begin_is_one_connection_and_several_found_ones_are_several() {
    let mut scene = Scene::default();
    scene.opens(0.0, 1, "10.0.0.2:5432");
    scene.settle(1.0);
    let kept = scene.map.take_changes().written;
    let mut scene = Scene::default();
    scene.map.restore(kept);
    for flow in [2, 3] {
        let found = |remote: &str| (open(flow, remote), Some(talker("/usr/bin/curl")));
        let (old, owner) = found("10.0.0.2:5432");
        scene.map.opened(at(9.0), &old, None, owner, true);
    }
    for flow in [4, 5] {
        scene.map.opened(at(9.0), &open(flow, "10.0.0.9:80"), None, Some(talker("/usr/bin/curl")), true);
    }
    // The agent was held up, and has given them rows before it hears of the beginning of one.
    scene.settle(10.5);
    scene.opens(9.0, 2, "10.0.0.2:5432");
    scene.opens(9.0, 4, "10.0.0.9:80");
    scene.map.closed(at(11.0), FlowKey(2), volume(70, 0));
    let counts: Vec<_> = scene.rows().iter().map(|row| (row.port, row.connections, row.sent_bytes)).collect();
    assert_eq!(counts, [(80, 2, 0), (5432, 2, 70)]);
}

#[test]
fn one_talker_with_many_peers_is_summed_up_and_leaves_the_map_to_others() {
    let mut scene = Scene::default();
    scene.map.opened(at(0.0), &open(1, "10.9.9.9:22"), None, Some(talker("/usr/bin/ssh")), false);
    let many = MAX_PEERS + 1000;
    for n in 0..many {
        let flow = 10 + n as u64;
        scene.opens(0.0, flow, &format!("203.0.{}.{}:80", n / 250, n % 250 + 1));
        scene.map.closed(at(0.1), FlowKey(flow), volume(1, 2));
    }
    scene.settle(1.0);
    let rows = scene.rows();
    assert_eq!(rows.len(), 1 + MAX_PEERS + 1);
    let others = rows.iter().find(|row| row.peer == Peer::Others).unwrap();
    assert_eq!((others.connections, others.sent_bytes, others.port), (1000, 1000, 0));
    assert!(others.more_addresses && others.place == Some(Place::Outside));
    assert_eq!(scene.map.losses().others, 1000);
    assert_eq!(rows.iter().map(|row| row.connections).sum::<u64>(), many as u64 + 1, "none is lost");
    // A day later a newcomer takes the place of one that was not seen since.
    scene.opens(90_000.0, 5, "198.51.100.1:80");
    scene.settle(90_001.0);
    assert!(scene.rows().iter().any(|row| row.peer == Peer::Address("198.51.100.1".parse().unwrap())));
    assert_eq!(scene.rows().iter().map(|row| row.connections).sum::<u64>(), many as u64 + 2);
}

#[test]
fn a_full_map_forgets_who_was_not_seen_for_the_longest_and_says_so() {
    let mut scene = Scene::default();
    for n in 0..=MAX_ROWS {
        let time = n as f64 / 1000.0;
        scene.map.opened(
            at(time),
            &open(n as u64, "10.0.0.2:80"),
            None,
            Some(talker(&format!("/tmp/{n}"))),
            false,
        );
        scene.map.closed(at(time), FlowKey(n as u64), volume(1, 1));
    }
    scene.settle(100.0);
    let rows = scene.rows();
    assert!(rows.len() <= MAX_ROWS && rows.len() > MAX_ROWS * 9 / 10, "{}", rows.len());
    assert_eq!(scene.map.losses().rows as usize, MAX_ROWS + 1 - rows.len());
    assert_eq!(rows.last().unwrap().talker.program, format!("/tmp/{MAX_ROWS}"));
    assert!(rows.iter().all(|row| row.talker.program != "/tmp/0"));
}

#[test]
fn flows_counted_by_the_kernel_are_counted_here() {
    let mut map = Map::new();
    let counted = |accepted: bool| FlowAggregate {
        transport: Transport::Tcp,
        local: if accepted { "0.0.0.0:443".parse().unwrap() } else { "0.0.0.0:0".parse().unwrap() },
        remote: if accepted { "0.0.0.0:0".parse().unwrap() } else { "10.0.0.7:80".parse().unwrap() },
        accepted,
        flows: 500,
        volume: volume(0, 7),
    };
    map.counted(at(0.0), &counted(true), Some(talker("/usr/sbin/nginx")), None);
    map.counted(at(1.0), &counted(false), Some(talker("/usr/bin/curl")), Some("backend.example".to_owned()));
    let rows = map.select(&Filter::default());
    assert_eq!(
        (&rows[0].peer, rows[0].port, rows[0].connections, rows[0].place),
        (&Peer::Others, 443, 500, None)
    );
    assert_eq!((&rows[1].peer, rows[1].received_bytes), (&Peer::Name("backend.example".to_owned()), 7));
}

#[test]
fn filters_choose_by_service_program_place_and_time() {
    let mut map = Map::new();
    let container = Talker {
        program: "/bin/app".to_owned(),
        container: Some("0f1e2d3c4b5a".to_owned()),
        ..Talker::default()
    };
    map.opened(at(0.0), &open(1, "10.0.0.2:80"), None, Some(talker("/usr/bin/curl")), false);
    map.opened(at(5.0), &open(2, "203.0.113.2:80"), None, Some(container), false);
    map.settle(at(9.0), false, |_, _| Known::default());
    let find = |filter: Filter| -> Vec<String> {
        map.select(&filter).into_iter().map(|row| row.talker.program).collect()
    };
    let of = |service: &str| Filter { service: Some(service.to_owned()), ..Filter::default() };
    assert_eq!(find(of("web")), ["/usr/bin/curl"]);
    assert_eq!(find(of("web.service")), ["/usr/bin/curl"]);
    assert_eq!(find(of("0f1e2d3c4b5a69")), ["/bin/app"]);
    assert_eq!(find(of("0f1e")), ["/bin/app"]);
    assert!(find(of("")).is_empty() && find(of("we")).is_empty());
    assert_eq!(find(Filter { process: Some("app".to_owned()), ..Filter::default() }), ["/bin/app"]);
    assert_eq!(find(Filter { outside: Some(true), ..Filter::default() }), ["/bin/app"]);
    assert_eq!(find(Filter { outside: Some(false), ..Filter::default() }), ["/usr/bin/curl"]);
    assert_eq!(find(Filter { since: Some(at(1.0)), ..Filter::default() }), ["/bin/app"]);
    assert_eq!(find(Filter { limit: 1, ..Filter::default() }), ["/bin/app"], "the latest");
}

#[test]
fn flows_beyond_the_bound_keep_what_they_were_so_far() {
    let mut scene = Scene::default();
    for flow in 0..MAX_FLOWS as u64 + 10 {
        scene.opens(0.0, flow, "10.0.0.2:80");
        scene.map.grew(at(0.0), &chunk(flow, Direction::Sent, 0, 1));
    }
    assert_eq!(scene.map.sizes().1, MAX_FLOWS);
    assert_eq!(scene.map.losses().flows, 10);
    scene.settle(1.0);
    let row = &scene.rows()[0];
    assert_eq!((row.connections, row.sent_bytes), (MAX_FLOWS as u64 + 10, MAX_FLOWS as u64 + 10));
    assert_eq!(row.open, MAX_FLOWS as u64);
}
