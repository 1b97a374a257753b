//! What lies in a file's attribute `security.ima`, as the kernel's integrity subsystem and evmctl(1) write it. It is read and
//! told, and does not vouch: the kernel itself appraises it where it is told to.

use std::fmt;

/// The kernel's numbers for digests (include/uapi/linux/hash_info.h), from zero.
const DIGESTS: [&str; 8] = ["md4", "md5", "sha1", "rmd160", "sha256", "sha384", "sha512", "sha224"];

/// What the attribute holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImaAttribute {
    /// A digest that the kernel wrote down for itself; whoever is root could have.
    Digest {
        /// Which kind, such as `sha256`.
        algorithm: String,
        /// The digest.
        digest: Vec<u8>,
    },
    /// A signature (`EVM_IMA_XATTR_DIGSIG` or `IMA_VERITY_DIGSIG`).
    Signature {
        /// Whether it is over the fs-verity digest, and not over the content.
        over_verity: bool,
        /// The digest that is signed, such as `sha256`.
        algorithm: String,
        /// The last four bytes of the key's identifier.
        key: [u8; 4],
        /// How long the signature is, in bits.
        bits: usize,
    },
    /// Something else, by the kernel's number for it.
    Other(u8),
}

impl ImaAttribute {
    /// Reads it; `None` when it is cut short, or longer than it says.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let (kind, rest) = bytes.split_first()?;
        Some(match (kind, rest) {
            (1, digest) => Self::Digest { algorithm: "sha1".to_owned(), digest: digest.to_vec() },
            (4, [algorithm, digest @ ..]) => {
                Self::Digest { algorithm: name_of(*algorithm), digest: digest.to_vec() }
            }
            // `struct signature_v2_hdr`: version, digest, key, length, signature.
            (3 | 6, [2 | 3, algorithm, a, b, c, d, high, low, signature @ ..]) => {
                let length = usize::from(u16::from_be_bytes([*high, *low]));
                (signature.len() == length && length > 0).then_some(())?;
                Self::Signature {
                    over_verity: *kind == 6,
                    algorithm: name_of(*algorithm),
                    key: [*a, *b, *c, *d],
                    bits: length * 8,
                }
            }
            (3 | 4 | 6, _) => return None,
            (other, _) => Self::Other(*other),
        })
    }

    /// The kind in one word.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Digest { .. } => "digest",
            Self::Signature { .. } => "signature",
            Self::Other(_) => "other",
        }
    }
}

impl fmt::Display for ImaAttribute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Digest { algorithm, .. } => write!(f, "a {algorithm} digest, unsigned"),
            Self::Signature { over_verity, algorithm, key, bits } => {
                let what = if *over_verity { "the fs-verity digest" } else { "the content" };
                let [a, b, c, d] = key;
                write!(
                    f,
                    "a signature of {bits} bits over {algorithm} of {what}, by the key {a:02x}{b:02x}{c:02x}{d:02x}"
                )
            }
            Self::Other(kind) => write!(f, "an attribute of kind {kind}"),
        }
    }
}

fn name_of(algorithm: u8) -> String {
    DIGESTS
        .get(usize::from(algorithm))
        .map_or_else(|| format!("digest-{algorithm}"), |name| (*name).to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    /// As `evmctl ima_sign -a sha256` writes it with an RSA key of 2048 bits.
    fn signed(kind: u8) -> Vec<u8> {
        let mut bytes = vec![kind, 2, 4, 0x8f, 0x3a, 0x2b, 0x1c, 1, 0];
        bytes.extend([0x55; 256]);
        bytes
    }

    #[test]
    fn signatures_tell_their_key() {
        let told = |kind| ImaAttribute::parse(&signed(kind)).unwrap().to_string();
        assert_eq!(told(3), "a signature of 2048 bits over sha256 of the content, by the key 8f3a2b1c");
        assert_eq!(
            told(6),
            "a signature of 2048 bits over sha256 of the fs-verity digest, by the key 8f3a2b1c"
        );
    }

    #[test]
    fn digests_are_told_apart_from_signatures() {
        let new = ImaAttribute::parse(&[&[4, 4][..], &[9; 32]].concat()).unwrap();
        assert_eq!(new, ImaAttribute::Digest { algorithm: "sha256".to_owned(), digest: vec![9; 32] });
        assert_eq!(ImaAttribute::parse(&[&[1][..], &[9; 20]].concat()).unwrap().name(), "digest");
        assert_eq!(ImaAttribute::parse(&[5, 1, 2]).unwrap(), ImaAttribute::Other(5));
    }

    #[test]
    fn a_signature_of_another_length_than_it_says_is_none() {
        let whole = signed(3);
        for length in 0..whole.len() {
            assert!(
                !matches!(ImaAttribute::parse(&whole[..length]), Some(ImaAttribute::Signature { .. })),
                "{length}"
            );
        }
        assert_eq!(ImaAttribute::parse(&[&whole[..], &[0]].concat()), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = ImaAttribute::parse(&bytes).map(|attribute| attribute.to_string());
        }
    }
}
