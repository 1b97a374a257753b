//! Memory laid out as RandomX needs it: a 2080 MiB dataset or a 256 MiB cache, and 2 MiB scratchpads, often in huge pages.
//! Source: RandomX specification, table 1.2.1 and chapter 7.

use std::fmt::Write as _;

use davy_model::{Evidence, MemoryShape, Signal, Timestamp};

use crate::ledger::{Particulars, Topic, evidence};
use crate::weights::{MEMORY_CACHE, MEMORY_CAP, MEMORY_DATASET, MEMORY_HUGE, MEMORY_JIT, MEMORY_SCRATCHPADS};

const MIB: u64 = 1 << 20;
/// 2 GiB and 33,554,368 bytes, rounded up to what allocators give.
const DATASET: std::ops::RangeInclusive<u64> = 2_078 * MIB..=2_114 * MIB;
const CACHE: std::ops::RangeInclusive<u64> = 256 * MIB..=258 * MIB;
/// Huge pages enough for a cache.
const HUGE: u64 = 200 * MIB;

/// The topic under which it is kept.
pub(crate) const TOPIC: Topic = "memory";

/// What a memory shape says; `None` when it says nothing.
pub(crate) fn weigh(time: Timestamp, shape: &MemoryShape) -> Option<Evidence> {
    let mut bits = 0.0;
    let mut text = String::from("memory of RandomX's sizes:");
    let largest = shape.largest_anonymous.max(shape.hugetlb);
    if DATASET.contains(&largest) {
        bits += MEMORY_DATASET;
        let _ = write!(text, " a {} MiB mapping (the dataset has 2080),", largest / MIB);
    } else if CACHE.contains(&largest) {
        bits += MEMORY_CACHE;
        let _ = write!(text, " a {} MiB mapping (the cache has 256),", largest / MIB);
    }
    if shape.scratchpads >= 2 {
        bits += MEMORY_SCRATCHPADS;
        let _ = write!(text, " {} mappings of 2 MiB,", shape.scratchpads);
    }
    if shape.hugetlb >= HUGE {
        bits += MEMORY_HUGE;
        let _ = write!(text, " {} MiB in huge pages,", shape.hugetlb / MIB);
    }
    // What every runtime has says something only beside what few have.
    if bits > 0.0 && shape.anonymous_executable > 0 {
        bits += MEMORY_JIT;
        let _ = write!(text, " {} KiB of code made at run time,", shape.anonymous_executable / 1024);
    }
    if bits <= 0.0 {
        return None;
    }
    let _ = write!(text, " {:.1} GiB resident", shape.resident as f64 / (1u64 << 30) as f64);
    Some(
        evidence(time, Signal::MemoryShape, bits.min(MEMORY_CAP), text)
            .of(shape.process)
            .technique("T1496.001")
            .number("largest_mapping_mib", (largest / MIB) as f64)
            .number("scratchpads", f64::from(shape.scratchpads))
            .number("hugetlb_mib", (shape.hugetlb / MIB) as f64)
            .number("resident_mib", (shape.resident / MIB) as f64),
    )
}
