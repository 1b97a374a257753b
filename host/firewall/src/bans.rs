//! The table that says who may send nothing for a time.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use davy_model::{AddressRange, Prefix};

use crate::nft::{Attributes, Batch, Element, Interval, Key, Listed, Rule, SetKind, Socket, Verdict};
use crate::nft::{message, octets, set_elements};
use crate::{BANS_TABLE, Error};

/// The most networks that are banned at once; a further one is refused. Single addresses have no bound but memory.
pub const MAX_BANNED_NETWORKS: usize = 4096;

/// Before connections are tracked, so that what is banned costs as little as it can.
const PRIORITY: i32 = -310;

const ENTRY: &str = "arrives";
const ADDRESSES: [&str; 2] = ["banned4", "banned6"];
const NETWORKS: [&str; 2] = ["banned_networks4", "banned_networks6"];

/// Somebody who may send nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ban {
    /// Whose addresses.
    pub who: AddressRange,
    /// For how long still.
    pub left: Duration,
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

    /// Lets nothing in from these networks for a time, in one transaction. What is banned already is banned anew for this time;
    /// of networks that lie in each other the longer time holds where they do. Loopback is never banned.
    ///
    /// # Errors
    /// When the kernel refuses, or there are more than [`MAX_BANNED_NETWORKS`] networks; nothing is changed then.
    pub fn ban(&self, who: &[Prefix], length: Duration) -> Result<(), Error> {
        let mut who = who.to_vec();
        who.sort_unstable();
        who.dedup();
        let mut batch = self.base();
        for (v4, addresses, networks) in sets() {
            let family = |prefix: &&Prefix| prefix.address().is_ipv4() == v4;
            let hosts: Vec<IpAddr> =
                who.iter().filter(family).filter(|p| p.is_host()).map(Prefix::address).collect();
            if !hosts.is_empty() {
                // An element that is there keeps its old time, so it has to go first.
                let known = self.keys(addresses)?;
                let known: std::collections::HashSet<Vec<u8>> =
                    known.into_iter().map(|element| element.key).collect();
                let again: Vec<Element> = hosts
                    .iter()
                    .map(|a| octets(*a))
                    .filter(|key| known.contains(key))
                    .map(Element::new)
                    .collect();
                let all: Vec<Element> =
                    hosts.iter().map(|a| Element::address(*a).for_a_time(Some(length))).collect();
                batch.take(addresses, &again).add(addresses, &all);
            }
            let wide: Vec<Ban> = who
                .iter()
                .filter(family)
                .filter(|p| !p.is_host())
                .map(|p| Ban { who: (*p).into(), left: length })
                .collect();
            if !wide.is_empty() {
                let mut all = self.intervals(networks, v4)?;
                for ban in &wide {
                    all.retain(|old| old.who != ban.who);
                }
                all.extend(wide);
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
        let mut batch = self.base();
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
                Some(Ban {
                    who: AddressRange { first: address, last: address },
                    left: element.left.unwrap_or_default(),
                })
            });
            all.extend(hosts);
            all.extend(self.intervals(networks, v4)?);
        }
        Ok(all)
    }

    /// Lets everybody in again: takes the table away, if it is there.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn remove(&self) -> Result<(), Error> {
        let mut batch = Batch::of(BANS_TABLE);
        batch.drop_table();
        self.socket.commit(batch)
    }

    /// A change that makes the table first where it is not whole.
    fn base(&self) -> Batch {
        let mut batch = Batch::of(BANS_TABLE);
        if self.is_whole() {
            return batch;
        }
        batch.drop_table().table();
        for (v4, addresses, networks) in sets() {
            let key = if v4 { Key::V4 } else { Key::V6 };
            batch.set(addresses, SetKind::of(key).timed());
            batch.set(networks, SetKind::of(key).timed().of_intervals());
        }
        batch.entry(ENTRY, PRIORITY);
        for rule in rules() {
            batch.rule(ENTRY, rule);
        }
        batch
    }

    fn is_whole(&self) -> bool {
        let mut found = 0;
        let all = |a: &mut Attributes| {
            a.text(1, BANS_TABLE);
        };
        self.socket.dump(message::GET_RULE, all, |_| found += 1).is_ok() && found == rules().len()
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
        let mut open: Option<(IpAddr, Duration)> = None;
        for element in ends {
            let Some(at) = address(&element.key) else { continue };
            if element.ends_interval {
                if let (Some((first, left)), Some(last)) = (open.take(), before(at)) {
                    bans.push(Ban { who: AddressRange { first, last }, left });
                }
            } else {
                open = Some((at, element.left.unwrap_or_default()));
            }
        }
        if let Some((first, left)) = open {
            let last =
                if v4 { IpAddr::V4(Ipv4Addr::BROADCAST) } else { IpAddr::V6(Ipv6Addr::from_bits(u128::MAX)) };
            bans.push(Ban { who: AddressRange { first, last }, left });
        }
        Ok(bans)
    }
}

