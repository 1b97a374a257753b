//! The agent.

mod paths;

pub use paths::Paths;
