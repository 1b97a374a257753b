//! Goes through folders and processes, hands what it opens to the `scan` worker, and remembers what was clean.
//!
//! It opens, and never reads, what strangers wrote: bytes are looked at in the worker alone. What becomes of a match is for
//! whoever asked.

mod clamd;
mod clean;
mod memory;
mod pace;
mod places;
mod rules;
mod scanner;
mod seen;
mod sweep;
mod walk;

pub use clamd::Clamd;
pub use clean::{Clean, Shape, nanoseconds};
pub use rules::{hashes_in, rules_in};
pub use scanner::{Looked, Ready, Recipe, Scanner};
pub use sweep::{Found, Plan, Sweep, Tally, Watcher};
