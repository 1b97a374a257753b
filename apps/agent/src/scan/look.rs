//! Looks at one file after another, and remembers what was clean and what was not.

use std::collections::HashMap;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use davy_model::{Event, EventKind, FileId, ScanHit, ScanReport, Sha256, Timestamp};
use davy_policy::Policy;
use davy_sweep::{Clean, Looked, Recipe, Scanner, Shape, nanoseconds};
use rustix::fs::{AtFlags, StatxFlags, statx};

use super::budget::Budget;
use super::desk::{Counts, ScanDesk};
use super::open::{open, shape};
use super::queue::Job;
use super::recipe::recipe;
use crate::clock;
use crate::shared::{Input, Intake, lock};

/// The longest file that is looked at as it runs or is written, in bytes: one that long takes some seconds of a processor.
const LONGEST: i64 = 512 << 20;

/// The most files that are remembered as clean.
const CLEAN: usize = 1 << 16;

/// Files with findings whose next process is told at once, without another look.
const BAD: usize = 256;

/// The most matches that are told of one file.
const MATCHES: usize = 8;

/// How often what was clean is written down.
const SAVED: Duration = Duration::from_secs(60);

/// Pauses before a worker that could not be started is started again: the first, and the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LAST_PAUSE: Duration = Duration::from_secs(300);

/// What looks.
pub(super) struct Looking {
    pub(super) desk: Arc<ScanDesk>,
    pub(super) budget: Budget,
    pub(super) policy: Arc<Policy>,
    pub(super) digest: [u8; 32],
    /// Set when the agent goes.
    pub(super) stop: Arc<AtomicBool>,
    /// Where what was clean lies.
    pub(super) state: PathBuf,
    config: PathBuf,
    intake: Intake,
    clean: Clean,
    dirty: bool,
    saved: Instant,
    bad: HashMap<FileId, (Shape, ScanHit)>,
    pid: Option<u32>,
    pause: Duration,
    next_start: Instant,
}

impl Looking {
    pub(super) fn new(
        desk: Arc<ScanDesk>,
        intake: Intake,
        config: PathBuf,
        state: PathBuf,
        stop: Arc<AtomicBool>,
    ) -> (Self, Recipe) {
        let policy = lock(&intake.shared().rulebook).policy();
        let (recipe, faults) = recipe(&policy.scan, &config);
        desk.configure(&policy.scan, faults);
        let (digest, now) = (recipe.digest(), Instant::now());
        let looking = Self {
            clean: Clean::load(Some(state.join("access")), digest, false, false).at_most(CLEAN),
            budget: Budget::new(policy.scan.cpu, now),
            bad: HashMap::new(),
            dirty: false,
            saved: now,
            pid: None,
            pause: FIRST_PAUSE,
            next_start: now,
            desk,
            policy,
            digest,
            stop,
            state,
            config,
            intake,
        };
        (looking, recipe)
    }

    /// Whether the policy in force is another by now.
    pub(super) fn is_outdated(&self) -> bool {
        !Arc::ptr_eq(&self.policy, &lock(&self.intake.shared().rulebook).policy())
    }

    /// Takes the policy in force. Gives the recipe when something else is to be looked for.
    pub(super) fn configure(&mut self) -> Option<Recipe> {
        self.policy = lock(&self.intake.shared().rulebook).policy();
        let (recipe, faults) = recipe(&self.policy.scan, &self.config);
        self.desk.configure(&self.policy.scan, faults);
        self.budget.set(self.policy.scan.cpu, Instant::now());
        let digest = recipe.digest();
        if digest == self.digest {
            return None;
        }
        self.save();
        self.digest = digest;
        self.clean = Clean::load(Some(self.state.join("access")), digest, false, false).at_most(CLEAN);
        self.bad.clear();
        Some(recipe)
    }

    /// Looks at the file of a job, at the budget's expense.
    pub(super) fn look(&mut self, job: &Job, scanner: &mut Scanner) {
        let began = Instant::now();
        self.look_at(job, scanner);
        let now = Instant::now();
        self.budget.spend(now - began, now);
        if self.dirty && self.saved.elapsed() > SAVED {
            self.save();
        }
    }

