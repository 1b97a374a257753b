//! Now, by two clocks.

use std::time::Duration;

use davy_model::Timestamp;

use crate::clock;

/// A moment by two clocks: people's, which may be set, and one that only goes on, as that of the kernel's own times does.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    pub(super) wall: Timestamp,
    pub(super) steady: Duration,
}

impl Moment {
    pub(super) fn now() -> Self {
        let steady = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        Self { wall: clock::now(), steady: Duration::try_from(steady).unwrap_or_default() }
    }

    /// How many seconds have gone by since.
    pub(super) fn secs_since(self, earlier: Duration) -> f64 {
        self.steady.saturating_sub(earlier).as_secs_f64()
    }
}
