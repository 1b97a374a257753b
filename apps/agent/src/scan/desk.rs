//! What is known of scans, for everyone: what waits, what was looked at, what was not and why.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

use davy_model::{Mode, SetAside, Timestamp};
use davy_policy::{ScanTrigger, format_duration};
use davy_sweep::{Ready, Tally};
use davy_wire::WorkerStatus;

use super::queue::{Job, Queue};
use crate::clock;
use crate::shared::lock;

/// Rules that are named in a line for people.
const NAMED: usize = 3;

/// The protection's name in the policy and in `davy status`.
pub(super) const PROTECTION: &str = "scan";

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct ScanDesk {
    queue: Mutex<Queue>,
    more: Condvar,
    exec: AtomicBool,
    write: AtomicBool,
    pub(super) counts: Counts,
    worker: Mutex<WorkerStatus>,
    said: Mutex<Said>,
}

/// Files by what became of them.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) looked: AtomicU64,
    pub(super) hits: AtomicU64,
    pub(super) allowed: AtomicU64,
    /// Gone, or another by the time they were to be looked at.
    pub(super) gone: AtomicU64,
    pub(super) too_long: AtomicU64,
    /// The worker was down, or broke at them.
    pub(super) failed: AtomicU64,
    /// Looked at in part.
    pub(super) gaps: AtomicU64,
}

impl Counts {
    pub(super) fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// What is told of it in words.
#[derive(Debug, Default)]
struct Said {
    rules: u32,
    aside: Vec<SetAside>,
    faults: Vec<String>,
    every: Option<Duration>,
    last: Option<Timestamp>,
    /// What the last scheduled scan did not look at in full.
    gaps: u64,
    /// Files of the one that goes on, and what it did not look at in full.
    sweeping: Option<(u64, u64)>,
}

impl ScanDesk {
    pub(super) fn new() -> Self {
        let worker = Mutex::new(WorkerStatus { name: PROTECTION.to_owned(), ..WorkerStatus::default() });
        Self { worker, ..Self::default() }
    }

    pub(super) fn looks_at_exec(&self) -> bool {
        self.exec.load(Ordering::Relaxed)
    }

    pub(super) fn looks_at_write(&self) -> bool {
        self.write.load(Ordering::Relaxed)
    }

    /// What is looked at as it happens, from now on. What waits for what is off is forgotten.
    pub(super) fn configure(&self, policy: &davy_policy::Scan, faults: Vec<String>) {
        let on = |trigger| policy.mode != Mode::Off && policy.on.contains(&trigger);
        self.exec.store(on(ScanTrigger::Exec), Ordering::Relaxed);
        self.write.store(on(ScanTrigger::Write), Ordering::Relaxed);
        if policy.mode == Mode::Off {
            lock(&self.queue).clear();
        }
        let mut said = lock(&self.said);
        said.faults = faults;
        said.every = policy.schedule;
    }

    pub(super) fn push(&self, job: Job, now: Instant) {
        lock(&self.queue).push(job, now);
        self.more.notify_one();
    }

    /// The next job that may be done, waited for no longer than `patience`.
    pub(super) fn next(&self, patience: Duration) -> Option<Job> {
        let mut queue = lock(&self.queue);
        if let Some(job) = queue.next(Instant::now()) {
            return Some(job);
        }
        if patience.is_zero() {
            return None;
        }
        let mut queue = match self.more.wait_timeout(queue, patience) {
            Ok((queue, _)) => queue,
            Err(poisoned) => poisoned.into_inner().0,
        };
        queue.next(Instant::now())
    }

    /// What the worker said when it began.
    pub(super) fn began(&self, pid: Option<u32>, restarts: u64, ready: &Ready) {
        let mut worker = lock(&self.worker);
        (worker.pid, worker.restarts, worker.fault) = (pid, restarts, None);
        if worker.confinement.as_ref() != Some(&ready.confinement) {
            worker.confinement = Some(ready.confinement.clone());
        }
        drop(worker);
        let mut said = lock(&self.said);
        if said.aside != ready.aside {
            for aside in &ready.aside {
                tracing::warn!("scan: rule {} ({}) is set aside: {}", aside.rule, aside.origin, aside.reason);
            }
            said.aside.clone_from(&ready.aside);
        }
        said.rules = ready.rules;
    }

