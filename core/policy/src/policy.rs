use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use davy_model::{FindingKind, Mode, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{Digest, Inbound, Outbound, PolicyTest, Scan, Scans, Services, Trust};

/// The longest policy text that is read, in bytes; a longer one is a fault.
pub const MAX_TEXT: usize = 1 << 20;

/// How long a destination stays cut off unless something else is written.
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Everything an administrator tells Davy.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Policy {
    /// Where the policy acts.
    pub scope: Scope,
    /// Programs that mine.
    pub mining: Mining,
    /// Connections to pools.
    pub pools: Pools,
    /// Which code may run.
    pub trust: Trust,
    /// What services may start.
    pub services: Services,
    /// What is looked for in files, and when.
    pub scan: Scan,
    /// Who may reach which port.
    pub inbound: Inbound,
    /// Who may connect to what.
    pub outbound: Outbound,
    /// Who looks for open ports.
    pub scans: Scans,
    /// Who goes from this host to others inside.
    pub lateral: Lateral,
    /// Things arranged to run again, or to let someone in.
    pub persistence: Protection,
    /// Code without a file.
    pub fileless: Fileless,
    /// Processes that pretend to be another.
    pub masquerade: Protection,
    /// Acts usual around an intrusion.
    pub campaign: Protection,
    /// Reaching for Davy itself.
    pub tampering: Protection,
    /// What the sensors take in.
    pub sensors: Sensors,
    /// Bounds of the host's store.
    pub store: StoreLimits,
    /// When Davy holds back by itself.
    pub failsafe: Failsafe,
    /// Drills by the clock.
    pub drill: Drill,
    /// The policy's own tests.
    pub tests: Vec<PolicyTest>,
    /// Where the settings were written.
    pub origin: Origin,
}

/// Where the policy acts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// cgroup v2 subtrees below the mount, such as `/system.slice/nginx.service`; empty means the whole host.
    /// Outside of them Davy observes.
    pub cgroups: Vec<String>,
}

/// The mining protection.
#[derive(Clone, Debug, PartialEq)]
pub struct Mining {
    /// What is done with a finding.
    pub mode: Mode,
    /// What enforcing does, in Davy's order; without repetition.
    pub actions: Vec<ActionKind>,
    /// Least probability for more than an alert, 0.5 to 1.
    pub confidence: f64,
    /// How long a destination stays cut; zero means until undone.
    pub cut_for: Duration,
    /// Mining that is wanted.
    pub allow: Vec<Allow>,
    /// Lists of pools besides Davy's own.
    pub pools: PoolLists,
}

impl Default for Mining {
    fn default() -> Self {
        use ActionKind::{Cut, Freeze, Kill, Quarantine};
        Self {
            mode: Mode::Observe,
            actions: vec![Freeze, Cut, Quarantine, Kill],
            confidence: 0.95,
            cut_for: DAY,
            allow: Vec::new(),
            pools: PoolLists::default(),
        }
    }
}

/// The protection from pools: what is done with a connection to one, whoever holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pools {
    /// What is done.
    pub mode: Mode,
    /// How long a pool's address stays cut off.
    pub cut_for: Duration,
}

impl Default for Pools {
    fn default() -> Self {
        Self { mode: Mode::Observe, cut_for: DAY }
    }
}

/// Files with pools' names and addresses, relative to the configuration folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PoolLists {
    /// One domain a line; subdomains are meant too.
    pub domains: Vec<String>,
    /// hosts(5) files.
    pub hosts: Vec<String>,
    /// One address or CIDR a line.
    pub cidrs: Vec<String>,
}

/// Mining that is wanted, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allow {
    /// What it is known by.
    pub by: AllowedBy,
    /// Why, for whoever reads the policy later.
    pub reason: String,
    /// The first moment the entry no longer holds; `None` means for ever.
    pub until: Option<Timestamp>,
}

/// What an allowed program is known by: content, or the service and the user it runs as; never a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AllowedBy {
    /// The program file's content.
    Content(Digest),
    /// A systemd unit, which is one part of the cgroup's path, and the user.
    Unit {
        /// The unit's full name, such as `boinc-client.service`.
        unit: String,
        /// User by name.
        user: String,
    },
    /// A cgroup v2 subtree and the user.
    Cgroup {
        /// Path below the mount.
        cgroup: String,
        /// User by name.
        user: String,
    },
}

/// A protection that this version can only observe.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Protection {
    /// Off or observe.
    pub mode: Mode,
}

/// The protection from code without a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fileless {
    /// What is done with programs, libraries and scripts without a file.
    pub mode: Mode,
    /// Whether memory that a program wrote and then makes executable is treated alike, unless the program is known to compile
    /// in memory.
    pub written_memory: bool,
}

/// Who goes from this host to others inside. It is told; `[outbound]` is what stops it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lateral {
    /// Off or observe.
    pub mode: Mode,
    /// For how long it is learned what a service or a container talks to, from when it was first seen.
    pub learn_for: Duration,
}

impl Default for Lateral {
    fn default() -> Self {
        Self { mode: Mode::Observe, learn_for: 7 * DAY }
    }
}

