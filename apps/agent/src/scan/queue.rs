//! Files that wait to be looked at: what runs before what was written, each once, and no more than so many.

use std::collections::{HashSet, VecDeque};
use std::time::{Duration, Instant};

use davy_model::{FileId, ProcessKey, ScanOccasion, Timestamp};

/// The most that wait, of what runs and of what was written. What comes beyond is counted and not looked at.
const MOST: usize = 1024;

/// How long a file that was written waits. Few are whole at their first close, and what was seen of one that just changed could
/// not be remembered.
const SETTLES: Duration = Duration::from_millis(2100);

/// A file to be looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Job {
    pub(super) time: Timestamp,
    /// Who runs or wrote it.
    pub(super) process: Option<ProcessKey>,
    pub(super) path: String,
    pub(super) file: FileId,
    pub(super) occasion: ScanOccasion,
}

impl Job {
    fn runs(&self) -> bool {
        self.occasion == ScanOccasion::Executed
    }

    fn key(&self) -> Key {
        (self.file, self.process, self.runs())
    }
}

type Key = (FileId, Option<ProcessKey>, bool);

/// The jobs that wait.
#[derive(Debug, Default)]
pub(super) struct Queue {
    executed: VecDeque<Job>,
    written: VecDeque<(Instant, Job)>,
    waiting: HashSet<Key>,
    refused: u64,
}

impl Queue {
    /// Takes a job, unless the same waits already or there is no room.
    pub(super) fn push(&mut self, job: Job, now: Instant) {
        if self.waiting.contains(&job.key()) {
            return;
        }
        let length = if job.runs() { self.executed.len() } else { self.written.len() };
        if length >= MOST {
            self.refused += 1;
            return;
        }
        self.waiting.insert(job.key());
        if job.runs() {
            self.executed.push_back(job);
        } else {
            self.written.push_back((now + SETTLES, job));
        }
    }

    /// The next job that may be done now.
    pub(super) fn next(&mut self, now: Instant) -> Option<Job> {
        let written = || self.written.front().is_some_and(|(due, _)| *due <= now);
        let job = match self.executed.pop_front() {
            Some(job) => job,
            None if written() => self.written.pop_front()?.1,
            None => return None,
        };
        self.waiting.remove(&job.key());
        Some(job)
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// How many were not taken because there was no room.
    pub(super) fn refused(&self) -> u64 {
        self.refused
    }

    /// Forgets all that waits.
    pub(super) fn clear(&mut self) {
        self.executed.clear();
        self.written.clear();
        self.waiting.clear();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn job(ino: u64, occasion: ScanOccasion) -> Job {
        let file = FileId { dev: 1, ino };
        Job { time: Timestamp(0), process: None, path: format!("/{ino}"), file, occasion }
    }

    #[test]
    fn what_runs_comes_first_and_what_was_written_when_it_has_settled() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.push(job(1, ScanOccasion::Written), now);
        queue.push(job(2, ScanOccasion::Executed), now);
        assert_eq!(queue.next(now).unwrap().file.ino, 2);
        assert_eq!(queue.next(now), None);
        let later = now + SETTLES;
        queue.push(job(3, ScanOccasion::Executed), later);
        assert_eq!(queue.next(later).unwrap().file.ino, 3);
        assert_eq!(queue.next(later).unwrap().file.ino, 1);
        assert_eq!((queue.next(later), queue.len()), (None, 0));
    }

    #[test]
    fn the_same_waits_once_and_again_when_it_was_done() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        for _ in 0..10 {
            queue.push(job(1, ScanOccasion::Written), now);
        }
        assert_eq!((queue.len(), queue.refused()), (1, 0));
        queue.push(job(1, ScanOccasion::Executed), now);
        assert_eq!(queue.len(), 2, "that it runs is another thing than that it was written");
        while queue.next(now + SETTLES).is_some() {}
        queue.push(job(1, ScanOccasion::Written), now);
        assert_eq!(queue.len(), 1);
    }

    #[test]
    fn a_flood_of_writes_is_bounded_counted_and_hides_nothing_that_runs() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        for ino in 0..5000 {
            queue.push(job(ino, ScanOccasion::Written), now);
        }
        assert_eq!((queue.len(), queue.refused()), (MOST, 5000 - MOST as u64));
        queue.push(job(9999, ScanOccasion::Executed), now);
        assert_eq!(queue.next(now).unwrap().file.ino, 9999);
        queue.clear();
        assert_eq!((queue.len(), queue.next(now + SETTLES)), (0, None));
    }
}
