use davy_model::{
    ActionId, Confinement, FlowVolume, IncidentId, Mode, Probe, ProcessKey, ProtectionStatus, Tier,
    Timestamp, Transport,
};
use serde::{Deserialize, Serialize};

/// The agent's state, for `davy status`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AgentStatus {
    /// Davy's version.
    pub version: String,
    /// When this agent started.
    pub started: Timestamp,
    /// Its pid.
    pub pid: u32,
    /// The host's name.
    pub host: String,
    /// The kernel's release.
    pub kernel: String,
    /// The best tier anything here runs in.
    pub tier: Tier,
    /// Every protection.
    pub protections: Vec<ProtectionStatus>,
    /// Every probed capability.
    pub probes: Vec<Probe>,
    /// Until when break-glass holds.
    pub disarmed_until: Option<Timestamp>,
    /// Protections that fell back to observe by themselves, with the reason.
    pub fallen_back: Vec<String>,
    /// What is isolated from the network now.
    #[serde(default)]
    pub isolated: Vec<IsolatedStatus>,
    /// How many addresses and networks are banned now.
    #[serde(default)]
    pub banned: u64,
    /// The policy in force.
    pub policy: PolicySummary,
    /// Events taken in since the start.
    pub events: u64,
    /// Losses by kind; empty is good.
    pub drops: Vec<DropCount>,
    /// The store.
    pub store: StoreStatus,
    /// Incidents that still run.
    pub running_incidents: Vec<IncidentId>,
    /// The agent's resident memory in bytes.
    pub resident: u64,
    /// The agent's CPU time in nanoseconds since its start.
    pub cpu_ns: u64,
    /// Processes in the table.
    pub processes: u64,
    /// Flows in the table.
    pub flows: u64,
    /// The worker processes that read what strangers wrote.
    #[serde(default)]
    pub workers: Vec<WorkerStatus>,
    /// Where the dashboard listens.
    pub dashboard: Option<String>,
    /// The last time that the agent proved its own enforcement.
    #[serde(default)]
    pub last_canary: Option<Proof>,
    /// The last `davy drill` that this agent was told of.
    #[serde(default)]
    pub last_drill: Option<Proof>,
}

/// The host, or a part of it, that is isolated from the network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IsolatedStatus {
    /// The cgroup v2 subtree below the mount; `None` for the whole host.
    pub cgroup: Option<String>,
    /// When it ends by itself.
    pub until: Timestamp,
    /// The line of the journal that says what stays open, and that can be undone.
    pub action: ActionId,
}

/// What came of the last drill or canary.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// When it was over.
    pub time: Timestamp,
    /// What came of it.
    #[serde(flatten)]
    pub tally: Tally,
}

/// How many of several trials held.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// How many held.
    pub held: u32,
    /// How many there were.
    pub of: u32,
    /// Those that failed, in plain words.
    pub failed: Vec<String>,
}

impl Tally {
    /// The most failures that are named, and the most bytes of one.
    const MAX_FAILED: usize = 64;
    const MAX_WORDS: usize = 256;

    /// What drills came to. One that this host cannot play, or whose protection is off, is none of them.
    #[must_use]
    pub fn of(results: &[DrillResult]) -> Self {
        let mut tally = Self::default();
        for result in results {
            match result.outcome {
                DrillOutcome::Held => tally.count(&result.name, Ok(())),
                DrillOutcome::Failed => tally.count(&result.name, Err(String::new())),
                DrillOutcome::Unsupported | DrillOutcome::Off => {}
            }
        }
        tally.bounded()
    }

    /// Counts one more trial, and why it failed if it did.
    pub fn count(&mut self, name: &str, outcome: Result<(), String>) {
        self.of += 1;
        match outcome {
            Ok(()) => self.held += 1,
            Err(why) if why.is_empty() => self.failed.push(name.to_owned()),
            Err(why) => self.failed.push(format!("{name}: {why}")),
        }
    }

    /// Whether there were any, and all of them held.
    #[must_use]
    pub const fn all_held(&self) -> bool {
        self.of > 0 && self.held == self.of
    }

    /// The same, no larger than an agent keeps.
    #[must_use]
    pub fn bounded(mut self) -> Self {
        self.failed.truncate(Self::MAX_FAILED);
        for words in &mut self.failed {
            words.truncate(words.floor_char_boundary(Self::MAX_WORDS));
        }
        self
    }
}

/// A worker process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerStatus {
    /// What it does: `inspect` reads first bytes of flows and answers of name servers.
    pub name: String,
    /// Its pid while it runs.
    pub pid: Option<u32>,
    /// What it has given up; `None` before it runs.
    pub confinement: Option<Confinement>,
    /// How often it was started again.
    pub restarts: u64,
    /// Why it does not run now; what it would have read is not read.
    pub fault: Option<String>,
}

