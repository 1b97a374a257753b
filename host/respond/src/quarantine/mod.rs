//! Files taken away, kept sealed: compressed and encrypted, so that nobody runs one by accident and no scanner
//! trips over it, with everything that is needed to put it back as it was.

mod content;
mod disk;
mod original;
mod restore;
mod seal;
mod sealed_file;
mod system_file;
mod vault;

pub use content::SealedContent;
pub use sealed_file::SealedFile;

pub(crate) use original::{Original, Reach, Unlinked};
pub(crate) use restore::{Restored, restore};
pub(crate) use system_file::owner_of;
pub(crate) use vault::Vault;
