//! Learning: every packaged file that can be code is hashed once and compared with its database.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread;

use davy_model::FileId;
use davy_packages::{CodeKind, FileDigest, HEAD_BYTES, Package, PackagedFile, code_kind, is_named_as_data};
use rustix::fs::{Stat, fstat};
use rustix::io::Errno;

use crate::budget::Budget;
use crate::db::{Fingerprint, PackageDb, PackageFiles, Reading};
use crate::digest::{Digested, Digester};
use crate::error::Error;
use crate::heap;
use crate::root::{Found, Root, Stamp};
use crate::rows::{Row, Rows, Verdict};
use crate::summary::Summary;
use crate::trust_db::TrustDb;

/// Files of one package that a thread takes at a time: one package has a third of all.
const BATCH: usize = 256;

/// Batches that wait for a thread. Reading the database waits when there are as many.
const WAITING: usize = 16;

/// Files with several names that are remembered; another one is hashed once for each name.
const MAX_LINKED: usize = 65_536;

/// What was learned, and how it went.
#[derive(Debug)]
pub struct Learning {
    /// What was learned.
    pub trust: TrustDb,
    /// How it went.
    pub summary: Summary,
}

/// How far learning is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Packages whose files were handed out.
    pub packages: usize,
    /// Files hashed.
    pub files: usize,
    /// Bytes hashed.
    pub bytes: u64,
}

