//! What changes in the file system that matters to an intrusion: programs, scripts and web files written, renamed and deleted,
//! and everything in the places from which things run again or let someone in.
//!
//! As root it listens to fanotify(7) notifications of whole file systems, which name the process that acted; without
//! it, to inotify(7) of the readable persistence places alone. Nothing is ever held up: notification marks only.

mod content;
mod fanotify;
mod inotify;
mod known;
mod mounts;
mod place;
mod sieve;
mod tally;
mod throttle;
mod watcher;

pub use place::place_of;
pub use sieve::is_web;
pub use watcher::{FileSystems, StartError, WatchConfig, Watcher, Way};
