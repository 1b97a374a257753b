use std::{
    collections::VecDeque,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

/// Notices kept until somebody asks; older ones go.
const MAX_NOTICES: usize = 64;

/// What the writers tell the outside about themselves.
#[derive(Debug, Default)]
pub(crate) struct Health {
    lost: AtomicU64,
    events: AtomicU64,
    faults: Mutex<[Option<String>; 2]>,
    notices: Mutex<VecDeque<String>>,
}

/// Which writer speaks.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Part {
    /// `main.db`.
    Ledger = 0,
    /// The day files.
    Events = 1,
}

impl Health {
    pub(crate) fn lose(&self, events: u64) {
        self.lost.fetch_add(events, Ordering::Relaxed);
    }

    pub(crate) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    pub(crate) fn set_events(&self, events: u64) {
        self.events.store(events, Ordering::Relaxed);
    }

    pub(crate) fn events(&self) -> u64 {
        self.events.load(Ordering::Relaxed)
    }

    /// Remembers why a part cannot write, and logs the change, not each failure.
    pub(crate) fn failing(&self, part: Part, reason: Option<String>) {
        let mut faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        let before = &mut faults[part as usize];
        match (&before, &reason) {
            (None, Some(reason)) => tracing::error!(?part, reason, "the store cannot write"),
            (Some(_), None) => tracing::info!(?part, "the store writes again"),
            _ => {}
        }
        *before = reason;
    }

    pub(crate) fn fault(&self) -> Option<String> {
        let faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        let all: Vec<_> = faults.iter().flatten().cloned().collect();
        (!all.is_empty()).then(|| all.join("; "))
    }

    pub(crate) fn notice(&self, text: String) {
        tracing::warn!("{text}");
        let mut notices = self.notices.lock().unwrap_or_else(PoisonError::into_inner);
        if notices.len() == MAX_NOTICES {
            notices.pop_front();
        }
        notices.push_back(text);
    }

    pub(crate) fn take_notices(&self) -> Vec<String> {
        self.notices.lock().unwrap_or_else(PoisonError::into_inner).drain(..).collect()
    }
}
