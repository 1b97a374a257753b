//! Who may connect to what: the policy's entries as the kernel looks them up, and what is told of connections that none allows.

mod cases;
mod compile;
mod learn;
#[cfg(test)]
mod tests;

pub use cases::{Cases, MAX_SUBJECTS};
pub use compile::{Compiled, Host, allows_name, allows_unnamed, compile, unit_of};
pub use learn::{Proposed, propose, to_toml};
