//! How strongly each observation speaks for mining, in bits: the base-2 logarithm of how much likelier it is on a
//! process tree that mines than on one that does not. The sum with [`PRIOR`] gives the probability.
//!
//! The numbers are judgements, calibrated against real miners and everyday loads; each has its reason beside it. Signals of one class
//! see the same thing from several sides, so each class is capped: many weak signs of one kind never add up to certainty.

use davy_model::Signal;

/// Before anything is seen: about one process tree in eight thousand mines on a host worth watching.
pub(crate) const PRIOR: f32 = -13.0;

/// What kind of thing a signal knows. Weights add up within a class only to the class's cap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// The algorithm itself.
    Algorithm,
    /// That something computes, whatever it is.
    Computation,
    /// Whom it talks to and how.
    Network,
    /// That it hides.
    Disguise,
    /// What was done around it.
    Campaign,
    /// Its own words.
    Words,
}

/// All classes.
pub(crate) const CLASSES: [Class; 6] =
    [Class::Algorithm, Class::Computation, Class::Network, Class::Disguise, Class::Campaign, Class::Words];

impl Class {
    /// The most that a class may add. Only the algorithm and a mining protocol in the clear reach a verdict alone (they need 17.25).
    pub(crate) const fn cap(self) -> f32 {
        match self {
            // RandomX's rounding mode is as good as reading its code.
            Class::Algorithm => 24.0,
            // Compilers, encoders and benchmarks compute as steadily: -13 + 8 leaves 3 %.
            Class::Computation => 8.0,
            // A login, a job and a submission in the clear leave no doubt.
            Class::Network => 24.0,
            // Much harmless software runs from odd places or renames itself: with full computation it stays suspicion.
            Class::Disguise => 8.0,
            // An administrator may kill processes and edit crontab on the same day.
            Class::Campaign => 5.0,
            // Someone may search for or document those words; 12.5 leaves 41 %.
            Class::Words => 12.5,
        }
    }

    /// The class of a signal; `None` for those that say nothing of mining, whatever else they say.
    pub(crate) const fn of(signal: Signal) -> Option<Self> {
        Some(match signal {
            Signal::RoundingMode | Signal::MemoryShape => Class::Algorithm,
            Signal::ComputeShape | Signal::Gpu => Class::Computation,
            Signal::Stratum | Signal::PoolShape | Signal::PoolList => Class::Network,
            Signal::Masquerade | Signal::OddParent | Signal::Fileless | Signal::Trust | Signal::Service => {
                Class::Disguise
            }
            Signal::Campaign | Signal::Persistence | Signal::Preparation => Class::Campaign,
            // What is in its file says no more than its own words: it may never do it.
            Signal::CommandLine | Signal::Scan => Class::Words,
            // The agent's own canary, scans of ports and the rules of the network say nothing of how a process computes; and what
            // computes for a living speaks to new hosts as anybody does.
            Signal::Canary | Signal::PortScan | Signal::Lateral | Signal::Outbound => return None,
        })
    }
}

/// For how many seconds a signal holds in full after it was last seen, and its half-life after that.
///
/// States that are measured again and again fade within minutes when they stop; acts fade over hours.
pub(crate) const fn fading(signal: Signal) -> (f64, f64) {
    match signal {
        Signal::RoundingMode | Signal::ComputeShape | Signal::Gpu => (30.0, 60.0),
        Signal::MemoryShape => (120.0, 120.0),
        Signal::PoolShape => (300.0, 300.0),
        Signal::Stratum | Signal::PoolList => (1800.0, 1800.0),
        Signal::Masquerade
        | Signal::OddParent
        | Signal::Fileless
        | Signal::CommandLine
        | Signal::Trust
        | Signal::Service
        | Signal::Scan => (86_400.0, 3600.0),
        Signal::Campaign
        | Signal::Persistence
        | Signal::Preparation
        | Signal::Canary
        | Signal::PortScan
        | Signal::Lateral
        | Signal::Outbound => (3600.0, 3600.0),
    }
}

