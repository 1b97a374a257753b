/// Bounds of the store. What is oldest goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes on disk of everything in the folder. Below 64 MiB the logs of single transactions, about 6 MiB, can
    /// exceed it for a while.
    pub max_bytes: u64,
    /// Days after which events, findings, incidents and ended actions go.
    pub max_age_days: u32,
    /// Events that may wait to be written; more are dropped and counted.
    pub queue_events: usize,
    /// Rows of the map of who talks to whom; those last seen longest ago go.
    pub max_connections: u32,
    /// Bytes of the disk that are left to others: below this much free space only the journal is written.
    pub low_water: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_bytes: 512 << 20,
            max_age_days: 30,
            queue_events: 65_536,
            max_connections: 8_192,
            low_water: 32 << 20,
        }
    }
}

impl Limits {
    /// The part of the bound for the files themselves; the rest is for their logs.
    pub(crate) fn settled_bytes(&self) -> u64 {
        self.max_bytes - (self.max_bytes / 4).min(16 << 20)
    }
}
