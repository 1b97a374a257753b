use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use davy_model::{FileId, ScanMatch, ScanReport, Severity};

use crate::clamd::Clamd;
use crate::clean::{Clean, nanoseconds};
use crate::memory::{Memory, layout};
use crate::pace::Pace;
use crate::scanner::{Looked, Ready, Scanner};
use crate::seen::Seen;
use crate::walk::{Entry, Limits, Met, walk};

/// How often what was clean is written down meanwhile, so that little is looked at twice after an end in the middle.
const SAVED: Duration = Duration::from_secs(30);

/// Files that are passed over at once, before others may use the worker.
const PASSED_OVER: u64 = 256;

/// What to look at, and how.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Files and folders.
    pub paths: Vec<PathBuf>,
    /// Processes whose memory is looked at.
    pub pids: Vec<u32>,
    /// The file in which what was clean is remembered; `None` remembers nothing.
    pub clean: Option<PathBuf>,
    /// The most files that are remembered; zero for a million.
    pub remembered: usize,
    /// Look at files too that were clean before.
    pub all: bool,
    /// With `all`: go on where the last such scan was cut short.
    pub resume: bool,
    /// Stay on the file systems of the paths.
    pub one_file_system: bool,
    /// At most this share of one processor, in percent.
    pub cpu_percent: u32,
    /// A second opinion.
    pub clamd: Option<Clamd>,
    /// Set to end it before its time.
    pub stop: Arc<AtomicBool>,
}

/// Something in which something was found.
#[derive(Clone, Debug)]
pub struct Found<'a> {
    /// The file, or the program of the process.
    pub path: &'a Path,
    /// The file's identity, for whoever is to take it away.
    pub file: Option<FileId>,
    /// The process whose memory it is.
    pub pid: Option<u32>,
    /// What was found.
    pub report: &'a ScanReport,
}

/// Told of a sweep as it goes.
pub trait Watcher {
    /// The worker has begun, because the first thing must be looked at; not called when all was known to be clean.
    fn begins(&mut self, ready: &Ready);
    /// Something was found, or (when nothing matched) the structure of a program was asked for.
    fn found(&mut self, found: &Found<'_>);
    /// Something, or part of it, was not looked at.
    fn gap(&mut self, path: &Path, why: &str);
    /// It goes on; called often.
    fn progress(&mut self, tally: &Tally, path: &Path);
    /// One thing was looked at, or many were passed over; whoever has more urgent things for the same worker does them now.
    fn between(&mut self, scanner: &mut Scanner) {
        let _ = scanner;
    }
}

/// What a sweep has done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Files met, each once.
    pub files: u64,
    /// Of these, files known to be clean, which were not looked at.
    pub known: u64,
    /// Files and processes in which something was found.
    pub found: u64,
    /// Files and processes that were not looked at, or not in full.
    pub gaps: u64,
    /// Bytes looked at, what archives hold included.
    pub bytes: u64,
    /// Members of archives looked at.
    pub members: u64,
    /// Whether it was ended before its time.
    pub cut_short: bool,
}

/// One going-through.
pub struct Sweep<'a> {
    plan: &'a Plan,
    scanner: &'a mut Scanner,
    watcher: &'a mut dyn Watcher,
    clean: Clean,
    seen: Seen,
    pace: Pace,
    tally: Tally,
    saved: Instant,
    begun: bool,
    broken: Option<anyhow::Error>,
}

impl<'a> Sweep<'a> {
    /// Goes through everything of the plan.
    ///
    /// # Errors
    /// When no worker can be started any more. What was found until then was told.
    pub fn run(
        plan: &'a Plan,
        digest: [u8; 32],
        scanner: &'a mut Scanner,
        watcher: &'a mut dyn Watcher,
    ) -> Result<Tally> {
        let mut sweep = Self {
            clean: Clean::load(plan.clean.clone(), digest, plan.all, plan.resume)
                .at_most(if plan.remembered == 0 { usize::MAX } else { plan.remembered }),
            seen: Seen::default(),
            pace: Pace::new(if plan.cpu_percent == 0 { 100 } else { plan.cpu_percent }),
            tally: Tally::default(),
            saved: Instant::now(),
            begun: false,
            broken: None,
            plan,
            scanner,
            watcher,
        };
        for pid in &plan.pids {
            sweep.process(*pid);
        }
        let limits = Limits { one_file_system: plan.one_file_system };
        for path in &plan.paths {
            if walk(path, limits, &mut |met| sweep.meet(met)).is_break() {
                break;
            }
        }
        sweep.tally.cut_short = plan.stop.load(Ordering::Relaxed);
        let ended = !sweep.tally.cut_short && sweep.broken.is_none();
        if !plan.paths.is_empty() {
            sweep.save(ended);
        }
        match sweep.broken {
            Some(error) => Err(error),
            None => Ok(sweep.tally),
        }
    }

