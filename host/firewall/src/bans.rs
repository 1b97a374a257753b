//! The table that says who may send nothing for a time.

mod kind;
mod ranges;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use davy_model::{AddressRange, Prefix};

use crate::nft::{Attributes, Batch, Count, Element, Interval, Key, Listed, Rule, SetKind, Socket, Verdict};
use crate::nft::{find, message, octets, set_elements};
use crate::{BANS_TABLE, Error};
pub use kind::BanKind;
use ranges::{before, disjoint, next, without};

/// The most networks that are banned at once for each family of addresses; a further one is refused.
pub const MAX_BANNED_NETWORKS: usize = 4096;

/// The most single addresses of each family that are banned at once; a further one is refused.
pub const MAX_BANNED_ADDRESSES: usize = 65_536;

/// The most ports of one ban, and the most different choices of ports that are banned at once: each has a chain of its own.
pub const MAX_BANNED_PORTS: usize = 15;
const MAX_CHAINS: usize = 256;

/// How often networks are read until nothing changes in between, and how long is waited before it is tried again.
const TRIES: usize = 20;
const PAUSE: Duration = Duration::from_millis(5);

/// Before connections are tracked, so that what is banned costs as little as it can.
const PRIORITY: i32 = -310;

const ENTRY: &str = "arrives";
const ADDRESSES: [&str; 2] = ["banned4", "banned6"];
const NETWORKS: [&str; 2] = ["banned_networks4", "banned_networks6"];

/// Somebody to be banned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sentence {
    /// Whose addresses.
    pub who: Prefix,
    /// From what.
    pub kind: BanKind,
    /// For how long from now on.
    pub length: Duration,
}

/// Somebody who is banned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ban {
    /// Whose addresses.
    pub who: AddressRange,
    /// From what.
    pub kind: BanKind,
    /// For how long still.
    pub left: Duration,
    /// Packets that came from there since; of a ban for some ports, those to others too.
    pub packets: u64,
    /// The bytes of them.
    pub bytes: u64,
}

/// The table, spoken to by netlink. What is banned ends by itself, whoever lives then.
#[derive(Debug)]
pub struct Bans {
    socket: Socket,
}

impl Bans {
    /// Speaks to the kernel about the network namespace of the calling thread.
    ///
    /// # Errors
    /// When the kernel has no packet filter.
    pub fn open() -> Result<Self, Error> {
        Ok(Self { socket: Socket::open()? })
    }

