//! From the policy's entries to the tables that the kernel looks them up in.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use davy_model::{
    OutboundProtocol, OutboundTables, Prefix, RuleSet, Timestamp, mapped_octets, reversed_name,
};
use davy_policy::{Outbound, OutboundAllow, OutboundTo, Policy};

/// What is known of the host beside its policy.
pub struct Host<'a> {
    /// The number of a user of this name, or of one that is written as a number.
    pub user: &'a dyn Fn(&str) -> Option<u32>,
    /// The name servers of its configuration.
    pub resolvers: &'a [IpAddr],
}

/// Entries as they hold at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compiled {
    /// The tables; a rule's number is its place in the policy.
    pub tables: OutboundTables,
    /// What of the policy holds for nobody, in words.
    pub notes: Vec<String>,
    /// When the next entry ends.
    pub next: Option<Timestamp>,
}

/// Makes the tables for a moment.
#[must_use]
pub fn compile(policy: &Policy, host: &Host<'_>, now: Timestamp) -> Compiled {
    let outbound = &policy.outbound;
    let holds = |allow: &OutboundAllow| allow.until.is_none_or(|until| now < until);
    let rules: Vec<(usize, &OutboundAllow)> =
        outbound.allow.iter().enumerate().filter(|(_, allow)| holds(allow)).collect();
    let mut notes = Vec::new();
    let mut user = |name: &str, setting: &str| {
        let uid = (host.user)(name);
        if uid.is_none() {
            notes.push(format!("there is no user {name} ({})", policy.origin.of(setting)));
        }
        uid
    };
    let users: BTreeMap<usize, Option<u32>> = rules
        .iter()
        .filter_map(|(rule, allow)| {
            Some((*rule, user(allow.user.as_deref()?, &format!("outbound.allow[{rule}]"))))
        })
        .collect();
    let protected = &policy.failsafe.protect_users;
    let spared = protected.iter().filter_map(|name| user(name, "failsafe.protect_users")).collect();
    let (units, any_unit) = by(&rules, |_, allow| allow.service.clone());
    let id = |allow: &OutboundAllow| allow.container.as_deref()?.as_bytes().try_into().ok();
    let (containers, any_container) = by(&rules, |_, allow| id(allow));
    // Who is not known has no rule: it must not become a rule for everyone.
    let (known, any_user) = by(&rules, |rule, _| users.get(&rule).copied());
    let users = known.into_iter().filter_map(|(uid, set)| Some((uid?, set.or(&any_user)))).collect();
    let (ports, any_port) = ports(&rules);
    let resolvers: BTreeSet<IpAddr> =
        host.resolvers.iter().copied().chain(outbound.resolver_addresses()).collect();
    let tables = OutboundTables {
        units: units.into_iter().collect(),
        any_unit,
        containers: containers.into_iter().collect(),
        any_container,
        users,
        any_user,
        ports,
        any_port,
        destinations: destinations(outbound, &rules),
        names: names(outbound, &rules),
        resolvers: resolvers.into_iter().collect(),
        spared,
    };
    Compiled { tables, notes, next: rules.iter().filter_map(|(_, allow)| allow.until).min() }
}

/// Rules by one of their conditions, and those that do not have it.
fn by<K: Ord>(
    rules: &[(usize, &OutboundAllow)],
    condition: impl Fn(usize, &OutboundAllow) -> Option<K>,
) -> (BTreeMap<K, RuleSet>, RuleSet) {
    let (mut with, mut without) = (BTreeMap::<K, RuleSet>::new(), RuleSet::default());
    for (rule, allow) in rules {
        match condition(*rule, allow) {
            Some(key) => with.entry(key).or_default().insert(*rule),
            None => without.insert(*rule),
        }
    }
    (with, without)
}

type Ports = Vec<((OutboundProtocol, u16), RuleSet)>;

