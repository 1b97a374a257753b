//! Who vouches for code, and whether it may run.
//!
//! Sources say what they know of a digest: a package owns it, a signed manifest lists it, the administrator allows it, it was
//! learned, a trusted program wrote it. The [`Book`] keeps what they say, but for packages, whose database
//! is kept apart for its size; [`judge`] ranks it. Nothing here touches the
//! host except [`host`].

mod book;
mod config;
pub mod host;
mod ima;
mod judge;
pub mod manifest;
mod oddity;
mod pending;
mod programs;
mod proposal;
pub mod services;

pub use book::{Book, Change, Entry, Taken};
pub use config::{Config, ConfigFault};
pub use ima::ImaAttribute;
pub use judge::{Question, judge};
pub use manifest::{Manifest, ManifestError, SignedBy};
pub use oddity::oddities;
pub use pending::{Pendings, Sighting};
pub use programs::{Programs, ProgramsError, Rights};
pub use proposal::Proposal;
