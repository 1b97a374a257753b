//! A share of events for every process, so that one that floods does not hide the others.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// At most so many processes are told apart in one window; the rest share one allowance.
const MAX_PROCESSES: usize = 4096;

const WINDOW: Duration = Duration::from_secs(1);

/// Counts events a process in windows of a second. Changes in persistence places have an allowance of their own, so
/// that writing a thousand scripts cannot hide the one in /etc/cron.d.
#[derive(Debug)]
pub(crate) struct Throttle {
    allowance: u32,
    began: Option<Instant>,
    used: HashMap<(u32, bool), u32>,
}

impl Throttle {
    pub(crate) fn new(allowance: u32) -> Self {
        Self { allowance, began: None, used: HashMap::new() }
    }

    /// Whether one more event of this process fits in its share.
    pub(crate) fn allows(&mut self, pid: u32, in_place: bool, now: Instant) -> bool {
        if self.began.is_none_or(|began| now.saturating_duration_since(began) >= WINDOW) {
            self.used.clear();
            self.began = Some(now);
        }
        let full = self.used.len() >= MAX_PROCESSES && !self.used.contains_key(&(pid, in_place));
        let used = self.used.entry((if full { 0 } else { pid }, in_place)).or_default();
        *used = used.saturating_add(1);
        *used <= self.allowance
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_floods_hides_neither_others_nor_its_own_persistence() {
        let (mut throttle, now) = (Throttle::new(3), Instant::now());
        assert_eq!((0..10).filter(|_| throttle.allows(7, false, now)).count(), 3);
        assert!(throttle.allows(8, false, now));
        assert!(throttle.allows(7, true, now));
        assert!(throttle.allows(7, false, now + WINDOW));
    }

    #[test]
    fn a_fork_bomb_shares_what_is_left() {
        let (mut throttle, now) = (Throttle::new(1), Instant::now());
        let allowed =
            (1..=MAX_PROCESSES as u32 + 100).filter(|pid| throttle.allows(*pid, false, now)).count();
        assert_eq!(allowed, MAX_PROCESSES + 1);
    }
}