    /// Lets nothing in from these networks, each in its way and for its time, in one transaction. What is banned already is banned
    /// anew, and goes on to count; of networks that lie in each other the one that shuts out from all ports holds where they do, and else
    /// the longer one. Loopback is never banned.
    ///
    /// # Errors
    /// When the kernel refuses, there are more than [`MAX_BANNED_ADDRESSES`], [`MAX_BANNED_NETWORKS`] or [`MAX_BANNED_PORTS`],
    /// or a network has the highest address of its family in it; nothing is changed then.
    pub fn ban(&self, sentences: &[Sentence]) -> Result<(), Error> {
        let mut sentences: BTreeMap<Prefix, Sentence> =
            sentences.iter().map(|sentence| (sentence.who, sentence.clone())).collect();
        for sentence in sentences.values_mut() {
            sentence.kind.ports.sort_unstable();
            sentence.kind.ports.dedup();
            if sentence.kind.ports.len() > MAX_BANNED_PORTS {
                return Err(Error::Invalid(format!(
                    "more than {MAX_BANNED_PORTS} ports in one ban; ban from all of them"
                )));
            }
            // In the kernel a range that goes on to the highest address has no end, as one has whose end was lost on the way.
            if !sentence.who.is_host() && next(AddressRange::from(sentence.who).last).is_none() {
                let who = sentence.who;
                return Err(Error::Invalid(format!("{who} has the highest address in it, which nobody has")));
            }
        }
        let mut batch = self.base(sentences.values().map(|sentence| &sentence.kind))?;
        for (v4, addresses, networks) in sets() {
            let family = |sentence: &&Sentence| sentence.who.address().is_ipv4() == v4;
            let hosts: Vec<&Sentence> =
                sentences.values().filter(family).filter(|s| s.who.is_host()).collect();
            if !hosts.is_empty() {
                // An element that is there keeps its old time, so it has to go first.
                let known: HashMap<Vec<u8>, Count> =
                    self.keys(addresses)?.into_iter().map(|element| (element.key, element.count)).collect();
                let key = |sentence: &Sentence| octets(sentence.who.address());
                let again: Vec<Element> = hosts
                    .iter()
                    .map(|s| key(s))
                    .filter(|key| known.contains_key(key))
                    .map(Element::new)
                    .collect();
                if known.len() + hosts.len() - again.len() > MAX_BANNED_ADDRESSES {
                    return Err(too_many(MAX_BANNED_ADDRESSES, "addresses"));
                }
                let element = |sentence: &&Sentence| {
                    let key = key(sentence);
                    let count = known.get(&key).copied().unwrap_or_default();
                    let element = Element::new(key).for_a_time(Some(sentence.length));
                    element.to(sentence.kind.verdict()).counting(count)
                };
                let all: Vec<Element> = hosts.iter().map(element).collect();
                batch.take(addresses, &again).add(addresses, &all);
            }
            let wide: Vec<&Sentence> =
                sentences.values().filter(family).filter(|s| !s.who.is_host()).collect();
            if !wide.is_empty() {
                let mut all = self.intervals(networks)?;
                for sentence in wide {
                    let who = AddressRange::from(sentence.who);
                    let before = all.iter().find(|old| old.who == who);
                    let (packets, bytes) = before.map_or((0, 0), |old| (old.packets, old.bytes));
                    all.retain(|old| old.who != who);
                    all.push(Ban { who, kind: sentence.kind.clone(), left: sentence.length, packets, bytes });
                }
                write_networks(&mut batch, networks, &disjoint(&all))?;
            }
        }
        self.socket.commit(batch)
    }

    /// Lets them in again before their time. Whoever is not banned stays so; of a wider network that is banned a part is let in.
    ///
    /// # Errors
    /// When the kernel refuses; nothing is changed then.
    pub fn unban(&self, who: &[Prefix]) -> Result<(), Error> {
        let mut batch = Batch::of(BANS_TABLE);
        let mut changes = false;
        for (v4, addresses, networks) in sets() {
            let own: Vec<AddressRange> =
                who.iter().filter(|p| p.address().is_ipv4() == v4).map(|p| AddressRange::from(*p)).collect();
            if own.is_empty() {
                continue;
            }
            let within =
                |address: IpAddr| own.iter().any(|range| range.first <= address && address <= range.last);
            let hosts =
                self.keys(addresses)?.into_iter().filter(|element| address(&element.key).is_some_and(within));
            let hosts: Vec<Element> = hosts.map(|element| Element::new(element.key)).collect();
            changes |= !hosts.is_empty();
            batch.take(addresses, &hosts);
            let all = self.intervals(networks)?;
            if !all.is_empty() {
                changes = true;
                write_networks(&mut batch, networks, &without(&all, &own))?;
            }
        }
        if changes { self.socket.commit(batch) } else { Ok(()) }
    }

