/// Bounds of the store. What is oldest goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes on disk of everything in the folder.
    pub max_bytes: u64,
    /// Days after which events, findings, incidents and ended actions go.
    pub max_age_days: u32,
    /// Events that may wait to be written; more are dropped and counted.
    pub queue_events: usize,
    /// Bytes of the disk that are left to others: below this much free space only the journal is written.
    pub low_water: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_bytes: 512 << 20, max_age_days: 30, queue_events: 65_536, low_water: 32 << 20 }
    }
}