/// What the sensors take in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sensors {
    /// First bytes kept of each flow in each direction.
    pub capture: u32,
    /// Whether changes of files are watched.
    pub file_events: bool,
    /// Most processes remembered at once.
    pub processes: u32,
    /// Most flows remembered at once.
    pub flows: u32,
}

impl Default for Sensors {
    fn default() -> Self {
        Self { capture: 2048, file_events: true, processes: 65_536, flows: 65_536 }
    }
}

/// Bounds of the host's store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreLimits {
    /// Most bytes on disk.
    pub max_size: u64,
    /// Age at which events go; whole days.
    pub max_age: Duration,
}

impl Default for StoreLimits {
    fn default() -> Self {
        Self { max_size: 1 << 30, max_age: Duration::from_secs(30 * 86_400) }
    }
}

/// When Davy holds back by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failsafe {
    /// Actions in one minute in one service, login or container above which the protection falls back to observe there; where
    /// several of them have a part in it, everywhere.
    pub denials_per_minute: u32,
    /// Users, by name, whose processes are never acted on.
    pub protect_users: Vec<String>,
    /// How long a protection that fell back stays in observe; zero means until `davy disarm --end`.
    pub grace: Duration,
}

impl Default for Failsafe {
    fn default() -> Self {
        Self { denials_per_minute: 30, protect_users: Vec::new(), grace: Duration::from_secs(600) }
    }
}

/// Drills by the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drill {
    /// How often the agent repeats its canary acts; `None` means that it makes them at start only, and when a policy
    /// begins to enforce.
    pub every: Option<Duration>,
}

impl Default for Drill {
    fn default() -> Self {
        Self { every: Some(Duration::from_secs(86_400)) }
    }
}

/// What enforcing can do, in the order Davy does it: hold still, cut the line, keep the proof, end it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActionKind {
    /// Tell people.
    Alert,
    /// Stop the process tree from running.
    Freeze,
    /// Cut the connection and its destination.
    Cut,
    /// Let nothing in from an address for a time.
    Ban,
    /// Take the program's file away.
    Quarantine,
    /// End the process tree.
    Kill,
}

impl ActionKind {
    /// All that a policy can choose for what runs on this host, in order. A ban is about who comes from elsewhere.
    pub const ALL: [Self; 5] = [Self::Alert, Self::Freeze, Self::Cut, Self::Quarantine, Self::Kill];

    /// Its name in a policy.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Alert => "alert",
            Self::Freeze => "freeze",
            Self::Quarantine => "quarantine",
            Self::Cut => "cut",
            Self::Ban => "ban",
            Self::Kill => "kill",
        }
    }

    /// The action of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|a| a.name() == name)
    }
}

impl fmt::Display for ActionKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Where a policy was read from, so that a decision can name the line that made it.
///
/// It says nothing about what a policy asks for: two policies that differ in it alone are equal.
#[derive(Clone, Debug, Default)]
pub struct Origin {
    /// The file's name for people; empty for the built-in default.
    pub name: String,
    /// Line, counted from one, of each setting that was written, by its dotted path (`mining.allow[0]`).
    pub lines: BTreeMap<String, u32>,
}

impl PartialEq for Origin {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Origin {
    /// `file:line` of a setting, or a word for the built-in default where it was not written.
    #[must_use]
    pub fn of(&self, setting: &str) -> String {
        match self.lines.get(setting) {
            Some(line) => format!("{}:{line}", self.name),
            None => "the default".to_owned(),
        }
    }
}

impl Policy {
    /// The policy section that findings of this kind fall under; also the protection's name in `davy status`.
    #[must_use]
    pub const fn section_of(kind: FindingKind) -> &'static str {
        match kind {
            FindingKind::Mining => "mining",
            FindingKind::PoolContact => "pools",
            FindingKind::Untrusted => "trust",
            FindingKind::Service => "services",
            FindingKind::Malware => "scan",
            FindingKind::Outbound => "outbound",
            FindingKind::Lateral => "lateral",
            FindingKind::Scan => "scans",
            FindingKind::Masquerade => "masquerade",
            FindingKind::Fileless => "fileless",
            FindingKind::Persistence => "persistence",
            FindingKind::Campaign => "campaign",
            FindingKind::Tampering | FindingKind::Unproven => "tampering",
        }
    }

    /// The mode written (or defaulted) for findings of this kind, before scope, failsafes and allow entries.
    #[must_use]
    pub const fn mode_of(&self, kind: FindingKind) -> Mode {
        match kind {
            FindingKind::Mining => self.mining.mode,
            FindingKind::PoolContact => self.pools.mode,
            FindingKind::Untrusted => self.trust.mode,
            FindingKind::Service => self.services.mode.plain(),
            FindingKind::Malware => self.scan.mode,
            FindingKind::Outbound => self.outbound.mode,
            FindingKind::Lateral => self.lateral.mode,
            FindingKind::Scan => self.scans.mode,
            FindingKind::Masquerade => self.masquerade.mode,
            FindingKind::Fileless => self.fileless.mode,
            FindingKind::Persistence => self.persistence.mode,
            FindingKind::Campaign => self.campaign.mode,
            FindingKind::Tampering | FindingKind::Unproven => self.tampering.mode,
        }
    }
}
