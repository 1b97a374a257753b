//! Who may reach this host, and whom it may reach.

use std::net::{IpAddr, Ipv4Addr};

use davy_model::*;
use davy_wire::*;

use super::BEGAN;

pub fn ports() -> PortsView {
    let owner = |program: &str| PortOwner {
        pid: Some(811),
        program: program.to_owned(),
        user: "root".to_owned(),
        service: None,
        container: None,
    };
    let of = |program: &str, service: &str| PortOwner { service: Some(service.to_owned()), ..owner(program) };
    let port = |transport, number, address: &str, program: &str| ListeningPort {
        transport,
        port: number,
        addresses: vec![address.parse().expect("an address")],
        reach: Place::Outside,
        apart: false,
        owners: vec![owner(program)],
        more_owners: false,
        open_to: OpenTo::Nobody,
        connections: 0,
        not_covered: 0,
        sources: 0,
        inside: 0,
        outside: 0,
        more_sources: false,
        last: None,
        latest: vec![],
    };
    let latest = vec![PortSource {
        from: IpAddr::V4(Ipv4Addr::new(203, 0, 113, 9)),
        place: Place::Outside,
        connections: 14_201,
        last: BEGAN,
    }];
    PortsView {
        mode: Mode::Enforce,
        state: PortsState::Closed,
        confirm_until: None,
        entries: 2,
        outdated: true,
        refused_packets: 1234,
        administrators: vec![IpAddr::V4(Ipv4Addr::new(198, 51, 100, 4))],
        faults: vec!["davy.toml:12: nobody listens on TCP port 8443".to_owned()],
        since: BEGAN,
        uncounted: 0,
        ports: vec![
            ListeningPort {
                owners: vec![of("/usr/sbin/sshd", "ssh.service")],
                open_to: OpenTo::Some(vec!["office".to_owned(), "192.0.2.7".to_owned()]),
                connections: 12,
                sources: 3,
                inside: 2,
                outside: 1,
                last: Some(BEGAN),
                ..port(Transport::Tcp, 22, "0.0.0.0", "/usr/sbin/sshd")
            },
            ListeningPort {
                owners: vec![
                    PortOwner { user: "www-data".to_owned(), ..of("/usr/sbin/nginx", "nginx.service") },
                    of("/tmp/nginx", "user@1000.service"),
                ],
                open_to: OpenTo::Some(vec!["anyone".to_owned()]),
                connections: 14_212,
                sources: 128,
                outside: 128,
                more_sources: true,
                last: Some(BEGAN),
                latest,
                ..port(Transport::Tcp, 443, "::", "/usr/sbin/nginx")
            },
            ListeningPort {
                reach: Place::Host,
                open_to: OpenTo::Exempt,
                ..port(Transport::Tcp, 3306, "127.0.0.1", "/usr/sbin/mariadbd")
            },
            ListeningPort {
                not_covered: 4,
                connections: 4,
                sources: 1,
                outside: 1,
                last: Some(BEGAN),
                ..port(Transport::Udp, 11_211, "0.0.0.0", "/usr/bin/memcached")
            },
            ListeningPort {
                apart: true,
                owners: vec![PortOwner {
                    container: Some("abababababab".to_owned()),
                    ..owner("/usr/sbin/httpd")
                }],
                open_to: OpenTo::Exempt,
                ..port(Transport::Tcp, 80, "0.0.0.0", "/usr/sbin/httpd")
            },
        ],
    }
}

pub fn bans() -> Vec<BanEntry> {
    let ban = |who: &str, action| BanEntry {
        who: who.parse().expect("a network"),
        ports: vec![],
        reject: false,
        since: BEGAN,
        until: BEGAN.plus_secs(3600.0),
        by: "root".to_owned(),
        action: ActionId(action),
        finding: None,
        incident: None,
        packets: 0,
        held: true,
    };
    vec![
        BanEntry { packets: 12_345, ..ban("203.0.113.9", 31) },
        BanEntry {
            ports: vec![22, 2222],
            reject: true,
            until: BEGAN.plus_secs(7.0 * 86_400.0),
            ..ban("198.51.100.0/24", 32)
        },
        BanEntry {
            by: "f12".to_owned(),
            finding: Some(FindingId(12)),
            incident: Some(IncidentId(7)),
            held: false,
            ..ban("2001:db8:7:1::/64", 35)
        },
    ]
}

pub fn outbound() -> OutboundSummary {
    let name = |name: &str, shared_with: &[&str]| OutboundName {
        name: name.to_owned(),
        address: IpAddr::V4(Ipv4Addr::new(203, 0, 113, 7)),
        until: BEGAN.plus_secs(60.0),
        shared_with: shared_with.iter().map(|name| (*name).to_owned()).collect(),
    };
    OutboundSummary {
        mode: Mode::Enforce,
        rules: 3,
        resolvers: vec![IpAddr::V4(Ipv4Addr::new(192, 0, 2, 53))],
        names: vec![name("deb.debian.org", &["cdn.example"]), name("security.debian.org", &[])],
        refused: 12,
        would: 1234,
        faults: vec!["there is no user backup (davy.toml:12)".to_owned()],
    }
}
