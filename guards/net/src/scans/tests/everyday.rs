//! What happens every day is no scan.

use davy_model::{PacketShape, PortNews, PortProbeKind, Prefix};

use super::{Answer, CLIENT, Scene, ip};
use crate::scans::Settings;

#[test]
fn everyday_visitors_are_no_scanners() {
    type Day = fn(&mut Scene);
    let days: [(&str, Day); 16] = [
        ("a browser with many connections", |scene| {
            for _ in 0..200 {
                for port in [80, 443] {
                    scene.visit(ip("198.51.100.7"), port, Answer::Takes, CLIENT);
                }
                scene.probe(ip("198.51.100.7"), 443, PortProbeKind::Udp, PacketShape::default());
                scene.pass(1.0);
            }
        }),
        ("monitoring of five ports, of which some are down, for days", |scene| {
            for round in 0..2000 {
                for (at, port) in [22, 25, 80, 443, 5432].into_iter().enumerate() {
                    let up = (round + at) % 3 > 0;
                    let answer = if up { Answer::Takes } else { Answer::Refuses };
                    scene.visit(ip("10.0.0.9"), port, answer, CLIENT);
                }
                scene.pass(60.0);
            }
        }),
        ("monitoring of five ports that are all down", |scene| {
            for _ in 0..100 {
                for port in [22, 25, 80, 443, 5432] {
                    scene.visit(ip("10.0.0.9"), port, Answer::Silent, CLIENT);
                }
                scene.pass(30.0);
            }
        }),
        ("packets of connections from before the watch began, at many ports", |scene| {
            for port in 0..200 {
                scene.probe(ip("198.51.100.7"), 40_000 + port, PortProbeKind::Ack, CLIENT);
                scene.pass(4.0);
                scene.probe(ip("198.51.100.7"), 40_000 + port, PortProbeKind::Maimon, CLIENT);
                scene.pass(4.0);
            }
        }),
        ("a health check of a port that opens later", |scene| {
            for round in 0..600 {
                let answer = if round < 60 { Answer::Refuses } else { Answer::Takes };
                scene.visit(ip("10.0.0.4"), 8080, answer, CLIENT);
                scene.pass(1.0);
            }
        }),
        ("a crowd behind one address", |scene| {
            for n in 0..3000u32 {
                let port = [80, 443, 443, 443, 22, 8080][n as usize % 6];
                let answer = if port == 8080 { Answer::Refuses } else { Answer::Takes };
                scene.visit(ip("192.0.2.1"), port, answer, PacketShape { ttl: 50 + n as u8 % 9, ..CLIENT });
                scene.pass(0.5);
            }
        }),
        ("traceroute by datagrams", |scene| {
            for n in 0..60 {
                let shape = PacketShape { ttl: 1 + n as u8 / 8, ..PacketShape::default() };
                scene.probe(ip("192.0.2.1"), 33_434 + n, PortProbeKind::Udp, shape);
                scene.see(ip("192.0.2.1"), 33_434 + n, 17, PortNews::Refused);
                scene.pass(0.1);
            }
        }),
        ("an administrator who knocks before ssh", |scene| {
            for day in 0..30u16 {
                for port in [7000, 8000 + day % 2, 9000] {
                    scene.visit(ip("198.51.100.9"), port, Answer::Silent, CLIENT);
                    scene.pass(1.0);
                }
                scene.visit(ip("198.51.100.9"), 22, Answer::Takes, CLIENT);
                scene.pass(86_400.0);
            }
        }),
        ("passive FTP", |scene| {
            for n in 0..500 {
                scene.visit(ip("198.51.100.9"), 30_000 + n, Answer::Takes, CLIENT);
                scene.pass(0.5);
            }
        }),
        ("pings", |scene| {
            for n in 0..200u8 {
                scene.probe(ip(&format!("192.0.2.{n}")), 0, PortProbeKind::Echo, PacketShape::default());
                scene.pass(1.0);
            }
        }),
        ("a tunnel", |scene| {
            for protocol in [47, 50, 51] {
                scene.probe(ip("192.0.2.1"), protocol, PortProbeKind::Protocol, PacketShape::default());
            }
            scene.probe(ip("192.0.2.1"), 500, PortProbeKind::Udp, PacketShape::default());
            scene.probe(ip("192.0.2.1"), 4500, PortProbeKind::Udp, PacketShape::default());
            scene.pass(60.0);
        }),
        ("a mail program that finds out its settings, at a host without mail", |scene| {
            for day in 0..30 {
                let answer = if day % 2 == 0 { Answer::Refuses } else { Answer::Silent };
                for port in [143, 993, 110, 995, 587, 465, 25] {
                    scene.visit(ip("198.51.100.9"), port, answer, CLIENT);
                    scene.pass(0.2);
                }
                scene.visit(ip("198.51.100.9"), 443, Answer::Takes, CLIENT);
                scene.pass(86_400.0);
            }
        }),
        ("a program that keeps files the same, whose other end is away and back again", |scene| {
            for round in 0..500u32 {
                let answer = if round % 3 == 0 { Answer::Takes } else { Answer::Refuses };
                scene.visit(ip("10.0.0.7"), 22_000, answer, CLIENT);
                scene.probe(ip("10.0.0.7"), 22_000, PortProbeKind::Udp, PacketShape::default());
                scene.probe(ip("10.0.0.7"), 21_027, PortProbeKind::Udp, PacketShape::default());
                scene.visit(ip("10.0.0.7"), 22_067, Answer::Refuses, CLIENT);
                scene.pass(300.0);
            }
        }),
        (
            "a crawler that tries the other usual ports of web servers, by four addresses of one network",
            |scene| {
                for hour in 0..24 * 30u32 {
                    let source = ip(&format!("192.0.2.{}", 64 + hour % 4));
                    for (port, answer) in [
                        (80, Answer::Takes),
                        (443, Answer::Takes),
                        (8080, Answer::Refuses),
                        (8443, Answer::Silent),
                    ] {
                        scene.visit(source, port, answer, CLIENT);
                    }
                    scene.probe(source, 443, PortProbeKind::Udp, PacketShape::default());
                    scene.pass(3600.0);
                }
            },
        ),
        ("a browser that tries QUIC beside TCP, and IPv4 beside IPv6", |scene| {
            for n in 0..300 {
                for source in ["198.51.100.7", "2001:db8:9::7"].map(ip) {
                    scene.probe(source, 443, PortProbeKind::Udp, PacketShape::default());
                    let answer = if n % 2 == 0 { Answer::Takes } else { Answer::HalfOpen };
                    scene.visit(source, 443, answer, CLIENT);
                    scene.visit(source, 80, Answer::Takes, CLIENT);
                }
                scene.pass(20.0);
            }
        }),
        ("the noise of the internet: each address tries one or two ports", |scene| {
            for n in 0..2000u32 {
                let source = ip(&format!("{}.{}.{}.9", 20 + n % 180, n % 250, n % 7));
                scene.visit(source, 1000 + (n % 900) as u16, Answer::Refuses, CLIENT);
                scene.pass(20.0);
            }
        }),
    ];
    for (what, day) in days {
        let mut scene = Scene::new();
        day(&mut scene);
        scene.pass(60.0);
        assert_eq!(scene.told, [], "{what}");
    }
}

