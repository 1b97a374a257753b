//! Steady computation by how threads use their CPUs.
//!
//! A miner's threads compute without end: hardly a wait of their own, the same share of a CPU in every interval. A compiler or a
//! server waits and varies. Encoders, benchmarks and brute-force tools look the same as miners, so this never suffices alone.

use std::collections::VecDeque;
use std::fmt;

use davy_model::ThreadSample;

use crate::weights::{
    COMPUTE_ALL_CPUS, COMPUTE_BOUND, COMPUTE_NICE, COMPUTE_STEADY, COMPUTE_THROTTLED, COMPUTE_UNSEEN,
    COMPUTE_UNSTEADY,
};

/// Intervals kept a thread, each at least [`MIN_INTERVAL`] long.
const MAX_INTERVALS: usize = 40;
/// Shorter intervals are joined to the next, so that bursts of samples do not shorten the memory.
const MIN_INTERVAL: f64 = 0.8;
/// The shortest stretch that anything is said about, in seconds.
const MIN_SPAN: f64 = 4.5;
/// Below this share of a CPU a thread does not compute.
const MIN_SHARE: f64 = 0.10;
/// From this share on a thread has its CPU nearly to itself.
const FULL_SHARE: f64 = 0.70;
/// Waits a CPU-second up to which a thread may be one that is held down by short sleeps.
const MAX_PACED_WAITS: f64 = 1_000.0;
/// SCHED_IDLE (sched(7)).
const IDLE_POLICY: u32 = 5;

#[derive(Clone, Copy, Debug)]
struct Interval {
    secs: f64,
    share: f64,
    waits: u64,
    seen: bool,
}

/// The use of CPU by one thread over the last half minute or so.
#[derive(Clone, Debug, Default)]
pub(crate) struct ComputeTrack {
    intervals: VecDeque<Interval>,
    /// Seconds computed in all, and those of them while somebody was logged in.
    computed: f64,
    watched: f64,
    nice: bool,
    bound: bool,
}

/// How a thread computes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct ThreadShape {
    /// Mean share of a CPU over the stretch.
    pub(crate) share: f64,
    /// Standard deviation of the share divided by its mean.
    pub(crate) variation: f64,
    /// Voluntary switches a second of CPU time.
    pub(crate) waits: f64,
    /// Length of the stretch in seconds.
    pub(crate) secs: f64,
}

impl ComputeTrack {
    /// Takes in a sample `secs` after `before`; `sessions` people are logged in.
    pub(crate) fn observe(&mut self, before: &ThreadSample, sample: &ThreadSample, secs: f64, sessions: u32) {
        if secs <= 0.0 {
            return;
        }
        let share = sample.cpu_ns.saturating_sub(before.cpu_ns) as f64 / 1e9 / secs;
        let waits = sample.voluntary_switches.saturating_sub(before.voluntary_switches);
        self.nice = sample.nice >= 10 || sample.policy == IDLE_POLICY;
        self.bound = sample.allowed_cpus == 1;
        if share >= MIN_SHARE {
            self.computed += secs;
            if sessions > 0 {
                self.watched += secs;
            }
        }
        let interval = Interval { secs, share: share.min(1.5), waits, seen: sessions > 0 };
        match self.intervals.back_mut() {
            Some(last) if last.secs < MIN_INTERVAL => {
                let total = last.secs + secs;
                last.share = (last.share * last.secs + interval.share * secs) / total;
                last.secs = total;
                last.waits += waits;
                last.seen |= interval.seen;
            }
            _ => {
                if self.intervals.len() >= MAX_INTERVALS {
                    self.intervals.pop_front();
                }
                self.intervals.push_back(interval);
            }
        }
    }

    /// Its share of a CPU in the last interval.
    pub(crate) fn share_now(&self) -> f64 {
        self.intervals.back().map_or(0.0, |i| i.share)
    }

    /// The steadiest recent stretch in which it computed: the last five to ten seconds, or the last half minute for a
    /// thread held down in bursts, which is steady only on a longer scale.
    pub(crate) fn shape(&self) -> Option<ThreadShape> {
        [(4.5, 1), (10.0, 1), (40.0, 1), (40.0, 4)]
            .into_iter()
            .filter_map(|(span, group)| self.stretch(span, group))
            .filter(|shape| shape.share >= MIN_SHARE)
            .min_by(|a, b| a.variation.total_cmp(&b.variation))
    }

    /// The last `span` seconds, with `group` intervals taken as one.
    fn stretch(&self, span: f64, group: usize) -> Option<ThreadShape> {
        let mut secs = 0.0;
        let mut cpu = 0.0;
        let mut waits = 0;
        let mut taken = 0;
        for interval in self.intervals.iter().rev() {
            if secs >= span {
                break;
            }
            secs += interval.secs;
            cpu += interval.share * interval.secs;
            waits += interval.waits;
            taken += 1;
        }
        if secs < MIN_SPAN || taken < 4 * group || cpu <= 0.0 {
            return None;
        }
        let share = cpu / secs;
        let recent: Vec<&Interval> = self.intervals.iter().rev().take(taken).collect();
        let groups = recent.chunks_exact(group).map(|chunk| {
            let length: f64 = chunk.iter().map(|i| i.secs).sum();
            chunk.iter().map(|i| i.share * i.secs).sum::<f64>() / length
        });
        let (count, squares) =
            groups.fold((0u32, 0.0), |(n, sum), value| (n + 1, sum + (value - share) * (value - share)));
        let variation = (squares / f64::from(count.max(1))).sqrt() / share;
        Some(ThreadShape { share, variation, waits: waits as f64 / cpu, secs })
    }

