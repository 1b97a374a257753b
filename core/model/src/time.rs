use serde::{Deserialize, Serialize};

/// A moment of wall-clock time in microseconds since 1970-01-01T00:00:00Z.
///
/// Sensors stamp events with the kernel's boot-time clock; the host room converts them with one offset that it
/// renews, so that a jump of the wall clock moves later stamps but never their order within a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// A timestamp of `seconds` since the epoch.
    #[must_use]
    pub const fn from_secs(seconds: i64) -> Self {
        Self(seconds * 1_000_000)
    }

    /// Seconds from `earlier` to `self`; negative when `self` is the earlier one.
    #[must_use]
    pub fn secs_since(self, earlier: Self) -> f64 {
        (self.0 - earlier.0) as f64 / 1e6
    }

    /// This moment, `seconds` later (or earlier, when negative).
    #[must_use]
    pub fn plus_secs(self, seconds: f64) -> Self {
        Self(self.0.saturating_add((seconds * 1e6) as i64))
    }
}
