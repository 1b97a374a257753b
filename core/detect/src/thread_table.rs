//! The counters of every thread at the last sweep, and what its samples told.

use std::collections::HashMap;

use davy_model::{ProcessKey, SampleBatch, ThreadSample, Timestamp};

use crate::compute_shape::ComputeTrack;
use crate::rounding_mode::RoundingTrack;

/// Threads not seen for this long are forgotten: they ended, or used no CPU.
const FORGET_SECS: f64 = 90.0;
/// A thread held down in bursts may miss sweeps for so long and still compute.
const LATELY_SECS: f64 = 6.0;

#[derive(Clone, Debug)]
pub(crate) struct Thread {
    last: ThreadSample,
    time: Timestamp,
    pub(crate) rounding: RoundingTrack,
    pub(crate) compute: Option<Box<ComputeTrack>>,
}

/// The bounded table of threads.
#[derive(Debug)]
pub(crate) struct ThreadTable {
    entries: HashMap<(ProcessKey, u32), Thread>,
    limit: usize,
    refused: u64,
    swept: Timestamp,
    time: Timestamp,
    pub(crate) cpus: u32,
    pub(crate) sessions: u32,
}

impl ThreadTable {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            entries: HashMap::new(),
            limit,
            refused: 0,
            swept: Timestamp::default(),
            time: Timestamp::default(),
            cpus: 0,
            sessions: 0,
        }
    }

    /// Takes in a sweep.
    pub(crate) fn sample(&mut self, batch: &SampleBatch) {
        self.cpus = batch.cpus;
        self.sessions = batch.sessions;
        self.time = batch.time;
        for sample in &batch.threads {
            self.thread(sample, batch.time);
        }
        if batch.time.secs_since(self.swept).abs() >= FORGET_SECS / 3.0 {
            self.swept = batch.time;
            self.entries.retain(|_, thread| batch.time.secs_since(thread.time).abs() < FORGET_SECS);
        }
    }

    fn thread(&mut self, sample: &ThreadSample, time: Timestamp) {
        let key = (sample.process, sample.tid);
        if let Some(thread) = self.entries.get_mut(&key) {
            let secs = time.secs_since(thread.time);
            if secs <= 0.0 || sample.cpu_ns < thread.last.cpu_ns {
                // The clock jumped, or the thread id came anew: only a new beginning is sure.
                thread.last = *sample;
                thread.time = time;
                return;
            }
            thread.rounding.observe(&thread.last, sample);
            let busy = (sample.cpu_ns - thread.last.cpu_ns) as f64 / 1e9 / secs >= 0.02;
            if busy || thread.compute.is_some() {
                thread.compute.get_or_insert_default().observe(&thread.last, sample, secs, self.sessions);
            }
            thread.last = *sample;
            thread.time = time;
        } else if self.entries.len() < self.limit {
            let thread = Thread { last: *sample, time, rounding: RoundingTrack::default(), compute: None };
            self.entries.insert(key, thread);
        } else {
            self.refused += 1;
        }
    }

    /// The threads seen in the last sweeps before `now`, with what was seen of them. One that is missing used no CPU since.
    pub(crate) fn lately(&self, now: Timestamp) -> impl Iterator<Item = (&ProcessKey, &Thread)> {
        self.entries
            .iter()
            .filter(move |(_, thread)| now.secs_since(thread.time) < LATELY_SECS)
            .map(|((process, _), thread)| (process, thread))
    }

    /// Forgets the threads of a process that ended.
    pub(crate) fn ended(&mut self, process: &ProcessKey) {
        // Most processes have one thread, whose id is the pid; the sweep forgets the others.
        self.entries.remove(&(*process, process.pid));
    }

    /// When the last sweep was made.
    pub(crate) fn time(&self) -> Timestamp {
        self.time
    }

    /// Threads kept.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Threads not taken in because the table was full.
    pub(crate) fn refused(&self) -> u64 {
        self.refused
    }
}
