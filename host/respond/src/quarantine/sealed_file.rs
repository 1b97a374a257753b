use std::{ffi::OsString, os::unix::ffi::OsStringExt, path::PathBuf};

use davy_model::FileId;
use serde::{Deserialize, Serialize};

/// What is remembered of a file in quarantine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedFile {
    /// Its number in the quarantine, counted from one.
    pub number: u64,
    /// The number under which its content lies, when a file that was taken before had the same.
    #[serde(default)]
    pub shares: Option<u64>,
    /// The path for people.
    pub path: String,
    /// The folder it lay in and its name there, as the kernel gives them; `None` for files that had no name.
    pub(crate) place: Option<Place>,
    /// Its identity then.
    pub file: FileId,
    /// Its length in bytes.
    pub bytes: u64,
    /// SHA-256 of its content, in hexadecimal.
    pub sha256: String,
    /// When it was taken, in seconds since 1970.
    pub taken: u64,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Permission bits, with set-user-id, set-group-id and sticky.
    pub mode: u32,
    /// Last access and last change of content, in seconds and nanoseconds since 1970.
    pub times: [(i64, i64); 2],
    /// Extended attributes by name, ACLs and capabilities among them, as hexadecimal.
    pub(crate) xattrs: Vec<(HexBytes, HexBytes)>,
    /// Attributes such as immutable (ioctl_iflags(2)).
    pub(crate) flags: u32,
    /// How many names it had.
    pub links: u64,
}

impl SealedFile {
    /// The number under which its content lies.
    pub(crate) fn content(&self) -> u64 {
        self.shares.unwrap_or(self.number)
    }

    /// Names of its extended attributes.
    #[must_use]
    pub fn attributes(&self) -> Vec<String> {
        self.xattrs.iter().map(|(name, _)| name.to_os().to_string_lossy().into_owned()).collect()
    }

    /// Whether there is a place to put it back to.
    #[must_use]
    pub fn has_place(&self) -> bool {
        self.place.is_some()
    }
}

/// Where a file lay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Place {
    pub(crate) folder: HexBytes,
    pub(crate) name: HexBytes,
}

/// Bytes that need not be text, such as a Linux file name; hexadecimal in JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HexBytes(pub(crate) Vec<u8>);

impl HexBytes {
    pub(crate) fn to_os(&self) -> OsString {
        OsString::from_vec(self.0.clone())
    }

    pub(crate) fn to_path(&self) -> PathBuf {
        self.to_os().into()
    }
}

impl Serialize for HexBytes {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex::encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for HexBytes {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        hex::decode(text).map(Self).map_err(serde::de::Error::custom)
    }
}