/// Learns everything anew. `progress` is called for each package, and can break it off.
///
/// # Errors
/// When the database as a whole cannot be read, or `progress` said to stop. A file that cannot be read is no error; the
/// summary counts and names it.
pub fn learn(
    db: &PackageDb,
    budget: Budget,
    progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<Learning, Error> {
    let learned = run(db, None, budget, progress);
    heap::give_back();
    learned
}

/// Learns what changed in the database since `before`: packages that are new or changed, or that diversions moved files
/// of, are read and hashed; what was learned of the others is taken over. `None` when the database did not change.
///
/// A file that changed behind the database's back keeps what was learned of it, which is about its content then: its new
/// content has another digest, and nothing vouches for that.
///
/// # Errors
/// As for [`learn`].
pub fn refresh(
    db: &PackageDb,
    before: &TrustDb,
    budget: Budget,
    progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<Option<Learning>, Error> {
    if db.stamp() == before.stamp && db.root.aliases() == before.aliases {
        return Ok(None);
    }
    let learned = run(db, Some(before), budget, progress).map(Some);
    heap::give_back();
    learned
}

fn run(
    db: &PackageDb,
    before: Option<&TrustDb>,
    budget: Budget,
    progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<Learning, Error> {
    let snapshot = db.snapshot()?;
    let before = before.filter(|before| before.aliases == snapshot.aliases);
    let known = before.map(TrustDb::known);
    let (stamp, diversions, aliases) =
        (snapshot.stamp.clone(), snapshot.diversions.clone(), snapshot.aliases.clone());
    let shared = Shared::new(&db.root);
    let (sender, receiver) = sync_channel(WAITING);
    let receiver = Mutex::new(receiver);
    let mut names = Names::default();
    let mut kept = HashSet::new();
    let mut summary = Summary::default();
    let mut rows = Rows::default();

    thread::scope(|scope| {
        let threads: Vec<_> = (0..budget.threads())
            .map(|_| scope.spawn(|| Thread::new(&shared, budget).run(&receiver)))
            .collect();
        let read = db.read(snapshot, known.as_ref(), &mut |reading| {
            summary.packages += 1;
            match reading {
                Reading::Unchanged(package) => {
                    kept.insert(package);
                }
                Reading::Files(files) => {
                    summary.packages_read += 1;
                    summary.listed += files.files.len();
                    hand_out(files, &mut names, &sender);
                }
            }
            let (files, bytes) = (shared.files.load(Relaxed), shared.bytes.load(Relaxed));
            let go_on = progress(Progress { packages: summary.packages, files, bytes });
            shared.stopped.store(go_on.is_break(), Relaxed);
            go_on
        });
        drop(sender);
        if read.is_err() {
            shared.stopped.store(true, Relaxed);
        }
        for thread in threads {
            let Ok((learned, counted)) = thread.join() else {
                return Err(Error::io("hashing in", "a thread", std::io::Error::other("it panicked")));
            };
            summary.left_out += rows.append(&learned);
            summary.add(counted);
        }
        summary.faults.append(read?);
        if shared.stopped.load(Relaxed) { Err(Error::Stopped) } else { Ok(()) }
    })?;

    if let Some(before) = before {
        summary.left_out += take_over(before, &kept, &mut names, &mut rows);
    }
    Ok(Learning { trust: TrustDb::new(names.packages, rows, stamp, diversions, aliases), summary })
}

/// Names of packages, each once.
#[derive(Default)]
struct Names {
    packages: Vec<(Package, Fingerprint)>,
    indices: HashMap<Package, u32>,
}

impl Names {
    fn index(&mut self, package: &Package, fingerprint: Fingerprint) -> u32 {
        if let Some(index) = self.indices.get(package) {
            return *index;
        }
        let index = u32::try_from(self.packages.len()).unwrap_or(u32::MAX);
        self.packages.push((package.clone(), fingerprint));
        self.indices.insert(package.clone(), index);
        index
    }
}

/// Some files of one package.
struct Batch {
    package: u32,
    files: Vec<PackagedFile>,
}

fn hand_out(files: PackageFiles, names: &mut Names, sender: &SyncSender<Batch>) {
    let package = names.index(&files.package, files.fingerprint);
    let mut files = files.files.into_iter().peekable();
    while files.peek().is_some() {
        let batch = Batch { package, files: files.by_ref().take(BATCH).collect() };
        // Nobody takes them only when every thread has panicked, which their ends will say.
        if sender.send(batch).is_err() {
            return;
        }
    }
}

/// Takes over what is known of packages that did not change; says for how many files there was no room.
fn take_over(before: &TrustDb, kept: &HashSet<Package>, names: &mut Names, rows: &mut Rows) -> usize {
    let indices: Vec<Option<u32>> = before
        .packages
        .iter()
        .map(|(package, fingerprint)| kept.contains(package).then(|| names.index(package, *fingerprint)))
        .collect();
    let mut left_out = 0;
    for row in &before.rows.rows {
        if let Some(package) = indices[row.package as usize]
            && !rows.push(Row { package, ..*row }, before.rows.path(row))
        {
            left_out += 1;
        }
    }
    left_out
}

/// What the threads share.
struct Shared<'a> {
    root: &'a Root,
    stopped: AtomicBool,
    files: AtomicUsize,
    bytes: AtomicU64,
    /// Files with several names, so that each is hashed once for each thing that is expected of it.
    linked: Mutex<HashMap<(FileId, Option<FileDigest>), Digested>>,
}

impl<'a> Shared<'a> {
    fn new(root: &'a Root) -> Self {
        Self {
            root,
            stopped: AtomicBool::new(false),
            files: AtomicUsize::new(0),
            bytes: AtomicU64::new(0),
            linked: Mutex::default(),
        }
    }
}

/// One thread that hashes.
struct Thread<'a> {
    shared: &'a Shared<'a>,
    digester: Digester,
    rows: Rows,
    summary: Summary,
}

impl<'a> Thread<'a> {
    fn new(shared: &'a Shared<'a>, budget: Budget) -> Self {
        let digester = Digester::new(budget.pace());
        Self { shared, digester, rows: Rows::default(), summary: Summary::default() }
    }

    fn run(mut self, batches: &Mutex<Receiver<Batch>>) -> (Rows, Summary) {
        loop {
            let batch = batches.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok(Batch { package, files }) = batch else { return (self.rows, self.summary) };
            for file in files {
                // The rest is taken and dropped, so that who hands out is not left waiting.
                if self.shared.stopped.load(Relaxed) {
                    break;
                }
                if let Err(error) = self.file(package, &file) {
                    self.summary.failed(&file.path, error);
                }
            }
        }
    }

    fn file(&mut self, package: u32, listed: &PackagedFile) -> Result<(), Errno> {
        // A file that changes while it is read is read once more: a package manager may be at work.
        for _ in 0..2 {
            let looked = match self.shared.root.look(&listed.path)? {
                Found::Regular(looked) => looked,
                Found::Nothing => {
                    self.summary.missing += 1;
                    return Ok(());
                }
                Found::Other => return Ok(()),
            };
            let stat = looked.stat;
            if is_named_as_data(&listed.path, stat.st_mode) {
                return Ok(());
            }
            let file = looked.open()?;
            let head = self.digester.head(&file, HEAD_BYTES)?;
            let Some(kind) = code_kind(&listed.path, stat.st_mode, head) else { return Ok(()) };
            let Some(digested) = self.digest(&file, &stat, listed)? else { return Ok(()) };
            if Stamp::of(&fstat(&file)?) == Stamp::of(&stat) {
                self.keep(package, listed, &stat, kind, digested);
                return Ok(());
            }
        }
        self.summary.unsettled += 1;
        Ok(())
    }

    fn digest(
        &mut self,
        file: &std::os::fd::OwnedFd,
        stat: &Stat,
        listed: &PackagedFile,
    ) -> Result<Option<Digested>, Errno> {
        let key = (FileId { dev: stat.st_dev, ino: stat.st_ino }, listed.digest);
        let linked = || self.shared.linked.lock().unwrap_or_else(PoisonError::into_inner);
        if stat.st_nlink > 1
            && let Some(known) = linked().get(&key)
        {
            return Ok(Some(*known));
        }
        let stop = || self.shared.stopped.load(Relaxed);
        let digested = self.digester.digest(file, listed.digest, &stop)?;
        let Some(digested) = digested else { return Ok(None) };
        self.summary.hashed += 1;
        self.summary.bytes += digested.bytes;
        self.shared.files.fetch_add(1, Relaxed);
        self.shared.bytes.fetch_add(digested.bytes, Relaxed);
        if stat.st_nlink > 1 && linked().len() < MAX_LINKED {
            linked().insert(key, digested);
        }
        Ok(Some(digested))
    }

    fn keep(&mut self, package: u32, listed: &PackagedFile, stat: &Stat, kind: CodeKind, digested: Digested) {
        let row = Row {
            sha256: digested.sha256,
            file: FileId { dev: stat.st_dev, ino: stat.st_ino },
            path_at: 0,
            path_len: 0,
            verdict: match digested.as_expected {
                None => Verdict::NoDigest,
                Some(true) => Verdict::Matches,
                Some(false) => Verdict::Changed,
            },
            kind,
            conffile: listed.conffile,
            package,
        };
        if !self.rows.push(row, &listed.path) {
            self.summary.left_out += 1;
        }
    }
}
