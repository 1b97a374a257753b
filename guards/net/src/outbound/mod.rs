//! Who may connect to what: the policy's entries as the kernel looks them up, and what is told of connections that none allows.

mod cases;
mod compile;
mod encrypted_dns;
mod learn;
mod lookup;
mod replay;
#[cfg(test)]
mod tests;

pub use cases::{Cases, MAX_SUBJECTS};
pub use compile::{Compiled, Host, compile};
pub use encrypted_dns::{Began, EncryptedDns, expressly_allowed};
pub use learn::{Proposed, Row, propose, to_toml};
pub use lookup::{Ask, allowing, allowing_by_name, allows_name};
pub use replay::{Replayed, replay};
