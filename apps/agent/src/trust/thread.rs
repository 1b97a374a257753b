//! The thread that learns what may run, and looks at what did.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fs::File;
use std::ops::ControlFlow;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Result;
use davy_model::{
    CodeJudgement, CodeKind, CodeOutcome, CodeReason, Event, EventKind, ExecImage, FileId, Mode, PendingId,
    Rank, Ruling, Sha256, Source, Timestamp,
};
use davy_pkgdb::{Budget, Error as PackageError, PackageDb, TrustDb, learn, refresh};
use davy_policy::{ServiceMode, TrustSource};
use davy_trust::host::digest_of;
use davy_trust::{Question, Sighting};
use rustix::fs::OFlags;

use super::desk::{HeldBack, TrustDesk};
use super::learning::Learning;
use super::notice::{self, Notices};
use super::sight::{Sight, Sights, What, is_nameless};
use crate::services::{Began, ServiceDesk};
use crate::shared::{Intake, Shared, lock};
use crate::standing::{Limit, Standing};
use crate::{clock, opening};

/// How many sights may wait.
const SIGHTS: usize = 4096;

/// How many programs wait until packages are learned; beyond it the oldest is judged without them.
const WAITING: usize = 4096;

/// How many files' digests are remembered.
const DIGESTS: usize = 8192;

/// How many scripts are read before something else gets its turn.
const SCRIPTS_AT_ONCE: usize = 64;

/// How often the package manager's database is looked at, and how often what is over is dropped.
const REFRESH: Duration = Duration::from_secs(10);
const TEND: Duration = Duration::from_secs(5);

/// How long programs that ran are gathered before they are looked at. A host that starts one program over and over has it
/// looked at once in that time, and the thread is not woken for each.
const GATHERING: Duration = Duration::from_millis(50);

/// How often the policy in force is looked at, and scopes are; and how soon after a program began in a scope.
const LOOK: Duration = Duration::from_millis(500);
const SOON: Duration = Duration::from_millis(20);

/// The protections' names in the policy.
const TRUST: &str = "trust";
const FILELESS: &str = "fileless";

/// With how many threads packages are learned at most, and how much of a processor each may take: the host's own work goes
/// first, most of all at boot.
const THREADS: usize = 2;
const SHARE: f64 = 0.5;

/// The running thread.
pub(crate) struct TrustThread {
    thread: JoinHandle<()>,
    stop: Arc<AtomicBool>,
}

impl TrustThread {
    /// Ends it, breaking off learning.
    pub(crate) fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        if self.thread.join().is_err() {
            tracing::error!("the thread that looks after trust had panicked");
        }
    }
}

/// Starts it.
pub(super) fn start(
    desk: Arc<TrustDesk>,
    services: Arc<ServiceDesk>,
    intake: Intake,
) -> Result<(Sights, TrustThread)> {
    let judges = desk.kernel_judges();
    let (sender, sights) = sync_channel(SIGHTS);
    let stop = Arc::new(AtomicBool::new(false));
    let keeping = Keeping {
        desk,
        services,
        shared: Arc::clone(intake.shared()),
        intake,
        stop: Arc::clone(&stop),
        users: davy_proc::Users::new(),
        digests: HashMap::new(),
        packages: Vec::new(),
        waiting: VecDeque::new(),
        ahead: VecDeque::new(),
        notices: Notices::default(),
    };
    let thread =
        std::thread::Builder::new().name("davy-trust".to_owned()).spawn(move || keeping.run(&sights))?;
    Ok((Sights::new(sender, judges), TrustThread { thread, stop }))
}

/// What says whether a file is still the one whose digest is known. It is enough to tell people; the kernel's own verdicts
/// do not rest on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Face {
    file: FileId,
    size: u64,
    changed: (i64, i64),
}

/// Code that is not allowed, as it was seen.
struct Seen<'s> {
    kind: CodeKind,
    digest: Sha256,
    path: &'s str,
    nameless: bool,
    refused: bool,
    because: String,
}

