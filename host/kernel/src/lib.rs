//! Davy's programs in the kernel, and the one room that loads them.
//!
//! [`probe`] tries what this kernel allows, by loading and by a harmless act of its own. [`Sensors`] turns the
//! programs' records into events, sweeps over threads, and detaches everything when it is dropped.

mod abi;
mod cgroups;
mod clock;
mod decode;
mod error;
mod objects;
mod probe;
mod sample;
mod sensors;
mod sys;

pub use cgroups::{cgroup_id, cgroup2_mount};
pub use clock::boot_now;
pub use error::{Error, Result};
pub use probe::{ProbeContext, probe};
pub use sensors::{SensorConfig, Sensors, Sink};
