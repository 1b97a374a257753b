//! Manifests: lists of digests in the form of sha256sum(1), signed in the form of minisign(1).

use std::fmt::Write;
use std::io::Cursor;
use std::path::Path;

use davy_model::Sha256;
use minisign::{PublicKey, PublicKeyBox, SecretKey, SignatureBox};
use thiserror::Error;

/// The longest manifest that is read, in bytes: some 600,000 files.
pub const MAX_BYTES: usize = 64 << 20;

/// What is wrong with a manifest.
#[derive(Debug, Error)]
pub enum ManifestError {
    /// A line is not one of sha256sum's.
    #[error(
        "{name}:{line}: expected `DIGEST  PATH` as sha256sum(1) writes it, or `sha256:DIGEST PATH` as fsverity(1) does, found `{found}`"
    )]
    Line {
        /// The manifest's name.
        name: String,
        /// Line, counted from one.
        line: usize,
        /// The line's beginning.
        found: String,
    },
    /// It is longer than what is read.
    #[error("{name}: a manifest has at most {MAX_BYTES} bytes; sign several")]
    TooLong {
        /// The manifest's name.
        name: String,
    },
    /// The signature is none.
    #[error("{name}: not a minisign signature: {why}")]
    NoSignature {
        /// The manifest's name.
        name: String,
        /// Why.
        why: String,
    },
    /// No key that the policy names made the signature.
    #[error("{name}: signed with a key that the policy does not name; add it as [[trust.key]]")]
    UnknownKey {
        /// The manifest's name.
        name: String,
    },
    /// The signature is not of this text.
    #[error("{name}: the text was changed after the key `{signer}` signed it; nothing in it is trusted")]
    Forged {
        /// The manifest's name.
        name: String,
        /// The key's name.
        signer: String,
    },
    /// Signing failed.
    #[error("cannot sign: {0}")]
    Signing(String),
}

/// Who signed a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedBy {
    /// The key's name in the policy.
    pub name: String,
    /// What the signer said of it; part of what is signed.
    pub comment: String,
}

/// A list of contents.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifest {
    /// Sha256 and path of each file. Paths are for people.
    pub files: Vec<(Sha256, String)>,
    /// fs-verity digest (`sha256:…`, `sha512:…`) and path of each file that is known by it.
    pub verity: Vec<(String, String)>,
}

impl Manifest {
    /// Reads lines as sha256sum(1) and `fsverity digest` write them; `#` begins a comment.
    ///
    /// # Errors
    /// The first line that is none.
    pub fn parse(name: &str, text: &str) -> Result<Self, ManifestError> {
        if text.len() > MAX_BYTES {
            return Err(ManifestError::TooLong { name: name.to_owned() });
        }
        let (mut files, mut verity) = (Vec::new(), Vec::new());
        for (index, line) in text.lines().enumerate() {
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            if let Some(entry) = verity_line(line) {
                verity.push(entry);
                continue;
            }
            // A path with a backslash or a line's end is escaped, which sha256sum marks at the beginning.
            let unmarked = line.strip_prefix('\\').unwrap_or(line);
            let entry = unmarked.split_at_checked(64).and_then(|(digest, rest)| {
                let path = rest.strip_prefix("  ").or_else(|| rest.strip_prefix(" *"))?;
                Some((digest.parse::<Sha256>().ok()?, path.to_owned()))
            });
            match entry.filter(|(_, path)| !path.is_empty()) {
                Some(entry) => files.push(entry),
                None => {
                    let found = line.chars().take(80).collect();
                    return Err(ManifestError::Line { name: name.to_owned(), line: index + 1, found });
                }
            }
        }
        Ok(Self { files, verity })
    }

    /// The text that is signed.
    #[must_use]
    pub fn to_text(&self) -> String {
        let text = self.files.iter().fold(String::new(), |mut text, (digest, path)| {
            let escaped = path.replace('\\', "\\\\").replace('\n', "\\n").replace('\r', "\\r");
            let mark = if escaped == *path { "" } else { "\\" };
            let _ = writeln!(text, "{mark}{digest}  {escaped}");
            text
        });
        self.verity.iter().fold(text, |mut text, (digest, path)| {
            // fsverity(1) knows no such paths; they are for people alone.
            let _ = writeln!(text, "{digest} {}", path.replace(['\n', '\r'], "?"));
            text
        })
    }

    /// Reads a manifest whose signature is by one of the keys; the signature is looked at before the text is read.
    ///
    /// # Errors
    /// When it is not signed by any of them, was changed, or is no manifest.
    pub fn verified(
        name: &str,
        text: &str,
        signature: &str,
        keys: &[(String, PublicKey)],
    ) -> Result<(Self, SignedBy), ManifestError> {
        let parsed = SignatureBox::from_string(signature)
            .map_err(|error| ManifestError::NoSignature { name: name.to_owned(), why: error.to_string() })?;
        let (signer, key) = keys
            .iter()
            .find(|(_, key)| key.keynum() == parsed.keynum())
            .ok_or_else(|| ManifestError::UnknownKey { name: name.to_owned() })?;
        minisign::verify(key, &parsed, Cursor::new(text.as_bytes()), true, false, true)
            .map_err(|_| ManifestError::Forged { name: name.to_owned(), signer: signer.clone() })?;
        let comment = parsed.trusted_comment().unwrap_or_default();
        Ok((Self::parse(name, text)?, SignedBy { name: signer.clone(), comment }))
    }

