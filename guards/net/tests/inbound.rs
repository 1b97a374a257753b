//! What a plan decides, and that the doors it asks for decide the same.
#![allow(clippy::unwrap_used, missing_docs)]

use std::net::{IpAddr, Ipv4Addr};

use davy_model::{AddressRange, Door, Timestamp, Transport};
use davy_net::inbound::{Listener, Plan, Verdict};
use davy_policy::Policy;
use proptest::prelude::*;

const NOW: Timestamp = Timestamp::from_secs(1_790_000_000);

fn files(name: &str) -> Result<String, String> {
    match name {
        "de.txt" => Ok("198.51.100.0/25\n198.51.100.128/25\n".to_owned()),
        "empty.txt" => Ok("# none\n".to_owned()),
        _ => Err("cannot be read: no such file".to_owned()),
    }
}

fn plan(text: &str) -> Result<Plan, Vec<String>> {
    let policy = Policy::parse("p.toml", text).unwrap_or_else(|faults| panic!("{faults}"));
    Plan::make(&policy.inbound, &policy.origin, files)
}

fn allowed(plan: &Plan, transport: Transport, port: u16, from: &str) -> bool {
    plan.decide(transport, port, from.parse().unwrap(), NOW) != Verdict::Refused
}

fn listener(transport: Transport, port: u16, service: &str) -> Listener {
    Listener { transport, port, service: (!service.is_empty()).then(|| service.to_owned()) }
}

const POLICY: &str = r#"
[inbound]
mode = "observe"
[[inbound.group]]
name = "office"
networks = ["203.0.113.0/24", "2001:db8::/48"]
[[inbound.group]]
name = "country"
files = ["de.txt"]
[[inbound.allow]]
port = 443
from = ["anyone"]
reason = "the shop"
[[inbound.allow]]
port = [22, "8000-8100"]
from = ["office", "192.0.2.7"]
reason = "administration"
[[inbound.allow]]
port = 8080
protocol = "both"
from = ["country"]
reason = "customers"
[[inbound.allow]]
service = "unbound.service"
from = ["10.0.0.0/8"]
reason = "names"
[[inbound.allow]]
port = 25
from = ["anyone"]
reason = "over"
until = 2020-01-01
"#;

#[test]
fn each_entry_opens_what_it_says() {
    let mut plan = plan(POLICY).unwrap();
    use Transport::{Tcp, Udp};
    for (transport, port, from, open) in [
        (Tcp, 443, "192.0.2.99", true),
        (Udp, 443, "192.0.2.99", false),
        (Tcp, 22, "203.0.113.9", true),
        (Tcp, 22, "::ffff:203.0.113.9", true),
        (Tcp, 22, "2001:db8::9", true),
        (Tcp, 22, "2001:db9::9", false),
        (Tcp, 22, "192.0.2.7", true),
        (Tcp, 22, "192.0.2.8", false),
        (Tcp, 8100, "192.0.2.7", true),
        (Tcp, 8101, "192.0.2.7", false),
        (Udp, 8080, "198.51.100.200", true),
        (Tcp, 8080, "192.0.2.7", true),
        (Tcp, 25, "192.0.2.7", false),
        (Udp, 53, "10.1.2.3", false),
        (Tcp, 5432, "127.0.0.1", true),
        (Udp, 68, "192.0.2.8", true),
        (Udp, 546, "fe80::1", true),
        (Udp, 546, "2001:db9::9", false),
    ] {
        assert_eq!(allowed(&plan, transport, port, from), open, "{transport:?} {port} {from}");
    }
    let heard = [
        listener(Udp, 53, "unbound.service"),
        listener(Tcp, 53, "unbound.service"),
        listener(Tcp, 9, "other.service"),
    ];
    assert!(plan.hear(&heard) && !plan.hear(&heard), "news is news once");
    assert!(allowed(&plan, Udp, 53, "10.1.2.3") && !allowed(&plan, Tcp, 9, "10.1.2.3"));
    assert!(!allowed(&plan, Udp, 53, "192.0.2.1"));
    assert!(
        !plan.hear(&[]) && allowed(&plan, Udp, 53, "10.1.2.3"),
        "a service that restarts keeps its ports"
    );
    let Verdict::Allowed(entry) = plan.decide(Tcp, 443, "192.0.2.99".parse().unwrap(), NOW) else { panic!() };
    assert_eq!((entry.place.as_str(), entry.reason.as_str()), ("p.toml:10", "the shop"));
}

#[test]
fn what_opens_nothing_is_told() {
    let mut plan = plan(POLICY).unwrap();
    let listeners = [listener(Transport::Tcp, 443, "nginx.service"), listener(Transport::Udp, 8080, "")];
    plan.hear(&listeners);
    let told = plan.unheard(&listeners, NOW);
    assert_eq!(
        told,
        [
            "p.toml:14: nobody listens on TCP port 22, 8000-8100",
            "p.toml:23: unbound.service listens on no port"
        ]
    );
}

#[test]
fn groups_and_files_that_hold_nothing_are_faults() {
    let faulty = "[inbound]\nmode=\"observe\"\n[[inbound.group]]\nname=\"a\"\nfiles=[\"empty.txt\", \"gone.txt\"]\n\
        [[inbound.group]]\nname=\"b\"\nnetworks=[]\n";
    let faults = plan(faulty).unwrap_err();
    assert_eq!(faults.len(), 3, "{faults:?}");
    assert!(faults[0].starts_with("p.toml:3: group `a`: the file empty.txt is empty"), "{faults:?}");
    assert!(
        faults[1].contains("gone.txt cannot be read") && faults[2].contains("group `b` is empty"),
        "{faults:?}"
    );
}

