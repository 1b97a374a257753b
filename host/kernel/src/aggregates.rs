//! Flows that the kernel programs count together instead of telling each.

use std::collections::HashMap;

use davy_model::Event;
use libbpf_rs::{MapCore, MapFlags, MapHandle};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use crate::abi::{Aggregate, AggregateKey};
use crate::clock::boot_now;
use crate::decode::Decoder;

/// Entries read at once; no bucket of the kernel's table comes near it.
const BATCH: u32 = 512;

/// Entries that nobody touched for so long are taken out, in nanoseconds. Their next flow begins a new burst.
const STALE: u64 = 10_000_000_000;

/// What was told, by the bytes of the key.
type Told = HashMap<[u8; size_of::<AggregateKey>()], Aggregate>;

/// The kernel's table, and what was told of its entries.
pub(crate) struct Aggregates {
    table: Option<MapHandle>,
    told: Told,
}

impl Aggregates {
    /// Without a table there is nothing to tell.
    pub(crate) fn new(table: Option<MapHandle>) -> Self {
        Self { table, told: HashMap::new() }
    }

    /// Tells what ended since the last look. The kernel's table is bounded, and so is what is remembered of it.
    pub(crate) fn look(&mut self, decoder: &mut Decoder, out: &mut Vec<Event>) {
        let Some(table) = &self.table else { return };
        let Ok(entries) = table.lookup_batch(BATCH, MapFlags::ANY, MapFlags::ANY) else { return };
        let now = boot_now();
        let mut stale = Vec::new();
        for (key, value) in entries {
            let Ok(key) = AggregateKey::read_from_bytes(&key) else { continue };
            let Ok(value) = Aggregate::read_from_bytes(&value) else { continue };
            tell(&mut self.told, &key, value, decoder, out);
            if now.saturating_sub(value.touched) > STALE {
                stale.push(key);
            }
        }
        for key in stale {
            // Between the look and now another flow may have ended.
            // What could not be taken out keeps its memory here too, or all of it would be told again.
            let Ok(taken) = table.lookup_and_delete(key.as_bytes()) else { continue };
            if let Some(last) = taken.and_then(|last| Aggregate::read_from_bytes(&last).ok()) {
                tell(&mut self.told, &key, last, decoder, out);
            }
            self.told.remove(key.as_bytes());
        }
    }
}

fn tell(told: &mut Told, key: &AggregateKey, now: Aggregate, decoder: &mut Decoder, out: &mut Vec<Event>) {
    if now.flows == 0 {
        return;
    }
    let Ok(place) = key.as_bytes().try_into() else { return };
    let before = told.insert(place, now).unwrap_or_else(Aggregate::new_zeroed);
    if now.flows > before.flows {
        out.push(decoder.aggregate(key, &before, &now));
    }
}
