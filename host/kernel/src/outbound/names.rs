//! What the host's name servers answered.

use std::net::{IpAddr, Ipv6Addr};

use davy_model::{RuleSet, Timestamp, name_of_reversed};
use libbpf_rs::{MapCore, MapFlags, MapHandle, Object};
use zerocopy::{FromBytes, IntoBytes};

use super::tables;
use crate::abi::{AnsweredKey, Named, NamedKey};
use crate::boot_now;
use crate::clock::BootClock;
use crate::error::{During, Result};
use crate::objects;

/// A name's address, as a name server of the host gave it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Answered {
    /// The name that was asked for, lower case.
    pub name: String,
    /// One of its addresses.
    pub address: IpAddr,
    /// Until when a rule by that name allows the address.
    pub until: Timestamp,
}

/// Everything in the table that still holds.
pub(super) fn answered(map: &MapHandle, clock: &BootClock) -> Vec<Answered> {
    let mut all: Vec<Answered> = living(map)
        .into_iter()
        .map(|(key, until)| Answered {
            name: name_of_reversed(text(&key)),
            address: IpAddr::V6(Ipv6Addr::from(key.address)).to_canonical(),
            until: clock.at(until),
        })
        .collect();
    all.sort();
    all
}

fn living(map: &MapHandle) -> Vec<(AnsweredKey, u64)> {
    let now = boot_now();
    let entry = |key: Vec<u8>| {
        let value = map.lookup(&key, MapFlags::ANY).ok().flatten()?;
        let until = u64::read_from_bytes(&value).ok().filter(|until| *until > now)?;
        Some((AnsweredKey::read_from_bytes(&key).ok()?, until))
    };
    map.keys().filter_map(entry).collect()
}

/// The name without what fills it up.
fn text(key: &AnsweredKey) -> &[u8] {
    let end = key.reversed.iter().position(|byte| *byte == 0).unwrap_or(key.reversed.len());
    &key.reversed[..end]
}

/// Gives the rules of a new policy the addresses that are known of their names.
pub(super) fn take_over(object: &Object, rules: &[(Vec<u8>, RuleSet)]) -> Result<()> {
    let named = objects::map(object, "outbound_named")?;
    let mut all: std::collections::BTreeMap<(u64, [u8; 16]), (RuleSet, u64)> = Default::default();
    for (key, until) in living(&objects::map(object, "names_answered")?) {
        let longest = rules.iter().filter(|(begin, _)| key.reversed.starts_with(begin));
        if let Some((_, set)) = longest.max_by_key(|(begin, _)| begin.len()) {
            let entry = all.entry((key.net, key.address)).or_default();
            *entry = (entry.0.or(set), entry.1.max(until));
        }
    }
    for ((net, address), (set, until)) in all.into_iter().take(named.max_entries() as usize) {
        let value = Named { rules: tables::rules(&set), until };
        named
            .update(NamedKey { net, address }.as_bytes(), value.as_bytes(), MapFlags::ANY)
            .during(|| "taking over what names lead to".to_owned())?;
    }
    Ok(())
}
