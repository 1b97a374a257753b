use serde::{Deserialize, Serialize};

use crate::{ProcessKey, Timestamp};

/// One look at one thread: counters since its start, and the state it was last switched out with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThreadSample {
    /// The process.
    pub process: ProcessKey,
    /// The thread.
    pub tid: u32,
    /// CPU time used since its start, in nanoseconds.
    pub cpu_ns: u64,
    /// Switches it asked for (it slept or waited).
    pub voluntary_switches: u64,
    /// Switches forced on it.
    pub involuntary_switches: u64,
    /// The saved SSE control and status register (Intel SDM vol. 1, 10.2.3); `None` where it cannot be read.
    /// It is the state at the thread's last switch, so it is a new observation only when a switch counter moved.
    pub mxcsr: Option<u32>,
    /// Scheduling policy number (sched(7)).
    pub policy: u32,
    /// Nice value.
    pub nice: i32,
    /// How many CPUs it may run on; zero where unknown.
    pub allowed_cpus: u32,
}

/// All threads seen in one sweep.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SampleBatch {
    /// When the sweep was made.
    pub time: Timestamp,
    /// How many CPUs the host has online.
    pub cpus: u32,
    /// How many people are logged in (utmp sessions), for miners that wait until nobody is.
    pub sessions: u32,
    /// The threads. Threads that used no CPU since the last sweep may be left out.
    pub threads: Vec<ThreadSample>,
}