#[test]
fn who_is_ignored_may_scan() {
    let ignore: Vec<Prefix> = vec!["10.9.0.0/16".parse().unwrap()];
    let mut scene = Scene::with(Settings { ignore, ..Settings::default() });
    for port in 0..500 {
        scene.visit(ip("10.9.1.1"), port, Answer::Refuses, CLIENT);
    }
    scene.pass(10.0);
    assert_eq!((scene.told.len(), scene.scans.watched(10).len()), (0, 0));
    // And who is ignored from now on is forgotten.
    for port in 0..500 {
        scene.visit(ip("10.8.1.1"), port, Answer::Refuses, CLIENT);
    }
    scene.scans.set(Settings { ignore: vec!["10.8.1.1".parse().unwrap()], ..Settings::default() });
    scene.pass(10.0);
    assert!(scene.told.is_empty());
}

#[test]
fn the_base_rate_is_learned_from_visitors_and_not_from_scanners() {
    let mut scene = Scene::new();
    for n in 0..3000u32 {
        let source = ip(&format!("198.{}.{}.9", n / 250, n % 250));
        scene.visit(source, 443, Answer::Takes, CLIENT);
        let scanner = ip(&format!("192.{}.{}.9", n / 250, n % 250));
        scene.visit(scanner, 23, Answer::Refuses, CLIENT);
    }
    assert!(scene.scans.base_rate() > 0.97, "{}", scene.scans.base_rate());
    scene.told.clear();
    // Four failures would be enough now, but for the least number of ports.
    for port in 100..108 {
        scene.visit(ip("203.0.113.77"), port, Answer::Refuses, CLIENT);
    }
    scene.pass(4.0);
    let needed: Vec<u32> = scene.new_scans().iter().map(|scan| scan.visits_needed).collect();
    assert!(needed.contains(&8), "{needed:?}");
}
