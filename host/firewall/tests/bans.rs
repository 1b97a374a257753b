//! Who is banned cannot connect until it is over.
#![allow(clippy::unwrap_used, missing_docs)]

mod world;

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use davy_firewall::{Ban, BanKind, Bans, Sentence};
use davy_model::Prefix;
use world::{FAR, HOST, NEAR, World};

const HOUR: Duration = Duration::from_secs(3600);

fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

fn ban_all(who: &[Prefix], kind: &BanKind, length: Duration) -> Result<(), davy_firewall::Error> {
    let sentence = |who: &Prefix| Sentence { who: *who, kind: kind.clone(), length };
    Bans::open()?.ban(&who.iter().map(sentence).collect::<Vec<_>>())
}

fn ban(world: &World, who: &[&str], length: Duration) {
    let who: Vec<Prefix> = who.iter().map(|text| prefix(text)).collect();
    world.at_host(|| ban_all(&who, &BanKind::default(), length).unwrap());
}

fn list(world: &World) -> Vec<Ban> {
    world.at_host(|| Bans::open().unwrap().list().unwrap())
}

#[test]
fn a_ban_holds_for_its_time_and_no_longer() {
    let Some(world) = World::make() else { return };
    let _listener = world.listen(80);
    assert!(list(&world).is_empty(), "nobody is banned before anybody was");
    ban(&world, &[NEAR[0], "fd77::2/128"], Duration::from_secs(2));
    ban(&world, &[FAR[0]], HOUR);
    for n in 0..2 {
        assert!(!world.reaches(NEAR[n], HOST[n], 80));
    }
    assert!(!world.reaches(FAR[0], HOST[0], 80) && world.reaches(FAR[1], HOST[1], 80));
    std::thread::sleep(Duration::from_millis(2300));
    assert!(world.reaches(NEAR[0], HOST[0], 80) && world.reaches(NEAR[1], HOST[1], 80), "it is over");
    assert!(!world.reaches(FAR[0], HOST[0], 80));
    world.at_host(|| Bans::open().unwrap().unban(&[prefix(FAR[0]), prefix("192.0.2.1")]).unwrap());
    assert!(world.reaches(FAR[0], HOST[0], 80));
    assert!(list(&world).is_empty());
    // Of whom nobody knows, with a table and without.
    world.at_host(|| {
        let bans = Bans::open().unwrap();
        bans.unban(&[prefix("192.0.2.1")]).unwrap();
        assert!(bans.remove().unwrap() && !bans.remove().unwrap());
        bans.unban(&[prefix("192.0.2.1")]).unwrap();
        assert!(!bans.remove().unwrap(), "nobody is let in by making a table");
    });
}

#[test]
fn a_second_ban_renews_the_first() {
    let Some(world) = World::make() else { return };
    ban(&world, &["198.51.100.7"], Duration::from_secs(60));
    ban(&world, &["198.51.100.7"], HOUR);
    let left = list(&world)[0].left;
    assert!(left > Duration::from_secs(3500), "{left:?}");
    ban(&world, &["198.51.100.7"], Duration::from_secs(60));
    assert!(list(&world)[0].left <= Duration::from_secs(60));
}

#[test]
fn networks_in_each_other_are_banned_as_long_as_the_longer_says() {
    let Some(world) = World::make() else { return };
    let _listener = world.listen(80);
    ban(&world, &["10.77.0.0/24", "fd77::/64"], Duration::from_secs(2));
    ban(&world, &["10.77.0.2/31"], HOUR);
    assert!(!world.reaches(NEAR[0], HOST[0], 80) && !world.reaches(FAR[0], HOST[0], 80));
    assert!(!world.reaches(NEAR[1], HOST[1], 80));
    let who: Vec<String> =
        list(&world).iter().map(|ban| format!("{}-{}", ban.who.first, ban.who.last)).collect();
    assert_eq!(
        who,
        [
            "10.77.0.0-10.77.0.1",
            "10.77.0.2-10.77.0.3",
            "10.77.0.4-10.77.0.255",
            "fd77::-fd77::ffff:ffff:ffff:ffff"
        ]
    );
    std::thread::sleep(Duration::from_millis(2300));
    assert!(!world.reaches(NEAR[0], HOST[0], 80), "the narrow ban goes on");
    assert!(world.reaches(NEAR[1], HOST[1], 80), "the wide one is over");
    world.at_host(|| Bans::open().unwrap().unban(&[prefix("10.77.0.2")]).unwrap());
    assert!(world.reaches(NEAR[0], HOST[0], 80) && !world.reaches(FAR[0], HOST[0], 80), "a part is let in");
    world.at_host(|| Bans::open().unwrap().remove().unwrap());
    assert!(world.reaches(FAR[0], HOST[0], 80));
}

