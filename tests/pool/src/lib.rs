//! Peers for tests: a mining pool that speaks real Stratum, a relay in front of it, and an everyday chat service
//! that a detector must not mistake for one.
//!
//! Every server is bounded in connections and in time, and listens where it is told to, which for tests is
//! loopback or a network namespace of their own. Nothing here pays anyone: shares are judged and forgotten.

mod chance;
mod chat;
mod link;
mod pool;
mod relay;
mod server;
pub mod stratum;
pub mod tls;
mod work;

pub use chat::{Chat, ChatConfig, ChatStats, talk};
pub use link::{Link, Received, Wire};
pub use pool::{Pool, PoolConfig, PoolStats};
pub use relay::{Relay, RelayConfig, RelayStats};
pub use work::{Algorithm, Difficulty};
