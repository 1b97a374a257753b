//! What changes in the file system that matters to an intrusion: programs, scripts and web files written, renamed and deleted,
//! and everything in the places from which things run again or let someone in.
//!
//! [`permission`] is the exception: it asks before code runs, where the caller says so.
//!
//! As root it listens to fanotify(7) notifications of whole file systems, which name the process that acted; without
//! it, to inotify(7) of the readable persistence places alone. The watcher never holds anything up: notification marks only.

mod content;
mod fanotify;
mod inotify;
mod integrity;
mod known;
mod mounts;
pub mod permission;
mod place;
mod sieve;
mod tally;
mod throttle;
mod watcher;

pub use integrity::{VerityDigest, ima_attribute};
pub use place::place_of;
pub use sieve::is_web;
pub use watcher::{FileSystems, StartError, WatchConfig, Watcher, Way};
