use std::time::Duration;

use super::attributes::{find, read};
use super::{Count, Verdict};

/// An element of a set, as the kernel lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listed {
    /// Its key.
    pub(crate) key: Vec<u8>,
    /// Whether an interval ends before it.
    pub(crate) ends_interval: bool,
    /// How long it stays; `None` for ever.
    pub(crate) left: Option<Duration>,
    /// What it counted, if it counts.
    pub(crate) count: Count,
    /// What it leads to, if it does.
    pub(crate) verdict: Option<Verdict>,
}

/// The elements in the attributes of one message.
pub(crate) fn set_elements(attributes: &[u8]) -> Vec<Listed> {
    let list = find(attributes, 3).unwrap_or_default();
    let elements = read(list).filter_map(|(_, element)| {
        let key = find(find(element, 1)?, 1)?.to_vec();
        let ends_interval = find(element, 3).and_then(number).is_some_and(|flags| flags & 1 != 0);
        let left = find(element, 5).and_then(long).map(Duration::from_millis);
        let count = find(element, 7).and_then(counted).unwrap_or_default();
        let verdict = find(element, 2).and_then(|data| decided(find(data, 2)?));
        Some(Listed { key, ends_interval, left, count, verdict })
    });
    elements.collect()
}

fn counted(expression: &[u8]) -> Option<Count> {
    let data = find(expression, 1).filter(|name| *name == b"counter\0").and_then(|_| find(expression, 2))?;
    Some(Count { bytes: find(data, 1).and_then(long)?, packets: find(data, 2).and_then(long)? })
}

fn decided(verdict: &[u8]) -> Option<Verdict> {
    match find(verdict, 1).and_then(number)?.cast_signed() {
        1 => Some(Verdict::Accept),
        0 => Some(Verdict::Drop),
        -3 => {
            let chain = find(verdict, 2)?.strip_suffix(b"\0")?;
            Some(Verdict::Jump(std::str::from_utf8(chain).ok()?.to_owned()))
        }
        _ => None,
    }
}

/// Packets that went by the counters of the rule in the attributes of one message.
pub(crate) fn rule_counters(attributes: &[u8]) -> u64 {
    let list = find(attributes, 4).unwrap_or_default();
    let counters = read(list).filter(|(_, e)| find(e, 1).is_some_and(|name| name == b"counter\0"));
    counters.filter_map(|(_, e)| find(find(e, 2)?, 2).and_then(long)).sum()
}

fn number(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.first_chunk()?))
}

fn long(bytes: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(*bytes.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = set_elements(&bytes);
            let _ = rule_counters(&bytes);
        }
    }
}
