//! Which code may run, decided in the kernel from digests that user space vouches for.
//!
//! [`TrustGate`] holds the programs and their tables. It is never asked while a program starts, so nothing waits for it
//! and nothing changes when it dies: without pins the programs go with it, with pins they stay and go on refusing what
//! nobody vouches for, until a later gate takes them over.

mod canary;
mod digests;
mod gate;
mod modes;
mod pins;

pub(crate) use canary::canary;
pub use digests::{Rights, Saying, Verdict};
pub use gate::{JudgedCounts, TrustConfig, TrustGate};
pub(crate) use modes::KINDS;
pub use modes::{TrustModes, TrustScope};
