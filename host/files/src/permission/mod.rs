//! Asking before code runs: fanotify(7) permission events, answered by a judge of the caller's, and never a lock-out.
//!
//! Whoever reads permission events holds up every exec of the marked mounts until it answers, so the reader is a
//! process of its own, the keeper, that does little else. It is small, locked in memory, opens nothing, writes nothing
//! to disk, logs nothing, and waits for nobody:
//!
//! - The agent judges. Whatever happens to it (stopped, traced, swapped out, waiting for a full disk or for a log that
//!   nobody drains), the keeper answers when a decision's deadline passes, and lets everything through at once when the
//!   agent does not even say that it lives.
//! - When the agent ends, the keeper's sockets end: it lets through what waits, and goes, and its group with it.
//! - When the keeper itself is stopped, traced or frozen, a timer of the kernel's that it must keep pushing forward kills
//!   it; the group goes with it and the kernel lets everything through. SIGKILL ends what is stopped, traced or frozen.
//!
//! Large files are read by threads of their own, in the order in which they were asked for, and each only until three
//! quarters of its time are over. Whoever asks for them neither holds up the others nor outlasts his own deadline.
//!
//! No verdict is kept by ignore marks, times or sizes, which are all unsound. One is kept while the keeper holds a read
//! lease (fcntl(2)) on the file: none is granted while anybody has the file open for writing, also through a mapping,
//! and whoever opens it for writing or truncates it waits until the keeper has given the lease, and the verdict, back.

mod ask;
mod code_mounts;
mod config;
mod gate;
mod judge;
mod keeper;
mod kernel;
mod lease;
mod message;
mod opener;
mod proof;

pub use ask::{Answer, Ask, AskKind, LONGEST, Steadiness};
pub use code_mounts::{CodeMount, code_mounts};
pub use config::{Deadlines, GateConfig, GateCounts, GateError, Marked, ScriptOf};
pub use gate::PermissionGate;
pub use keeper::keep;
pub use proof::{detached_mount, prove};
