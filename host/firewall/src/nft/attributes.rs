/// Bits of an attribute's type that say how its value is to be read (`NLA_F_NESTED`, `NLA_F_NET_BYTEORDER`).
const FLAGS: u16 = 0xc000;
const NESTED: u16 = 0x8000;

/// Netlink attributes as they are written, one after the other (netlink(7)).
#[derive(Debug, Default)]
pub(crate) struct Attributes(Vec<u8>);

impl Attributes {
    /// Adds a value.
    pub(crate) fn bytes(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
        self.0.extend(length.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    /// Adds a text, ended by a zero.
    pub(crate) fn text(&mut self, kind: u16, text: &str) -> &mut Self {
        self.bytes(kind, &[text.as_bytes(), &[0]].concat())
    }

    /// Adds a number in the network's order of bytes.
    pub(crate) fn number(&mut self, kind: u16, value: u32) -> &mut Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    /// Adds a long number in the network's order of bytes.
    pub(crate) fn long(&mut self, kind: u16, value: u64) -> &mut Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    /// Adds attributes inside one. What is inside must stay below 64 KiB.
    pub(crate) fn nested(&mut self, kind: u16, inside: impl FnOnce(&mut Self)) -> &mut Self {
        let start = self.0.len();
        self.bytes(kind | NESTED, &[]);
        inside(self);
        let length = self.0.len() - start;
        debug_assert!(length <= usize::from(u16::MAX), "a nested attribute of {length} bytes");
        let length = u16::try_from(length).unwrap_or(u16::MAX);
        self.0[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self
    }

    /// What was written.
    pub(crate) fn written(&self) -> &[u8] {
        &self.0
    }
}

/// The attributes in some bytes, each with its type and value. They end where a length makes no sense.
pub(crate) fn read(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(*bytes.first_chunk::<2>()?));
        let kind = u16::from_ne_bytes(*bytes.get(2..4)?.first_chunk::<2>()?) & !FLAGS;
        let value = bytes.get(4..length)?;
        bytes = &bytes[length.next_multiple_of(4).min(bytes.len())..];
        Some((kind, value))
    })
}

/// The value of the first attribute of a type.
pub(crate) fn find(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    read(bytes).find(|(found, _)| *found == kind).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_written_reads_back() {
        let mut all = Attributes::default();
        all.text(1, "davy").number(2, 7).nested(3, |inside| {
            inside.long(4, 9).bytes(5, &[1, 2, 3]);
        });
        let found: Vec<_> = read(all.written()).collect();
        assert_eq!(found[0], (1, &b"davy\0"[..]));
        assert_eq!(found[1], (2, &[0, 0, 0, 7][..]));
        assert_eq!(find(found[2].1, 5), Some(&[1, 2, 3][..]));
        assert_eq!(find(found[2].1, 4), Some(&9u64.to_be_bytes()[..]));
        assert_eq!(find(all.written(), 9), None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            for (_, value) in read(&bytes) {
                let _ = read(value).count();
            }
        }
    }
}
