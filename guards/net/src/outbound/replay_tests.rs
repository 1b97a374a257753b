#![allow(clippy::unwrap_used)]

use davy_model::{FileId, Heading, Place, Talker, Transport};

use super::*;

const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

fn row(service: Option<&str>, peer: Peer, addresses: &[&str], port: u16) -> Connection {
    Connection {
        id: 1,
        talker: Talker {
            program: "/usr/bin/curl".to_owned(),
            file: FileId::default(),
            service: service.map(str::to_owned),
            container: None,
            uid: Some(33),
        },
        direction: Heading::Outbound,
        transport: Transport::Tcp,
        port,
        peer,
        named_by: None,
        addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
        more_addresses: false,
        place: Some(Place::Outside),
        tls: false,
        requests: Vec::new(),
        connections: 10,
        open: 0,
        sent_bytes: 0,
        received_bytes: 0,
        first: Timestamp(1),
        last: Timestamp(2),
    }
}

fn address(service: Option<&str>, peer: &str, port: u16) -> Connection {
    row(service, Peer::Address(peer.parse().unwrap()), &[peer], port)
}

fn name(service: Option<&str>, peer: &str, port: u16) -> Connection {
    row(service, Peer::Name(peer.to_owned()), &["203.0.113.7", "2001:db8::7"], port)
}

fn by(policy: &str, rows: &[Connection]) -> Replayed {
    let policy = Policy::parse("p.toml", policy).unwrap_or_else(|faults| panic!("{faults}"));
    replay(&policy, rows.iter().map(|row| (row, Some("www-data"))), &["192.0.2.53".parse().unwrap()], NOW)
}

fn told(entries: &[Proposed]) -> Vec<String> {
    entries.iter().map(Proposed::summary).collect()
}

#[test]
fn what_no_entry_allows_is_what_enforcing_would_have_refused() {
    let web = Some("web.service");
    let policy = "[[outbound.allow]]\nservice = \"web.service\"\nto = [\"*.example.org\", \"10.0.0.0/8\"]\n\
                  ports = [443]\nreason = \"r\"\n[[outbound.allow]]\nuser = \"www-data\"\nto = [\"192.0.2.0/24\"]\nreason = \"r\"\n\
                  [[outbound.allow]]\nto = [\"198.51.100.1\"]\nuntil = 2020-01-01\nreason = \"r\"\n";
    let rows = [
        name(web, "app.example.org", 443),
        address(web, "10.0.3.4", 443),
        // By the user that it ran as.
        address(Some("other.service"), "192.0.2.9", 80),
        // Neither counts: a name server, and loopback.
        address(web, "192.0.2.53", 53),
        address(web, "127.0.0.1", 9000),
        name(web, "app.example.org", 80),
        name(web, "example.org", 443),
        address(Some("other.service"), "10.0.3.4", 443),
        // What an entry allowed until it ended.
        address(web, "198.51.100.1", 443),
    ];
    let found = by(policy, &rows);
    assert_eq!((found.connections, found.allowed, found.refused), (70, 30, 40));
    let mut missing = told(&found.missing);
    assert!(
        missing[0].contains("example.org") && missing[0].contains("198.51.100.1"),
        "most first: {missing:?}"
    );
    missing.sort();
    assert_eq!(
        missing,
        [
            "other.service -> 10.0.3.4:443",
            "web.service -> app.example.org:80",
            "web.service -> example.org:443 198.51.100.1:443"
        ]
    );
    assert_eq!(found.unclear, []);
}

#[test]
fn a_name_is_allowed_by_all_its_addresses_as_well() {
    let policy = "[[outbound.allow]]\nto = [\"203.0.113.0/24\"]\nreason = \"r\"\n";
    let both = name(None, "app.example.org", 443);
    let one = Connection { addresses: vec!["203.0.113.7".parse().unwrap()], ..both.clone() };
    assert_eq!(by(policy, &[one]).refused, 0);
    assert_eq!(by(policy, &[both]).refused, 10, "the other address is no part of the network");
}

#[test]
fn what_the_map_does_not_tell_is_not_said_to_be_refused() {
    let policy = "[[outbound.allow]]\nservice = \"system.slice\"\nto = [\"any\"]\nreason = \"r\"\n";
    let found = by(policy, &[address(Some("web.service"), "203.0.113.9", 443)]);
    assert_eq!((found.refused, found.unclear.len()), (0, 1));
    assert!(found.unclear[0].odd[0].contains("slice"), "{:?}", found.unclear);
    let others = row(Some("web.service"), Peer::Others, &[], 443);
    let found = by("[outbound]\nmode = \"observe\"\n", &[others]);
    assert_eq!((found.refused, found.unclear.len()), (0, 1));
    assert!(found.unclear[0].odd[0].contains("more destinations"), "{:?}", found.unclear);
}

/// Entries that were learned allow all that they were learned from.
#[test]
fn what_was_learned_refuses_nothing() {
    let rows = [
        name(Some("web.service"), "app.example.org", 443),
        address(Some("web.service"), "10.0.3.4", 5432),
        address(Some("web.service"), "10.0.3.9", 5432),
        address(None, "203.0.113.9", 22),
    ];
    let learned = super::super::propose(rows.iter().map(|row| (row, Some("www-data"))), &[]);
    let found = by(&super::super::to_toml(&learned), &rows);
    assert_eq!((found.refused, found.unclear.len(), found.allowed), (0, 0, 40), "{learned:?}");
}
