//! The table that says who may send nothing for a time.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use davy_model::{AddressRange, Prefix};

use crate::nft::{Attributes, Batch, Count, Element, Interval, Key, Listed, Rule, SetKind, Socket, Verdict};
use crate::nft::{find, message, octets, set_elements};
use crate::{BANS_TABLE, Error};

/// The most networks that are banned at once for each family of addresses; a further one is refused.
pub const MAX_BANNED_NETWORKS: usize = 4096;

/// The most single addresses of each family that are banned at once; a further one is refused.
pub const MAX_BANNED_ADDRESSES: usize = 65_536;

/// The most ports of one ban, and the most different choices of ports that are banned at once: each has a chain of its own.
pub const MAX_BANNED_PORTS: usize = 15;
const MAX_CHAINS: usize = 256;

/// Before connections are tracked, so that what is banned costs as little as it can.
const PRIORITY: i32 = -310;

const TCP: u8 = 6;
const UDP: u8 = 17;

const ENTRY: &str = "arrives";
const ADDRESSES: [&str; 2] = ["banned4", "banned6"];
const NETWORKS: [&str; 2] = ["banned_networks4", "banned_networks6"];

/// What becomes of what a banned address sends.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct BanKind {
    /// To which TCP and UDP ports nothing is let in, at most [`MAX_BANNED_PORTS`]; none for everything that it sends.
    pub ports: Vec<u16>,
    /// Whether the sender is told, by a reset or an ICMP message, instead of waiting for nothing.
    pub reject: bool,
}

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

impl BanKind {
    /// The chain that everything goes through that comes from an address that is banned so; none where it is dropped at once.
    fn chain(&self) -> Option<String> {
        if self.ports.is_empty() && !self.reject {
            return None;
        }
        let mut name = if self.reject { "reject" } else { "drop" }.to_owned();
        self.ports.iter().for_each(|port| name.push_str(&format!("_{port}")));
        Some(name)
    }

    fn verdict(&self) -> Verdict {
        self.chain().map_or(Verdict::Drop, Verdict::Jump)
    }

    fn of(verdict: Option<&Verdict>) -> Self {
        let Some(Verdict::Jump(chain)) = verdict else { return Self::default() };
        let mut parts = chain.split('_');
        let reject = parts.next() == Some("reject");
        Self { ports: parts.filter_map(|port| port.parse().ok()).collect(), reject }
    }

