/// Thresholds and bounds of a detector. [`Settings::default`] is what Davy ships.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Probability from which a process tree is said to mine, 0 to 1.
    pub mining_threshold: f64,
    /// Probability from which a disguised, computing tree is said to be suspected of mining, 0 to 1.
    pub suspicion_threshold: f64,
    /// Living processes kept. When full, further ones are refused and counted.
    pub max_processes: usize,
    /// Ended processes kept beyond those that are ancestors of living ones. When full, the oldest goes.
    pub max_ended: usize,
    /// Flows kept, open or ended. When full, the oldest ended one goes, else the oldest.
    pub max_flows: usize,
    /// Threads whose counters are kept. When full, further ones are refused and counted.
    pub max_threads: usize,
    /// Process trees for which evidence is kept. When full, the one with the least evidence goes.
    pub max_cases: usize,
    /// Resolved addresses kept. When full, the oldest goes.
    pub max_names: usize,
    /// Written files remembered with who wrote them. When full, the oldest goes.
    pub max_written: usize,
    /// Incidents kept. When full, the oldest that does not run goes, else the oldest.
    pub max_incidents: usize,
    /// For how long after the last act an ended incident is kept to be joined by later findings, in seconds.
    pub incident_memory_secs: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            mining_threshold: 0.95,
            suspicion_threshold: 0.80,
            max_processes: 16_384,
            max_ended: 4_096,
            max_flows: 8_192,
            max_threads: 16_384,
            max_cases: 2_048,
            max_names: 8_192,
            max_written: 8_192,
            max_incidents: 256,
            incident_memory_secs: 6.0 * 3600.0,
        }
    }
}
