use std::time::{Duration, Instant};

/// The shortest pause worth making.
const SHORTEST: Duration = Duration::from_millis(5);

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

    /// Called between two things: pauses for as long as the work since the last call asks for.
    pub(crate) fn keep(&mut self) {
        let worked = self.since.elapsed();
        self.owed += worked * (100 - self.percent) / self.percent;
        if self.owed >= SHORTEST {
            std::thread::sleep(self.owed);
            self.owed = Duration::ZERO;
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
        pace.keep();
        assert!(begin.elapsed() >= Duration::from_millis(79), "{:?}", begin.elapsed());
    }

    #[test]
    fn all_of_it_never_rests() {
        let mut pace = Pace::new(100);
        std::thread::sleep(Duration::from_millis(20));
        let begin = Instant::now();
        pace.keep();
        assert!(begin.elapsed() < Duration::from_millis(5));
    }
}
