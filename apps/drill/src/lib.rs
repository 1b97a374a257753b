//! Harmless attacks against the live agent: the users' proof that Davy holds.
//!
//! A drill is played by a child process, the act: `davy drill-act NAME …` of the same binary, run from a copy in a
//! private folder, as nobody, inside a cgroup and a network namespace that the drill makes. The runner asks the
//! agent to enforce inside that cgroup alone, watches what the agent says about the act's pid, and measures how
//! long it took. No act mines, none leaves the namespace, each ends by itself within [`ACT_LIMIT`] and dies with
//! the runner.

mod actor;
mod acts;
mod agent;
mod canary;
mod connect;
mod drill;
mod isolate;
mod link;
mod namespace;
mod outsider;
mod pace;
mod patience;
mod port_scan;
mod refuse;
mod respond;
mod rounding_mode;
mod runner;
mod sample;
mod scope;
mod stage;
mod tamper;
mod watch;

pub use acts::{ACT_LIMIT, act};
pub use canary::Canary;
pub use drill::{Drill, list};
pub use runner::{DrillOptions, DrillProgress, run};
