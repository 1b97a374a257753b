use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{FlowKey, ProcessKey, Technique, Timestamp};

/// The number of a finding in one agent's store, counted from one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FindingId(pub u64);

/// What a piece of evidence was recognised by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Signal {
    /// The SSE rounding mode changes as only RandomX changes it.
    RoundingMode,
    /// Steady computation with hardly a system call or a wait.
    ComputeShape,
    /// Memory laid out as a mining algorithm needs it.
    MemoryShape,
    /// A GPU kept busy.
    Gpu,
    /// A mining protocol in the clear.
    Stratum,
    /// Sizes and rhythm of pool traffic.
    PoolShape,
    /// A pool's name or address from a list.
    PoolList,
    /// A process that pretends to be another.
    Masquerade,
    /// A parent that should not start such a thing.
    OddParent,
    /// Code without a file.
    Fileless,
    /// The usual campaign around a miner.
    Campaign,
    /// Something arranged to run again.
    Persistence,
    /// Preparation of the machine: huge pages, model-specific registers, modules.
    Preparation,
    /// Words of its own command line or environment that only miners use.
    CommandLine,
    /// What became of a process of Davy's own that Davy acted on, to see whether its acts do what they say.
    Canary,
    /// Nobody vouches for the code, or it is on the block-list.
    Trust,
    /// A service started what its profile does not have.
    Service,
    /// A scan found in a file what is known to be bad.
    Scan,
    /// Somebody looks for open ports.
    PortScan,
    /// No rule allows the connection.
    Outbound,
    /// First connections to inside addresses.
    Lateral,
}

/// One observation that speaks for (or, with a negative weight, against) a finding.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// When it was last seen.
    pub time: Timestamp,
    /// By what.
    pub signal: Signal,
    /// How strongly it speaks, in bits: the base-2 logarithm of the likelihood ratio.
    pub weight: f32,
    /// In plain words, with its numbers.
    pub text: String,
    /// The numbers by name.
    pub numbers: BTreeMap<String, f64>,
    /// Whose.
    pub process: Option<ProcessKey>,
    /// On which flow.
    pub flow: Option<FlowKey>,
    /// Technique it belongs to, if any.
    pub technique: Option<Technique>,
}

/// What a finding says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingKind {
    /// This process tree mines.
    Mining,
    /// This process tree talks to a pool, without proof that it computes.
    PoolContact,
    /// A process pretends to be another.
    Masquerade,
    /// Code without a file ran.
    Fileless,
    /// Something arranged to run again, or to let someone in.
    Persistence,
    /// Acts usual around an intrusion.
    Campaign,
    /// Someone reached for Davy itself.
    Tampering,
    /// What Davy enforces is not enforced: its own canary was not stopped.
    Unproven,
    /// Code ran, or was kept from running, that nobody vouches for or that is on the block-list.
    Untrusted,
    /// A service started what its profile does not have: a shell, a downloader, a compiler.
    Service,
    /// A file holds what is known to be bad.
    Malware,
    /// Somebody looks for open ports of this host.
    Scan,
    /// A process connected, or was kept from connecting, to what no rule allows.
    Outbound,
    /// A process goes from this host to others inside that it never spoke to.
    Lateral,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Worth a line in the log.
    Info,
    /// Worth a look.
    Low,
    /// Worth a look today.
    Medium,
    /// Worth a look now.
    High,
    /// Worth waking someone.
    Critical,
}

/// A conclusion with its evidence. A finding that grows keeps its id; the newest text of it stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// Its number.
    pub id: FindingId,
    /// What it says.
    pub kind: FindingKind,
    /// When the first evidence was seen.
    pub first: Timestamp,
    /// When the finding was made or last renewed.
    pub time: Timestamp,
    /// How bad.
    pub severity: Severity,
    /// Probability that it is true given the evidence, 0 to 1.
    pub confidence: f64,
    /// The process it is about: the root of the tree that does it.
    pub subject: Option<ProcessKey>,
    /// All processes that take part.
    pub processes: Vec<ProcessKey>,
    /// One line in plain words.
    pub summary: String,
    /// The evidence, strongest first.
    pub evidence: Vec<Evidence>,
    /// Techniques, sorted, each once.
    pub techniques: Vec<Technique>,
}
