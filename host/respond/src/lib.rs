//! Acts on the host: freezes and kills process trees, takes files into a sealed quarantine, cuts flows, and
//! undoes each of them where nature allows.
//!
//! Nothing here decides. The agent's arbiter does, and writes its journal before and after:
//! [`Responder::prepare`] (failsafes), journal, [`Responder::carry_out`], journal.

mod administrator;
mod block;
mod cgroup;
mod config;
mod cut;
mod error;
pub mod expiry;
mod failsafe;
mod freeze;
mod held;
mod isolate;
mod kill;
mod outcome;
mod process;
mod program;
mod quarantine;
mod responder;
mod take;
mod tree;
mod undo;
mod vaulted;

pub use administrator::{administrators, administrators_sessions};
pub use block::{Block, Isolation};
pub use config::{Protected, QuarantineLimits, ResponderConfig};
pub use error::Error;
pub use expiry::due;
pub use outcome::{Outcome, Prepared, Refusal};
pub use quarantine::{SealedContent, SealedFile};
pub use responder::Responder;
pub use vaulted::sealed_number;
