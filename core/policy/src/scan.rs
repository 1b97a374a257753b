//! What the policy says of scans by the agent.

use std::time::Duration;

use davy_model::{Mode, Severity, Timestamp};

use crate::{ActionKind, Digest};

/// What is looked for in files, when, and what is done about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scan {
    /// What is done with a finding. Off means that the agent looks at nothing.
    pub mode: Mode,
    /// What is looked at as it happens; without repetition.
    pub on: Vec<ScanTrigger>,
    /// Least severity for more than an alert.
    pub severity: Severity,
    /// What enforcing does, in Davy's order; without repetition.
    pub actions: Vec<ActionKind>,
    /// Most of one processor that scans may take, in percent.
    pub cpu: u32,
    /// How often the folders are looked through; `None` means never.
    pub schedule: Option<Duration>,
    /// The folders that are looked through by the schedule.
    pub paths: Vec<String>,
    /// Rules besides Davy's own, relative to the configuration folder.
    pub rules: Vec<String>,
    /// Lists of SHA-256 digests of bad files, relative to the configuration folder.
    pub hashes: Vec<String>,
    /// Files that are wanted although something is found in them.
    pub allow: Vec<ScanAllow>,
}

impl Default for Scan {
    fn default() -> Self {
        use ActionKind::{Freeze, Kill, Quarantine};
        let paths = ["/dev/shm", "/etc", "/home", "/opt", "/root", "/srv", "/tmp", "/usr", "/var"];
        Self {
            mode: Mode::Observe,
            on: ScanTrigger::ALL.to_vec(),
            severity: Severity::High,
            actions: vec![Freeze, Quarantine, Kill],
            cpu: 10,
            schedule: None,
            paths: paths.map(str::to_owned).to_vec(),
            rules: Vec::new(),
            hashes: Vec::new(),
            allow: Vec::new(),
        }
    }
}

impl Scan {
    /// The reason for which a file of this content is wanted, if it is.
    #[must_use]
    pub fn allowed(&self, content: Digest, now: Timestamp) -> Option<&str> {
        let holds = |entry: &&ScanAllow| entry.sha256 == content && entry.until.is_none_or(|end| now < end);
        self.allow.iter().find(holds).map(|entry| entry.reason.as_str())
    }
}

/// What has the agent look at a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ScanTrigger {
    /// A program is executed.
    Exec,
    /// An executable, a script or a web file is written.
    Write,
}

impl ScanTrigger {
    /// All of them, in order.
    pub const ALL: [Self; 2] = [Self::Exec, Self::Write];

    /// Its name in a policy.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Exec => "exec",
            Self::Write => "write",
        }
    }

    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|trigger| trigger.name() == name)
    }
}

/// A file that is wanted although something is found in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScanAllow {
    /// Its content.
    pub sha256: Digest,
    /// Why, for whoever reads the policy later.
    pub reason: String,
    /// The first moment the entry no longer holds; `None` means for ever.
    pub until: Option<Timestamp>,
}
