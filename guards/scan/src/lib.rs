//! Bytes in, matches out: rules in YARA's language, the structure of programs, archives, wallet addresses.
//!
//! Nothing here opens a file, walks a folder or decides what becomes of a match. What is looked at comes as a [`Source`];
//! whoever calls knows where it lies. All of it is hostile: bounds are in [`Bounds`], and what they cut off is named in the
//! report.

mod archive;
mod bounds;
mod builtin;
mod engine;
mod entropy;
mod hashes;
mod packer;
mod program;
mod rules;
mod source;
mod wallet;

pub use bounds::Bounds;
pub use builtin::built_in;
pub use engine::Engine;
pub use hashes::HashList;
pub use program::facts;
pub use rules::{RuleSource, Rules};
pub use source::Source;
pub use wallet::wallets;

/// The longest piece that is looked at as a whole, in bytes. What is longer is looked at in pieces of this size that overlap
/// by [`OVERLAP`].
pub const WINDOW: usize = 16 << 20;

/// How far two neighbouring pieces overlap, in bytes: a pattern up to this long is not cut.
pub const OVERLAP: usize = 64 << 10;