    /// Signs the text.
    ///
    /// # Errors
    /// When the key cannot be used.
    pub fn sign(text: &str, key: &SecretKey, comment: &str) -> Result<String, ManifestError> {
        minisign::sign(None, key, Cursor::new(text.as_bytes()), Some(comment), None)
            .map(|signature| signature.into_string())
            .map_err(|error| ManifestError::Signing(error.to_string()))
    }
}

/// A line of `fsverity digest`.
fn verity_line(line: &str) -> Option<(String, String)> {
    let (digest, path) = line.split_once(' ')?;
    let (algorithm, hex) = digest.split_once(':')?;
    let length = match algorithm {
        "sha256" => 64,
        "sha512" => 128,
        _ => return None,
    };
    let known = hex.len() == length && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let path = path.trim_start();
    (known && !path.is_empty()).then(|| (digest.to_owned(), path.to_owned()))
}

/// The public key of a `.pub` file's text, or the key alone.
///
/// # Errors
/// In words, when it is neither.
pub fn public_key(text: &str) -> Result<PublicKey, String> {
    let boxed = PublicKeyBox::from_string(text).and_then(PublicKeyBox::into_public_key);
    boxed.or_else(|_| PublicKey::from_base64(text.trim())).map_err(|error| error.to_string())
}

/// A manifest's signature lies beside it, under this name.
#[must_use]
pub fn signature_path(manifest: &Path) -> std::path::PathBuf {
    let mut name = manifest.as_os_str().to_owned();
    name.push(".minisig");
    name.into()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use minisign::KeyPair;
    use proptest::prelude::*;

    use super::*;

    fn manifest() -> Manifest {
        Manifest {
            files: vec![
                (Sha256([1; 32]), "/opt/app/run".to_owned()),
                (Sha256([2; 32]), "odd\nname\\".to_owned()),
            ],
            verity: vec![(format!("sha256:{}", Sha256([3; 32])), "/opt/app/lib.so".to_owned())],
        }
    }

    fn keys(pair: &KeyPair) -> Vec<(String, PublicKey)> {
        vec![("ops".to_owned(), pair.pk.clone())]
    }

    #[test]
    fn what_was_signed_is_read_back_with_its_signer() {
        let pair = KeyPair::generate_unencrypted_keypair().unwrap();
        let text = manifest().to_text();
        let signature = Manifest::sign(&text, &pair.sk, "release 7").unwrap();
        let (read, by) = Manifest::verified("app", &text, &signature, &keys(&pair)).unwrap();
        assert_eq!(read.files.len(), 2);
        assert_eq!(read.files[0], manifest().files[0]);
        assert_eq!(read.verity, manifest().verity);
        assert_eq!(by, SignedBy { name: "ops".to_owned(), comment: "release 7".to_owned() });
    }

    #[test]
    fn a_changed_text_a_changed_comment_and_a_strangers_key_are_refused() {
        let pair = KeyPair::generate_unencrypted_keypair().unwrap();
        let text = manifest().to_text();
        let signature = Manifest::sign(&text, &pair.sk, "release 7").unwrap();
        let changed = text.replacen('1', "3", 1);
        let refused = |text: &str, signature: &str, keys: &[(String, PublicKey)]| {
            Manifest::verified("app", text, signature, keys).unwrap_err()
        };
        assert!(matches!(refused(&changed, &signature, &keys(&pair)), ManifestError::Forged { .. }));
        let comment = signature.replace("release 7", "release 8");
        assert!(matches!(refused(&text, &comment, &keys(&pair)), ManifestError::Forged { .. }));
        let stranger = KeyPair::generate_unencrypted_keypair().unwrap();
        assert!(matches!(refused(&text, &signature, &keys(&stranger)), ManifestError::UnknownKey { .. }));
        assert!(matches!(refused(&text, "nonsense", &keys(&pair)), ManifestError::NoSignature { .. }));
    }

    #[test]
    fn a_line_that_is_none_is_named() {
        let text = format!("# ours\n{}  a\n{} b\n", Sha256([1; 32]), Sha256([2; 32]));
        let error = Manifest::parse("app", &text).unwrap_err().to_string();
        assert!(error.starts_with("app:3: expected `DIGEST  PATH`"), "{error}");
        for line in [
            "sha256:ab /x",
            "sha1:0000000000000000000000000000000000000000 /x",
            &format!("sha256:{}", Sha256([1; 32])),
        ] {
            assert!(Manifest::parse("app", line).is_err(), "{line}");
        }
    }

    proptest! {
        #[test]
        fn no_text_is_fatal(text in "\\PC{0,200}", lines in proptest::collection::vec("[0-9a-f]{60,66}[ *]{0,3}.{0,8}", 0..5)) {
            let _ = Manifest::parse("x", &text);
            let _ = Manifest::parse("x", &lines.join("\n"));
            let _ = Manifest::verified("x", &text, &text, &[]);
        }
    }
}
