#![allow(clippy::unwrap_used)]

use std::net::IpAddr;

use davy_model::{
    FindingId, FindingKind, OutboundAttempt, OutboundProtocol, OutboundTables, ProcessKey, Severity,
    Timestamp,
};
use davy_policy::{OutboundTo, Policy};
use proptest::prelude::*;

use super::{Ask, Cases, Compiled, Host, MAX_SUBJECTS, allowing, allows_name, compile};
use crate::place_of;

const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

fn policy(text: &str) -> Policy {
    Policy::parse("p.toml", text).unwrap_or_else(|faults| panic!("{faults}"))
}

fn user(name: &str) -> Option<u32> {
    match name {
        "root" => Some(0),
        "www-data" => Some(33),
        other => other.parse().ok(),
    }
}

fn compiled(text: &str) -> Compiled {
    compile(&policy(text), &Host { user: &user, resolvers: &["192.0.2.53".parse().unwrap()] }, NOW)
}

/// Who asks for what, as the kernel sees it.
#[derive(Clone, Debug)]
struct Asked {
    units: Vec<String>,
    container: Option<String>,
    uid: u32,
    protocol: OutboundProtocol,
    port: u16,
    to: IpAddr,
    name: Option<String>,
}

/// What the kernel's programs do with the tables.
fn looked_up(tables: &OutboundTables, ask: &Asked) -> Option<usize> {
    let ask = Ask {
        units: ask.units.iter().map(String::as_str).collect(),
        container: ask.container.as_deref(),
        uid: Some(ask.uid),
        protocol: ask.protocol,
        port: ask.port,
        to: ask.to,
        name: ask.name.as_deref(),
    };
    allowing(tables, &ask).first()
}

/// What the policy's text means, entry by entry.
fn meant(policy: &Policy, ask: &Asked) -> Option<usize> {
    let inside = policy.outbound.inside.iter().any(|network| network.contains(ask.to));
    policy.outbound.allow.iter().position(|allow| {
        let in_unit = |unit: &String| {
            ask.units.iter().any(|own| own == unit || davy_model::template_of(own).as_ref() == Some(unit))
        };
        let who = allow.service.as_ref().is_none_or(in_unit)
            && allow
                .container
                .as_ref()
                .is_none_or(|id| ask.container.as_ref().is_some_and(|c| c.starts_with(id)))
            && allow.user.as_ref().is_none_or(|name| user(name) == Some(ask.uid))
            && allow.until.is_none_or(|until| NOW < until);
        let what = allow.protocol.map_or(ask.protocol != OutboundProtocol::Raw, |p| p == ask.protocol)
            && (allow.ports.is_empty() || allow.ports.iter().any(|range| range.contains(ask.port)));
        let to = policy.outbound.destinations(allow).any(|to| match to {
            OutboundTo::Any => true,
            OutboundTo::Inside => inside,
            OutboundTo::Outside => !inside,
            OutboundTo::Network(network) => network.contains(ask.to),
            OutboundTo::Name(name) => ask.name.as_ref() == Some(name),
            OutboundTo::Below(domain) => {
                ask.name.as_ref().is_some_and(|name| name.ends_with(&format!(".{domain}")))
            }
            OutboundTo::Group(_) => false,
        });
        who && what && to
    })
}

const NAMES: [&str; 6] =
    ["deb.debian.org", "debian.org", "a.deb.debian.org", "notdebian.org", "example.net", "org.debian"];

fn any_ask() -> impl Strategy<Value = Asked> {
    let to = prop_oneof![
        Just("10.0.3.7"),
        Just("10.1.0.1"),
        Just("203.0.113.9"),
        Just("192.0.2.1"),
        Just("2001:db8::1"),
        Just("fd00::1")
    ];
    let who = (
        proptest::sample::subsequence(
            vec!["system.slice", "nginx.service", "cron.service", "fetch@1.service"],
            0..=2,
        ),
        proptest::option::of(prop_oneof![Just("3f2a3f2a3f2a99"), Just("0000000000001111")]),
        prop_oneof![Just(0u32), Just(33), Just(1000)],
    );
    let protocol = proptest::sample::select(OutboundProtocol::ALL.to_vec());
    let name = proptest::option::of(proptest::sample::select(NAMES.to_vec()));
    (who, protocol, prop_oneof![Just(80u16), Just(443), Just(8001)], to, name).prop_map(
        |((units, container, uid), protocol, port, to, name)| Asked {
            units: units.into_iter().map(str::to_owned).collect(),
            container: container.map(str::to_owned),
            uid,
            protocol,
            // A socket that has no destination yet.
            port: if protocol == OutboundProtocol::Raw { 0 } else { port },
            to: to.parse().unwrap(),
            name: name.map(str::to_owned),
        },
    )
}

