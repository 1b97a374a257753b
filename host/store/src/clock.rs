use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use davy_model::Timestamp;

/// The two clocks the store goes by; given from outside so that days can pass in a test.
#[derive(Clone)]
pub struct Clock {
    wall: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    steady: Arc<dyn Fn() -> Duration + Send + Sync>,
}

impl Clock {
    /// The machine's own clocks.
    #[must_use]
    pub fn system() -> Self {
        let start = Instant::now();
        Self {
            wall: Arc::new(|| {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                Timestamp(i64::try_from(now.as_micros()).unwrap_or(i64::MAX))
            }),
            steady: Arc::new(move || start.elapsed()),
        }
    }

    /// Clocks that read what the functions give: the wall clock, and the time since some fixed moment that
    /// never jumps.
    pub fn new(
        wall: impl Fn() -> Timestamp + Send + Sync + 'static,
        steady: impl Fn() -> Duration + Send + Sync + 'static,
    ) -> Self {
        Self { wall: Arc::new(wall), steady: Arc::new(steady) }
    }

    pub(crate) fn now(&self) -> Timestamp {
        (self.wall)()
    }

    pub(crate) fn steady(&self) -> Duration {
        (self.steady)()
    }
}

/// Tells whether the wall clock can be believed: by age nothing is deleted until it has run without a jump for
/// an hour, since one wrong date at boot would otherwise wipe the whole store.
#[derive(Debug, Default)]
pub(crate) struct Steadiness {
    last: Option<(Timestamp, Duration)>,
    since: Duration,
}

const SETTLE: Duration = Duration::from_secs(3600);
const TOLERANCE_SECS: f64 = 60.0;

impl Steadiness {
    /// Takes one more look at both clocks.
    pub(crate) fn observe(&mut self, wall: Timestamp, steady: Duration) -> bool {
        let jumped = self.last.is_none_or(|(last_wall, last_steady)| {
            let passed = steady.saturating_sub(last_steady).as_secs_f64();
            (wall.secs_since(last_wall) - passed).abs() > TOLERANCE_SECS
        });
        if jumped {
            self.since = steady;
        }
        self.last = Some((wall, steady));
        steady.saturating_sub(self.since) >= SETTLE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jump_begins_the_hour_anew() {
        let mut steadiness = Steadiness::default();
        let at = |wall: i64, secs: u64| (Timestamp::from_secs(wall), Duration::from_secs(secs));
        for (wall, secs, believed) in [
            (1_000_000, 0, false),
            (1_003_599, 3_599, false),
            (1_003_601, 3_601, true),
            (9_000_000, 3_700, false),
            (9_003_700, 7_400, true),
            (9_003_000, 7_500, false),
        ] {
            let (wall, steady) = at(wall, secs);
            assert_eq!(steadiness.observe(wall, steady), believed, "{wall:?} {steady:?}");
        }
    }
}