#[test]
fn ten_thousand_in_one_transaction() {
    let Some(world) = World::make() else { return };
    let _listener = world.listen(80);
    let mut who: Vec<Prefix> =
        (0..9_999u32).map(|n| Prefix::host(Ipv4Addr::from_bits(0xc633_0000 + n).into())).collect();
    who.push(prefix(NEAR[0]));
    let (first, again) = world.at_host(|| {
        let began = Instant::now();
        ban_all(&who, &BanKind::default(), HOUR).unwrap();
        let first = began.elapsed();
        let began = Instant::now();
        ban_all(&who, &BanKind::default(), HOUR).unwrap();
        (first, began.elapsed())
    });
    println!("10,000 bans: {first:?}; the same again: {again:?}");
    assert_eq!(list(&world).len(), 10_000);
    assert!(!world.reaches(NEAR[0], HOST[0], 80) && world.reaches(FAR[0], HOST[0], 80));
}

#[test]
fn what_came_from_the_banned_is_counted_for_each_and_goes_on_to_be() {
    let Some(world) = World::make() else { return };
    let _listener = world.listen(80);
    ban(&world, &[NEAR[0], "192.0.2.0/24", "fd77::/64"], HOUR);
    let counted = |who: &str| {
        let who: std::net::IpAddr = who.parse().unwrap();
        list(&world).iter().find(|ban| ban.who.first <= who && who <= ban.who.last).unwrap().packets
    };
    assert_eq!((counted(NEAR[0]), counted("192.0.2.1")), (0, 0));
    assert!(!world.reaches(NEAR[0], HOST[0], 80) && !world.reaches(NEAR[1], HOST[1], 80));
    let (v4, v6) = (counted(NEAR[0]), counted(NEAR[1]));
    assert!(v4 > 0 && v6 > 0 && counted("192.0.2.1") == 0);
    // Banned anew, and networks that are cut anew, go on to count.
    ban(&world, &[NEAR[0], "fd77::8/125"], HOUR * 2);
    assert!(counted(NEAR[0]) >= v4 && counted(NEAR[1]) >= v6);
}

#[test]
fn a_ban_can_be_for_some_ports_and_can_be_told() {
    let Some(world) = World::make() else { return };
    let (_web, _ssh) = (world.listen(80), world.listen(22));
    let ban = |who: &str, ports: &[u16], reject| {
        let kind = BanKind { ports: ports.to_vec(), reject };
        world.at_host(|| ban_all(&[prefix(who)], &kind, HOUR).unwrap());
    };
    ban(NEAR[0], &[22, 25], false);
    assert!(world.reaches(NEAR[0], HOST[0], 80) && !world.reaches(NEAR[0], HOST[0], 22));
    ban("10.77.0.0/24", &[80], false);
    assert!(!world.reaches(NEAR[0], HOST[0], 80) && !world.reaches(NEAR[0], HOST[0], 22), "both hold");
    assert!(!world.reaches(FAR[0], HOST[0], 80) && world.reaches(FAR[0], HOST[0], 22));
    world.at_host(|| Bans::open().unwrap().unban(&[prefix("10.77.0.0/24")]).unwrap());
    assert!(list(&world).is_empty() && world.reaches(NEAR[0], HOST[0], 22));

    // Who is told does not wait.
    let refused = |from: &str, to: &str| {
        let (from, to) = (from.to_owned(), to.to_owned());
        world.elsewhere(move || {
            let begun = Instant::now();
            let family = if to.contains(':') { "-6" } else { "-4" };
            let line = format!(
                "curl {family} -s -m 5 --interface {from} http://{}:80/ ; echo $?",
                if family == "-6" { format!("[{to}]") } else { to }
            );
            let said = world::sh(&line);
            (said.trim().to_owned(), begun.elapsed() < Duration::from_secs(3))
        })
    };
    ban(NEAR[0], &[], true);
    ban(NEAR[1], &[80], true);
    for n in 0..2 {
        assert_eq!(refused(NEAR[n], HOST[n]), ("7".to_owned(), true), "connection refused, at once");
    }
    let kinds: Vec<BanKind> = list(&world).into_iter().map(|ban| ban.kind).collect();
    assert_eq!(kinds, [BanKind { ports: vec![], reject: true }, BanKind { ports: vec![80], reject: true }]);
}

