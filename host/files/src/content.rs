//! What a file is by its first bytes.

/// How many bytes tell: up to `e_type` of an ELF header (elf(5)).
pub(crate) const FIRST: usize = 18;

const RELOCATABLE: u16 = 1;
const CORE: u16 = 4;

/// How files begin that hold PHP or JSP, whatever their names end in.
const WEB: [&[u8]; 3] = [b"<?php", b"<?=", b"<%@"];

/// What the first bytes say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// `#!`.
    Script,
    /// A program or shared object.
    Program,
    /// An ELF file that is not run as it is: object files of a build, kernel modules, core dumps.
    Part,
    /// What a web server hands to an interpreter: PHP or JSP.
    Web,
    /// Anything else.
    Other,
}

impl Content {
    pub(crate) fn of(first: &[u8]) -> Self {
        if first.starts_with(b"#!") {
            return Self::Script;
        }
        if WEB.iter().any(|mark| first.starts_with(mark)) {
            return Self::Web;
        }
        if !first.starts_with(b"\x7fELF") {
            return Self::Other;
        }
        let Some(kind) = first.get(16..18).map(|k| [k[0], k[1]]) else { return Self::Program };
        // Byte 5 is the byte order. A header cut short or of another order is still a program to someone.
        let kind = if first[5] == 2 { u16::from_be_bytes(kind) } else { u16::from_le_bytes(kind) };
        if kind == RELOCATABLE || kind == CORE { Self::Part } else { Self::Program }
    }

    /// Whether it begins with `#!` or the ELF magic.
    pub(crate) fn is_code(self) -> bool {
        !matches!(self, Self::Other | Self::Web)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn elf(order: u8, kind: [u8; 2]) -> Vec<u8> {
        let mut bytes = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
        bytes[5] = order;
        bytes.extend(kind);
        bytes
    }

    #[test]
    fn contents_are_told_apart() {
        assert_eq!(Content::of(b"#!/bin/sh\n"), Content::Script);
        assert_eq!(Content::of(&elf(1, [2, 0])), Content::Program);
        assert_eq!(Content::of(&elf(1, [3, 0])), Content::Program);
        assert_eq!(Content::of(&elf(1, [1, 0])), Content::Part);
        assert_eq!(Content::of(&elf(2, [0, 1])), Content::Part);
        assert_eq!(Content::of(&elf(1, [4, 0])), Content::Part);
        assert_eq!(Content::of(b"\x7fELF"), Content::Program);
        assert_eq!(Content::of(b"<?php"), Content::Web);
        assert_eq!(Content::of(b"<?xml"), Content::Other);
        assert_eq!(Content::of(b""), Content::Other);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..20), magic: bool) {
            if magic {
                bytes.splice(..bytes.len().min(4), *b"\x7fELF");
            }
            let _ = Content::of(&bytes);
        }
    }
}
