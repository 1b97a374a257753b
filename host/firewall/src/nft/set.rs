use std::net::IpAddr;
use std::time::Duration;

use super::Attributes;
use super::expression::Verdict;

const INTERVAL: u32 = 0x4;
const MAP: u32 = 0x8;
const TIMEOUT: u32 = 0x10;
const DYNAMIC: u32 = 0x20;

/// What the elements of a set are. The numbers are nft's own, which lists sets by them; the kernel does not look at them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    /// An IPv4 address.
    V4,
    /// An IPv6 address.
    V6,
    /// The number of a transport protocol.
    Protocol,
    /// A port.
    Port,
    /// Protocol, port and IPv4 address.
    ProtocolPortV4,
    /// Protocol, port and IPv6 address.
    ProtocolPortV6,
}

impl Key {
    const fn shape(self) -> (u32, u32) {
        const BITS: u32 = 6;
        const CONCATENATED: u32 = (12 << BITS | 13) << BITS;
        match self {
            Self::V4 => (7, 4),
            Self::V6 => (8, 16),
            Self::Protocol => (12, 1),
            Self::Port => (13, 2),
            Self::ProtocolPortV4 => (CONCATENATED | 7, 12),
            Self::ProtocolPortV6 => (CONCATENATED | 8, 24),
        }
    }
}

/// What kind of set.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SetKind {
    key: Key,
    flags: u32,
    timeout: Option<Duration>,
    most: Option<u32>,
    counted: bool,
}

impl SetKind {
    /// Single elements.
    pub(crate) const fn of(key: Key) -> Self {
        Self { key, flags: 0, timeout: None, most: None, counted: false }
    }

    /// Elements may be ranges.
    pub(crate) const fn of_intervals(self) -> Self {
        Self { flags: self.flags | INTERVAL, ..self }
    }

    /// Elements lead to verdicts.
    pub(crate) const fn to_verdicts(self) -> Self {
        Self { flags: self.flags | MAP, ..self }
    }

    /// Elements may be given a time after which they go.
    pub(crate) const fn timed(self) -> Self {
        Self { flags: self.flags | TIMEOUT, ..self }
    }

    /// Each element counts the packets that it is found for.
    pub(crate) const fn counted(self) -> Self {
        Self { counted: true, ..self }
    }

    /// Packets may add elements, at most so many, which go after this time.
    pub(crate) const fn filled_by_packets(self, most: u32, timeout: Duration) -> Self {
        Self { flags: self.flags | TIMEOUT | DYNAMIC, timeout: Some(timeout), most: Some(most), ..self }
    }

    pub(crate) const fn needs(self) -> &'static str {
        if self.flags & INTERVAL != 0 { "; it needs sets of intervals (kernel 3.13)" } else { "" }
    }

    pub(crate) fn write(self, a: &mut Attributes) {
        let (kind, length) = self.key.shape();
        a.number(3, self.flags).number(4, kind).number(5, length);
        if self.flags & MAP != 0 {
            // NFT_DATA_VERDICT.
            a.number(6, 0xffff_ff00);
        }
        if let Some(most) = self.most {
            a.nested(9, |description| {
                description.number(1, most);
            });
        }
        if let Some(timeout) = self.timeout {
            a.long(11, millis(timeout));
        }
        if self.counted {
            a.nested(17, |expression| counter(expression, Count::default()));
        }
    }
}

/// What went by a counter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
}

/// A counter that begins with what was counted already.
fn counter(expression: &mut Attributes, begin: Count) {
    expression.text(1, "counter").nested(2, |data| {
        data.long(1, begin.bytes).long(2, begin.packets);
    });
}

fn millis(length: Duration) -> u64 {
    u64::try_from(length.as_millis()).unwrap_or(u64::MAX).max(1)
}

/// An element of a set.
#[derive(Clone, Debug)]
pub(crate) struct Element {
    key: Vec<u8>,
    ends_interval: bool,
    timeout: Option<Duration>,
    verdict: Option<Verdict>,
    counted: Option<Count>,
}

impl Element {
    /// A single element.
    pub(crate) fn new(key: Vec<u8>) -> Self {
        Self { key, ends_interval: false, timeout: None, verdict: None, counted: None }
    }

    /// An address.
    pub(crate) fn address(address: IpAddr) -> Self {
        Self::new(octets(address))
    }

    /// The same, gone after a time if there is one.
    pub(crate) fn for_a_time(mut self, timeout: Option<Duration>) -> Self {
        self.timeout = timeout;
        self
    }

    /// The same, leading to a verdict.
    pub(crate) fn to(mut self, verdict: Verdict) -> Self {
        self.verdict = Some(verdict);
        self
    }

    /// The same, going on to count from here; of a set whose elements count.
    pub(crate) fn counting(mut self, from: Count) -> Self {
        self.counted = Some(from);
        self
    }

    pub(super) fn write(&self, list: &mut Attributes) {
        list.nested(1, |element| {
            element.nested(1, |key| {
                key.bytes(1, &self.key);
            });
            if let Some(verdict) = &self.verdict {
                element.nested(2, |data| verdict.write(data));
            }
            if self.ends_interval {
                element.number(3, 1);
            }
            if let Some(timeout) = self.timeout {
                element.long(4, millis(timeout));
            }
            if let Some(begin) = self.counted {
                element.nested(7, |expression| counter(expression, begin));
            }
        });
    }
}

/// The bytes of an address.
pub(crate) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// A range of keys of the same length, both ends in it.
#[derive(Clone, Debug)]
pub(crate) struct Interval {
    first: Vec<u8>,
    last: Vec<u8>,
    timeout: Option<Duration>,
    verdict: Option<Verdict>,
    counted: Option<Count>,
}

impl Interval {
    /// From the first to the last.
    pub(crate) fn new(first: Vec<u8>, last: Vec<u8>) -> Self {
        Self { first, last, timeout: None, verdict: None, counted: None }
    }

    /// The same, gone after a time if there is one.
    pub(crate) fn for_a_time(mut self, timeout: Option<Duration>) -> Self {
        self.timeout = timeout;
        self
    }

    /// The same, leading to a verdict.
    pub(crate) fn to(mut self, verdict: Verdict) -> Self {
        self.verdict = Some(verdict);
        self
    }

    /// The same, going on to count from here.
    pub(crate) fn counting(mut self, from: Count) -> Self {
        self.counted = Some(from);
        self
    }

    /// As the kernel wants it: where it begins, and where it does not hold any more, unless it goes on to the highest key.
    pub(super) fn ends(&self) -> impl Iterator<Item = Element> + use<> {
        let begin = Element {
            key: self.first.clone(),
            ends_interval: false,
            timeout: self.timeout,
            verdict: self.verdict.clone(),
            counted: self.counted,
        };
        let end = after(&self.last).map(|key| Element { ends_interval: true, ..Element::new(key) });
        std::iter::once(begin).chain(end)
    }
}

/// The next key; `None` after the highest.
fn after(key: &[u8]) -> Option<Vec<u8>> {
    let mut next = key.to_vec();
    for byte in next.iter_mut().rev() {
        let (sum, carried) = byte.overflowing_add(1);
        *byte = sum;
        if !carried {
            return Some(next);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_key_carries() {
        assert_eq!(after(&[10, 0, 0, 255]), Some(vec![10, 0, 1, 0]));
        assert_eq!(after(&[255, 255]), None);
        assert_eq!(Interval::new(vec![0, 1], vec![255, 255]).ends().count(), 1);
    }
}
