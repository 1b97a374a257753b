//! Trust in code: who vouches for a content, what was decided about it, and what waits for the administrator.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{CodeKind, Sha256, Timestamp};

/// Who vouches.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "source")]
pub enum Source {
    /// The administrator's policy lists the content.
    AllowList {
        /// The entry's reason.
        reason: String,
        /// `file:line` of the entry.
        line: String,
    },
    /// The administrator approved the content when it was seen.
    Approval {
        /// When.
        time: Timestamp,
        /// The path under which it was seen, for people.
        path: String,
    },
    /// A package owns a file of this content, and its database confirms the digest.
    Package {
        /// Its name.
        package: String,
        /// Its version.
        version: String,
        /// The file's path, for people.
        path: String,
    },
    /// A manifest lists the content, signed with a key that the administrator added.
    Manifest {
        /// The key's name.
        signer: String,
        /// The manifest's name.
        manifest: String,
    },
    /// It ran while the host was learned.
    Learned {
        /// When it was first seen.
        time: Timestamp,
        /// Under which path, for people.
        path: String,
    },
    /// A trusted program wrote it.
    Written {
        /// The program that wrote it, for people.
        by: String,
        /// When.
        time: Timestamp,
        /// The path, for people.
        path: String,
    },
    /// It lies in a folder that the administrator allows as a whole.
    Directory {
        /// The folder.
        path: String,
        /// The entry's reason.
        reason: String,
        /// `file:line` of the entry.
        line: String,
    },
}

impl Source {
    /// The kind of source in one word, as the policy names it.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::AllowList { .. } => "allow_list",
            Self::Approval { .. } => "approval",
            Self::Package { .. } => "packages",
            Self::Manifest { .. } => "manifests",
            Self::Learned { .. } => "learned",
            Self::Written { .. } => "writers",
            Self::Directory { .. } => "directory",
        }
    }

    /// The order in which vouchers are shown, most binding first.
    #[must_use]
    pub const fn order(&self) -> u8 {
        match self {
            Self::AllowList { .. } => 0,
            Self::Approval { .. } => 1,
            Self::Package { .. } => 2,
            Self::Manifest { .. } => 3,
            Self::Learned { .. } => 4,
            Self::Written { .. } => 5,
            Self::Directory { .. } => 6,
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AllowList { reason, line } => write!(f, "the allow-list: {reason} ({line})"),
            Self::Approval { path, .. } => write!(f, "approved by the administrator as {path}"),
            Self::Package { package, version, path } => write!(f, "package {package} {version}, as {path}"),
            Self::Manifest { signer, manifest } => {
                write!(f, "manifest {manifest}, signed with the key {signer}")
            }
            Self::Learned { path, .. } => write!(f, "learned when it ran as {path}"),
            Self::Written { by, path, .. } => write!(f, "written by {by} as {path}"),
            Self::Directory { path, reason, line } => {
                write!(f, "it lies in {path}, allowed as a whole: {reason} ({line})")
            }
        }
    }
}

/// One source's word for one content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Voucher {
    /// Who.
    #[serde(flatten)]
    pub source: Source,
    /// The first moment it no longer holds; `None` means for ever.
    pub until: Option<Timestamp>,
}

impl Voucher {
    /// A word that holds for ever.
    #[must_use]
    pub const fn lasting(source: Source) -> Self {
        Self { source, until: None }
    }

    /// Whether it holds at this moment.
    #[must_use]
    pub fn holds(&self, now: Timestamp) -> bool {
        self.until.is_none_or(|until| now < until)
    }
}

/// Which of the ranked rules decided; the first that applies does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rank {
    /// The block-list: by content, or by the key that signed it.
    Blocked,
    /// What must stay usable: Davy, the first process, the last way in.
    Failsafe,
    /// Code without a name, which no list can vouch for.
    Nameless,
    /// Somebody vouches for it.
    Allowed,
    /// Nobody knows it.
    Default,
}

impl Rank {
    /// All of them, in the order in which they decide.
    pub const ALL: [Self; 5] = [Self::Blocked, Self::Failsafe, Self::Nameless, Self::Allowed, Self::Default];
}

impl fmt::Display for Rank {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Blocked => "block-list",
            Self::Failsafe => "failsafe",
            Self::Nameless => "code without a file",
            Self::Allowed => "allowed",
            Self::Default => "default",
        })
    }
}

/// What was decided, and all that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ruling {
    /// Whether it may run.
    pub allowed: bool,
    /// The rule that decided.
    pub rank: Rank,
    /// The sentence that says why.
    pub because: String,
    /// Everyone who vouches for the content, whether that decided or not.
    pub vouchers: Vec<Voucher>,
}

/// Something odd about a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Oddity {
    /// It lies where anyone may write.
    WorldWritable,
    /// It lies where only packages put files, and no package owns it.
    Unpackaged,
    /// A package owns the path, and the content is another.
    Altered,
    /// A part of its path begins with a dot.
    Hidden,
    /// It ran as a user that serves the network.
    Service,
    /// It had no name when it ran.
    Nameless,
    /// A command with words that intruders use.
    Loud,
    /// A command of which no pattern can be made: too long, or with stars of its own.
    Shapeless,
}

impl Oddity {
    /// In words.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::WorldWritable => "lies where anyone may write",
            Self::Unpackaged => "lies among packaged files, and no package owns it",
            Self::Altered => "a package owns this path, and this is not its content",
            Self::Hidden => "lies in a hidden place",
            Self::Service => "ran as a user that serves the network",
            Self::Nameless => "had no file when it ran",
            Self::Loud => "has words that intruders use",
            Self::Shapeless => "no pattern can be made of this command",
        }
    }
}

/// The number of a content that waits, counted from one; it is never given twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PendingId(pub u64);

/// A content that waits for the administrator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// Its number.
    pub id: PendingId,
    /// Its content.
    pub sha256: Sha256,
    /// The path where it was seen last, for people.
    pub path: String,
    /// As what it was seen.
    pub kinds: Vec<CodeKind>,
    /// When it was first seen.
    pub first: Timestamp,
    /// When it was last seen.
    pub last: Timestamp,
    /// How often it would have been refused.
    pub would: u64,
    /// How often it was refused.
    pub refused: u64,
    /// Users that ran it.
    pub users: Vec<String>,
    /// Programs that started it.
    pub by: Vec<String>,
    /// What is odd about it.
    pub odd: Vec<Oddity>,
    /// Why nobody lets it run.
    pub because: String,
}