    fn unseen(&self) -> bool {
        self.computed >= 600.0 && self.watched < self.computed * 0.01
    }
}

/// The threads of one process tree together.
#[derive(Clone, Debug, Default)]
pub(crate) struct ComputeSum {
    /// Threads that compute steadily.
    pub(crate) steady: u32,
    /// Threads that compute, but not as steadily.
    pub(crate) unsteady: u32,
    /// CPUs used now by all threads.
    pub(crate) cpus_now: f64,
    /// Those of the latter that sleep every few milliseconds.
    paced: u32,
    share: f64,
    waits: f64,
    variation: f64,
    secs: f64,
    nice: bool,
    bound: u32,
    unseen: bool,
    cpus: u32,
    sessions: u32,
}

impl ComputeSum {
    /// A sum for a host with so many CPUs and people logged in.
    pub(crate) fn new(cpus: u32, sessions: u32) -> Self {
        Self { cpus, sessions, ..Self::default() }
    }

    /// Adds a thread.
    pub(crate) fn add(&mut self, track: &ComputeTrack) {
        self.cpus_now += track.share_now();
        let Some(shape) = track.shape() else { return };
        let full = shape.share >= FULL_SHARE;
        // A thread that has its CPU waits hardly ever; one held down by sleeping waits ten times a second or more.
        let waits_allowed = if full { 25.0 } else { 120.0 };
        // One that sleeps every few milliseconds to stay below notice waits more often, but as evenly.
        let paced = !full && shape.waits > waits_allowed && shape.waits <= MAX_PACED_WAITS;
        if shape.variation > if paced { 0.35 } else { 0.6 } || !paced && shape.waits > waits_allowed {
            return;
        }
        self.paced += u32::from(paced);
        if !paced && shape.variation <= 0.25 {
            self.steady += 1
        } else {
            self.unsteady += 1
        }
        self.share += shape.share;
        self.waits += shape.waits;
        self.variation += shape.variation;
        self.secs = self.secs.max(shape.secs);
        self.nice |= track.nice;
        self.bound += u32::from(track.bound);
        self.unseen |= track.unseen() && self.sessions == 0;
    }

    /// Threads that compute.
    pub(crate) fn threads(&self) -> u32 {
        self.steady + self.unsteady
    }

    /// Their mean share of a CPU.
    pub(crate) fn mean_share(&self) -> f64 {
        self.share / f64::from(self.threads().max(1))
    }

    /// Whether they are held down to a steady share.
    pub(crate) fn throttled(&self) -> bool {
        self.steady + self.paced > 0
            && self.mean_share() < 0.5
            && self.variation / f64::from(self.threads()) < 0.25
            && self.secs >= 8.0
    }

    /// The weight of the shape; zero when nothing computes.
    pub(crate) fn bits(&self) -> f32 {
        if self.threads() == 0 {
            return 0.0;
        }
        let mut bits = if self.steady > 0 { COMPUTE_STEADY } else { COMPUTE_UNSTEADY };
        if self.cpus > 1 && self.threads() >= self.cpus && self.threads() <= self.cpus + 1 {
            bits += COMPUTE_ALL_CPUS;
        }
        if self.cpus > 1 && self.bound >= 2 && self.bound == self.threads() {
            bits += COMPUTE_BOUND;
        }
        if self.nice {
            bits += COMPUTE_NICE;
        }
        if self.throttled() {
            bits += COMPUTE_THROTTLED;
        }
        if self.unseen {
            bits += COMPUTE_UNSEEN;
        }
        bits
    }

    /// Voluntary switches a CPU-second, the mean of the threads.
    pub(crate) fn mean_waits(&self) -> f64 {
        self.waits / f64::from(self.threads().max(1))
    }

    /// The longest stretch looked at, in seconds.
    pub(crate) fn secs(&self) -> f64 {
        self.secs
    }
}

impl fmt::Display for ComputeSum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let threads =
            if self.threads() == 1 { "1 thread".to_owned() } else { format!("{} threads", self.threads()) };
        write!(
            f,
            "{threads} at {:.0} % of a CPU each for {:.0} s, {:.1} waits a CPU-second",
            self.mean_share() * 100.0,
            self.secs,
            self.mean_waits()
        )?;
        if self.throttled() {
            f.write_str(", held down steadily")?;
        }
        if self.nice {
            f.write_str(", at idle priority")?;
        }
        if self.bound >= 2 && self.bound == self.threads() {
            f.write_str(", each bound to one CPU")?;
        }
        if self.unseen {
            f.write_str(", only while nobody is logged in")?;
        }
        Ok(())
    }
}
