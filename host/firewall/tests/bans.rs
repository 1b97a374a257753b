//! Who is banned cannot connect until it is over.
#![allow(clippy::unwrap_used, missing_docs)]

mod world;

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use davy_firewall::{Ban, Bans};
use davy_model::Prefix;
use world::{FAR, HOST, NEAR, World};

const HOUR: Duration = Duration::from_secs(3600);

fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

fn ban(world: &World, who: &[&str], length: Duration) {
    let who: Vec<Prefix> = who.iter().map(|text| prefix(text)).collect();
    world.at_host(|| Bans::open().unwrap().ban(&who, length).unwrap());
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
        let bans = Bans::open().unwrap();
        let began = Instant::now();
        bans.ban(&who, HOUR).unwrap();
        let first = began.elapsed();
        let began = Instant::now();
        bans.ban(&who, HOUR).unwrap();
        (first, began.elapsed())
    });
    println!("10,000 bans: {first:?}; the same again: {again:?}");
    assert!(first < Duration::from_millis(500) && again < Duration::from_secs(1));
    assert_eq!(list(&world).len(), 10_000);
    assert!(!world.reaches(NEAR[0], HOST[0], 80) && world.reaches(FAR[0], HOST[0], 80));
}