    /// Who is banned, and for how long still. Networks that lay in each other are told as the ranges that came of them.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn list(&self) -> Result<Vec<Ban>, Error> {
        let mut all = Vec::new();
        for (_, addresses, networks) in sets() {
            let hosts = self.keys(addresses)?.into_iter().filter_map(|element| {
                let address = address(&element.key)?;
                Some(ban(AddressRange { first: address, last: address }, &element))
            });
            all.extend(hosts);
            all.extend(self.intervals(networks)?);
        }
        Ok(all)
    }

    /// Lets everybody in again: takes the table away, and says whether it was there. Where it is not, nothing is changed.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn remove(&self) -> Result<bool, Error> {
        if !self.socket.has(BANS_TABLE)? {
            return Ok(false);
        }
        let mut batch = Batch::of(BANS_TABLE);
        batch.drop_table();
        self.socket.commit(batch).map(|()| true)
    }

    /// A number that changes whenever anybody changes rules in this network namespace; cheap to ask for.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn generation(&self) -> Result<u32, Error> {
        self.socket.generation()
    }

    /// A change that makes the table first where it is not whole, and what these kinds of bans need where it is not there.
    fn base<'k>(&self, kinds: impl Iterator<Item = &'k BanKind>) -> Result<Batch, Error> {
        let mut batch = Batch::of(BANS_TABLE);
        let mut chains = self.chains()?;
        if !chains.contains(ENTRY) {
            chains.clear();
            batch.drop_table().table();
            for (v4, addresses, networks) in sets() {
                let key = SetKind::of(if v4 { Key::V4 } else { Key::V6 }).timed().to_verdicts().counted();
                batch.set(addresses, key);
                batch.set(networks, key.of_intervals());
            }
            batch.entry(ENTRY, PRIORITY);
            for rule in rules() {
                batch.rule(ENTRY, rule);
            }
        }
        for kind in kinds {
            let Some(chain) = kind.chain().filter(|chain| !chains.contains(chain)) else { continue };
            if chains.len() > MAX_CHAINS {
                return Err(Error::Invalid(format!(
                    "more than {MAX_CHAINS} different choices of ports cannot be banned from at once; ban from all ports"
                )));
            }
            batch.chain(&chain);
            for rule in kind.rules() {
                batch.rule(&chain, rule);
            }
            chains.insert(chain);
        }
        Ok(batch)
    }

    /// The chains of which all rules are there.
    fn chains(&self) -> Result<BTreeSet<String>, Error> {
        let all = |a: &mut Attributes| {
            a.text(1, BANS_TABLE);
        };
        let mut found: BTreeMap<String, usize> = BTreeMap::new();
        for rule in or_none(self.socket.dump(message::GET_RULE, all))? {
            let chain = find(&rule, 2).and_then(|name| name.strip_suffix(b"\0")).unwrap_or_default();
            *found.entry(String::from_utf8_lossy(chain).into_owned()).or_default() += 1;
        }
        let whole = |(chain, count): &(String, usize)| chain != ENTRY || *count == rules().len();
        Ok(found.into_iter().filter(whole).map(|(chain, _)| chain).collect())
    }

    /// Whether the table is there as a whole.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn is_whole(&self) -> Result<bool, Error> {
        Ok(self.chains()?.contains(ENTRY))
    }

    /// The elements of a set; none where the table is not there.
    fn keys(&self, set: &str) -> Result<Vec<Listed>, Error> {
        let of = |a: &mut Attributes| {
            a.text(1, BANS_TABLE).text(2, set);
        };
        let found = or_none(self.socket.dump(message::GET_ELEMENTS, of))?;
        Ok(found.iter().flat_map(|found| set_elements(found)).collect())
    }

    /// The networks of a set, read until it is twice the same. While the kernel carries out somebody's change, or takes out what is
    /// over, some are left out, and of others an end.
    fn intervals(&self, set: &str) -> Result<Vec<Ban>, Error> {
        let mut before = None;
        for _ in 0..TRIES {
            let ends = self.keys(set)?;
            let shape: BTreeSet<_> = ends.iter().map(|end| (end.key.clone(), end.ends_interval)).collect();
            if before.as_ref() == Some(&shape)
                && let Some(bans) = paired(ends)
            {
                return Ok(bans);
            }
            if before.replace(shape).is_some() {
                std::thread::sleep(PAUSE);
            }
        }
        Err(Error::Invalid(format!(
            "the set {set} goes on changing, or holds a range without an end that is not Davy's; nft delete table inet {BANS_TABLE} \
             takes it away, and the agent puts back its own"
        )))
    }
}

