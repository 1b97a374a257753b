//! Which files the package managers of a system vouch for, and whether these still are what was packaged.
//!
//! [`PackageDb`] reads the databases of dpkg and rpm below a root folder: the host's, or a container image's. [`learn`]
//! looks at every packaged file that can be code, hashes it once, compares it with what the database says, and leaves a
//! compact [`TrustDb`]: digests that may run, and what is known of the others. [`refresh`] does it again after the database
//! changed, for the packages that changed.
//!
//! A package database vouches for content only as far as it has digests. It lies on the host and whoever is root can
//! write to it: it tells what the packages brought from what came later, not an honest administrator from another.

mod budget;
mod db;
mod digest;
mod dpkg;
mod error;
mod heap;
mod learn;
mod root;
mod rows;
mod rpm;
mod summary;
mod trust_db;

pub use budget::Budget;
pub use db::{Manager, Owner, PackageDb, PackageFiles};
pub use dpkg::NamedAlternative;
pub use error::Error;
pub use learn::{Learning, Progress, learn, refresh};
pub use rows::Verdict;
pub use summary::Summary;
pub use trust_db::{Learned, TrustDb};
