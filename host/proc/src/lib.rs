//! What can be known of a host without BPF: its processes, their CPU time and memory, its sockets and GPUs, read
//! from /proc, sock_diag(7) and a few files under /etc and /run.
//!
//! It is the whole sensor of the poll tier, and the backfill at start in every other tier. Everything read here was
//! written by processes that may be hostile: parsers are bounded and never panic, and what cannot be read (without
//! root, other users' executables, maps and descriptors) is left empty and never fails the rest.

mod addresses;
mod cgroup;
mod cpus;
mod environ;
pub mod gpu;
mod heap;
mod hidden;
mod host;
mod image;
mod memory;
mod poller;
mod process;
mod procfs;
mod sampler;
mod sessions;
pub mod sockets;
mod stat;
mod status;
mod terminal;
mod users;

use davy_model::{MemoryShape, ProcessInfo, ProcessKey};

pub use addresses::addresses;
pub use heap::keep_one_heap;
pub use hidden::{Concealed, Hiding, Sweep};
pub use host::{Hardware, HostFacts, MemoryInfo};
pub use poller::{PollOptions, Poller};
pub use procfs::{MAX_PROCESSES, ProcFs};
pub use sampler::Sampler;
pub use sessions::sessions;
pub use stat::{Stat, parse_stat};
pub use status::{Status, parse_status};
pub use users::Users;

/// The first 32 bits of this boot's id, as [`ProcessKey::boot`] wants them; zero where it cannot be read.
#[must_use]
pub fn boot() -> u32 {
    ProcFs::host().boot()
}

/// Every process running now, at most [`MAX_PROCESSES`], in the order of /proc.
#[must_use]
pub fn list() -> Vec<ProcessInfo> {
    ProcFs::host().list()
}

/// One process, when it is there and its start can be read.
#[must_use]
pub fn read(pid: u32) -> Option<ProcessInfo> {
    ProcFs::host().read(pid)
}

/// The key of the process that holds this pid now.
#[must_use]
pub fn key(pid: u32) -> Option<ProcessKey> {
    ProcFs::host().key(pid)
}

/// The cgroup v2 path of the process that holds this pid now; `None` where there is none.
#[must_use]
pub fn cgroup(pid: u32) -> Option<String> {
    ProcFs::host().cgroup(pid)
}

/// The shape of a process's memory; `None` when it is gone or its pid was reused. Without the right to look into it
/// (ptrace(2), PTRACE_MODE_READ) only what its status says is filled in: resident bytes and huge pages.
#[must_use]
pub fn memory_shape(process: &ProcessKey) -> Option<MemoryShape> {
    ProcFs::host().memory_shape(process)
}

/// How many huge pages of every size are reserved on the host (`nr_hugepages`).
#[must_use]
pub fn hugepages() -> u64 {
    Hardware::host().hugepages()
}

/// The host's memory.
#[must_use]
pub fn meminfo() -> MemoryInfo {
    ProcFs::host().meminfo()
}

/// Processes that somebody took pains to hide from /proc's listing, over the whole range of pids. It makes one system
/// call a pid; for a running agent, [`Sweep`] does the same in slices.
#[must_use]
pub fn hidden() -> Vec<Hiding> {
    Sweep::new(ProcFs::host()).whole()
}

/// The wall clock, in the model's unit.
pub(crate) fn now() -> davy_model::Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    davy_model::Timestamp(since.map_or(0, |d| i64::try_from(d.as_micros()).unwrap_or(i64::MAX)))
}