#[test]
fn a_longer_ban_for_some_ports_opens_nothing_of_a_shorter_one_for_all() {
    let Some(world) = World::make() else { return };
    let (_web, _ssh) = (world.listen(80), world.listen(22));
    let ssh = BanKind { ports: vec![22], reject: false };
    ban(&world, &["10.77.0.0/24"], Duration::from_secs(60));
    for wider in ["10.77.0.0/16", "10.77.0.0/28"] {
        world.at_host(|| ban_all(&[prefix(wider)], &ssh, HOUR).unwrap());
        assert!(!world.reaches(NEAR[0], HOST[0], 80) && !world.reaches(NEAR[0], HOST[0], 22), "{wider}");
    }
}

#[test]
fn what_is_listed_while_somebody_else_changes_rules_is_whole() {
    let Some(world) = World::make() else { return };
    let network = |n: u32| Prefix::of(Ipv4Addr::from_bits(0x0b00_0000 + (n << 9)).into(), 24);
    let all: Vec<Prefix> = (0..2000).map(network).collect();
    world.at_host(|| ban_all(&all, &BanKind::default(), HOUR).unwrap());
    let end = Instant::now() + Duration::from_secs(2);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            world.at_host(|| {
                let bans = Bans::open().unwrap();
                while Instant::now() < end {
                    bans.unban(&[prefix("11.0.0.0/24")]).unwrap();
                    std::thread::sleep(Duration::from_millis(50));
                    bans.ban(&[Sentence { who: network(0), kind: BanKind::default(), length: HOUR }])
                        .unwrap();
                    std::thread::sleep(Duration::from_millis(50));
                }
            });
        });
        world.at_host(|| {
            let bans = Bans::open().unwrap();
            while Instant::now() < end {
                let listed = bans.list().unwrap();
                let whole = |ban: &Ban| Prefix::of(ban.who.first, 24).address() == ban.who.first;
                assert!(matches!(listed.len(), 1999 | 2000) && listed.iter().all(whole), "{}", listed.len());
            }
        });
    });
}

#[test]
fn what_has_a_bound_says_so_and_changes_nothing() {
    let Some(world) = World::make() else { return };
    let kind = BanKind { ports: (1..=16).collect(), reject: false };
    let network = |n: u32| Prefix::of(Ipv4Addr::from_bits(0x0b00_0000 + (n << 8)).into(), 24);
    world.at_host(|| {
        let why = ban_all(&[prefix("192.0.2.1")], &kind, HOUR).unwrap_err().to_string();
        assert!(why.contains("more than 15 ports"), "{why}");
        // Networks that touch would be one.
        let many: Vec<Prefix> = (0..4097).map(|n| network(n * 2)).collect();
        let why = ban_all(&many, &BanKind::default(), HOUR).unwrap_err().to_string();
        assert!(why.contains("more than 4096 networks"), "{why}");
        let why = ban_all(&[prefix("240.0.0.0/4")], &BanKind::default(), HOUR).unwrap_err().to_string();
        assert!(why.contains("240.0.0.0/4 has the highest address in it"), "{why}");
        let hosts: Vec<Prefix> =
            (0..65_537u32).map(|n| Prefix::host(Ipv4Addr::from_bits(0xc633_0000 + n).into())).collect();
        let why = ban_all(&hosts, &BanKind::default(), HOUR).unwrap_err().to_string();
        assert!(why.contains("more than 65536 addresses"), "{why}");
    });
    assert!(list(&world).is_empty());
}
