//! What package managers know of the files they installed: text of their databases in, entries out.
//!
//! For dpkg these are the files below `/var/lib/dpkg`; for rpm it is what its own tool prints for [`rpm::query_format`],
//! because the tool knows every format that its database has had. Databases come from container images as well, so
//! nothing here trusts its input: a line that does not read as the format says is named as a [`Fault`] and left out, and
//! the rest is used. Nothing panics.

mod alias;
mod code;
pub mod dpkg;
mod fault;
mod package;
mod path;
pub mod rpm;

pub use alias::Aliases;
pub use code::{CodeKind, HEAD_BYTES, code_kind, is_named_as_data, is_named_as_script};
pub use fault::{Fault, Faults, Read};
pub use package::{FileDigest, Package, PackagedFile};
