use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::FileId;

/// A SHA-256 digest; written as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sha256(pub [u8; 32]);

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text is not 64 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotSha256;

impl fmt::Display for NotSha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a SHA-256 is 64 hexadecimal digits")
    }
}

impl std::error::Error for NotSha256 {}

impl FromStr for Sha256 {
    type Err = NotSha256;

    fn from_str(text: &str) -> Result<Self, NotSha256> {
        if text.len() != 64 {
            return Err(NotSha256);
        }
        let mut digest = [0; 32];
        for (byte, pair) in digest.iter_mut().zip(text.as_bytes().chunks(2)) {
            let digit = |at: u8| char::from(at).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
            *byte = digit(pair[0]).zip(digit(pair[1])).map(|(high, low)| high << 4 | low).ok_or(NotSha256)?;
        }
        Ok(Self(digest))
    }
}

impl Serialize for Sha256 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Sha256 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// A way in which code comes to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CodeKind {
    /// A program was executed.
    Exec,
    /// A file was mapped executable: a shared object, or what `ld.so` is given.
    Library,
    /// A script was executed, or opened by the interpreter that was started with its name.
    Script,
    /// Memory without a file was made executable.
    Memory,
    /// A file without a name (memfd, deleted, never named) was executed or mapped executable.
    Nameless,
    /// A kernel module was loaded.
    Module,
    /// A BPF program was loaded.
    Bpf,
    /// Another process was traced, or a process's memory opened for writing.
    Trace,
    /// A program was executed that the service it came from has no use for.
    Service,
}

/// What became of code that was judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CodeOutcome {
    /// It ran, and would have been refused in enforce mode.
    WouldDeny,
    /// It ran where nothing judges beforehand, and was found wanting afterwards.
    Ran,
    /// It was refused.
    Denied,
    /// It ran because trusted writers alone wrote it; nobody vouches for its content yet.
    Marked,
}

/// Why code is not trusted, or not by its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CodeReason {
    /// Nobody vouches for its content.
    Unknown,
    /// Its content is on a block-list.
    Blocked,
    /// Somebody has it open for writing, so that what was judged may not be what runs.
    OpenForWriting,
    /// It could not be read, or not in the time there is, or the kernel gave another digest than SHA-256.
    Unreadable,
    /// It has no name.
    Nameless,
    /// Its file system gives each reader what it likes (FUSE, a user's overlay).
    Unstable,
    /// Memory that is or was writable.
    WrittenMemory,
    /// It was not judged before, and cannot be where it was asked for.
    NotJudged,
    /// It came out of memory and not out of a file.
    WithoutFile,
    /// The program that did it is not one that may.
    NotAllowed,
    /// It is mapped as code, and was to be opened for writing.
    InUse,
    /// What vouched for it has ended.
    Expired,
    /// Only trusted writers wrote it.
    WrittenByTrusted,
}

/// Code that was refused or would have been, or runs on its writer's word.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CodeJudgement {
    /// How it came to run.
    pub kind: CodeKind,
    /// What became of it.
    pub outcome: CodeOutcome,
    /// Why.
    pub reason: CodeReason,
    /// The file; `None` for memory and acts without one.
    pub file: Option<FileId>,
    /// Its path for people, where the kernel could tell it.
    pub path: Option<String>,
    /// Its content, where it was read for this judgement.
    pub sha256: Option<Sha256>,
    /// Acts of the same kind on the same file, for the same reason, that were not told since the last was.
    pub repeats: u64,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_digest_is_its_hexadecimal_digits() {
        let text = "00ff".repeat(16);
        let digest: Sha256 = text.parse().unwrap();
        assert_eq!(digest.0[..2], [0, 255]);
        assert_eq!(digest.to_string(), text);
        for wrong in ["", "00", &"0g".repeat(32), &"é".repeat(32), &"+1".repeat(32)] {
            assert_eq!(wrong.parse::<Sha256>(), Err(NotSha256), "{wrong}");
        }
    }
}