    fn look_at(&mut self, job: &Job, scanner: &mut Scanner) {
        let counts = &self.desk.counts;
        if shape(job).is_some_and(|stat| stat.st_size == 0 || self.clean.has(&stat)) {
            return;
        }
        let Some((file, stat)) = open(job) else { return Counts::count(&counts.gone) };
        let shape = Shape::of(&stat);
        if let Some((known, hit)) = self.bad.get(&job.file)
            && *known == shape
        {
            return self.report(job, hit.clone());
        }
        if stat.st_size > LONGEST {
            return Counts::count(&counts.too_long);
        }
        if !self.begin(scanner) {
            return Counts::count(&self.desk.counts.failed);
        }
        let looked = nanoseconds();
        let outcome = scanner.file(&file, stat.st_size.cast_unsigned());
        // It may have broken and been started again.
        self.tell(scanner);
        match outcome {
            Ok(Looked::Report(report)) => {
                Counts::count(&self.desk.counts.looked);
                if !report.gaps.is_empty() {
                    Counts::count(&self.desk.counts.gaps);
                }
                if !report.matches.is_empty() {
                    let hit = hit(job, born(&file, Path::new("")), *report);
                    if shape.had_settled(looked) {
                        self.remember_bad(job.file, shape, hit.clone());
                    }
                    self.report(job, hit);
                } else if report.gaps.is_empty() {
                    self.clean.remember(&stat, looked);
                    self.dirty = true;
                }
            }
            Ok(Looked::Not(_)) if self.stop.load(Ordering::Relaxed) => {}
            Ok(Looked::Not(why)) => {
                tracing::warn!("scan: {} was not looked at: {why}", job.path);
                Counts::count(&self.desk.counts.failed);
            }
            Err(error) => self.failed(&error),
        }
    }

    /// Has the worker run, unless it could not be started just now.
    pub(super) fn begin(&mut self, scanner: &mut Scanner) -> bool {
        if scanner.pid().is_none() && Instant::now() < self.next_start {
            return false;
        }
        if let Err(error) = scanner.begin() {
            self.failed(&error);
            return false;
        }
        self.pause = FIRST_PAUSE;
        self.tell(scanner);
        true
    }

    /// Tells of the worker that runs now, if it is another.
    fn tell(&mut self, scanner: &Scanner) {
        if scanner.pid() != self.pid
            && let Some(ready) = scanner.ready()
        {
            self.pid = scanner.pid();
            self.desk.began(self.pid, scanner.restarts(), ready);
        }
    }

    /// Lets the worker go, which gives its memory back.
    pub(super) fn rest(&mut self, scanner: &mut Scanner) {
        scanner.rest();
        self.pid = None;
        self.desk.rested();
    }

    pub(super) fn failed(&mut self, error: &anyhow::Error) {
        Counts::count(&self.desk.counts.failed);
        self.next_start = Instant::now() + self.pause;
        self.pause = (self.pause * 2).min(LAST_PAUSE);
        self.desk.down(format!("{error:#}"));
    }

    fn remember_bad(&mut self, file: FileId, shape: Shape, hit: ScanHit) {
        if self.bad.len() >= BAD {
            self.bad.clear();
        }
        self.bad.insert(file, (shape, hit));
    }

    /// Tells the engine, unless the policy wants the file.
    pub(super) fn report(&self, job: &Job, hit: ScanHit) {
        let content: Option<Sha256> = hit.sha256.as_deref().and_then(|digits| digits.parse().ok());
        let now = clock::now();
        if content.is_some_and(|content| self.policy.scan.allowed(content, now).is_some()) {
            return Counts::count(&self.desk.counts.allowed);
        }
        Counts::count(&self.desk.counts.hits);
        let hit = ScanHit { path: job.path.clone(), occasion: job.occasion, ..hit };
        let kind = EventKind::Scanned(Box::new(hit));
        // A finding must not be lost; the engine ends after this thread.
        self.intake.must(Input::Event(Event { time: now, process: job.process, kind }));
    }

    pub(super) fn save(&mut self) {
        self.saved = Instant::now();
        if std::mem::take(&mut self.dirty)
            && let Err(error) = self.clean.save(true)
        {
            tracing::warn!("scan: what was clean cannot be remembered: {error}");
        }
    }
}

/// When a file was made, where its file system tells.
pub(super) fn born(folder: impl AsFd, path: &Path) -> Option<Timestamp> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::SYMLINK_NOFOLLOW;
    let about = statx(folder, path, flags, StatxFlags::BTIME).ok()?;
    let known = StatxFlags::from_bits_retain(about.stx_mask).contains(StatxFlags::BTIME);
    let seconds = Some(about.stx_btime.tv_sec).filter(|_| known)?;
    let micros = seconds.checked_mul(1_000_000)?.checked_add(i64::from(about.stx_btime.tv_nsec / 1000))?;
    Some(Timestamp(micros))
}

/// What a report says, the worst first.
pub(super) fn hit(job: &Job, born: Option<Timestamp>, report: ScanReport) -> ScanHit {
    let mut matches = report.matches;
    matches.sort_by_key(|found| std::cmp::Reverse(found.severity));
    matches.truncate(MATCHES);
    ScanHit {
        path: job.path.clone(),
        file: job.file,
        born,
        occasion: job.occasion,
        sha256: report.sha256,
        matches,
    }
}
