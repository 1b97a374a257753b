use davy_model::Timestamp;

/// A policy that was put in force or refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyEntry {
    /// When.
    pub time: Timestamp,
    /// Its file; `None` for the built-in default.
    pub path: Option<String>,
    /// Its text.
    pub text: String,
    /// Why it was refused; empty when it was put in force.
    pub faults: String,
}

/// One life of an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Its number, counted from one.
    pub id: u64,
    /// The boot it belongs to, as in [`davy_model::ProcessKey::boot`].
    pub boot: u32,
    /// Davy's version.
    pub version: String,
    /// When it started.
    pub started: Timestamp,
    /// When it ended in order; `None` when it still runs or was killed.
    pub ended: Option<Timestamp>,
}

/// How many events of a kind a program had in an hour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rollup {
    /// The hour's first moment.
    pub hour: Timestamp,
    /// The kind's JSON name.
    pub kind: String,
    /// The program's path; empty where unknown, `(others)` beyond the bound of paths an hour.
    pub path: String,
    /// How many.
    pub events: u64,
}

/// Which events are asked for; the newest that fit are given, newest last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventFilter {
    /// Not before.
    pub since: Option<Timestamp>,
    /// At most so many of the newest.
    pub limit: u32,
    /// Only of this pid.
    pub pid: Option<u32>,
    /// Only these kinds, by their JSON names; empty means all.
    pub kinds: Vec<String>,
}

impl Default for EventFilter {
    fn default() -> Self {
        Self { since: None, limit: 1_000, pid: None, kinds: Vec::new() }
    }
}

/// What [`crate::Store::maintain`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Upkeep {
    /// Events that were forgotten by age or size.
    pub events: u64,
    /// Findings, incidents, journal lines, runs, policies and rows of connections that were forgotten.
    pub records: u64,
    /// What was older than this went by age; `None` where the clock is not believed yet.
    pub before: Option<Timestamp>,
}
