/// What the rate is taken for before anything is learned, as if so many visits had been counted.
const BEFORE: (f64, f64) = (45.0, 5.0);

/// Visits beyond which the older ones count half, so that the rate follows a host that changes.
const MEMORY: f64 = 2000.0;

/// The rate is never taken to be less or more: whoever makes visits fail on purpose, or succeed, moves it no further.
const LEAST: f64 = 0.8;
const MOST: f64 = 0.99;

/// How often a first visit to a port of this host succeeds, learned from sources that have completed a handshake here; from all
/// sources it could not be learned, since most of those that fail on a host on the internet are scanners.
#[derive(Clone, Debug)]
pub(super) struct BaseRate {
    successes: f64,
    failures: f64,
}

impl Default for BaseRate {
    fn default() -> Self {
        Self { successes: BEFORE.0, failures: BEFORE.1 }
    }
}

impl BaseRate {
    /// Counts a first visit.
    pub(super) fn learn(&mut self, success: bool) {
        if success {
            self.successes += 1.0;
        } else {
            self.failures += 1.0;
        }
        if self.successes + self.failures > MEMORY {
            self.successes /= 2.0;
            self.failures /= 2.0;
        }
    }

    /// Between 0.8 and 0.99.
    pub(super) fn rate(&self) -> f64 {
        (self.successes / (self.successes + self.failures)).clamp(LEAST, MOST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_what_it_learns_within_its_bounds() {
        let mut rate = BaseRate::default();
        assert!((rate.rate() - 0.9).abs() < 1e-9);
        for n in 0..10_000 {
            rate.learn(n % 50 != 0);
        }
        assert!((rate.rate() - 0.98).abs() < 0.01, "{}", rate.rate());
        for _ in 0..100_000 {
            rate.learn(false);
        }
        assert!((rate.rate() - LEAST).abs() < 1e-9);
        for _ in 0..100_000 {
            rate.learn(true);
        }
        assert!((rate.rate() - MOST).abs() < 1e-9);
    }
}
