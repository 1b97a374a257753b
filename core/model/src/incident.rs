use serde::{Deserialize, Serialize};

use crate::{ActionRecord, Finding, ProcessKey, Severity, Technique, Timestamp};

/// The number of an incident in one agent's store, counted from one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct IncidentId(pub u64);

/// Where an incident stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IncidentState {
    /// It goes on.
    Running,
    /// Davy stopped it.
    Stopped,
    /// It ended by itself.
    Ended,
    /// What Davy did was undone.
    Undone,
}

/// One act of the story, from the first (a login, a request, a cron job) to the last.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TimelineEntry {
    /// When.
    pub time: Timestamp,
    /// The relation to the act before, such as `began with`, `which ran`, `which mined`, `talking to`.
    pub relation: String,
    /// In plain words.
    pub text: String,
    /// Who did it.
    pub process: Option<ProcessKey>,
    /// As which user, by name or number.
    pub user: Option<String>,
    /// Techniques.
    pub techniques: Vec<Technique>,
}

/// A process in the incident's tree, which is listed depth first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TreeNode {
    /// How deep it stands; the root is zero.
    pub depth: u32,
    /// Which process.
    pub process: ProcessKey,
    /// What it calls itself.
    pub comm: String,
    /// Its program's path for people.
    pub path: String,
    /// Whether the evidence is about it.
    pub suspect: bool,
    /// Whether it still runs.
    pub alive: bool,
}

/// One intrusion: findings joined by cause.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Incident {
    /// Its number.
    pub id: IncidentId,
    /// Where it stands.
    pub state: IncidentState,
    /// How bad, the worst of its findings.
    pub severity: Severity,
    /// A few words, such as `mining, stopped`.
    pub title: String,
    /// The first act.
    pub first: Timestamp,
    /// The last act known.
    pub last: Timestamp,
    /// When Davy first knew.
    pub detected: Timestamp,
    /// When it was stopped.
    pub stopped: Option<Timestamp>,
    /// The story, oldest first.
    pub timeline: Vec<TimelineEntry>,
    /// The process tree, depth first.
    pub tree: Vec<TreeNode>,
    /// What it was concluded from.
    pub findings: Vec<Finding>,
    /// What was done, or would have been.
    pub actions: Vec<ActionRecord>,
    /// Techniques, sorted, each once.
    pub techniques: Vec<Technique>,
}