fn any_entry() -> impl Strategy<Value = String> {
    let key = |key: &'static str, values: &'static [&'static str]| {
        let line = move |value: Option<&str>| value.map_or_else(String::new, |v| format!("{key} = {v}\n"));
        proptest::option::of(proptest::sample::select(values.to_vec())).prop_map(line)
    };
    let to = proptest::sample::subsequence(
        vec![
            "inside",
            "outside",
            "any",
            "10.0.0.0/8",
            "10.0.3.0/24",
            "203.0.113.9",
            "0.0.0.0/0",
            "::/0",
            "2001:db8::/32",
            "*.debian.org",
            "deb.debian.org",
            "*.deb.debian.org",
            "example.net",
            "mirrors",
        ],
        1..=3,
    );
    let who = (
        key("service", &["\"nginx.service\"", "\"system.slice\"", "\"fetch@.service\""]),
        key("container", &["\"3f2a3f2a3f2a\""]),
        key("user", &["\"root\"", "\"www-data\"", "\"1000\"", "\"nobody-here\""]),
    );
    let until = key("until", &["2020-01-01", "2099-01-01"]);
    let what = (
        key("ports", &["80", "[80, 443]", "\"8000-8100\"", "\"1-65535\""]),
        key("protocol", &["\"tcp\"", "\"udp\""]),
    );
    let usual = (who.clone(), what, to, until).prop_map(|((service, container, user), (ports, protocol), to, until)| {
        format!("[[outbound.allow]]\n{service}{container}{user}{ports}{protocol}to = {to:?}\n{until}reason = \"r\"\n")
    });
    let raw = who.prop_map(|(service, container, user)| {
        format!("[[outbound.allow]]\n{service}{container}{user}protocol = \"raw\"\nto = [\"any\"]\nreason = \"r\"\n")
    });
    prop_oneof![9 => usual, 1 => raw]
}

proptest! {
    #[test]
    fn the_tables_mean_what_the_policy_means(
        entries in proptest::collection::vec(any_entry(), 0..12),
        asks in proptest::collection::vec(any_ask(), 1..24),
    ) {
        let group = "[[outbound.group]]\nname = \"mirrors\"\nto = [\"192.0.2.0/24\", \"*.debian.org\"]\n";
        let text = format!("[outbound]\nmode = \"enforce\"\n{group}{}", entries.concat());
        let (policy, tables) = (policy(&text), compiled(&text).tables);
        for ask in asks {
            prop_assert_eq!(looked_up(&tables, &ask), meant(&policy, &ask), "{:?}\n{}", ask, text);
        }
    }

    #[test]
    fn a_flood_of_attempts_is_bounded(seeds in proptest::collection::vec((any::<u32>(), any::<u16>(), any::<bool>()), 0..1500)) {
        let mut cases = Cases::default();
        let mut given = 0;
        for (number, (seed, port, refused)) in seeds.into_iter().enumerate() {
            let attempt = OutboundAttempt { port, refused, uid: seed, ..attempt("203.0.113.9") };
            cases.see(NOW.plus_secs(number as f64 / 10.0), None, &attempt, || { given += 1; FindingId(given) });
        }
        let due = cases.due(NOW);
        prop_assert!(due.len() <= MAX_SUBJECTS);
        prop_assert!(due.iter().all(|finding| finding.evidence.len() <= 32));
        prop_assert!(cases.due(NOW).is_empty());
    }
}

#[test]
fn what_is_inside_by_default_is_inside() {
    for network in &policy("").outbound.inside {
        assert_eq!(place_of(network.address(), None), davy_model::Place::Inside, "{network}");
        assert_eq!(place_of(network.last(), None), davy_model::Place::Inside, "{network}");
    }
}