    fn meet(&mut self, met: Met<'_>) -> ControlFlow<()> {
        match met {
            Met::Closed(path, why) => self.gap(path, &why),
            Met::File(entry) => self.file(&entry),
        }
        if self.saved.elapsed() > SAVED {
            self.save(false);
        }
        if self.plan.stop.load(Ordering::Relaxed) || self.broken.is_some() {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }

    fn file(&mut self, entry: &Entry<'_>) {
        let stat = &entry.stat;
        if self.seen.before(stat.st_dev, stat.st_ino, stat.st_nlink) {
            return;
        }
        self.tally.files += 1;
        if stat.st_size == 0 {
            return;
        }
        if self.clean.has(stat) {
            self.tally.known += 1;
            if self.tally.known.is_multiple_of(PASSED_OVER) {
                self.watcher.between(self.scanner);
            }
            return;
        }
        self.watcher.progress(&self.tally, entry.path);
        self.look_at(entry);
        self.pace.keep(&self.plan.stop);
        self.watcher.between(self.scanner);
    }

    /// Has the worker begin before the first thing is looked at. Says whether it runs.
    fn begin(&mut self) -> bool {
        if !self.begun {
            match self.scanner.begin() {
                Ok(ready) => self.watcher.begins(ready),
                Err(error) => self.broken = Some(error),
            }
            self.begun = true;
        }
        self.broken.is_none()
    }

    fn look_at(&mut self, entry: &Entry<'_>) {
        let file = match entry.open() {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(error) => return self.gap(entry.path, &error.to_string()),
        };
        if !self.begin() {
            return;
        }
        let looked = nanoseconds();
        // As it is now: it may have changed since the folder was read.
        let stat = match rustix::fs::fstat(&file) {
            Ok(stat) => stat,
            Err(error) => return self.gap(entry.path, &io::Error::from(error).to_string()),
        };
        let mut report = match self.scanner.file(&file, stat.st_size.cast_unsigned()) {
            Ok(Looked::Report(report)) => report,
            Ok(Looked::Not(_)) if self.plan.stop.load(Ordering::Relaxed) => return,
            Ok(Looked::Not(why)) => return self.gap(entry.path, &why),
            Err(error) => {
                self.broken = Some(error);
                return;
            }
        };
        self.ask_clamd(entry.path, &file, &mut report);
        self.take(entry.path, Some(FileId { dev: stat.st_dev, ino: stat.st_ino }), None, &report);
        if report.matches.is_empty() && report.gaps.is_empty() {
            self.clean.remember(&stat, looked);
        }
    }

    fn ask_clamd(&mut self, path: &Path, file: &std::fs::File, report: &mut ScanReport) {
        match self.plan.clamd.as_ref().map(|clamd| clamd.ask(file)) {
            Some(Ok(Some(name))) => report.matches.push(ScanMatch {
                rule: name,
                origin: "clamd".to_owned(),
                severity: Severity::High,
                description: "ClamAV knows it by this name".to_owned(),
                inside: Vec::new(),
                patterns: Vec::new(),
            }),
            Some(Err(error)) => self.gap(path, &format!("clamd did not look at it: {error}")),
            Some(Ok(None)) | None => {}
        }
    }

    fn process(&mut self, pid: u32) {
        let path = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
        let opened = layout(pid).and_then(|layout| Ok((layout, Memory::open(pid)?)));
        let (layout, mut memory) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                return self.gap(&path, &format!("the memory of process {pid} cannot be read: {error}"));
            }
        };
        if !self.begin() {
            return;
        }
        let mut looked = None;
        for (place, stretch) in layout.stretches.iter().enumerate() {
            self.watcher.progress(&self.tally, &path);
            let last = place + 1 == layout.stretches.len();
            let piece = memory.copy(*stretch).map_err(anyhow::Error::from);
            let answer = piece.and_then(|(file, length)| {
                self.tally.bytes += length;
                self.scanner.memory(&file, vec![(stretch.address, length)], last)
            });
            match answer {
                Ok(None) => {}
                Ok(Some(outcome)) => looked = Some(outcome),
                Err(error) => return self.gap(&path, &format!("the memory of process {pid}: {error:#}")),
            }
            self.pace.keep(&self.plan.stop);
        }
        match looked {
            Some(Looked::Report(report)) => self.take(&path, None, Some(pid), &report),
            Some(Looked::Not(why)) => self.gap(&path, &why),
            None => self.gap(&path, &format!("process {pid} has no memory that can be read")),
        }
        if layout.left_out > 0 {
            let why = format!("{} bytes of the memory of process {pid} were not looked at", layout.left_out);
            self.gap(&path, &why);
        }
    }

    fn take(&mut self, path: &Path, file: Option<FileId>, pid: Option<u32>, report: &ScanReport) {
        self.tally.bytes += report.bytes;
        self.tally.members += u64::from(report.members);
        for gap in &report.gaps {
            self.gap(path, gap);
        }
        if !report.matches.is_empty() {
            self.tally.found += 1;
        }
        if !report.matches.is_empty() || report.program.is_some() {
            self.watcher.found(&Found { path, file, pid, report });
        }
    }

    fn gap(&mut self, path: &Path, why: &str) {
        self.tally.gaps += 1;
        self.watcher.gap(path, why);
    }

    fn save(&mut self, ended: bool) {
        self.saved = Instant::now();
        if let Err(error) = self.clean.save(ended) {
            let place = self.plan.clean.clone().unwrap_or_default();
            self.watcher.gap(&place, &format!("what was clean cannot be remembered: {error}"));
        }
    }
}
