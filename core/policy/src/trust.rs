//! What the policy says of code that may run.

use std::time::Duration;

use davy_model::{Mode, Timestamp};
use serde::{Deserialize, Serialize};

use crate::Digest;

/// Which code may run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trust {
    /// What is done with code that nobody vouches for.
    pub mode: Mode,
    /// Whether observing is done in the kernel too, exactly as enforcing is.
    pub kernel: bool,
    /// Whether scripts that are given to interpreters are judged too.
    pub scripts: bool,
    /// Whether kernel modules are judged too.
    pub modules: bool,
    /// Whether whoever sits at the terminal where code was refused is told why.
    pub terminal: bool,
    /// Who may vouch besides the administrator; without repetition.
    pub sources: Vec<TrustSource>,
    /// How long what a trusted program writes is trusted for that alone.
    pub writers_for: Duration,
    /// Code that may run.
    pub allow: Vec<TrustAllow>,
    /// Code that must not run, whoever vouches for it.
    pub block: Vec<TrustBlock>,
    /// Keys whose signed manifests vouch.
    pub keys: Vec<TrustKey>,
}

impl Default for Trust {
    fn default() -> Self {
        Self {
            mode: Mode::Observe,
            kernel: false,
            scripts: true,
            modules: true,
            terminal: true,
            sources: TrustSource::ALL.to_vec(),
            writers_for: Duration::from_secs(24 * 3600),
            allow: Vec::new(),
            block: Vec::new(),
            keys: Vec::new(),
        }
    }
}

/// Who may vouch for code besides the administrator's own list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TrustSource {
    /// The package manager's database.
    Packages,
    /// Signed manifests.
    Manifests,
    /// What ran while the host was learned.
    Learned,
    /// Trusted programs that write code: package managers and compilers.
    Writers,
}

impl TrustSource {
    /// All of them, in order.
    pub const ALL: [Self; 4] = [Self::Packages, Self::Manifests, Self::Learned, Self::Writers];

    /// Its name in a policy.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Packages => "packages",
            Self::Manifests => "manifests",
            Self::Learned => "learned",
            Self::Writers => "writers",
        }
    }

    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.name() == name)
    }
}

/// Code that may run, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustAllow {
    /// What it is known by.
    pub by: TrustedBy,
    /// Why, for whoever reads the policy later.
    pub reason: String,
    /// The first moment the entry no longer holds; `None` means for ever.
    pub until: Option<Timestamp>,
}

/// What allowed code is known by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TrustedBy {
    /// Its content.
    Content(Digest),
    /// Everything in a folder: whoever can write there can run anything.
    Directory(String),
}

/// Code that must not run, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustBlock {
    /// What it is known by.
    pub by: BlockedBy,
    /// Why.
    pub reason: String,
    /// The first moment the entry no longer holds; `None` means for ever.
    pub until: Option<Timestamp>,
}

/// What blocked code is known by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BlockedBy {
    /// Its content.
    Content(Digest),
    /// The name of the key that signed the manifest which lists it.
    Signer(String),
}

/// A key whose signed manifests vouch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustKey {
    /// Its name, for people and for `signer`.
    pub name: String,
    /// The public key as minisign(1) writes it.
    pub minisign: String,
}
