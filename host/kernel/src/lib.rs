//! Davy's programs in the kernel, and the one room that loads them.
//!
//! [`probe`] tries what this kernel allows, by loading and by a harmless act of its own. [`Sensors`] turns the
//! programs' records into events, sweeps over threads, and detaches everything when it is dropped.

mod abi;
mod aggregates;
mod block;
mod cgroups;
mod clock;
mod decode;
mod error;
mod guard;
mod held;
mod nameless;
mod network;
mod objects;
mod outbound;
mod pin;
mod port_watch;
mod probe;
mod program_loads;
mod reader;
mod sample;
mod sensors;
mod sys;
mod syscalls;
mod trust;

pub use block::{Block, BlockScope, Blocker, Isolated, Kept};
pub use cgroups::{cgroup_id, cgroup2_mount};
pub use clock::boot_now;
pub use error::{Error, Result};
pub use guard::{Refused, RefusedAct, SelfGuard};
pub use held::Held;
pub use nameless::{Ended, Nameless, NamelessMode};
pub use outbound::{Answered, Attempted, OutboundGate};
pub use port_watch::{PortWatch, PortWatchLosses, PortWatchStarter};
pub use probe::{ProbeContext, probe};
pub use sensors::{CaptureSink, SensorConfig, Sensors, Sink};
pub use trust::{JudgedCounts, Rights, Saying, TrustConfig, TrustGate, TrustModes, TrustScope, Verdict};