fn ports(rules: &[(usize, &OutboundAllow)]) -> (Ports, [RuleSet; 3]) {
    let mut all = Ports::new();
    let mut any_port = [RuleSet::default(); 3];
    for (number, protocol) in OutboundProtocol::ALL.into_iter().enumerate() {
        let mine = |allow: &OutboundAllow| match allow.protocol {
            Some(asked) => asked == protocol,
            None => protocol != OutboundProtocol::Raw,
        };
        let every = |allow: &OutboundAllow| {
            allow.ports.is_empty() || allow.ports.iter().any(|p| p.first() == 1 && p.last() == u16::MAX)
        };
        let mine = || rules.iter().filter(|(_, allow)| mine(allow));
        any_port[number] = mine().filter(|(_, allow)| every(allow)).map(|(rule, _)| *rule).collect();
        let mut some = BTreeMap::<u16, RuleSet>::new();
        for (rule, allow) in mine().filter(|(_, allow)| !every(allow)) {
            for port in allow.ports.iter().flat_map(|range| range.first()..=range.last()) {
                some.entry(port).or_insert(any_port[number]).insert(*rule);
            }
        }
        all.extend(some.into_iter().map(|(port, set)| ((protocol, port), set)));
    }
    (all, any_port)
}

fn destinations(outbound: &Outbound, rules: &[(usize, &OutboundAllow)]) -> Vec<([u8; 16], u8, RuleSet)> {
    let network = |to: &OutboundTo| if let OutboundTo::Network(network) = to { Some(*network) } else { None };
    let written = rules.iter().flat_map(|(_, allow)| outbound.destinations(allow)).filter_map(network);
    // Both families have an entry for everything, so that none is found under the other's.
    let mut prefixes: BTreeSet<Prefix> = written.chain(outbound.inside.iter().copied()).collect();
    let everything = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
    prefixes.extend(everything.map(|address| Prefix::of(address, 0)));
    let lies_in =
        |prefix: &Prefix, in_: &Prefix| in_.length() <= prefix.length() && in_.contains(prefix.address());
    let entry = |prefix: &Prefix| {
        let inside = outbound.inside.iter().any(|network| lies_in(prefix, network));
        let leads = |to: &OutboundTo| match to {
            OutboundTo::Any => true,
            OutboundTo::Inside => inside,
            OutboundTo::Outside => !inside,
            OutboundTo::Network(network) => lies_in(prefix, network),
            OutboundTo::Name(_) | OutboundTo::Below(_) | OutboundTo::Group(_) => false,
        };
        let set = rules.iter().filter(|(_, allow)| outbound.destinations(allow).any(leads));
        let set: RuleSet = set.map(|(rule, _)| *rule).collect();
        let mapped = if prefix.address().is_ipv4() { 96 } else { 0 };
        (mapped_octets(prefix.address()), prefix.length() + mapped, set)
    };
    prefixes.iter().map(entry).collect()
}

/// What a name's entry ends with that stands for that name alone: nothing follows it.
const ALONE: u8 = 0;

fn names(outbound: &Outbound, rules: &[(usize, &OutboundAllow)]) -> Vec<(Vec<u8>, RuleSet)> {
    let alone = |reversed: &[u8]| [reversed, &[ALONE]].concat();
    let mut exact = BTreeMap::<Vec<u8>, RuleSet>::new();
    let mut below = BTreeMap::<Vec<u8>, RuleSet>::new();
    for (rule, allow) in rules {
        for to in outbound.destinations(allow) {
            let (table, key) = match to {
                OutboundTo::Name(name) => (&mut exact, reversed_name(name).map(|name| alone(&name))),
                OutboundTo::Below(domain) => (&mut below, reversed_name(domain)),
                _ => continue,
            };
            if let Some(key) = key {
                table.entry(key).or_default().insert(*rule);
            }
        }
    }
    // All names below a domain begin as it does; the domain itself does so too, and is not meant.
    let begins = below.keys().flat_map(|domain| [domain.clone(), alone(domain)]).chain(exact.keys().cloned());
    let begins: BTreeSet<Vec<u8>> = begins.collect();
    let entry = |begin: Vec<u8>| {
        let domains = (1..=begin.len()).filter(|length| begin[*length..] != [ALONE]);
        let sets = domains.filter_map(|length| below.get(&begin[..length])).chain(exact.get(&begin));
        let set = sets.fold(RuleSet::default(), |all, set| all.or(set));
        (begin, set)
    };
    begins.into_iter().map(entry).collect()
}
