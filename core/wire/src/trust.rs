use davy_model::Mode;
use serde::{Deserialize, Serialize};

/// Which code may run, in numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrustSummary {
    /// What the policy wants done with code that nobody vouches for.
    pub mode: Mode,
    /// How many contents each source vouches for.
    pub by: Vec<TrustedBy>,
    /// How far learning the package manager's database is, in words.
    pub learning: String,
    /// Contents that wait for the administrator.
    pub pending: u64,
    /// How often one of those was refused.
    pub refused: u64,
    /// What is wrong, in words: keys, manifests, what the kernel refused.
    pub faults: Vec<String>,
}

/// How many contents one source vouches for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrustedBy {
    /// Its name.
    pub source: String,
    /// How many.
    pub contents: u64,
}
