use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use davy_model::AddressRange;

use super::Ban;

/// The same bans without overlaps: where several hold, one that shuts out from all ports before others, and of those alike the one
/// that holds longest. What was counted stays with the first part.
pub(super) fn disjoint(bans: &[Ban]) -> Vec<Ban> {
    let mut starts: Vec<IpAddr> = bans.iter().map(|ban| ban.who.first).collect();
    starts.extend(bans.iter().filter_map(|ban| next(ban.who.last)));
    starts.sort_unstable();
    starts.dedup();
    let mut parts: Vec<Ban> = Vec::new();
    let highest = bans.iter().map(|ban| ban.who.last).max();
    for (at, first) in starts.iter().enumerate() {
        let last = starts.get(at + 1).and_then(|further| before(*further)).or(highest);
        let here = bans.iter().filter(|b| b.who.first <= *first && *first <= b.who.last);
        let (Some(last), Some(strongest)) = (last, here.max_by_key(|ban| strength(ban))) else { continue };
        let counted = bans.iter().filter(|ban| ban.who.first == *first);
        let (packets, bytes) = counted.fold((0, 0), |(p, b), ban| (p + ban.packets, b + ban.bytes));
        match parts.last_mut() {
            Some(part)
                if (part.left, &part.kind) == (strongest.left, &strongest.kind)
                    && next(part.who.last) == Some(*first) =>
            {
                part.who.last = last;
                (part.packets, part.bytes) = (part.packets + packets, part.bytes + bytes);
            }
            _ => parts.push(Ban {
                who: AddressRange { first: *first, last },
                packets,
                bytes,
                ..strongest.clone()
            }),
        }
    }
    parts
}

fn strength(ban: &Ban) -> (bool, Duration) {
    (ban.kind.ports.is_empty(), ban.left)
}

/// What is left of some bans when these addresses are let in.
pub(super) fn without(bans: &[Ban], gone: &[AddressRange]) -> Vec<Ban> {
    let mut parts = bans.to_vec();
    for hole in gone {
        parts = parts
            .into_iter()
            .flat_map(|ban| {
                if ban.who.last < hole.first || hole.last < ban.who.first {
                    return vec![ban];
                }
                let below = before(hole.first).filter(|last| ban.who.first <= *last);
                let above = next(hole.last).filter(|first| *first <= ban.who.last);
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

pub(super) fn next(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(v4) => v4.to_bits().checked_add(1).map(|bits| IpAddr::V4(Ipv4Addr::from_bits(bits))),
        IpAddr::V6(v6) => v6.to_bits().checked_add(1).map(|bits| IpAddr::V6(Ipv6Addr::from_bits(bits))),
    }
}

pub(super) fn before(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(v4) => v4.to_bits().checked_sub(1).map(|bits| IpAddr::V4(Ipv4Addr::from_bits(bits))),
        IpAddr::V6(v6) => v6.to_bits().checked_sub(1).map(|bits| IpAddr::V6(Ipv6Addr::from_bits(bits))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::BanKind;
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

    fn holds(bans: &[Ban], at: IpAddr) -> Option<(bool, Duration)> {
        bans.iter().filter(|ban| ban.who.first <= at && at <= ban.who.last).map(strength).max()
    }

    proptest! {
        #[test]
        fn nothing_overlaps_and_the_strongest_holds(all in bans(), hole in bans()) {
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
                prop_assert_eq!(holds(&parts, at), holds(&all, at));
                let let_in = hole.iter().any(|range| range.first <= at && at <= range.last);
                prop_assert_eq!(holds(&rest, at), holds(&all, at).filter(|_| !let_in));
            }
        }
    }
}