#[test]
fn doors_are_few_and_what_holds_for_a_time_ends() {
    let plan = plan(POLICY).unwrap();
    let doors = plan.doors(NOW);
    let ports: Vec<String> =
        doors.iter().map(|door| format!("{:?} {}", door.transport, door.ports)).collect();
    assert_eq!(ports, ["Tcp 22", "Tcp 443", "Tcp 8000-8079", "Tcp 8080", "Tcp 8081-8100", "Udp 8080"]);
    assert_eq!(doors[0].from, doors[2].from);
    // Two halves of a network are one range.
    assert_eq!(doors[5].from.as_ref().unwrap().len(), 1);
    assert_eq!(plan.ends(NOW), None);
    assert_eq!(plan.ends(Timestamp::from_secs(0)), Some(Timestamp::from_secs(1_577_923_200)));
    assert_eq!(plan.doors(Timestamp::from_secs(0)).len(), 7);
}

/// What a firewall with these doors does.
fn lets(doors: &[Door], transport: Transport, port: u16, from: IpAddr) -> bool {
    let within = |ranges: &Vec<AddressRange>| ranges.iter().any(|r| r.first <= from && from <= r.last);
    doors
        .iter()
        .any(|d| d.transport == transport && d.ports.contains(port) && d.from.as_ref().is_none_or(within))
}

/// Entries over few ports and addresses, so that they meet.
fn entries() -> impl Strategy<Value = String> {
    let ports = (1u16..30, 0u16..10).prop_map(|(first, more)| format!("\"{first}-{}\"", first + more));
    let from = prop_oneof![
        Just("\"anyone\"".to_owned()),
        (0u8..8, 29u8..=32).prop_map(|(host, length)| {
            let network = davy_model::Prefix::of(Ipv4Addr::new(10, 0, 0, host * 4).into(), length);
            format!("\"{network}\"")
        }),
        (0u16..4, 126u8..=128).prop_map(|(host, length)| {
            let address = std::net::Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, host);
            format!("\"{}\"", davy_model::Prefix::of(address.into(), length))
        }),
    ];
    let protocol = prop_oneof![Just("tcp"), Just("udp"), Just("both")];
    let entry = (ports, from, protocol).prop_map(|(port, from, protocol)| {
        format!(
            "[[inbound.allow]]\nport = {port}\nprotocol = \"{protocol}\"\nfrom = [{from}]\nreason = \"r\"\n"
        )
    });
    proptest::collection::vec(entry, 0..8).prop_map(|entries| entries.concat())
}

proptest! {
    #[test]
    fn doors_decide_as_the_plan_does(text in entries()) {
        let plan = plan(&text).unwrap();
        let doors = plan.doors(NOW);
        for transport in [Transport::Tcp, Transport::Udp] {
            let own: Vec<_> = doors.iter().filter(|d| d.transport == transport).map(|d| d.ports).collect();
            prop_assert!(own.windows(2).all(|pair| pair[0].last() < pair[1].first()), "{own:?} overlap");
            for port in 1..42 {
                for last in 0..36u8 {
                    let v4 = IpAddr::V4(Ipv4Addr::new(10, 0, 0, last));
                    let v6 = IpAddr::V6(std::net::Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, u16::from(last)));
                    for from in [v4, v6] {
                        let decided = plan.decide(transport, port, from, NOW) != Verdict::Refused;
                        prop_assert_eq!(lets(&doors, transport, port, from), decided, "{:?} {} {}", transport, port, from);
                    }
                }
            }
        }
        for ranges in doors.iter().filter_map(|door| door.from.as_ref()) {
            prop_assert!(ranges.windows(2).all(|pair| pair[0].last < pair[1].first));
        }
    }
}

#[test]
fn a_plan_is_bounded_as_a_whole() {
    let lines = |n: u32, from: u32| -> String {
        (0..n).map(|n| format!("{}\n", Ipv4Addr::from_bits(from + n * 2))).collect()
    };
    let read = |name: &str| match name {
        "a" => Ok(lines(150_000, 0x0b00_0000)),
        "b" => Ok(lines(150_000, 0x1b00_0000)),
        _ => Ok(lines(150_000, 0x2b00_0000)),
    };
    let make = |text: &str| {
        let policy = Policy::parse("p.toml", text).unwrap_or_else(|faults| panic!("{faults}"));
        Plan::make(&policy.inbound, &policy.origin, read)
    };
    let group = |name: &str| format!("[[inbound.group]]\nname = \"{name}\"\nfiles = [\"{name}\"]\n");
    let open = |port: u16, from: &str| {
        format!("[[inbound.allow]]\nport = {port}\nfrom = [\"{from}\"]\nreason = \"r\"\n")
    };
    let two = format!("{}{}", group("a"), group("b"));
    assert!(make(&format!("{two}{}{}", open(1, "a"), open(2, "b"))).is_ok());
    // Each entry has its own copy.
    let why = make(&format!("{two}{}{}{}", open(1, "a"), open(2, "b"), open(3, "a"))).unwrap_err();
    assert!(
        why.len() == 1 && why[0].starts_with("p.toml:") && why[0].contains("more than 400000"),
        "{why:?}"
    );
    let why = make(&format!("{two}{}{}", group("c"), open(1, "a"))).unwrap_err();
    assert!(why[0].contains("the groups have more than 400000 networks"), "{why:?}");
}
