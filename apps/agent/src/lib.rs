//! The agent: the composition root that wires sensors, detector, arbiter, responders and store to each other.
//!
//! Guards and the detector propose; only the [arbiter] acts, and it is the one place that may.

mod alarm;
mod answer;
mod arbiter;
mod banner;
mod bans;
mod block;
mod canary;
mod clock;
mod connections;
mod control;
mod deed;
mod engine;
mod eyes;
mod inspection;
mod instance;
mod keeper;
mod lateral;
mod left;
mod leftover;
mod lists;
mod opening;
mod outbound;
mod own;
mod paths;
mod port_scans;
mod ports;
mod probing;
mod protections;
mod recent;
mod reload;
mod remains;
mod rulebook;
mod run;
mod scan;
mod service;
mod services;
mod shared;
mod standing;
mod state;
mod stops;
mod trust;

pub use leftover::take_away_leftovers;
pub use paths::Paths;
pub use ports::inbound_plan;
pub use run::{AgentOptions, Ending, run};
