#![allow(clippy::unwrap_used)]

use davy_model::{FileId, Place, Talker, Timestamp};
use davy_policy::Policy;
use proptest::prelude::*;

use super::*;

fn row(service: Option<&str>, peer: &str, port: u16) -> Connection {
    let address: Option<IpAddr> = peer.parse().ok();
    Connection {
        id: 1,
        talker: Talker {
            program: "/usr/sbin/nginx".to_owned(),
            file: FileId::default(),
            service: service.map(str::to_owned),
            container: None,
            uid: Some(33),
        },
        direction: Heading::Outbound,
        transport: Transport::Tcp,
        port,
        peer: address.map_or_else(|| Peer::Name(peer.to_owned()), Peer::Address),
        named_by: None,
        addresses: address.into_iter().collect(),
        more_addresses: false,
        place: Some(Place::Outside),
        tls: false,
        requests: Vec::new(),
        connections: 2,
        open: 0,
        sent_bytes: 0,
        received_bytes: 0,
        first: Timestamp(1),
        last: Timestamp(2),
    }
}

fn proposed(rows: &[Connection], user: Option<&str>) -> Vec<Proposed> {
    propose(rows.iter().map(|row| (row, user)), &["192.0.2.53".parse().unwrap()])
}

#[test]
fn many_addresses_and_names_become_few_entries() {
    let nginx = Some("nginx.service");
    let mut rows: Vec<Connection> = (1..40).map(|n| row(nginx, &format!("10.0.3.{n}"), 8080)).collect();
    rows.extend(
        ["deb.debian.org", "security.debian.org", "debian.org"]
            .map(|n| row(Some("apt-daily.service"), n, 443)),
    );
    rows.extend(
        ["deb.debian.org", "security.debian.org", "debian.org"]
            .map(|n| row(Some("apt-daily.service"), n, 80)),
    );
    rows.push(row(Some("app.service"), "api.example.co.uk", 443));
    // Name servers that everyone may ask, loopback and what others began need no entry.
    rows.push(row(nginx, "192.0.2.53", 53));
    rows.push(Connection { place: Some(Place::Host), ..row(nginx, "127.0.0.1", 9000) });
    rows.push(Connection { direction: Heading::Inbound, ..row(nginx, "203.0.113.9", 443) });
    let entries = proposed(&rows, Some("www-data"));
    let told: Vec<String> = entries.iter().map(Proposed::summary).collect();
    assert_eq!(
        told,
        [
            "app.service -> api.example.co.uk:443",
            "apt-daily.service -> *.debian.org:80,443 debian.org:80,443",
            "nginx.service -> 10.0.3.0/24:8080"
        ]
    );
    assert_eq!(entries[2].connections, 78);
    let text = to_toml(&entries);
    let policy = Policy::parse("learned", &text).unwrap_or_else(|faults| panic!("{faults}"));
    assert_eq!(policy.outbound.allow.len(), 3);
    assert_eq!(policy.outbound.allow[2].reason, "learned: nginx, 78 times");
}

#[test]
fn the_hosts_own_addresses_need_an_entry_and_loopback_needs_none() {
    let own = |peer, port| Connection { place: Some(Place::Host), ..row(Some("app.service"), peer, port) };
    let mut named = own("app.example.org", 8081);
    named.addresses = vec!["::1".parse().unwrap(), "127.0.1.1".parse().unwrap()];
    let rows =
        [own("10.0.3.4", 5432), own("::1", 9000), own("::ffff:127.0.0.1", 9001), own("0.0.0.0", 9002), named];
    let told: Vec<String> = proposed(&rows, None).iter().map(Proposed::summary).collect();
    assert_eq!(told, ["app.service -> 10.0.3.4:5432"]);
}

#[test]
fn instances_of_a_template_are_one_and_managers_of_users_are_not() {
    let rows = ["fetch@1.service", "fetch@2.service", "user@1000.service", "user@1001.service"]
        .map(|unit| row(Some(unit), "deb.example.org", 80));
    let told: Vec<String> = proposed(&rows, None).iter().map(Proposed::summary).collect();
    assert_eq!(
        told,
        [
            "fetch@.service -> deb.example.org:80",
            "user@1000.service -> deb.example.org:80",
            "user@1001.service -> deb.example.org:80"
        ]
    );
}

#[test]
fn what_is_odd_is_a_comment() {
    let rows = [
        row(None, "203.0.113.9", 443),
        Connection { peer: Peer::Others, ..row(Some("scanner.service"), "203.0.113.9", 445) },
    ];
    let entries = proposed(&rows, Some("root"));
    assert!(entries.iter().all(|entry| !entry.odd.is_empty()), "{entries:?}");
    let text = to_toml(&entries);
    assert!(text.lines().all(|line| line.is_empty() || line.starts_with('#')), "{text}");
    let by_user = proposed(&rows[..1], Some("deploy"));
    assert_eq!((by_user[0].user.as_deref(), by_user[0].odd.len()), (Some("deploy"), 0));
}

#[test]
fn domains_are_those_that_somebody_holds() {
    for (name, expected) in [
        ("deb.debian.org", "debian.org"),
        ("debian.org", "debian.org"),
        ("a.b.example.com", "example.com"),
        ("shop.example.co.uk", "example.co.uk"),
        ("co.uk", "co.uk"),
        ("x.ab.de", "x.ab.de"),
        ("org", "org"),
    ] {
        assert_eq!(domain(name), expected, "{name}");
    }
}

proptest! {
    #[test]
    fn every_proposal_is_a_policy(
        rows in proptest::collection::vec(("\\PC{0,12}", "\\PC{0,24}", any::<u16>(), any::<bool>()), 0..20),
        user in proptest::option::of("\\PC{0,8}"),
    ) {
        let rows: Vec<Connection> = rows
            .into_iter()
            .map(|(service, peer, port, named)| {
                let service = format!("{service}.service");
                let mut row = row(Some(&service).filter(|_| named).map(String::as_str), "203.0.113.9", port);
                row.peer = Peer::Name(format!("{peer}.example.org"));
                row
            })
            .collect();
        let text = to_toml(&proposed(&rows, user.as_deref()));
        let faults = Policy::parse("learned", &text).err().map(|faults| faults.to_string());
        prop_assert_eq!(faults, None, "{}", text);
    }
}