/// The ranges between where one begins and where it ends; `None` where an end is missing. An end alone is what is left of a range
/// whose time is over.
fn paired(mut ends: Vec<Listed>) -> Option<Vec<Ban>> {
    // Where one ends and another begins, the end comes first.
    ends.sort_by(|a, b| (&a.key, !a.ends_interval).cmp(&(&b.key, !b.ends_interval)));
    let mut bans: Vec<Ban> = Vec::new();
    let mut open: Option<(IpAddr, Listed)> = None;
    for element in ends {
        let Some(at) = address(&element.key) else { continue };
        if !element.ends_interval {
            if open.replace((at, element)).is_some() {
                return None;
            }
        } else if let (Some((first, begins)), Some(last)) = (open.take(), before(at)) {
            bans.push(ban(AddressRange { first, last }, &begins));
        }
    }
    open.is_none().then_some(bans)
}

/// Nothing, where what is listed is not there.
fn or_none(listed: Result<Vec<Vec<u8>>, Error>) -> Result<Vec<Vec<u8>>, Error> {
    match listed {
        Err(Error::Refused { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        other => other,
    }
}

fn rules() -> Vec<Rule> {
    let mut rules = vec![Rule::new("iiftype loopback accept").if_loopback().then(&Verdict::Accept)];
    for (v4, addresses, networks) in sets() {
        for set in [addresses, networks] {
            rules.push(Rule::new("ip saddr vmap @banned").by_sender(v4, set));
        }
    }
    rules
}

const fn sets() -> [(bool, &'static str, &'static str); 2] {
    [(true, ADDRESSES[0], NETWORKS[0]), (false, ADDRESSES[1], NETWORKS[1])]
}

fn ban(who: AddressRange, element: &Listed) -> Ban {
    Ban {
        who,
        kind: BanKind::of(element.verdict.as_ref()),
        left: element.left.unwrap_or_default(),
        packets: element.count.packets,
        bytes: element.count.bytes,
    }
}

fn too_many(most: usize, of: &str) -> Error {
    Error::Invalid(format!("more than {most} {of} cannot be banned at once; let some in again"))
}

fn write_networks(batch: &mut Batch, set: &str, bans: &[Ban]) -> Result<(), Error> {
    if bans.len() > MAX_BANNED_NETWORKS {
        return Err(too_many(MAX_BANNED_NETWORKS, "networks"));
    }
    let interval = |ban: &Ban| {
        Interval::new(octets(ban.who.first), octets(ban.who.last))
            .for_a_time(Some(ban.left))
            .to(ban.kind.verdict())
            .counting(Count { packets: ban.packets, bytes: ban.bytes })
    };
    batch.empty(set).add_intervals(set, &bans.iter().map(interval).collect::<Vec<_>>());
    Ok(())
}

fn address(key: &[u8]) -> Option<IpAddr> {
    match key.len() {
        4 => Some(IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(key).ok()?))),
        16 => Some(IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(key).ok()?))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_range_is_never_made_of_what_has_no_end() {
        let listed = |ends: &[(&str, bool)]| {
            let element = |(at, ends_interval): &(&str, bool)| Listed {
                key: octets(at.parse().unwrap()),
                ends_interval: *ends_interval,
                left: None,
                count: Count::default(),
                verdict: None,
            };
            let bans = paired(ends.iter().map(element).collect())?;
            Some(bans.iter().map(|b| format!("{}-{}", b.who.first, b.who.last)).collect::<Vec<_>>())
        };
        let (first, second) = ("10.0.0.0-10.0.0.255".to_owned(), "10.0.1.0-10.0.1.255".to_owned());
        let whole = [
            ("10.0.2.0", true),
            ("10.0.1.0", false),
            ("10.0.1.0", true),
            ("10.0.0.0", false),
            ("0.0.0.0", true),
        ];
        assert_eq!(listed(&whole), Some(vec![first, second.clone()]));
        assert_eq!(listed(&[("10.0.0.0", false)]), None, "it would go on to the highest address");
        assert_eq!(listed(&[("10.0.0.0", false), ("10.0.1.0", false), ("10.0.2.0", true)]), None);
        let over = [("10.0.1.0", true), ("10.0.1.0", false), ("10.0.2.0", true)];
        assert_eq!(listed(&over), Some(vec![second]), "of one whose time is over the end is left");
    }
}
