use std::time::{Duration, Instant};

use davy_model::Timestamp;
use rustix::time::{ClockId, Timespec, clock_gettime};

/// How long one offset between the clocks serves.
const RENEW: Duration = Duration::from_secs(1);

/// Turns the kernel's boot-time clock into wall-clock time by an offset that is renewed, so that a jump of the
/// wall clock is followed within a second.
pub(crate) struct BootClock {
    offset_ns: i64,
    renewed: Instant,
}

impl BootClock {
    pub(crate) fn new() -> Self {
        Self { offset_ns: offset(), renewed: Instant::now() }
    }

    /// Takes the offset again when it is old. Called between batches, so that a batch has one offset and keeps
    /// its order.
    pub(crate) fn renew(&mut self) {
        if self.renewed.elapsed() >= RENEW {
            *self = Self::new();
        }
    }

    /// The wall-clock time of a boot-time stamp.
    pub(crate) fn at(&self, boot_ns: u64) -> Timestamp {
        let boot_ns = i64::try_from(boot_ns).unwrap_or(i64::MAX);
        Timestamp(boot_ns.saturating_add(self.offset_ns) / 1000)
    }
}

/// Now, in nanoseconds of the boot-time clock.
#[must_use]
pub fn boot_now() -> u64 {
    u64::try_from(nanoseconds(clock_gettime(ClockId::Boottime))).unwrap_or(0)
}

/// Now, as wall-clock time.
pub(crate) fn wall_now() -> Timestamp {
    Timestamp(nanoseconds(clock_gettime(ClockId::Realtime)) / 1000)
}

/// The best of a few tries: being switched out between reading one clock and the other would put all stamps off.
fn offset() -> i64 {
    let boottime = || nanoseconds(clock_gettime(ClockId::Boottime));
    let tries = (0..5).map(|_| {
        let before = boottime();
        let real = nanoseconds(clock_gettime(ClockId::Realtime));
        let took = boottime() - before;
        (took, real - before - took / 2)
    });
    tries.min_by_key(|(took, _)| *took).map_or(0, |(_, offset)| offset)
}

fn nanoseconds(time: Timespec) -> i64 {
    time.tv_sec.saturating_mul(1_000_000_000).saturating_add(time.tv_nsec)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_taken_now_is_now() {
        let clock = BootClock::new();
        let difference = clock.at(boot_now()).secs_since(wall_now());
        assert!(difference.abs() < 0.1, "{difference} s apart");
    }

    #[test]
    fn absurd_stamps_do_not_overflow() {
        let clock = BootClock::new();
        assert!(clock.at(u64::MAX) > clock.at(0));
    }
}
