//! Scanners are found, after few probes, and nobody else is named.

use davy_model::{PacketShape, Place, PortProbeKind, PortRange, Severity};

use super::{Answer, CLIENT, NMAP, Scene, ip};
use crate::scans::{PortScan, Scanner, Settings, Tool};

fn only(scene: &Scene) -> &PortScan {
    let new = scene.new_scans();
    assert_eq!(new.len(), 1, "{new:#?}");
    new[0]
}

/// Scan type, and after how many probes at most it is known.
#[test]
fn each_kind_is_known_after_few_probes() {
    use PortProbeKind::{Ack, Fin, Fragment, Maimon, Null, Protocol, Syn, Udp, Xmas};
    for (kind, refused, at_most) in [
        (Syn, true, 8),
        (Syn, false, 8),
        (Ack, true, 8),
        (Maimon, true, 8),
        (Udp, true, 8),
        (Udp, false, 14),
        (Fin, true, 2),
        (Null, false, 2),
        (Xmas, true, 2),
        (Fragment, false, 2),
        (Protocol, false, 4),
    ] {
        let mut scene = Scene::new();
        let source = ip("198.51.100.7");
        for port in 140..200 {
            scene.probe(source, port, kind, NMAP);
            let protocol = if kind == Udp { 17 } else { 6 };
            if refused {
                scene.see(source, port, protocol, davy_model::PortNews::Refused);
            }
            scene.pass(1.0);
        }
        let scan = only(&scene);
        let needed = scan.visits_needed;
        assert!(needed <= at_most + if refused { 0 } else { 3 }, "{kind:?}, {refused}: after {needed}");
        assert_eq!(scan.scanner, Scanner::Address(source));
        assert!(!scan.proven, "{kind:?}");
        assert!(scan.kinds.has(kind) && scan.severity() >= Severity::Low);
    }
}

/// As it is when this host must first learn the hardware address that its answers go to: they wait for it, and those beyond a
/// hundred never leave.
#[test]
fn a_fast_scan_is_known_before_late_answers_come() {
    let mut scene = Scene::new();
    let source = ip("198.51.100.7");
    for port in 0..665 {
        scene.probe(source, 1 + port, PortProbeKind::Syn, NMAP);
        scene.pass(0.0005);
    }
    for port in 565..665 {
        scene.see(source, 1 + port, 6, davy_model::PortNews::Refused);
    }
    scene.pass(4.0);
    let scan = only(&scene);
    assert!(scan.visits_needed <= 24 + 8, "{}", scan.visits_needed);
    assert_eq!((scan.ports, scan.failed), (665, 665));
}

/// Answers that come in a heap, none too late, are those of a visitor.
#[test]
fn a_visitor_of_many_open_ports_at_once_is_no_scanner() {
    let mut scene = Scene::new();
    let source = ip("198.51.100.7");
    for round in 0..10 {
        let ports = (0..24).map(|n| 30_000 + round * 24 + n);
        for port in ports.clone() {
            scene.probe(source, port, PortProbeKind::Syn, CLIENT);
        }
        scene.pass(0.5);
        for port in ports {
            scene.see(source, port, 6, davy_model::PortNews::Open);
            scene.see(source, port, 6, davy_model::PortNews::Handshake { ttl: CLIENT.ttl });
        }
    }
    scene.pass(60.0);
    assert_eq!(scene.told, []);
}

#[test]
fn a_port_that_is_tried_in_several_ways_is_one_port() {
    use PortProbeKind::{Ack, Maimon, Syn};
    let mut scene = Scene::new();
    let source = ip("198.51.100.7");
    for port in 20..25 {
        for kind in [Syn, Ack, Maimon] {
            scene.probe(source, port, kind, CLIENT);
        }
        scene.see(source, port, 6, davy_model::PortNews::Refused);
    }
    scene.pass(10.0);
    let source = &scene.scans.watched(1)[0];
    assert_eq!((source.ports, source.failed, source.told), (5, 5, false));
}

#[test]
fn a_slow_scan_is_known_over_days() {
    let mut scene = Scene::new();
    let source = ip("198.51.100.7");
    // Between others, who come and go.
    for step in 0..12u16 {
        for other in 0..20u8 {
            let visitor = ip(&format!("192.0.2.{}", other + 1));
            scene.visit(visitor, 443, Answer::Takes, CLIENT);
        }
        scene.visit(source, 8000 + step, Answer::Silent, CLIENT);
        scene.pass(600.0);
    }
    let scan = only(&scene);
    assert_eq!(scan.scanner, Scanner::Address(source));
    assert!(scan.visits_needed <= 8, "{}", scan.visits_needed);
    // One in twelve hours.
    let mut scene = Scene::new();
    for step in 0..12u16 {
        scene.visit(source, 8000 + step, Answer::Refuses, CLIENT);
        scene.pass(43_200.0);
    }
    assert!(only(&scene).visits_needed <= 12);
}