/// Rounding mode: the sequential test stops counting here, well above what a verdict needs.
pub(crate) const ROUNDING_CAP: f32 = 24.0;
/// A switch to another mode with flush-to-zero on: RandomX 3 of 4 samples, a numeric library once in fifty.
pub(crate) const ROUNDING_CHANGED: f32 = 5.2;
/// The same mode again: RandomX 1 of 4 samples, everything else nearly always.
pub(crate) const ROUNDING_SAME: f32 = -1.97;
/// Until three of the four modes were seen, libraries that toggle between two modes are possible.
pub(crate) const ROUNDING_TWO_MODES_CAP: f32 = 5.0;

/// Threads compute steadily with hardly a wait: rare among processes, common among everyday computations.
pub(crate) const COMPUTE_STEADY: f32 = 4.0;
/// They compute but unsteadily, for instance beside other loads on a full machine.
pub(crate) const COMPUTE_UNSTEADY: f32 = 2.5;
/// As many threads as CPUs: what miners do by default, and most parallel programs too.
pub(crate) const COMPUTE_ALL_CPUS: f32 = 1.0;
/// Each thread bound to one CPU: miners and few others.
pub(crate) const COMPUTE_BOUND: f32 = 1.5;
/// Idle policy or a nice value of ten or more: miners that hide, and backups.
pub(crate) const COMPUTE_NICE: f32 = 0.5;
/// Held down to a steady share of a CPU: what hides a miner, and what a container's quota does.
pub(crate) const COMPUTE_THROTTLED: f32 = 1.5;
/// It computed only in the time when nobody was logged in.
pub(crate) const COMPUTE_UNSEEN: f32 = 1.5;
/// Fewer than 300 system calls a CPU-second: RandomX 70, scrypt 195; but openssl speed 96.
pub(crate) const COMPUTE_FEW_CALLS: f32 = 1.0;
/// More than 3,000 system calls a CPU-second: xz 1,657, gcc 68,000; no miner does that.
pub(crate) const COMPUTE_MANY_CALLS: f32 = -4.0;

/// A mapping of RandomX's dataset size (2080 MiB).
pub(crate) const MEMORY_DATASET: f32 = 4.0;
/// A mapping of its cache's size (256 MiB); Java heaps have round sizes too.
pub(crate) const MEMORY_CACHE: f32 = 2.0;
/// Two or more mappings of a scratchpad's size (2 MiB).
pub(crate) const MEMORY_SCRATCHPADS: f32 = 1.5;
/// Explicit huge pages in use: databases reserve them too, but do not compute steadily.
pub(crate) const MEMORY_HUGE: f32 = 1.5;
/// Anonymous executable memory: every just-in-time compiler has it.
pub(crate) const MEMORY_JIT: f32 = 0.5;
/// What the memory's shape may add in all: it knows sizes, not what is done in them.
pub(crate) const MEMORY_CAP: f32 = 7.0;

/// A GPU busy nearly all the time: games, training and mining look alike.
pub(crate) const GPU_BUSY: f32 = 3.0;
/// And device memory of several GiB held (an Ethash-like graph).
pub(crate) const GPU_MEMORY: f32 = 1.0;
/// Only open handles are seen.
pub(crate) const GPU_OPEN: f32 = 0.5;

/// It logged in or subscribed as a miner and the other end took part (a job, a difficulty, an accepted share).
pub(crate) const STRATUM_SESSION: f32 = 20.0;
/// It logged in, subscribed or submitted; nothing came back yet.
pub(crate) const STRATUM_CLIENT: f32 = 14.0;
/// Jobs came to it, but its own side was not seen (it began before Davy did).
pub(crate) const STRATUM_JOBS: f32 = 13.0;
/// Work asked for by getwork or getblocktemplate: miners, and people who look after a node.
pub(crate) const STRATUM_WORK: f32 = 9.0;
/// The handshake of Stratum v2 by its sizes and its random look.
pub(crate) const STRATUM_NOISE: f32 = 9.0;
/// It serves miners: jobs go out from it. It need not mine itself.
pub(crate) const STRATUM_SERVER: f32 = 5.0;

