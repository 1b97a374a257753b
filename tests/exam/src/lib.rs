//! The miner exam: a live agent is put before real miners in every disguise and before honest heavy loads, and is
//! marked by how soon it names the former and whether it leaves the latter alone.

mod agent;
mod case;
mod exam;
mod loads;
mod mark;
mod matrix;
mod miner;
mod peers;
mod programs;
mod report;
mod scope;
mod watch;

pub use case::{Algo, Case, Disguise, Load, MinerCase, Transport};
pub use exam::{Exam, Length};
pub use loads::everyday;
pub use mark::{Mark, Nearest, Outcome, SignalWeight};
pub use matrix::{full, short};
pub use programs::obstacle;
pub use report::Report;
