use davy_model::{Finding, Incident, ProbeRequest, ProcessKey, Proposal, Timestamp};

use crate::flow_table::Flow;

/// Something that belongs to a finding or an incident of this detector.
#[derive(Clone, Debug, PartialEq)]
pub struct Slotted<T> {
    /// The detector's own number of the finding or incident; it stays the same as long as that is kept. The agent gives each slot
    /// its stored number once, by [`crate::Detector::number_finding`] and [`crate::Detector::number_incident`].
    pub slot: u64,
    /// Whether it was told before, and this renews it.
    pub renewed: bool,
    /// The thing itself. A finding or incident that has no number yet bears number zero.
    pub item: T,
}

/// What [`crate::Detector::conclude`] came to since it was asked last.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Conclusions {
    /// Findings that are new or have grown.
    pub findings: Vec<Slotted<Finding>>,
    /// Incidents that are new or changed. Number the findings first, then ask [`crate::Detector::incident`] for the text with
    /// their numbers in it.
    pub incidents: Vec<Slotted<Incident>>,
    /// What the host should look at more closely.
    pub probes: Vec<ProbeRequest>,
    /// What could be done about a finding; the slot is the finding's.
    pub proposals: Vec<Slotted<Proposal>>,
}

/// A process tree for people who watch: what it uses and how far the evidence goes.
#[derive(Clone, Debug)]
pub struct TreeView {
    /// Its root.
    pub root: ProcessKey,
    /// What it calls itself.
    pub comm: String,
    /// Its program.
    pub path: String,
    /// User id.
    pub uid: u32,
    /// CPUs used over the last interval (1.0 is one whole CPU).
    pub cpu: f64,
    /// Threads that compute.
    pub threads: u32,
    /// Weight of the evidence in bits, prior included.
    pub bits: f32,
    /// Probability of mining, 0 to 1.
    pub confidence: f64,
    /// Evidence in plain words, strongest first.
    pub evidence: Vec<String>,
    /// Its open flows, those with the most packets first, at most eight.
    pub flows: Vec<Flow>,
    /// Whether an action that was done stopped it.
    pub stopped: bool,
}

/// How full the detector's tables are, and what they turned away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableSizes {
    /// Processes kept, ended ones included.
    pub processes: usize,
    /// Processes refused because the table was full.
    pub processes_refused: u64,
    /// Flows kept.
    pub flows: usize,
    /// Open flows forgotten because the table was full.
    pub flows_evicted: u64,
    /// Threads kept.
    pub threads: usize,
    /// Threads refused because the table was full.
    pub threads_refused: u64,
    /// Process trees with evidence.
    pub cases: usize,
    /// Resolved addresses kept.
    pub names: usize,
    /// Incidents kept.
    pub incidents: usize,
}

/// When something was last done, for rate limits.
pub(crate) fn due(last: Option<Timestamp>, now: Timestamp, secs: f64) -> bool {
    last.is_none_or(|last| now.secs_since(last).abs() >= secs)
}