/// Pool traffic by sizes and rhythm at the highest score; chat and telemetry come near it.
pub(crate) const POOL_SHAPE: f32 = 9.0;
/// The tree that holds a flow with a pool's rhythm also computes: chat, telemetry and remote shells do not.
pub(crate) const POOL_SHAPE_AND_COMPUTE: f32 = 6.0;
/// A pool's name or address from a list.
pub(crate) const POOL_LISTED: f32 = 9.0;
/// The name of a kernel thread on a process that has a program.
pub(crate) const NAME_KERNEL_THREAD: f32 = 6.0;
/// The name of a well-known service, and not its file.
pub(crate) const NAME_SERVICE: f32 = 4.5;
/// A name one letter away from a well-known one.
pub(crate) const NAME_LOOKALIKE: f32 = 3.0;
/// Spaces or unprintable characters that make a name look like another.
pub(crate) const NAME_PADDED: f32 = 3.0;
/// The arguments were overwritten with the name of another program.
pub(crate) const NAME_ARGS: f32 = 2.0;
/// It runs from a folder anyone may write to: also tests, installers and this project's own exams.
pub(crate) const PLACE_SHARED: f32 = 1.5;
/// It runs from a hidden folder.
pub(crate) const PLACE_HIDDEN: f32 = 1.5;

/// It runs from a memfd: a few sandboxes and container runtimes do so for a moment, hardly anything that computes.
pub(crate) const FILELESS_MEMFD: f32 = 5.0;
/// Its file was deleted before it was executed.
pub(crate) const FILELESS_DELETED_EXEC: f32 = 5.0;
/// Its own tree deleted its file while it ran.
pub(crate) const FILELESS_DELETED_SELF: f32 = 4.0;
/// Its file is gone, as it is after an upgrade.
pub(crate) const FILELESS_DELETED_LATER: f32 = 0.5;
/// A web server, a database or the like started it.
pub(crate) const ODD_PARENT: f32 = 4.0;

/// An act that hardly ever comes but in a mining campaign (kills named competitors).
pub(crate) const CAMPAIGN_STRONG: f32 = 4.0;
/// An act usual in intrusions and known from administration.
pub(crate) const CAMPAIGN_USUAL: f32 = 2.0;
/// Someone traced, wrote into or signalled another's process that is not its own work: debuggers do too.
pub(crate) const INJECTION: f32 = 1.5;
/// Someone reached for Davy itself.
pub(crate) const TAMPERING: f32 = 4.0;
/// It is hidden from those who look into /proc, by a mount over its entry or by a changed kernel: nothing honest does that.
pub(crate) const HIDDEN: f32 = 7.0;
/// A library from a shared or hidden place is loaded before all others.
pub(crate) const PRELOADED: f32 = 2.0;
/// Something arranged to run again.
pub(crate) const PERSISTENCE: f32 = 1.5;
/// Preparation of the machine for RandomX.
pub(crate) const PREPARATION: f32 = 2.5;

/// A pool's URL with a mining scheme in the arguments.
pub(crate) const WORDS_SCHEME: f32 = 8.0;
/// An option only miners have, or the name of a mining algorithm as an option's value.
pub(crate) const WORDS_OPTION: f32 = 5.0;
/// A wallet's address as an argument of its own.
pub(crate) const WORDS_WALLET: f32 = 4.0;
/// The name of a known miner.
pub(crate) const WORDS_NAME: f32 = 5.0;

/// The computation that must be there before traffic of a pool's shape may speak for mining.
pub(crate) const ENOUGH_COMPUTATION: f32 = COMPUTE_UNSTEADY;

/// Code that nobody vouches for was refused: a stranger's program, and an administrator's that was not yet allowed.
pub(crate) const TRUST_REFUSED: f32 = 1.0;
/// Code that the administrator put on the block-list.
pub(crate) const TRUST_BLOCKED: f32 = 6.0;

/// A service started a shell, a downloader, a network tool or a tool to stay that its profile does not have: what an intruder
/// does first, and what a site does that was not learned yet.
pub(crate) const SERVICE_TOOL: f32 = 4.5;
/// It started a compiler or an interpreter: intruders do, and more honest sites do than start shells.
pub(crate) const SERVICE_MAKER: f32 = 3.0;
/// It runs a file in which a scan found what is known to be bad; the rules are written for miners and their tools.
pub(crate) const SCAN_RUNS: f32 = 8.0;
/// It wrote such a file: also archivers, mail servers and whoever collects samples.
pub(crate) const SCAN_WROTE: f32 = 1.0;
