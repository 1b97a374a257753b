//! What the bench counts in the machine. The names are here, because the host needs them before a machine has booted.

use serde::{Deserialize, Serialize};

/// One load.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// What it is called in the tables.
    pub name: &'static str,
    /// The ratio that it should stay below with Davy running.
    pub goal: f64,
}

/// All loads, in the order they run.
pub const LOADS: [Load; 5] = [
    Load { name: "fork+exec+exit", goal: 1.03 },
    Load { name: "TCP connect+close", goal: 1.05 },
    Load { name: "UDP connect+send+close", goal: 1.2 },
    Load { name: "open+close", goal: 1.05 },
    Load { name: "build (gcc)", goal: 1.01 },
];

/// The machine with nothing to do, counted by the second.
pub const REST: &str = "rest";

/// A program of 1 MiB that nobody has seen before is executed, whatever comes of it.
pub const FIRST_SIGHT: &str = "first sight of 1 MiB";

/// What reading such a file costs a program that does nothing else.
pub const DIGEST: &str = "sha256sum of 1 MiB";

/// Kernel modules: netfilter as OpenSnitch needs it, each after what it depends on.
pub const QUEUE_MODULES: [&str; 9] = [
    "libcrc32c",
    "nfnetlink",
    "nf_defrag_ipv4",
    "nf_defrag_ipv6",
    "nf_conntrack",
    "nf_tables",
    "nfnetlink_queue",
    "nft_queue",
    "nft_ct",
];

/// A program that watches the machine while the loads run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watcher {
    /// `davy agent`, observing.
    Davy,
    /// Davy's judging of code alone, enforced for the loads, with all of the machine's programs vouched for.
    Trust,
    /// The kernel's audit subsystem with its daemon.
    Auditd,
    /// An allow-list of programs by fanotify.
    Fapolicyd,
    /// An outbound allow-list by process.
    OpenSnitch,
}

impl Watcher {
    /// Davy, then its peers.
    pub const ALL: [Self; 5] = [Self::Davy, Self::Trust, Self::Auditd, Self::Fapolicyd, Self::OpenSnitch];

    /// As it calls itself.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Davy => "davy",
            Self::Trust => "trust",
            Self::Auditd => "auditd",
            Self::Fapolicyd => "fapolicyd",
            Self::OpenSnitch => "OpenSnitch",
        }
    }

    /// The guest's case that counts it.
    #[must_use]
    pub fn case(self) -> &'static str {
        match self {
            Self::Davy => "cost_of_davy",
            Self::Trust => "cost_of_trust",
            Self::Auditd => "cost_of_auditd",
            Self::Fapolicyd => "cost_of_fapolicyd",
            Self::OpenSnitch => "cost_of_opensnitch",
        }
    }
}

/// What one load took, once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// The load's name, or [`REST`].
    pub load: String,
    /// Which time it is that both conditions are counted; the first warms caches.
    pub round: u32,
    /// Whether the watcher ran.
    pub watched: bool,
    /// Repetitions; seconds for [`REST`].
    pub times: u32,
    /// Instructions that the whole machine executed for all repetitions, without what it executes at rest.
    pub instructions: u64,
}