#[test]
fn a_user_that_is_not_there_is_nobody_and_told() {
    let found = compiled(
        "[failsafe]\nprotect_users = [\"www-data\", \"ghost\"]\n[[outbound.allow]]\nuser = \"gone\"\nto = [\"any\"]\nreason = \"r\"\n",
    );
    let ask = |uid| Asked {
        units: Vec::new(),
        container: None,
        uid,
        protocol: OutboundProtocol::Tcp,
        port: 1,
        to: "203.0.113.9".parse().unwrap(),
        name: None,
    };
    assert_eq!(looked_up(&found.tables, &ask(0)), None);
    assert_eq!(looked_up(&found.tables, &ask(u32::MAX)), None);
    assert_eq!(found.tables.spared, [33]);
    assert_eq!(found.notes.len(), 2, "{:?}", found.notes);
    assert!(found.notes[0].contains("gone (p.toml:3)"), "{:?}", found.notes);
    assert_eq!(found.tables.resolvers, ["192.0.2.53".parse::<IpAddr>().unwrap()]);
}

#[test]
fn names_of_entries_are_known() {
    let tables = compiled("[[outbound.allow]]\nto = [\"*.debian.org\"]\nreason = \"r\"\n").tables;
    let known = NAMES.map(|name| allows_name(&tables, name));
    assert_eq!(known, [true, false, true, false, false, false]);
}

#[test]
fn an_entry_ends_and_says_when_the_next_does() {
    let text = "[[outbound.allow]]\nto = [\"any\"]\nuntil = 2020-01-01\nreason = \"over\"\n[[outbound.allow]]\nto = [\"any\"]\nuntil = 2099-01-01\nreason = \"holds\"\n";
    let found = compiled(text);
    assert_eq!(found.tables.any_unit.first(), Some(1));
    assert!(found.next.unwrap() > NOW);
    assert!(found.tables.any_unit.has(1) && !found.tables.any_unit.has(0));
}

fn attempt(address: &str) -> OutboundAttempt {
    OutboundAttempt {
        refused: true,
        protocol: OutboundProtocol::Tcp,
        address: address.parse().unwrap(),
        port: 443,
        names: Vec::new(),
        unit: "nginx.service".to_owned(),
        cgroup: "/system.slice/nginx.service".to_owned(),
        container: None,
        uid: 33,
        comm: "curl".to_owned(),
        count: 1,
        why: "no rule of p.toml:2 allows it".to_owned(),
    }
}

#[test]
fn one_finding_tells_all_that_one_tried() {
    let mut cases = Cases::default();
    let process = Some(ProcessKey { pid: 7, start_ticks: 1, boot: 1 });
    let id = || FindingId(4);
    cases.see(NOW, process, &attempt("203.0.113.9"), id);
    let told = cases.due(NOW);
    assert_eq!(told.len(), 1);
    assert_eq!(
        told[0].summary,
        "\"curl\" of nginx.service was kept from connecting to 203.0.113.9:443: no rule of p.toml:2 allows it"
    );
    assert_eq!(
        (told[0].kind, told[0].severity, told[0].id),
        (FindingKind::Outbound, Severity::Medium, FindingId(4))
    );
    // It grows, but is told anew once a second only, under the same number.
    let shared = OutboundAttempt {
        names: vec!["a.example".to_owned(), "b.example".to_owned()],
        count: 3,
        ..attempt("2001:db8::1")
    };
    cases.see(NOW.plus_secs(0.2), process, &shared, || FindingId(5));
    assert_eq!(cases.due(NOW.plus_secs(0.3)), []);
    let told = cases.due(NOW.plus_secs(1.5));
    assert_eq!((told[0].id, told[0].evidence.len()), (FindingId(4), 2));
    assert!(
        told[0]
            .summary
            .contains("[2001:db8::1]:443 (an address that a.example, b.example share) and one other"),
        "{}",
        told[0].summary
    );
    assert!(told[0].evidence[0].text.contains("3 times"), "{:?}", told[0].evidence);
    assert_eq!(cases.due(NOW.plus_secs(60.0)), []);
    // One that was made before the last telling and is heard of after it.
    cases.see(NOW.plus_secs(0.5), process, &attempt("203.0.113.10"), || FindingId(5));
    assert_eq!(cases.due(NOW.plus_secs(62.0)).len(), 1);
    // What is only observed, or of another user, is another finding; and so is what comes an hour later.
    cases.see(
        NOW.plus_secs(2.0),
        process,
        &OutboundAttempt { refused: false, ..attempt("203.0.113.9") },
        || FindingId(6),
    );
    cases.see(NOW.plus_secs(4000.0), process, &attempt("203.0.113.9"), || FindingId(7));
    let told = cases.due(NOW.plus_secs(4000.0));
    assert_eq!(
        told.iter().map(|f| (f.id.0, f.severity)).collect::<Vec<_>>(),
        [(6, Severity::Low), (7, Severity::Medium)]
    );
}
