//! Davy's own tables in nftables, by netlink: who may reach which port ([`Ports`]), and who may send nothing at all for a time
//! ([`Bans`]).
//!
//! Every change is one transaction: it holds as a whole or not at all. Nothing but the two tables named here is ever written,
//! so that any other firewall goes on as it is; what it refuses stays refused, and what Davy refuses no other lets in.
//! All of it concerns the network namespace of the thread that calls.

mod bans;
mod error;
mod nft;
mod ports;

pub use bans::{Ban, BanKind, Bans, MAX_BANNED_ADDRESSES, MAX_BANNED_NETWORKS, MAX_BANNED_PORTS, Sentence};
pub use error::Error;
pub use ports::{Ports, Refused, Standing};

/// The table that holds who may reach which port.
pub const PORTS_TABLE: &str = "davy";

/// The table that holds who is banned.
pub const BANS_TABLE: &str = "davy_bans";
