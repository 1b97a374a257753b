use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The shortest pause worth making.
const SHORTEST: Duration = Duration::from_millis(5);

/// How long it sleeps at once, so that it ends soon when it is told to.
const NAP: Duration = Duration::from_millis(100);

/// Keeps a sweep within a share of one processor.
#[derive(Debug)]
pub(crate) struct Pace {
    percent: u32,
    since: Instant,
    owed: Duration,
}

impl Pace {
    /// At most `percent` of one processor, 1 to 100.
    pub(crate) fn new(percent: u32) -> Self {
        Self { percent: percent.clamp(1, 100), since: Instant::now(), owed: Duration::ZERO }
    }

    /// Called between two things: pauses for as long as the work since the last call asks for, or until it is to stop.
    pub(crate) fn keep(&mut self, stop: &AtomicBool) {
        let worked = self.since.elapsed();
        self.owed += worked * (100 - self.percent) / self.percent;
        if self.owed >= SHORTEST {
            let until = Instant::now() + std::mem::take(&mut self.owed);
            while !stop.load(Ordering::Relaxed) {
                let left = until.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    break;
                }
                std::thread::sleep(left.min(NAP));
            }
        }
        self.since = Instant::now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarter_of_a_processor_rests_three_times_as_long_as_it_works() {
        let mut pace = Pace::new(25);
        let begin = Instant::now();
        std::thread::sleep(Duration::from_millis(20));
        pace.keep(&AtomicBool::new(false));
        assert!(begin.elapsed() >= Duration::from_millis(79), "{:?}", begin.elapsed());
    }

    #[test]
    fn a_pause_ends_when_it_is_told_to_stop() {
        let mut pace = Pace::new(1);
        pace.owed = Duration::from_secs(3600);
        pace.keep(&AtomicBool::new(true));
        assert_eq!(pace.owed, Duration::ZERO);
    }

    #[test]
    fn all_of_it_never_rests() {
        let mut pace = Pace::new(100);
        std::thread::sleep(Duration::from_millis(20));
        let begin = Instant::now();
        pace.keep(&AtomicBool::new(false));
        assert!(begin.elapsed() < Duration::from_millis(5));
    }
}
