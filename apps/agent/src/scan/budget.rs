//! How much of a processor scans may take: credit grows with time up to a bound, and is spent by work.

use std::time::{Duration, Instant};

/// The most credit, in seconds of work: what runs first after a quiet time is looked at at once.
const MOST: f64 = 3.0;

/// What may be spent.
#[derive(Debug)]
pub(super) struct Budget {
    share: f64,
    credit: f64,
    since: Instant,
}

impl Budget {
    /// `percent` of one processor, 1 to 100.
    pub(super) fn new(percent: u32, now: Instant) -> Self {
        Self { share: f64::from(percent.clamp(1, 100)) / 100.0, credit: MOST, since: now }
    }

    /// Sets another share.
    pub(super) fn set(&mut self, percent: u32, now: Instant) {
        self.grow(now);
        self.share = f64::from(percent.clamp(1, 100)) / 100.0;
    }

    /// Whether work may begin. A piece of work that takes longer than there is credit for is paid for afterwards.
    pub(super) fn allows(&mut self, now: Instant) -> bool {
        self.grow(now);
        self.share >= 1.0 || self.credit > 0.0
    }

    /// Takes down work that was done until now.
    pub(super) fn spend(&mut self, work: Duration, now: Instant) {
        self.grow(now);
        self.credit -= work.as_secs_f64();
    }

    fn grow(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.since).as_secs_f64();
        self.since = now;
        self.credit = (self.credit + passed * self.share).min(MOST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_the_long_run_it_is_the_share_and_not_more() {
        let mut now = Instant::now();
        let begin = now;
        let (mut budget, mut worked) = (Budget::new(10, now), 0.0);
        while now.duration_since(begin) < Duration::from_secs(1000) {
            if budget.allows(now) {
                now += Duration::from_millis(500);
                budget.spend(Duration::from_millis(500), now);
                worked += 0.5;
            } else {
                now += Duration::from_millis(100);
            }
        }
        assert!((100.0..=104.0).contains(&worked), "{worked} s of work in 1000 s");
    }

    #[test]
    fn after_a_quiet_time_work_begins_at_once() {
        let now = Instant::now();
        let mut budget = Budget::new(1, now);
        budget.spend(Duration::from_secs(60), now);
        assert!(!budget.allows(now));
        assert!(!budget.allows(now + Duration::from_secs(3600)), "an hour earns 36 s");
        assert!(budget.allows(now + Duration::from_secs(6000)));
        budget.set(100, now);
        assert!(budget.allows(now), "all of it never waits");
    }
}