    /// The worker rests: nothing was to be looked at for a while.
    pub(super) fn rested(&self) {
        lock(&self.worker).pid = None;
    }

    /// No worker can be had.
    pub(super) fn down(&self, fault: String) {
        let mut worker = lock(&self.worker);
        if worker.fault.is_none() {
            tracing::error!("the scan worker does not run: {fault}");
        }
        (worker.pid, worker.fault) = (None, Some(fault));
    }

    /// How far the scheduled scan is.
    pub(super) fn sweeping(&self, tally: &Tally) {
        lock(&self.said).sweeping = Some((tally.files, tally.gaps));
    }

    /// No scheduled scan goes on: when one was last done, and how much it did not look at in full.
    pub(super) fn swept(&self, last: Option<Timestamp>, gaps: u64) {
        let mut said = lock(&self.said);
        (said.sweeping, said.last, said.gaps) = (None, last, gaps);
    }

    /// The worker, for `davy status`.
    pub(crate) fn worker(&self) -> WorkerStatus {
        lock(&self.worker).clone()
    }

    /// What was not looked at, by reason.
    pub(crate) fn lost(&self) -> Vec<(&'static str, u64)> {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counts = &self.counts;
        let all = [
            ("files not scanned, the queue was full", lock(&self.queue).refused()),
            ("files not scanned, the scan worker failed", read(&counts.failed)),
            ("files not scanned, too long to be scanned as they run or are written", read(&counts.too_long)),
        ];
        all.into_iter().filter(|(_, count)| *count > 0).collect()
    }

    /// One line about it.
    pub(crate) fn words(&self) -> String {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let waiting = lock(&self.queue).len();
        let said = lock(&self.said);
        let mut parts = vec![format!(
            "{} files looked at, {} with findings",
            read(&self.counts.looked),
            read(&self.counts.hits)
        )];
        let mut some = |count: u64, what: &str| {
            if count > 0 {
                parts.push(format!("{count} {what}"));
            }
        };
        some(waiting as u64, "waiting");
        some(read(&self.counts.gone), "gone before they could be looked at");
        some(read(&self.counts.gaps), "looked at in part");
        some(read(&self.counts.allowed), "found and allowed by the policy");
        if said.rules > 0 {
            parts.push(format!("{} rules", said.rules));
        }
        if !said.aside.is_empty() {
            let names: Vec<&str> = said.aside.iter().take(NAMED).map(|aside| aside.rule.as_str()).collect();
            let more = said.aside.len().saturating_sub(NAMED);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            parts.push(format!("set aside: {}{more}", names.join(", ")));
        }
        parts.extend(said.faults.iter().cloned());
        match (said.sweeping, said.every, said.last) {
            (Some((files, gaps)), ..) => {
                parts.push(format!("looking through the folders, {files} files so far{}", in_part(gaps)));
            }
            (None, Some(every), Some(last)) => {
                let ago = clock::now().secs_since(last).max(0.0) as u64 / 60 * 60;
                parts.push(format!(
                    "folders every {}, last {} ago{}",
                    format_duration(every),
                    format_duration(Duration::from_secs(ago)),
                    in_part(said.gaps)
                ));
            }
            (None, Some(every), None) => parts.push(format!("folders every {}", format_duration(every))),
            (None, None, _) => {}
        }
        parts.join("; ")
    }
}

/// What a scheduled scan did not look at in full, if anything.
fn in_part(gaps: u64) -> String {
    if gaps == 0 { String::new() } else { format!(" ({gaps} not looked at in full)") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_scheduled_scan_did_not_look_at_is_told() {
        let desk = ScanDesk::new();
        let policy = davy_policy::Scan { schedule: Some(Duration::from_secs(3600)), ..Default::default() };
        desk.configure(&policy, Vec::new());
        desk.sweeping(&Tally { files: 7, gaps: 2, ..Tally::default() });
        assert!(desk.words().ends_with("7 files so far (2 not looked at in full)"), "{}", desk.words());
        desk.swept(Some(clock::now()), 3);
        assert!(desk.words().ends_with("ago (3 not looked at in full)"), "{}", desk.words());
        desk.swept(Some(clock::now()), 0);
        assert!(desk.words().ends_with("ago"), "{}", desk.words());
    }
}