    fn rules(&self) -> Vec<Rule> {
        let end = |rule: Rule, tcp| if self.reject { rule.refuse(tcp) } else { rule.then(&Verdict::Drop) };
        if self.ports.is_empty() {
            return vec![
                end(Rule::new("meta l4proto tcp reject with tcp reset").if_protocol(TCP), true),
                end(Rule::new("reject with icmpx type admin-prohibited"), false),
            ];
        }
        let of = |port: &u16| {
            [TCP, UDP].map(|protocol| end(Rule::new("th dport").if_port(protocol, *port), protocol == TCP))
        };
        self.ports.iter().flat_map(of).collect()
    }
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
    /// anew, and goes on to count; of networks that lie in each other the longer time holds where they do. Loopback is never banned.
    ///
    /// # Errors
    /// When the kernel refuses, or there are more than [`MAX_BANNED_ADDRESSES`], [`MAX_BANNED_NETWORKS`] or [`MAX_BANNED_PORTS`];
    /// nothing is changed then.
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
                let mut all = self.intervals(networks, v4)?;
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
        let mut batch = self.base(std::iter::empty())?;
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
            batch.take(addresses, &hosts);
            let all = self.intervals(networks, v4)?;
            if !all.is_empty() {
                write_networks(&mut batch, networks, &without(&all, &own))?;
            }
        }
        self.socket.commit(batch)
    }

    /// Who is banned, and for how long still. Networks that lay in each other are told as the ranges that came of them.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn list(&self) -> Result<Vec<Ban>, Error> {
        let mut all = Vec::new();
        for (v4, addresses, networks) in sets() {
            let hosts = self.keys(addresses)?.into_iter().filter_map(|element| {
                let address = address(&element.key)?;
                Some(ban(AddressRange { first: address, last: address }, &element))
            });
            all.extend(hosts);
            all.extend(self.intervals(networks, v4)?);
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
        let mut chains = self.chains();
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
    fn chains(&self) -> BTreeSet<String> {
        let mut found: BTreeMap<String, usize> = BTreeMap::new();
        let all = |a: &mut Attributes| {
            a.text(1, BANS_TABLE);
        };
        let dumped = self.socket.dump(message::GET_RULE, all, |rule| {
            let chain = find(rule, 2).and_then(|name| name.strip_suffix(b"\0")).unwrap_or_default();
            *found.entry(String::from_utf8_lossy(chain).into_owned()).or_default() += 1;
        });
        let whole = |(chain, count): &(String, usize)| chain != ENTRY || *count == rules().len();
        if dumped.is_ok() {
            found.into_iter().filter(whole).map(|(chain, _)| chain).collect()
        } else {
            BTreeSet::new()
        }
    }

    /// Whether the table is there as a whole.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.chains().contains(ENTRY)
    }

    /// The elements of a set; none where the table is not there.
    fn keys(&self, set: &str) -> Result<Vec<Listed>, Error> {
        let mut elements = Vec::new();
        let of = |a: &mut Attributes| {
            a.text(1, BANS_TABLE).text(2, set);
        };
        match self.socket.dump(message::GET_ELEMENTS, of, |found| elements.extend(set_elements(found))) {
            Err(Error::Refused { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                Ok(Vec::new())
            }
            other => other.map(|()| elements),
        }
    }

    fn intervals(&self, set: &str, v4: bool) -> Result<Vec<Ban>, Error> {
        let mut ends = self.keys(set)?;
        // Where one ends and another begins, the end comes first.
        ends.sort_by(|a, b| (&a.key, !a.ends_interval).cmp(&(&b.key, !b.ends_interval)));
        let mut bans: Vec<Ban> = Vec::new();
        let mut open: Option<(IpAddr, Listed)> = None;
        for element in ends {
            let Some(at) = address(&element.key) else { continue };
            if element.ends_interval {
                if let (Some((first, begins)), Some(last)) = (open.take(), before(at)) {
                    bans.push(ban(AddressRange { first, last }, &begins));
                }
            } else {
                open = Some((at, element));
            }
        }
        if let Some((first, begins)) = open {
            let last =
                if v4 { IpAddr::V4(Ipv4Addr::BROADCAST) } else { IpAddr::V6(Ipv6Addr::from_bits(u128::MAX)) };
            bans.push(ban(AddressRange { first, last }, &begins));
        }
        Ok(bans)
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

/// The same bans without overlaps: where several hold, the one that holds longest. What was counted stays with the first part.
fn disjoint(bans: &[Ban]) -> Vec<Ban> {
    let mut starts: Vec<IpAddr> = bans.iter().map(|ban| ban.who.first).collect();
    starts.extend(bans.iter().filter_map(|ban| after(ban.who.last)));
    starts.sort_unstable();
    starts.dedup();
    let mut parts: Vec<Ban> = Vec::new();
    let highest = bans.iter().map(|ban| ban.who.last).max();
    for (at, first) in starts.iter().enumerate() {
        let last = starts.get(at + 1).and_then(|next| before(*next)).or(highest);
        let here = bans.iter().filter(|b| b.who.first <= *first && *first <= b.who.last);
        let (Some(last), Some(longest)) = (last, here.max_by_key(|ban| ban.left)) else { continue };
        let counted = bans.iter().filter(|ban| ban.who.first == *first);
        let (packets, bytes) = counted.fold((0, 0), |(p, b), ban| (p + ban.packets, b + ban.bytes));
        match parts.last_mut() {
            Some(part)
                if (part.left, &part.kind) == (longest.left, &longest.kind)
                    && after(part.who.last) == Some(*first) =>
            {
                part.who.last = last;
                (part.packets, part.bytes) = (part.packets + packets, part.bytes + bytes);
            }
            _ => parts.push(Ban {
                who: AddressRange { first: *first, last },
                packets,
                bytes,
                ..longest.clone()
            }),
        }
    }
    parts
}

/// What is left of some bans when these addresses are let in.
fn without(bans: &[Ban], gone: &[AddressRange]) -> Vec<Ban> {
    let mut parts = bans.to_vec();
    for hole in gone {
        parts = parts
            .into_iter()
            .flat_map(|ban| {
                if ban.who.last < hole.first || hole.last < ban.who.first {
                    return vec![ban];
                }
                let below = before(hole.first).filter(|last| ban.who.first <= *last);
                let above = after(hole.last).filter(|first| *first <= ban.who.last);
                // What was counted is told once.
                let (packets, bytes) = if below.is_some() { (0, 0) } else { (ban.packets, ban.bytes) };
                let above = above.map(|first| Ban {
                    who: AddressRange { first, ..ban.who },
                    packets,
                    bytes,
                    ..ban.clone()
                });
                let below = below.map(|last| Ban { who: AddressRange { last, ..ban.who }, ..ban });
                below.into_iter().chain(above).collect()
            })
            .collect();
    }
    parts
}

fn address(key: &[u8]) -> Option<IpAddr> {
    match key.len() {
        4 => Some(IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(key).ok()?))),
        16 => Some(IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(key).ok()?))),
        _ => None,
    }
}

