//! The host's embedded database: events, findings, incidents and the journal of actions.
//!
//! `main.db` (the ledger) holds what must not be lost: every write to it is on the disk before it is answered.
//! Events lie in one file a day, with hourly roll-ups, so that an old day goes by removing a file. One task writes
//! each; queries read beside them. The store is bounded by size and age, and a full disk, a broken file or a
//! clock that jumps never stop it: what is lost is counted.

mod clock;
mod day;
mod day_file;
mod error;
mod event_writer;
mod folder;
mod health;
mod history;
mod ledger;
mod ledger_writer;
mod limits;
mod opening;
mod programs;
mod query;
mod room;
mod row;
mod schema;
mod store;

pub use clock::Clock;
pub use error::Error;
pub use history::{EventFilter, PolicyEntry, Rollup, Run, Upkeep};
pub use limits::Limits;
pub use store::Store;
