//! Looks through the folders that the policy names, by the clock, and does between two files whatever waits.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use std::{fs, io};

use davy_model::{Mode, ScanOccasion, Timestamp};
use davy_policy::Scan;
use davy_sweep::{Found, Plan, Ready, Scanner, Sweep, Tally, Watcher};
use rustix::fs::CWD;

use super::desk::ScanDesk;
use super::look::{Looking, born, hit};
use super::queue::Job;
use crate::clock;

/// The most files that are remembered as clean from one time to the next; it is the agent's memory while it looks.
const CLEAN: usize = 1 << 18;

/// How long a scan that could not be made waits to be tried again.
const AGAIN: Duration = Duration::from_secs(600);

/// How long it waits at once for credit.
const NAP: Duration = Duration::from_millis(100);

/// When the folders were looked through last.
pub(super) struct Schedule {
    /// The file that says so to the next agent.
    place: PathBuf,
    last: Option<Timestamp>,
    /// What was not looked at in full then.
    gaps: u64,
    not_before: Instant,
}

impl Schedule {
    /// What an agent before this one left in the folder.
    pub(super) fn open(state: &Path) -> Self {
        let place = state.join("last");
        let text = fs::read_to_string(&place).unwrap_or_default();
        let mut numbers = text.split_whitespace();
        let last = numbers.next().and_then(|seconds| seconds.parse().ok()).map(Timestamp::from_secs);
        let gaps = numbers.next().and_then(|gaps| gaps.parse().ok()).unwrap_or(0);
        Self { place, last, gaps, not_before: Instant::now() }
    }

    pub(super) fn tell(&self, desk: &ScanDesk) {
        desk.swept(self.last, self.gaps);
    }

    /// Whether it is time. What was never done is done at once; a clock that was set back makes it due.
    pub(super) fn is_due(&self, policy: &Scan) -> bool {
        let (Some(every), true) = (policy.schedule, policy.mode != Mode::Off) else { return false };
        let age = self.last.map(|last| clock::now().secs_since(last));
        Instant::now() >= self.not_before && age.is_none_or(|age| age < -60.0 || age >= every.as_secs_f64())
    }

    /// Looks through the folders; given up when the agent goes or the policy changes, and then begun again, passing over
    /// what was clean.
    pub(super) fn sweep(&mut self, looking: &mut Looking, scanner: &mut Scanner) {
        let halt = Arc::new(AtomicBool::new(false));
        let paths = looking.policy.scan.paths.iter().map(PathBuf::from);
        let plan = Plan {
            paths: paths.filter(|path| path.exists()).collect(),
            clean: Some(looking.state.join("scheduled")),
            remembered: CLEAN,
            // The pauses are made between two files, where what waits can be done.
            cpu_percent: 100,
            stop: Arc::clone(&halt),
            ..Plan::default()
        };
        tracing::info!("scan: looking through {} folders", plan.paths.len());
        let digest = looking.digest;
        let mut sweeping = Sweeping { looking, halt, since: Instant::now(), gap: None };
        let outcome = Sweep::run(&plan, digest, scanner, &mut sweeping);
        let Sweeping { looking, gap, .. } = sweeping;
        match outcome {
            Ok(tally) if tally.cut_short => tracing::info!("scan: given up after {} files", tally.files),
            Ok(tally) => {
                let Tally { files, known, found, gaps, .. } = tally;
                tracing::info!(
                    "scan: {files} files, {known} known to be clean, {found} with findings, {gaps} not looked at in full"
                );
                if let Some(first) = gap {
                    tracing::warn!("scan: not looked at in full: {first}; `davy scan` names all of them");
                }
                self.done(gaps);
            }
            Err(error) => {
                looking.failed(&error);
                self.not_before = Instant::now() + AGAIN;
            }
        }
        self.tell(&looking.desk);
    }

    fn done(&mut self, gaps: u64) {
        let now = clock::now();
        (self.last, self.gaps) = (Some(now), gaps);
        if let Err(error) = self.write(now) {
            tracing::warn!("scan: {} cannot be written: {error}", self.place.display());
        }
    }

    fn write(&self, now: Timestamp) -> io::Result<()> {
        let new = self.place.with_extension("new");
        fs::write(&new, format!("{} {}", now.0 / 1_000_000, self.gaps))?;
        fs::rename(new, &self.place)
    }
}

/// One going-through, as it goes.
struct Sweeping<'a> {
    looking: &'a mut Looking,
    halt: Arc<AtomicBool>,
    /// When it last gave way.
    since: Instant,
    /// The first thing that was not looked at in full, and why.
    gap: Option<String>,
}

impl Watcher for Sweeping<'_> {
    fn begins(&mut self, ready: &Ready) {
        let _ = ready;
    }

    fn found(&mut self, found: &Found<'_>) {
        let Some(file) = found.file.filter(|_| !found.report.matches.is_empty()) else { return };
        let job = Job {
            time: clock::now(),
            process: None,
            path: found.path.to_string_lossy().into_owned(),
            file,
            occasion: ScanOccasion::Scheduled,
        };
        self.looking.report(&job, hit(&job, born(CWD, found.path), found.report.clone()));
    }

    fn gap(&mut self, path: &Path, why: &str) {
        tracing::debug!("scan: {}: {why}", path.display());
        self.gap.get_or_insert_with(|| format!("{}: {why}", path.display()));
    }

    fn progress(&mut self, tally: &Tally, _path: &Path) {
        self.looking.desk.sweeping(tally);
    }

    fn between(&mut self, scanner: &mut Scanner) {
        let now = Instant::now();
        self.looking.budget.spend(now - self.since, now);
        // The worker may have begun or broken meanwhile, which `davy status` is to show.
        if scanner.pid().is_some() {
            self.looking.begin(scanner);
        }
        loop {
            if self.looking.stop.load(Ordering::Relaxed) || self.looking.is_outdated() {
                self.halt.store(true, Ordering::Relaxed);
                break;
            }
            if !self.looking.budget.allows(Instant::now()) {
                std::thread::sleep(NAP);
                continue;
            }
            match self.looking.desk.next(Duration::ZERO) {
                Some(job) => self.looking.look(&job, scanner),
                None => break,
            }
        }
        self.since = Instant::now();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn it_is_due_when_it_never_was_and_then_by_the_clock() {
        let folder = tempfile::tempdir().unwrap();
        let mut schedule = Schedule::open(folder.path());
        let every =
            |hours: u64| Scan { schedule: Some(Duration::from_secs(hours * 3600)), ..Scan::default() };
        assert!(!schedule.is_due(&Scan::default()), "by default there is no schedule");
        assert!(schedule.is_due(&every(1)));
        assert!(!schedule.is_due(&Scan { mode: Mode::Off, ..every(1) }));
        schedule.done(3);
        assert!(!schedule.is_due(&every(1)));
        let mut next = Schedule::open(folder.path());
        assert!(!next.is_due(&every(1)), "the next agent knows");
        assert_eq!(next.gaps, 3, "and what was not looked at");
        // What an agent before this one wrote has the time alone.
        fs::write(folder.path().join("last"), "1700000000").unwrap();
        let former = Schedule::open(folder.path());
        assert_eq!((former.last, former.gaps), (Some(Timestamp::from_secs(1_700_000_000)), 0));
        next.last = Some(clock::now().plus_secs(-7000.0));
        assert!(next.is_due(&every(1)) && !next.is_due(&every(2)));
        next.last = Some(clock::now().plus_secs(7000.0));
        assert!(next.is_due(&every(1)), "the clock was set back");
    }
}