/// nmap's -T1 waits 15 seconds between probes, and -T0 five minutes.
#[test]
fn the_slowest_timings_of_nmap_are_known_as_published() {
    let page = include_str!("../../../../../docs/reference/scans.md");
    for (row, gap) in [("| `nmap -sS -T1` | ", 15.0), ("| `nmap -sS -T0` | ", 300.0)] {
        let published = page.lines().find_map(|line| line.strip_prefix(row)?.split(' ').next()?.parse().ok());
        let published: u32 = published.unwrap_or_else(|| panic!("{row} is not published"));
        for answer in [Answer::Refuses, Answer::Silent] {
            let mut scene = Scene::new();
            for port in 20..40 {
                scene.visit(ip("192.0.2.9"), 443, Answer::Takes, CLIENT);
                scene.visit(ip("198.51.100.7"), port, answer, NMAP);
                scene.pass(gap);
            }
            let needed = only(&scene).visits_needed;
            assert!(needed <= published, "{row}, {answer:?}: {needed}");
        }
    }
}

#[test]
fn a_connect_scan_that_finds_something_is_proven_and_a_forged_one_is_not() {
    let source = ip("198.51.100.7");
    let scan = |answer: Answer, shape: PacketShape| {
        let mut scene = Scene::new();
        for port in 20..140 {
            let answer = if port == 22 || port == 25 { answer } else { Answer::Refuses };
            scene.visit(source, port, answer, shape);
        }
        scene.pass(5.0);
        only(&scene).clone()
    };
    let connect = scan(Answer::Takes, CLIENT);
    assert!(connect.proven && connect.summary().contains("its own"), "{}", connect.summary());
    assert_eq!((connect.open.as_slice(), connect.tool), ([22, 25].as_slice(), None));
    let half_open = scan(Answer::HalfOpen, NMAP);
    assert!(!half_open.proven && half_open.summary().contains("nothing proves"));
    assert_eq!((half_open.open.as_slice(), half_open.tool), ([22, 25].as_slice(), Some(Tool::Nmap)));
}

#[test]
fn who_forges_a_visitors_address_does_not_make_it_the_visitors_scan() {
    let mut scene = Scene::new();
    let visitor = ip("198.51.100.7");
    scene.visit(visitor, 443, Answer::Takes, CLIENT);
    scene.pass(1.0);
    // Somebody sends raw packets in its name, while it is here.
    for port in 20..40 {
        scene.visit(visitor, port, Answer::Refuses, NMAP);
        if port == 30 {
            scene.visit(visitor, 80, Answer::Takes, CLIENT);
        }
    }
    scene.pass(5.0);
    assert!(!only(&scene).proven);
    // With packets like its own, but from another distance.
    let mut scene = Scene::new();
    scene.visit(visitor, 443, Answer::Takes, CLIENT);
    for port in 20..40 {
        scene.visit(visitor, port, Answer::Refuses, PacketShape { ttl: 50, ..CLIENT });
    }
    scene.pass(5.0);
    assert!(!only(&scene).proven);
}

#[test]
fn decoys_of_nmap_are_one_scan_and_none_of_them_is_named() {
    let mut scene = Scene::new();
    let all = ["198.51.100.7", "192.0.2.1", "192.0.2.77", "203.0.113.9"].map(ip);
    for port in 20..60 {
        for source in all {
            scene.visit(source, port, Answer::Refuses, PacketShape { ttl: 40 + port as u8 % 9, ..NMAP });
        }
        scene.pass(0.01);
    }
    scene.pass(5.0);
    let scan = only(&scene);
    let Scanner::OneOf { addresses, real: None } = &scan.scanner else { panic!("{:?}", scan.scanner) };
    assert_eq!(addresses.len(), 4);
    assert!(!scan.proven && scan.summary().starts_with("one of 4 addresses"), "{}", scan.summary());
}

#[test]
fn two_scanners_at_different_times_are_two_scans() {
    let mut scene = Scene::new();
    for source in ["198.51.100.7", "192.0.2.1"].map(ip) {
        for port in 20..60 {
            scene.visit(source, port, Answer::Refuses, NMAP);
        }
        scene.pass(10.0);
    }
    assert_eq!(scene.new_scans().len(), 2);
}

#[test]
fn addresses_of_one_network_that_take_turns_are_one_scan() {
    for (base, network) in [("198.51.100.", "198.51.100.0/24"), ("2001:db8:7:1::", "2001:db8:7::/56")] {
        let mut scene = Scene::new();
        for step in 0..30u16 {
            let source = ip(&format!("{base}{}", 10 + step % 15));
            scene.visit(source, 2000 + step, Answer::Silent, CLIENT);
            scene.pass(20.0);
        }
        let scan = only(&scene);
        let Scanner::Network { network: told, sources } = &scan.scanner else { panic!("{:?}", scan.scanner) };
        assert_eq!(told.to_string(), network);
        assert!(*sources >= 3 && scan.return_path() == "addresses can be forged");
    }
}