fn after(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(v4) => v4.to_bits().checked_add(1).map(|bits| IpAddr::V4(Ipv4Addr::from_bits(bits))),
        IpAddr::V6(v6) => v6.to_bits().checked_add(1).map(|bits| IpAddr::V6(Ipv6Addr::from_bits(bits))),
    }
}

fn before(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(v4) => v4.to_bits().checked_sub(1).map(|bits| IpAddr::V4(Ipv4Addr::from_bits(bits))),
        IpAddr::V6(v6) => v6.to_bits().checked_sub(1).map(|bits| IpAddr::V6(Ipv6Addr::from_bits(bits))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Small addresses, so that they often meet, and the ends of what there is.
    fn bans() -> impl Strategy<Value = Vec<Ban>> {
        let end = prop_oneof![0u32..40, (u32::MAX - 5)..=u32::MAX];
        let one = (end.clone(), end, 1u64..5).prop_map(|(a, b, left)| {
            let range = |bits: u32| IpAddr::V4(Ipv4Addr::from_bits(bits));
            let who = AddressRange { first: range(a.min(b)), last: range(a.max(b)) };
            let kind = BanKind { ports: vec![22; left as usize % 2], reject: left > 2 };
            Ban { who, kind, left: Duration::from_secs(left), packets: left, bytes: left * 60 }
        });
        proptest::collection::vec(one, 0..8)
    }

    fn left(bans: &[Ban], at: IpAddr) -> Option<Duration> {
        bans.iter().filter(|ban| ban.who.first <= at && at <= ban.who.last).map(|ban| ban.left).max()
    }

    #[test]
    fn what_becomes_of_packets_is_read_from_the_name_of_a_chain() {
        for (ports, reject) in [(vec![], false), (vec![], true), (vec![22], false), (vec![22, 65_535], true)]
        {
            let kind = BanKind { ports, reject };
            assert_eq!(BanKind::of(Some(&kind.verdict())), kind);
        }
        let longest = BanKind { ports: vec![65_535; MAX_BANNED_PORTS], reject: true };
        assert!(longest.chain().is_some_and(|name| name.len() < 127), "the kernel takes 127 bytes");
    }

    proptest! {
        #[test]
        fn nothing_overlaps_and_the_longest_holds(all in bans(), hole in bans()) {
            let parts = disjoint(&all);
            let sum = |bans: &[Ban]| bans.iter().map(|ban| ban.packets).sum::<u64>();
            prop_assert_eq!(sum(&parts), sum(&all), "what was counted is kept");
            let hole: Vec<AddressRange> = hole.into_iter().map(|ban| ban.who).collect();
            let rest = without(&parts, &hole);
            for list in [&parts, &rest] {
                prop_assert!(list.windows(2).all(|pair| pair[0].who.last < pair[1].who.first), "{list:?}");
                prop_assert!(list.iter().all(|ban| ban.who.first <= ban.who.last));
            }
            for bits in (0u32..42).chain((u32::MAX - 7)..=u32::MAX) {
                let at = IpAddr::V4(Ipv4Addr::from_bits(bits));
                prop_assert_eq!(left(&parts, at), left(&all, at));
                let let_in = hole.iter().any(|range| range.first <= at && at <= range.last);
                prop_assert_eq!(left(&rest, at), left(&all, at).filter(|_| !let_in));
            }
        }
    }
}
