//! A map of who talks to whom.

use std::net::{IpAddr, Ipv4Addr};

use davy_model::*;
use davy_wire::*;

use super::BEGAN;

fn entry(id: u64, program: &str, user: Option<&str>, service: Option<&str>) -> ConnectionEntry {
    ConnectionEntry {
        user: user.map(str::to_owned),
        connection: Connection {
            id,
            talker: Talker {
                program: program.to_owned(),
                file: FileId { dev: 2049, ino: 4_000 + id },
                service: service.map(str::to_owned),
                container: None,
                uid: user.map(|_| 33),
            },
            direction: Heading::Outbound,
            transport: Transport::Tcp,
            port: 443,
            peer: Peer::Others,
            named_by: None,
            addresses: vec![IpAddr::V4(Ipv4Addr::new(198, 51, 100, 7))],
            more_addresses: false,
            place: Some(Place::Outside),
            tls: false,
            requests: vec![],
            connections: 1,
            open: 0,
            sent_bytes: 2_048,
            received_bytes: 41 << 20,
            first: BEGAN.plus_secs(-90_000.0),
            last: BEGAN.plus_secs(id as f64),
        },
    }
}

/// Who talks to whom, seen last last.
pub fn all() -> Vec<ConnectionEntry> {
    let mut apt = entry(4, "/usr/lib/apt/methods/https", Some("_apt"), None);
    apt.connection.peer = Peer::Name("deb.debian.org".to_owned());
    apt.connection.named_by = Some(Naming::Tls);
    apt.connection.addresses.push(IpAddr::V4(Ipv4Addr::new(198, 51, 100, 8)));
    apt.connection.more_addresses = true;
    apt.connection.tls = true;
    let mut visitor = entry(2, "/usr/sbin/apache2", Some("www-data"), Some("apache2.service"));
    visitor.connection.direction = Heading::Inbound;
    visitor.connection.peer = Peer::Address(IpAddr::V4(Ipv4Addr::new(203, 0, 113, 9)));
    visitor.connection.requests = vec!["POST shop.example/upload.php".to_owned()];
    let mut database = entry(9, "/usr/sbin/apache2", Some("www-data"), Some("apache2.service"));
    database.connection.peer = Peer::Address(IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, 5]));
    database.connection.port = 5432;
    database.connection.place = Some(Place::Inside);
    database.connection.open = 3;
    database.connection.connections = 1_204;
    let mut resolver = entry(11, "", None, None);
    resolver.connection.talker.container = Some("0f1e2d3c4b5a".to_owned());
    resolver.connection.transport = Transport::Udp;
    resolver.connection.addresses.clear();
    resolver.connection.place = None;
    resolver.connection.port = 0;
    vec![visitor, apt, database, resolver]
}
