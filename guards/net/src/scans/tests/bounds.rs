//! Whatever comes, memory is bounded, nothing panics, and no forged address is proven.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use davy_model::{PacketShape, PortNews, PortProbeKind, PortSight, Prefix, Timestamp};
use proptest::prelude::*;

use super::{Answer, CLIENT, HOST, NMAP, START, Scene, ip};
use crate::scans::engine::{MAX_NETWORKS, MAX_TRACKS};
use crate::scans::network::{MAX_PORTS, MAX_SOURCES, NetworkTrack};
use crate::scans::track::{Contact, MAX_CONTACTS, Track};
use crate::scans::{Scans, Settings};

#[test]
fn a_flood_of_forged_addresses_fills_no_memory_and_hides_no_slow_scanner() {
    let mut scene = Scene::new();
    let scanner = ip("198.51.100.7");
    for n in 0..200_000u32 {
        let forged =
            IpAddr::V4(Ipv4Addr::from_bits(0x0b00_0000 + n.wrapping_mul(2_654_435_761) % 0x4000_0000));
        scene.visit(forged, (n % 60_000) as u16, Answer::Refuses, NMAP);
        if n % 10_000 == 0 {
            scene.visit(scanner, 1000 + (n / 10_000) as u16, Answer::Refuses, CLIENT);
        }
        if n % 1000 == 0 {
            scene.pass(0.5);
        }
    }
    assert!(scene.scans.tracks.len() <= MAX_TRACKS && scene.scans.networks.len() <= MAX_NETWORKS);
    assert!(scene.scans.tracks.values().all(|track| track.contacts.len() <= MAX_CONTACTS));
    assert!(scene.scans.lost().0 > 100_000);
    let known = scene.scans.tracks.get(&scanner).unwrap();
    assert!(known.verdict.is_some(), "{} bits", known.bits());
    assert!(scene.told.iter().all(|scan| !scan.proven));
    // The flood itself is one scan from many places.
    assert!(scene.told.iter().any(|scan| scan.summary().contains("addresses")));
}

/// By the sizes of what they hold. A tree's nodes may be less than half full, and a table of hashes half empty.
#[test]
fn full_tables_stay_below_what_is_published() {
    let tree = |entries: usize, entry: usize| 3 * entries * entry;
    let of_network = tree(MAX_SOURCES, size_of::<(IpAddr, Timestamp)>())
        + tree(MAX_PORTS, size_of::<((u8, u16, u8), Timestamp)>());
    let networks = MAX_NETWORKS * (2 * size_of::<(Prefix, NetworkTrack)>() + of_network);
    let of_track = MAX_CONTACTS * size_of::<Contact>() + 2 * tree(16, size_of::<u16>());
    let tracks = MAX_TRACKS * (2 * size_of::<(IpAddr, Track)>() + of_track);
    let bytes = networks + tracks;
    println!("networks {networks}, sources {tracks}");
    assert!(bytes < 80_000_000, "{networks} and {tracks}");
}

#[test]
fn no_more_scans_are_told_in_an_hour_than_people_can_read() {
    let mut scene = Scene::new();
    for n in 0..300u32 {
        let source = ip(&format!("{}.{}.7.9", 20 + n / 250, n % 250));
        // Each in its own way, so that none is another's decoy.
        for port in 0..10 {
            let port = (n * 97 + port * 13) as u16;
            scene.visit(source, port, Answer::Refuses, PacketShape { window: n as u16, ..CLIENT });
        }
        scene.pass(3.0);
    }
    scene.pass(1.0);
    assert_eq!(scene.new_scans().len(), 100);
    // Those that still go on wait; those that are over by now are told no more.
    assert!((30..60).contains(&scene.scans.lost().1), "{:?}", scene.scans.lost());
}

fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        (0u32..40).prop_map(|n| IpAddr::V4(Ipv4Addr::from_bits(0xc633_6400 + n))),
        any::<u32>().prop_map(|n| IpAddr::V4(Ipv4Addr::from_bits(n))),
        any::<u128>().prop_map(|n| IpAddr::V6(Ipv6Addr::from_bits(n))),
        Just(HOST),
    ]
}

fn news(handshakes: bool) -> impl Strategy<Value = PortNews> {
    let shape = (any::<u32>(), 0u16..4, 0u16..3, any::<u8>(), 0u8..16, 0u8..9, any::<bool>()).prop_map(
        |(sequence, source_port, window, ttl, header_words, first_option, dont_fragment)| PacketShape {
            sequence,
            source_port,
            window,
            ip_id: 54_321,
            ttl,
            header_words,
            first_option,
            dont_fragment,
        },
    );
    let kind = proptest::sample::select(PortProbeKind::ALL.to_vec());
    let probe =
        (kind, shape, any::<bool>()).prop_map(|(kind, shape, open)| PortNews::Probe { kind, shape, open });
    let last = if handshakes { PortNews::Handshake { ttl: 57 } } else { PortNews::Open };
    prop_oneof![6 => probe, 1 => Just(PortNews::Open), 2 => Just(PortNews::Refused), 1 => Just(last)]
}

fn sights(handshakes: bool) -> impl Strategy<Value = Vec<PortSight>> {
    let one = (
        address(),
        address(),
        0u16..300,
        any::<u8>(),
        news(handshakes),
        any::<u32>(),
        -1_000_000i64..9_000_000,
    )
        .prop_map(|(source, local, port, protocol, news, seen, offset)| PortSight {
            time: Timestamp(START.0 + offset),
            source,
            local,
            port,
            protocol: if protocol < 200 { [6, 17][usize::from(protocol) % 2] } else { protocol },
            news,
            seen,
        });
    proptest::collection::vec(one, 0..400)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn nothing_panics_and_all_of_it_can_be_told(sights in sights(true), step in 1usize..50) {
        let mut scans = Scans::new(Settings { decoys: vec!["7".parse().unwrap()], ..Settings::default() }, 1, START);
        let mut now = START;
        for chunk in sights.chunks(step) {
            chunk.iter().for_each(|sight| scans.observe(sight));
            now = now.plus_secs(1.5);
            for scan in scans.conclude(now) {
                prop_assert!(!scan.summary().is_empty() && !scan.title().is_empty());
                prop_assert!(scan.confidence() > 0.9 && scan.confidence() < 1.0);
                prop_assert!(scan.reasons().iter().all(|reason| reason.bits.is_finite()));
            }
        }
        prop_assert!(scans.watched(10).len() <= 10);
        prop_assert!(scans.tracks.values().all(|track| track.contacts.len() <= MAX_CONTACTS));
    }

    #[test]
    fn without_a_handshake_nobody_is_proven(sights in sights(false)) {
        let mut scans = Scans::new(Settings::default(), 1, START);
        sights.iter().for_each(|sight| scans.observe(sight));
        for second in 1..10 {
            for scan in scans.conclude(START.plus_secs(f64::from(second) * 2.0)) {
                prop_assert!(!scan.proven);
            }
        }
        prop_assert!(scans.watched(1000).iter().all(|source| !source.proven));
    }
}