fn rules() -> Vec<Rule> {
    let mut rules = vec![Rule::new("iiftype loopback accept").if_loopback().then(&Verdict::Accept)];
    for (v4, addresses, networks) in sets() {
        for set in [addresses, networks] {
            rules.push(
                Rule::new("ip saddr @banned counter drop").if_from(v4, set).count().then(&Verdict::Drop),
            );
        }
    }
    rules
}

const fn sets() -> [(bool, &'static str, &'static str); 2] {
    [(true, ADDRESSES[0], NETWORKS[0]), (false, ADDRESSES[1], NETWORKS[1])]
}

fn write_networks(batch: &mut Batch, set: &str, bans: &[Ban]) -> Result<(), Error> {
    if bans.len() > MAX_BANNED_NETWORKS {
        return Err(Error::Invalid(format!(
            "more than {MAX_BANNED_NETWORKS} networks cannot be banned at once; let some in again"
        )));
    }
    let interval =
        |ban: &Ban| Interval::new(octets(ban.who.first), octets(ban.who.last)).for_a_time(Some(ban.left));
    batch.empty(set).add_intervals(set, &bans.iter().map(interval).collect::<Vec<_>>());
    Ok(())
}

/// The same bans without overlaps: where several hold, the one that holds longest.
fn disjoint(bans: &[Ban]) -> Vec<Ban> {
    let mut starts: Vec<IpAddr> = bans.iter().map(|ban| ban.who.first).collect();
    starts.extend(bans.iter().filter_map(|ban| after(ban.who.last)));
    starts.sort_unstable();
    starts.dedup();
    let mut parts: Vec<Ban> = Vec::new();
    let highest = bans.iter().map(|ban| ban.who.last).max();
    for (at, first) in starts.iter().enumerate() {
        let last = starts.get(at + 1).and_then(|next| before(*next)).or(highest);
        let left =
            bans.iter().filter(|b| b.who.first <= *first && *first <= b.who.last).map(|b| b.left).max();
        let (Some(last), Some(left)) = (last, left) else { continue };
        match parts.last_mut() {
            Some(part) if part.left == left && after(part.who.last) == Some(*first) => part.who.last = last,
            _ => parts.push(Ban { who: AddressRange { first: *first, last }, left }),
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
                let below = below.map(|last| Ban { who: AddressRange { last, ..ban.who }, ..ban });
                let above = above.map(|first| Ban { who: AddressRange { first, ..ban.who }, ..ban });
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
            Ban { who, left: Duration::from_secs(left) }
        });
        proptest::collection::vec(one, 0..8)
    }

    fn left(bans: &[Ban], at: IpAddr) -> Option<Duration> {
        bans.iter().filter(|ban| ban.who.first <= at && at <= ban.who.last).map(|ban| ban.left).max()
    }

    proptest! {
        #[test]
        fn nothing_overlaps_and_the_longest_holds(all in bans(), hole in bans()) {
            let parts = disjoint(&all);
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
