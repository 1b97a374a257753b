//! Who looks for what answers on this host, told from who visits it.
//!
//! Every first visit of an address to a port either succeeds or fails. Visitors know where they go, and scanners do not, so each
//! visit is a piece of evidence, and a sequential test says after as few as can be which of the two it is. How often visits succeed
//! is learned on this host, from those that completed a handshake. Packets that no honest sender makes, and ports that nobody
//! should touch, decide sooner. The test is made for each address, for networks whose addresses take turns, and for the crowd of
//! those of which none stands out.
//!
//! An address can be forged. It is taken for the sender's own only when it completed a handshake, at the time of the scan and by the
//! same kind of packet; nothing else is ever proof.
//!
//! ```
//! use davy_model::Timestamp;
//! use davy_net::scans::{Scans, Settings};
//!
//! let mut scans = Scans::new(Settings::default(), 1, Timestamp::from_secs(0));
//! // for each thing seen: scans.observe(&sight); about once a second:
//! assert!(scans.conclude(Timestamp::from_secs(1)).is_empty());
//! ```

mod base_rate;
mod crowd;
mod engine;
mod network;
mod report;
mod shape;
mod told;
mod track;
mod weight;
mod words;

#[cfg(test)]
mod tests;

pub use engine::{Scans, Settings};
pub use report::{PortScan, Scanner};
pub use shape::Tool;
pub use words::Reason;
