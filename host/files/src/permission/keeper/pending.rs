//! What was asked and not yet answered, with the time by when it must be.

use std::collections::{BTreeSet, HashMap};
use std::os::fd::OwnedFd;
use std::time::Instant;

/// One question that somebody's exec or open waits for.
pub(super) struct Waiting {
    /// The event's open file; its number is the event's name until it is answered.
    pub(super) file: OwnedFd,
    pub(super) since: Instant,
    deadline: Instant,
}

/// All of them, at most as many as the bound.
pub(super) struct Pending {
    waiting: HashMap<u64, Waiting>,
    by_deadline: BTreeSet<(Instant, u64)>,
    last: u64,
    bound: usize,
}

impl Pending {
    pub(super) fn new(bound: usize) -> Self {
        Self { waiting: HashMap::with_capacity(bound), by_deadline: BTreeSet::new(), last: 0, bound }
    }

    /// The number by which the next one will be known, if there is room for it.
    pub(super) fn next(&mut self) -> Option<u64> {
        if self.waiting.len() >= self.bound {
            return None;
        }
        self.last += 1;
        Some(self.last)
    }

    pub(super) fn add(&mut self, number: u64, file: OwnedFd, since: Instant, deadline: Instant) {
        self.waiting.insert(number, Waiting { file, since, deadline });
        self.by_deadline.insert((deadline, number));
    }

    /// Takes one out; `None` when it was answered before.
    pub(super) fn take(&mut self, number: u64) -> Option<Waiting> {
        let waiting = self.waiting.remove(&number)?;
        self.by_deadline.remove(&(waiting.deadline, number));
        Some(waiting)
    }

    /// Takes out one whose time is over.
    pub(super) fn take_late(&mut self, now: Instant) -> Option<Waiting> {
        let (_, number) = *self.by_deadline.first().filter(|(deadline, _)| *deadline <= now)?;
        self.take(number)
    }

    /// Takes out any one.
    pub(super) fn take_any(&mut self) -> Option<Waiting> {
        let (_, number) = *self.by_deadline.first()?;
        self.take(number)
    }

    /// By when the first must be answered.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.by_deadline.first().map(|(deadline, _)| *deadline)
    }

    /// Since when the first of them waits, as far as deadlines tell.
    pub(super) fn since(&self) -> Option<Instant> {
        let (_, number) = self.by_deadline.first()?;
        self.waiting.get(number).map(|waiting| waiting.since)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use super::*;

    #[test]
    fn each_is_answered_once_and_the_late_ones_by_their_own_deadlines() {
        let mut pending = Pending::new(2);
        let now = Instant::now();
        let file = || OwnedFd::from(tempfile::tempfile().unwrap());
        let (slow, quick) = (pending.next().unwrap(), pending.next().unwrap());
        pending.add(slow, file(), now, now + Duration::from_secs(2));
        pending.add(quick, file(), now, now + Duration::from_secs(1));
        assert_eq!(pending.next(), None, "the bound holds");
        assert_eq!(pending.deadline(), Some(now + Duration::from_secs(1)));
        assert!(pending.take_late(now).is_none());
        assert!(pending.take_late(now + Duration::from_secs(1)).is_some());
        assert!(pending.take_late(now + Duration::from_secs(1)).is_none());
        assert!(pending.take(quick).is_none(), "it was taken as late");
        assert!(pending.take(slow).is_some() && pending.take(slow).is_none());
        assert_eq!((pending.deadline(), pending.since()), (None, None));
        assert!(pending.next().is_some_and(|next| next > quick), "a number is never used again");
    }
}
