use davy_model::{ActionId, IncidentId, Timestamp};
use serde::{Deserialize, Serialize};

/// A file in quarantine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantined {
    /// Its number, counted from one. No two files ever have the same.
    pub number: u64,
    /// Where it lay.
    pub path: String,
    /// SHA-256 of its content, in hexadecimal.
    pub sha256: String,
    /// Its length in bytes.
    pub bytes: u64,
    /// What its content takes up sealed; 0 when the seal is gone.
    pub sealed_bytes: u64,
    /// The file with whose content its own is kept, because both have the same.
    pub shares: Option<u64>,
    /// When it was taken.
    pub taken: Timestamp,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Permission bits, with set-user-id, set-group-id and sticky.
    pub mode: u32,
    /// Its last access.
    pub accessed: Timestamp,
    /// The last change of its content.
    pub modified: Timestamp,
    /// Names of its extended attributes.
    pub xattrs: Vec<String>,
    /// How many names it had.
    pub links: u64,
    /// Whether there is a place to put it back to; a file that ran without a name has none.
    pub restorable: bool,
    /// The journal's line about it.
    pub action: Option<ActionId>,
    /// What it was taken for; nothing when an administrator ordered it.
    pub incident: Option<IncidentId>,
}
