//! Losses, counted per kind and shared between the watching thread and whoever asks.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// What was lost, and what could not be done.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Times the kernel's queue was full: an unknown number of events each.
    pub(crate) overflows: AtomicU64,
    /// Events of one process beyond its share.
    pub(crate) throttled: AtomicU64,
    /// Events whose folder could not be found any more.
    pub(crate) unresolved: AtomicU64,
    /// Events that were not of the documented form.
    pub(crate) malformed: AtomicU64,
    notes: Mutex<Vec<String>>,
}

/// At most so many notes are kept.
const MAX_NOTES: usize = 64;

impl Tally {
    pub(crate) fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Every kind of which something was lost.
    pub(crate) fn drops(&self) -> Vec<(String, u64)> {
        let kinds = [
            ("file events: queue overflow", &self.overflows),
            ("file events: throttled per process", &self.throttled),
            ("file events: folder gone", &self.unresolved),
            ("file events: malformed", &self.malformed),
        ];
        let counts =
            kinds.iter().map(|(kind, counter)| ((*kind).to_owned(), counter.load(Ordering::Relaxed)));
        counts.filter(|(_, count)| *count > 0).collect()
    }

    /// Writes down what cannot be watched, once.
    pub(crate) fn note(&self, text: String) {
        let mut notes = self.notes.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if notes.len() < MAX_NOTES && !notes.contains(&text) {
            tracing::info!("{text}");
            notes.push(text);
        }
    }

    pub(crate) fn notes(&self) -> Vec<String> {
        self.notes.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }
}