/// Machines of one office, of which now and then one tries a port that nobody has.
#[test]
fn what_a_network_tried_long_ago_fades() {
    let mut scene = Scene::new();
    for step in 0..60u16 {
        let source = ip(&format!("198.51.100.{}", 10 + step % 15));
        scene.visit(source, 2000 + step, Answer::Refuses, CLIENT);
        scene.pass(3.0 * 86_400.0);
    }
    assert_eq!(scene.told, []);
    // What is left of it does not hide addresses that take turns, nor speak for others.
    for step in 0..30u16 {
        let source = ip(&format!("198.51.100.{}", 100 + step % 15));
        scene.visit(source, 5000 + step, Answer::Refuses, CLIENT);
        scene.pass(20.0);
    }
    let scan = only(&scene);
    assert!(scan.visits_needed <= 20, "{}", scan.visits_needed);
}

#[test]
fn a_crowd_from_everywhere_is_one_scan_without_a_name_and_ends() {
    let mut scene = Scene::new();
    for step in 0..400u16 {
        let source = ip(&format!("{}.{}.7.9", 20 + step % 100, step % 250));
        scene.visit(source, 1000 + step, Answer::Refuses, NMAP);
        scene.pass(0.5);
    }
    let scan = only(&scene);
    let Scanner::Many { sources, .. } = scan.scanner else { panic!("{:?}", scan.scanner) };
    assert!(sources >= 20 && scan.running && scan.alike.unwrap() > 0.99);
    scene.pass(1500.0);
    let last = scene.told.last().unwrap();
    assert!(!last.running && last.renewed && last.title().ends_with("over"));
}

#[test]
fn a_decoy_port_needs_one_touch() {
    let decoys = vec!["23".parse::<PortRange>().unwrap(), "2000-2010".parse().unwrap()];
    let mut scene = Scene::with(Settings { decoys, ..Settings::default() });
    scene.visit(ip("198.51.100.7"), 22, Answer::Refuses, CLIENT);
    scene.pass(10.0);
    assert!(scene.told.is_empty());
    scene.visit(ip("198.51.100.7"), 2003, Answer::Silent, CLIENT);
    scene.pass(10.0);
    let scan = only(&scene);
    assert_eq!((scan.decoys.as_slice(), scan.severity()), ([2003].as_slice(), Severity::Medium));
    assert!(scan.reasons()[0].text.contains("port 2003"), "{:?}", scan.reasons());
}

#[test]
fn a_scan_grows_ends_and_goes_on_under_one_number() {
    let mut scene = Scene::new();
    let source = ip("10.1.2.3");
    for port in 20..30 {
        scene.visit(source, port, Answer::Refuses, CLIENT);
    }
    scene.pass(5.0);
    let first = only(&scene).clone();
    assert_eq!((first.place, first.severity(), first.running), (Place::Inside, Severity::Medium, true));
    for port in 100..150 {
        scene.visit(source, port, Answer::Refuses, CLIENT);
    }
    scene.pass(5.0);
    assert!(scene.told.iter().any(|scan| scan.renewed && scan.ports == 60), "{:#?}", scene.told);
    scene.pass(300.0);
    assert!(!scene.told.last().unwrap().running);
    scene.visit(source, 9999, Answer::Refuses, CLIENT);
    scene.pass(2.0);
    let again = scene.told.last().unwrap();
    assert!(again.running && again.number == first.number && again.severity() == Severity::High);
    assert_eq!(scene.new_scans().len(), 1);
    // When nobody watches any more, nobody knows whether it goes on.
    assert_eq!(scene.scans.next_number(), first.number + 1);
    let left = scene.scans.cut_short();
    assert_eq!(left.len(), 1);
    assert!(!left[0].running && left[0].renewed && left[0].title().ends_with("not watched to its end"));
}

#[test]
fn other_packets_of_nmap_are_told_too() {
    // What -O sends: the same ports with other flags, and echo requests with a code.
    use PortProbeKind::{Echo, Mask, Null, Odd, Timestamp, Xmas};
    let mut scene = Scene::new();
    let source = ip("198.51.100.7");
    for kind in [Echo, Timestamp, Mask] {
        scene.probe(source, 0, kind, NMAP);
    }
    scene.pass(5.0);
    assert!(scene.told.is_empty(), "pings are no scan of ports");
    for kind in [Odd, Null, Xmas] {
        scene.probe(source, 22, kind, PacketShape { header_words: 10, window: 3, ..NMAP });
    }
    scene.pass(5.0);
    assert_eq!(only(&scene).forbidden, 3);
}