struct Keeping {
    desk: Arc<TrustDesk>,
    services: Arc<ServiceDesk>,
    shared: Arc<Shared>,
    intake: Intake,
    stop: Arc<AtomicBool>,
    users: davy_proc::Users,
    digests: HashMap<Face, Sha256>,
    packages: Vec<PackageDb>,
    waiting: VecDeque<Sight>,
    /// Scripts that the kernel has to read before anyone gives them to an interpreter.
    ahead: VecDeque<PathBuf>,
    notices: Notices,
}

impl Keeping {
    fn run(mut self, sights: &Receiver<Sight>) {
        let mut policy = lock(&self.shared.rulebook).policy();
        self.desk.configure(&policy, clock::now());
        let mut learned = self.wanted().then(|| self.learn(sights)).flatten();
        if learned.is_none() {
            self.plan_reading();
        }
        let (mut refreshed, mut tended, mut looked) = (Instant::now(), Instant::now(), Instant::now());
        let mut came = false;
        while !self.stop.load(Ordering::Relaxed) {
            let patience = match (self.ahead.is_empty(), came) {
                (false, _) => Duration::ZERO,
                (true, true) => SOON,
                (true, false) => LOOK,
            };
            match sights.recv_timeout(patience) {
                Ok(sight) => came |= self.take(sight, sights),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.read_scripts();
            let now_in_force = lock(&self.shared.rulebook).policy();
            if !Arc::ptr_eq(&policy, &now_in_force) {
                policy = now_in_force;
                self.desk.configure(&policy, clock::now());
                if learned.is_none() && self.wanted() {
                    learned = self.learn(sights);
                }
            }
            let now = clock::now();
            let (everywhere, places) = held_back(&mut lock(&self.shared.standing), now);
            self.desk.hold_back(everywhere, places, now);
            if looked.elapsed() >= if came { SOON } else { LOOK } {
                self.desk.look();
                (looked, came) = (Instant::now(), false);
            }
            if refreshed.elapsed() >= REFRESH {
                self.refresh(&mut learned);
                refreshed = Instant::now();
            }
            if tended.elapsed() >= TEND {
                self.desk.tend(clock::now());
                self.services.tend(clock::now());
                tended = Instant::now();
            }
        }
        self.desk.tend(clock::now());
        self.services.tend(clock::now());
    }

    /// Whether packages are to be learned at all.
    fn wanted(&self) -> bool {
        let policy = lock(&self.shared.rulebook).policy();
        let judged = policy.trust.mode != Mode::Off || policy.services.mode != ServiceMode::Off;
        judged && policy.trust.sources.contains(&TrustSource::Packages)
    }

    /// Learns what packages vouch for, taking in what runs meanwhile.
    fn learn(&mut self, sights: &Receiver<Sight>) -> Option<Arc<TrustDb>> {
        let began = Instant::now();
        self.packages = match PackageDb::open(Path::new("/")) {
            Ok(databases) => databases,
            Err(error) => {
                self.desk.learning(Learning::without(Some(error.to_string())));
                return None;
            }
        };
        // A host has one package manager; a second database on it (rpm on Debian) installs nothing there.
        let Some(database) = self.packages.first() else {
            self.desk.learning(Learning::without(None));
            self.drain();
            return None;
        };
        let mut waiting = std::mem::take(&mut self.waiting);
        let outcome = learn(database, budget(), &mut |progress| {
            self.desk.learning(Learning::at(progress));
            waiting.extend(sights.try_iter().take(SIGHTS));
            waiting.drain(..waiting.len().saturating_sub(WAITING));
            if self.stop.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        self.waiting = waiting;
        let learned = match outcome {
            Ok(learning) => {
                let learned = Learning::over(&learning.summary, began.elapsed().as_secs_f64());
                tracing::info!("trust: {}", learned.words());
                self.desk.learning(learned);
                Some(self.desk.packages(learning.trust, clock::now()))
            }
            Err(PackageError::Stopped) => None,
            Err(error) => {
                tracing::error!("what packages vouch for is not known: {error}");
                self.desk.learning(Learning::without(Some(error.to_string())));
                None
            }
        };
        self.drain();
        self.plan_reading();
        learned
    }

    /// Where the kernel cannot read a script when it is opened, what is vouched for is read before.
    fn plan_reading(&mut self) {
        self.ahead = self.desk.scripts().into();
        self.read_scripts();
    }

    /// Reads some of them.
    fn read_scripts(&mut self) {
        for path in self.ahead.drain(..self.ahead.len().min(SCRIPTS_AT_ONCE)) {
            // What is gone, or lies where nothing may be executed, is none.
            if let Some(file) = path.to_str().and_then(|path| opening::regular(path).ok()) {
                self.desk.read(&file);
            }
        }
        if self.ahead.is_empty() {
            self.desk.scripts_were_read(clock::now());
        }
    }

    fn refresh(&mut self, learned: &mut Option<Arc<TrustDb>>) {
        let (Some(database), Some(before)) = (self.packages.first(), learned.as_ref()) else { return };
        let began = Instant::now();
        match refresh(database, before, budget(), &mut |_| ControlFlow::Continue(())) {
            Ok(None) => {}
            Ok(Some(learning)) => {
                let words = Learning::over(&learning.summary, began.elapsed().as_secs_f64());
                tracing::info!("trust: packages changed: {}", words.words());
                self.desk.learning(words);
                *learned = Some(self.desk.packages(learning.trust, clock::now()));
                self.plan_reading();
            }
            Err(error) => tracing::warn!("the package manager's database could not be read again: {error}"),
        }
    }

    /// Judges what waited for packages.
    fn drain(&mut self) {
        let waiting = std::mem::take(&mut self.waiting);
        self.judge(waiting);
    }

    /// Judges what is seen now and what follows at once. Says whether a program ran in a scope: it may have brought mounts with
    /// it that nobody is asked about yet.
    fn take(&mut self, first: Sight, sights: &Receiver<Sight>) -> bool {
        let in_scope =
            |sight: &Sight| matches!(sight.what, What::Ran { .. }) && self.desk.is_scoped(&sight.cgroup);
        if !first.is_urgent() && !in_scope(&first) {
            std::thread::sleep(GATHERING);
        }
        let gathered: Vec<Sight> = std::iter::once(first).chain(sights.try_iter().take(SIGHTS)).collect();
        let came = gathered.iter().any(in_scope);
        // What was refused is told whichever protection refused it.
        let off = self.desk.mode() == Mode::Off;
        self.judge(gathered.into_iter().filter(|sight| !off || !matches!(sight.what, What::Ran { .. })));
        came
    }

    /// Judges what was gathered. Of one file that is allowed, the first that ran speaks for the others.
    fn judge(&mut self, gathered: impl IntoIterator<Item = Sight>) {
        let mut allowed = HashSet::new();
        for sight in gathered {
            match &sight.what {
                What::Ran { image, .. } if allowed.contains(&image.file) => {}
                What::Ran { image, comm } => {
                    if self.ran(&sight, image, comm) {
                        allowed.insert(image.file);
                    }
                }
                What::Judged(judgement) => self.judged(&sight, judgement),
                What::Descended(began) => self.descended(&sight, began),
            }
        }
    }

    /// A program ran, and nobody judged it before. Says whether it is allowed.
    fn ran(&mut self, sight: &Sight, image: &ExecImage, comm: &str) -> bool {
        let Some(file) = running(sight.process.pid, image) else { return false };
        let path = if image.path.is_empty() { comm } else { &image.path };
        let nameless = is_nameless(image);
        let kind = if nameless { CodeKind::Nameless } else { CodeKind::Exec };
        let tell = |intake: &Intake, reason, sha256| {
            let judgement = CodeJudgement {
                kind,
                outcome: CodeOutcome::Ran,
                reason,
                file: Some(image.file),
                path: Some(path.to_owned()),
                sha256,
                repeats: 0,
            };
            let kind = EventKind::CodeJudged(Box::new(judgement));
            intake.event(Event { time: sight.time, process: Some(sight.process), kind });
        };
        let Some(digest) = self.digest(&file) else {
            // Too long, or failing: nobody can vouch for it, and it has no digest to wait for the administrator by.
            tell(&self.intake, CodeReason::Unreadable, None);
            return false;
        };
        let question = Question { digest: Some(digest), path, nameless, failsafe: None };
        let ruling = self.ruling(&question);
        if ruling.allowed {
            return true;
        }
        let because = ruling.because;
        let new = self.note(sight, Seen { kind, digest, path, nameless, refused: false, because });
        if new || ruling.rank == Rank::Blocked {
            let reason = match ruling.rank {
                Rank::Blocked => CodeReason::Blocked,
                Rank::Nameless => CodeReason::Nameless,
                _ => CodeReason::Unknown,
            };
            tell(&self.intake, reason, Some(digest));
        }
        false
    }

    /// What came from a service runs under a name of its own; it may be a package's program all the same.
    fn descended(&mut self, sight: &Sight, began: &Began) {
        let file = running(sight.process.pid, &began.info.image);
        let Some(digest) = file.and_then(|file| self.digest(&file)) else { return };
        let question = Question { digest: Some(digest), path: "", nameless: false, failsafe: None };
        let ruling = self.desk.ruling(&question, clock::now());
        let packaged = ruling.vouchers.iter().find_map(|voucher| match &voucher.source {
            Source::Package { path, .. } => Some(path.as_str()),
            _ => None,
        });
        let Some(path) = packaged else { return };
        let classes = self.services.programs.classes(path, &began.info.args);
        let user = self.users.name_or_number(began.info.creds.euid);
        if let Some(event) = self.services.judge(began, classes, Some(&user)) {
            self.intake.event(event);
        }
    }

    /// The kernel judged.
    fn judged(&mut self, sight: &Sight, judgement: &CodeJudgement) {
        let path = judgement.path.as_deref().unwrap_or_default();
        if judgement.reason == CodeReason::NotJudged {
            self.read_ahead(path, judgement.file);
        }
        let refused = judgement.outcome == CodeOutcome::Denied;
        if refused {
            self.count_refusal(sight, judgement.kind);
        }
        let digest = judgement.sha256.or_else(|| self.digest_of_file(path, judgement.file?));
        let Some(digest) = digest else {
            self.tell_terminal(sight, judgement, None);
            return;
        };
        if judgement.outcome == CodeOutcome::Marked {
            self.desk.written(digest, sight.by.as_deref().unwrap_or("a trusted program"), path, sight.time);
            return;
        }
        let nameless = judgement.kind == CodeKind::Nameless;
        let question = Question { digest: Some(digest), path, nameless, failsafe: None };
        let ruling = self.ruling(&question);
        let by_folder = ruling.vouchers.first().filter(|v| matches!(v.source, Source::Directory { .. }));
        if let Some(voucher) = by_folder.filter(|_| ruling.allowed) {
            self.desk.vouch(digest, voucher.clone(), clock::now());
        }
        if !ruling.allowed {
            let (kind, because) = (judgement.kind, ruling.because);
            self.note(sight, Seen { kind, digest, path, nameless, refused, because });
        }
        self.tell_terminal(sight, judgement, self.desk.number_of(&digest));
    }

    /// What is decided, with a look at the file where nobody vouches for its content.
    fn ruling(&self, question: &Question<'_>) -> Ruling {
        let now = clock::now();
        let ruling = self.desk.ruling(question, now);
        match question.digest {
            Some(digest)
                if !ruling.allowed
                    && !question.nameless
                    && self.desk.look_for_verity(question.path, digest, now) =>
            {
                self.desk.ruling(question, now)
            }
            _ => ruling,
        }
    }

    /// Tells whoever sits at the terminal where code was refused.
    fn tell_terminal(&mut self, sight: &Sight, judgement: &CodeJudgement, waits: Option<PendingId>) {
        let Some(seat) = &sight.seat else { return };
        if lock(&self.shared.rulebook).policy().trust.terminal {
            let path = judgement.path.as_deref().unwrap_or_default();
            self.notices.tell(seat, &notice::line(judgement.kind, judgement.reason, path, waits));
        }
    }

    /// A spike of refusals is more likely a gap in the lists than an attack: the protection then only observes, loudly, where
    /// the refusals were.
    fn count_refusal(&self, sight: &Sight, kind: CodeKind) {
        let protection = self.desk.refuses_by(kind);
        let failsafe = lock(&self.shared.rulebook).policy().failsafe.clone();
        let limit =
            Limit { per_minute: failsafe.denials_per_minute, grace_secs: failsafe.grace.as_secs_f64() };
        let mut standing = lock(&self.shared.standing);
        let rehearsed = standing.circumstances(protection, &sight.cgroup, sight.time).rehearsal.is_some();
        if !rehearsed && let Some(why) = standing.acted(protection, &sight.cgroup, limit, sight.time) {
            tracing::error!("a spike of refusals: {why}");
        }
    }

    /// Takes down code that is not allowed. Says whether it is new.
    fn note(&mut self, sight: &Sight, seen: Seen<'_>) -> bool {
        let user = sight.uid.map(|uid| self.users.name_or_number(uid));
        self.desk.see(Sighting {
            time: sight.time,
            digest: seen.digest,
            path: seen.path.to_owned(),
            kind: seen.kind,
            odd: self.desk.odd(seen.path, user.as_deref(), seen.nameless),
            user,
            by: sight.by.clone(),
            refused: seen.refused,
            because: seen.because,
        })
    }

    /// Before Linux 6.8 the kernel cannot read a script when it is opened. Read now, it is let through the next time.
    fn read_ahead(&self, path: &str, file: Option<FileId>) {
        let opened = file.and_then(|file| opening::itself(path, OFlags::empty(), file));
        if let Some((opened, _)) = opened {
            self.desk.read(&opened);
        }
    }

    fn digest_of_file(&mut self, path: &str, file: FileId) -> Option<Sha256> {
        opening::itself(path, OFlags::empty(), file).and_then(|(opened, _)| self.digest(&opened))
    }

    fn digest(&mut self, file: &File) -> Option<Sha256> {
        let found = file.metadata().ok()?;
        if found.len() > opening::LONGEST {
            return None;
        }
        let face = Face {
            file: FileId { dev: found.dev(), ino: found.ino() },
            size: found.len(),
            changed: (found.ctime(), found.ctime_nsec()),
        };
        if let Some(digest) = self.digests.get(&face) {
            return Some(*digest);
        }
        let digest = digest_of(file).ok()?;
        if self.digests.len() >= DIGESTS {
            self.digests.clear();
        }
        self.digests.insert(face, digest);
        Some(digest)
    }
}

/// Which protections refuse nothing now: everywhere, and where they fell back alone.
fn held_back(standing: &mut Standing, now: Timestamp) -> (HeldBack, Vec<(String, HeldBack)>) {
    let places = standing.places(now);
    let mut of = |cgroup: &str| HeldBack {
        trust: standing.holds_back_in(TRUST, cgroup, now),
        fileless: standing.holds_back_in(FILELESS, cgroup, now),
        services: standing.holds_back_in(crate::services::PROTECTION, cgroup, now),
    };
    let everywhere = of("/");
    let places = places.into_iter().map(|place| {
        let held_back = of(&place);
        (place, held_back)
    });
    (everywhere, places.collect())
}

fn budget() -> Budget {
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    Budget::new(processors.min(THREADS), SHARE)
}

/// The file that a process runs: by the kernel's own link to it while it lives, else by its path.
fn running(pid: u32, image: &ExecImage) -> Option<File> {
    let by = |path: &str| opening::itself(path, OFlags::empty(), image.file);
    by(&format!("/proc/{pid}/exe")).or_else(|| by(&image.path)).map(|(file, _)| file)
}
