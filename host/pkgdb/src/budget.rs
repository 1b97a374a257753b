//! How much of the machine learning may take.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// How much processor time is spent before the clock is looked at for a pause.
const WINDOW: Duration = Duration::from_millis(20);

/// How much of the machine learning may take.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Budget {
    threads: usize,
    share: f64,
}

impl Budget {
    /// `threads` at most, and together no more than `share` of one core: 0.25 is a quarter of a core, 2.0 is two whole
    /// ones. Both are kept above nothing: at least one thread, at least a hundredth of a core.
    pub fn new(threads: usize, share: f64) -> Self {
        let share = if share.is_nan() { 1.0 } else { share };
        Self { threads: threads.clamp(1, 64), share: share.max(0.01) }
    }

    /// `threads` threads without a pause.
    pub fn unpaced(threads: usize) -> Self {
        Self::new(threads, f64::INFINITY)
    }

    pub(crate) fn threads(&self) -> usize {
        self.threads
    }

    pub(crate) fn pace(&self) -> Pace {
        Pace { share: self.share / self.threads as f64, began: Instant::now(), spent: processor_time() }
    }
}

/// Keeps one thread within its share of a core. Waiting for the disk counts as rest.
pub(crate) struct Pace {
    share: f64,
    began: Instant,
    spent: Duration,
}

impl Pace {
    /// Sleeps when the thread is ahead of its share. To be called between pieces of work of under a millisecond.
    pub(crate) fn rest(&mut self) {
        if self.share >= 1.0 {
            return;
        }
        let spent = processor_time();
        let used = spent.saturating_sub(self.spent);
        if used < WINDOW {
            return;
        }
        let due = used.div_f64(self.share);
        if let Some(ahead) = due.checked_sub(self.began.elapsed()) {
            std::thread::sleep(ahead);
        }
        self.began = Instant::now();
        self.spent = spent;
    }
}

fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_stays_within_its_share() {
        let mut pace = Budget::new(2, 0.5).pace();
        let (began, spent) = (Instant::now(), processor_time());
        while began.elapsed() < Duration::from_millis(600) {
            std::hint::black_box((0..1000).fold(0_u64, |a, b| a.wrapping_mul(31) ^ b));
            pace.rest();
        }
        let share = (processor_time() - spent).as_secs_f64() / began.elapsed().as_secs_f64();
        assert!((0.05..0.32).contains(&share), "a quarter was allowed, {share:.2} was used");
    }

    #[test]
    fn nonsense_is_put_right() {
        assert_eq!(Budget::new(0, f64::NAN), Budget::new(1, 1.0));
        assert_eq!(Budget::new(1, -3.0), Budget::new(1, 0.01));
    }
}
