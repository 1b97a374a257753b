//! The network: who talks to whom.
//!
//! Nothing here touches the host or reads a clock: what sensors saw and the time come in.

pub mod inbound;
pub mod lateral;
pub mod map;
pub mod outbound;
mod place;
pub mod scans;

pub use place::place_of;
