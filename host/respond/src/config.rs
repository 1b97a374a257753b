use std::path::PathBuf;

use davy_model::ProcessKey;

/// Says why a process must not be touched; `None` when it may be.
pub type Protected = Box<dyn Fn(&ProcessKey) -> Option<String> + Send + Sync>;

/// What the responder is told about the host.
pub struct ResponderConfig {
    /// The agent's state folder; the quarantine lies in `quarantine/` below it.
    pub state_dir: PathBuf,
    /// Where cgroup v2 is mounted; `None` where it is not, and then trees are frozen by SIGSTOP.
    pub cgroup2: Option<PathBuf>,
    /// Processes that the agent knows to be protected, besides the built-in failsafes.
    pub protected: Protected,
    /// Whether everything below the agent's own process is spared, as its workers must be. Off only where the
    /// agent and what it acts on are children of one test.
    pub spare_children: bool,
    /// Bounds of the quarantine.
    pub quarantine: QuarantineLimits,
    /// Why nothing is taken into quarantine, where what lies there would be lost; the refusal says it.
    pub no_quarantine: Option<String>,
}

impl ResponderConfig {
    /// A configuration that protects nothing beyond the built-in failsafes, with the usual bounds.
    #[must_use]
    pub fn new(state_dir: PathBuf, cgroup2: Option<PathBuf>) -> Self {
        Self {
            state_dir,
            cgroup2,
            protected: Box::new(|_| None),
            spare_children: true,
            quarantine: QuarantineLimits::default(),
            no_quarantine: None,
        }
    }
}

/// Bounds of the quarantine. When it is full, new files are refused and stay where they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuarantineLimits {
    /// Bytes of all sealed files together.
    pub total_bytes: u64,
    /// Number of sealed files.
    pub files: usize,
    /// Bytes of one file before it is compressed.
    pub file_bytes: u64,
}

impl Default for QuarantineLimits {
    fn default() -> Self {
        Self { total_bytes: 1 << 30, files: 256, file_bytes: 256 << 20 }
    }
}