/// Which policy is in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicySummary {
    /// Its file; `None` for the built-in default.
    pub path: Option<String>,
    /// When it was read.
    pub loaded: Timestamp,
    /// The scope: `host` or a cgroup path.
    pub scope: String,
    /// The faults of a newer file that was refused; empty when there is none.
    pub refused: String,
}

/// How many of a kind were lost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DropCount {
    /// Of what, and where.
    pub kind: String,
    /// How many since the start.
    pub count: u64,
}

/// The store's state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreStatus {
    /// Its folder.
    pub path: String,
    /// Bytes on disk.
    pub bytes: u64,
    /// Bound on them.
    pub max_bytes: u64,
    /// Events in it.
    pub events: u64,
    /// Events that could not be written since the start.
    pub lost: u64,
    /// Why writing fails now; `None` when it does not.
    pub failing: Option<String>,
    /// Why it lies in memory, and nothing in it outlives a reboot; `None` when it lies where it should.
    #[serde(default)]
    pub temporary: Option<String>,
}

/// What `davy top` shows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TopView {
    /// When.
    pub time: Timestamp,
    /// CPUs online.
    pub cpus: u32,
    /// Events a second over the last interval.
    pub event_rate: f32,
    /// The busiest trees, busiest first.
    pub trees: Vec<BusyTree>,
    /// Destinations blocked now.
    pub blocked: Vec<String>,
}

/// One process tree in `davy top`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BusyTree {
    /// Its root.
    pub root: ProcessKey,
    /// What the busiest process calls itself.
    pub comm: String,
    /// Its program.
    pub path: String,
    /// User by name or number.
    pub user: String,
    /// CPUs used over the last interval (1.0 is one whole CPU).
    pub cpu: f32,
    /// Threads that computed.
    pub threads: u32,
    /// Weight of the evidence for mining so far, in bits, prior included.
    pub bits: f32,
    /// Probability of mining, 0 to 1.
    pub confidence: f64,
    /// Evidence in plain words, strongest first.
    pub evidence: Vec<String>,
    /// Its flows, busiest first.
    pub flows: Vec<TreeFlow>,
    /// Whether it is frozen or otherwise stopped.
    pub stopped: bool,
}

/// A flow in `davy top`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeFlow {
    /// TCP or UDP.
    pub transport: Transport,
    /// The other end, with its name where known.
    pub remote: String,
    /// Volume.
    pub volume: FlowVolume,
}

/// One row of `davy drill --json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DrillResult {
    /// `room/what`.
    pub name: String,
    /// Link of the attack: outside, runtime, control, always.
    pub phase: String,
    /// MITRE ATT&CK technique.
    pub technique: String,
    /// What should happen.
    pub expected: String,
    /// What happened.
    pub outcome: DrillOutcome,
    /// By which tier; `None` when unsupported.
    pub tier: Option<Tier>,
    /// Milliseconds from the act to the finding.
    pub detect_ms: Option<u64>,
    /// Milliseconds from the act to the stop.
    pub stop_ms: Option<u64>,
    /// In plain words.
    pub evidence: String,
}

/// How a drill ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DrillOutcome {
    /// As expected.
    Held,
    /// Not as expected.
    Failed,
    /// This host cannot do it; the evidence names the missing feature.
    Unsupported,
    /// The protection is off by policy.
    Off,
}

impl AgentStatus {
    /// The mode of a protection by its name.
    #[must_use]
    pub fn mode_of(&self, name: &str) -> Option<Mode> {
        self.protections.iter().find(|p| p.name == name).map(|p| p.mode)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drill(name: &str, outcome: DrillOutcome) -> DrillResult {
        DrillResult {
            name: name.to_owned(),
            phase: "runtime".to_owned(),
            technique: "T1496".to_owned(),
            expected: String::new(),
            outcome,
            tier: None,
            detect_ms: None,
            stop_ms: None,
            evidence: String::new(),
        }
    }

    #[test]
    fn only_what_was_tried_counts() {
        let results = [
            drill("a/held", DrillOutcome::Held),
            drill("a/failed", DrillOutcome::Failed),
            drill("a/unsupported", DrillOutcome::Unsupported),
            drill("a/off", DrillOutcome::Off),
        ];
        let tally = Tally::of(&results);
        assert_eq!(
            (tally.held, tally.of, tally.failed.as_slice()),
            (1, 2, ["a/failed".to_owned()].as_slice())
        );
        assert!(!tally.all_held() && Tally::of(&results[..1]).all_held());
        assert!(!Tally::of(&results[2..]).all_held(), "nothing tried is nothing proven");
    }

    #[test]
    fn what_a_client_says_is_kept_within_bounds() {
        let failed = vec!["ä".repeat(500); 1000];
        let tally = Tally { held: 1, of: 1001, failed }.bounded();
        assert_eq!(tally.failed.len(), Tally::MAX_FAILED);
        assert!(tally.failed.iter().all(|words| words.len() <= Tally::MAX_WORDS && words.starts_with('ä')));
    }
}
