//! fanotify(7): notifications of whole file systems, with folder handles and names.

mod folders;
mod kernel;
mod notification;

use std::collections::HashSet;
use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, Mode, OFlags};

use crate::mounts::{self, Candidate};
use crate::sieve::{Act, Sieve};
use crate::tally::Tally;
use crate::watcher::FileSystems;
use folders::Folders;
use notification::{Entry, Notification};

const OVERFLOW: u64 = libc::FAN_Q_OVERFLOW;
const WRITTEN: u64 = libc::FAN_CLOSE_WRITE;
const ATTRIBUTES: u64 = libc::FAN_ATTRIB;
const CREATED: u64 = libc::FAN_CREATE;
const DELETED: u64 = libc::FAN_DELETE;
const MOVED_TO: u64 = libc::FAN_MOVED_TO;
const RENAMED: u64 = libc::FAN_RENAME;

/// Asked for on every kernel. Creations matter only for links into persistence places; the kernel merges them with
/// what follows on the same file, so that they hardly cost anything.
const ALWAYS: u64 = WRITTEN | ATTRIBUTES | CREATED | DELETED;

/// Bytes read at once: some 1,500 notifications.
const BUFFER: usize = 128 * 1024;

/// Pause between two readings while events come, so that a build wakes the thread forty times a second and not ten
/// thousand. The kernel queues 16,384 notifications meanwhile.
const PAUSE: Duration = Duration::from_millis(25);

/// How often at most the mount table is read again while it changes.
const MOUNTS_PAUSE: Duration = Duration::from_secs(1);

/// A listening group.
#[derive(Debug)]
pub(crate) struct Listener {
    group: OwnedFd,
    /// For file systems that cannot be marked with handles, such as overlayfs; made when the first is met.
    plain: Option<OwnedFd>,
    wanted: FileSystems,
    max_marks: usize,
    marked: HashSet<(u32, u32)>,
    refused: HashSet<(u32, u32)>,
    folders: Folders,
    tally: Arc<Tally>,
}

impl Listener {
    /// Marks every wanted file system.
    ///
    /// # Errors
    /// When the group cannot be made (no CAP_SYS_ADMIN, kernel before 5.9) or not one file system can be marked.
    pub(crate) fn start(wanted: FileSystems, max_marks: usize, tally: Arc<Tally>) -> io::Result<Self> {
        let group = kernel::init()?;
        let mut listener = Self {
            group,
            plain: None,
            wanted,
            max_marks,
            marked: HashSet::new(),
            refused: HashSet::new(),
            folders: Folders::new(),
            tally,
        };
        match listener.mark_new() {
            Some(error) if listener.marked.is_empty() => Err(error),
            _ => Ok(listener),
        }
    }

    /// Marks file systems that are not yet; the last refusal, if any.
    fn mark_new(&mut self) -> Option<io::Error> {
        let candidates = mounts::candidates(&mounts::table(), &self.wanted);
        let there: HashSet<(u32, u32)> = candidates.iter().map(|c| c.device).collect();
        self.marked.retain(|device| there.contains(device));
        self.refused.retain(|device| there.contains(device));
        self.folders.keep(|point| candidates.iter().any(|c| c.point == point));
        let mut failure = candidates.is_empty().then(|| io::ErrorKind::NotFound.into());
        for candidate in candidates {
            if self.marked.contains(&candidate.device) {
                self.place(&candidate);
                continue;
            }
            if self.refused.contains(&candidate.device) {
                continue;
            }
            if self.marked.len() >= self.max_marks {
                self.tally.note(format!(
                    "files: more than {} file systems; the rest is not watched",
                    self.max_marks
                ));
                break;
            }
            match self.mark(&candidate).or_else(|error| self.mark_plain(&candidate, error)) {
                Ok(()) => {
                    self.marked.insert(candidate.device);
                    self.place(&candidate);
                }
                Err(error) => {
                    self.tally.note(format!(
                        "files: {} ({}) cannot be watched: {error}",
                        candidate.point.display(),
                        candidate.kind,
                    ));
                    self.refused.insert(candidate.device);
                    failure = Some(error);
                }
            }
        }
        failure
    }

    fn mark(&self, candidate: &Candidate) -> io::Result<()> {
        match kernel::mark(&self.group, &candidate.point, ALWAYS | RENAMED) {
            // FAN_RENAME came with 5.17; before, only the new name is told.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                kernel::mark(&self.group, &candidate.point, ALWAYS | MOVED_TO)
            }
            other => other,
        }
    }

    /// The way for file systems whose handles cannot be opened again: overlayfs without `nfs_export`, and btrfs
    /// subvolumes before 6.8. Writes are told, with the file itself; names that come and go are not.
    fn mark_plain(&mut self, candidate: &Candidate, refusal: io::Error) -> io::Result<()> {
        if !matches!(refusal.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENODEV | libc::EXDEV)) {
            return Err(refusal);
        }
        let plain = match self.plain.take() {
            Some(plain) => plain,
            None => kernel::init_plain()?,
        };
        let marked = kernel::mark(&plain, &candidate.point, WRITTEN);
        self.plain = Some(plain);
        marked?;
        self.tally.note(format!(
            "files: of {} file systems only writes are told, not renames, deletions and modes",
            candidate.kind
        ));
        Ok(())
    }

    fn place(&mut self, candidate: &Candidate) {
        if let Ok(fsid) = kernel::fsid(&candidate.point) {
            self.folders.mounted(fsid, &candidate.point);
        }
    }

    /// Listens until `stop` becomes readable.
    pub(crate) fn run(mut self, stop: &OwnedFd, sieve: &mut Sieve) {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let table = rustix::fs::openat(CWD, "/proc/self/mountinfo", flags, Mode::empty()).ok();
        let mut buffer = vec![0u8; BUFFER];
        let mut looked = Instant::now();
        let mut due = false;
        loop {
            let patience = Timespec { tv_sec: 3, tv_nsec: 0 };
            let mut waits = vec![PollFd::new(stop, PollFlags::IN), PollFd::new(&self.group, PollFlags::IN)];
            waits.extend(table.as_ref().map(|table| PollFd::new(table, PollFlags::PRI)));
            waits.extend(self.plain.as_ref().map(|plain| PollFd::new(plain, PollFlags::IN)));
            let woken = poll(&mut waits, Some(&patience));
            if !waits[0].revents().is_empty() {
                return;
            }
            // A mount table that changed is readable out of band (proc_pid_mounts(5)).
            due |= table.is_some() && waits[2].revents().intersects(PollFlags::PRI | PollFlags::ERR);
            due |= table.is_none() && woken.is_ok_and(|n| n == 0);
            if due && looked.elapsed() >= MOUNTS_PAUSE {
                self.mark_new();
                (looked, due) = (Instant::now(), false);
            }
            let (folders, tally) = (&mut self.folders, &self.tally);
            drain(&self.group, &mut buffer, tally, |n, now| folders.take(&n, sieve, tally, now));
            if let Some(plain) = &self.plain {
                drain(plain, &mut buffer, tally, |n, now| take_plain(&n, sieve, tally, now));
            }
            std::thread::sleep(PAUSE);
        }
    }
}

/// Reads a group until it is nearly empty.
fn drain(group: &OwnedFd, buffer: &mut [u8], tally: &Tally, mut take: impl FnMut(Notification<'_>, Instant)) {
    while let Ok(length) = rustix::io::read(group, &mut *buffer) {
        let now = Instant::now();
        if !notification::each(&buffer[..length], |n| take(n, now)) {
            Tally::count(&tally.malformed);
        }
        if length < BUFFER / 2 {
            return;
        }
    }
}

/// A write told by a group that reports files. The file may lie in a mount namespace where its path leads elsewhere
/// than here; so it is judged by what is open, and the path is as its container sees it.
fn take_plain(notification: &Notification<'_>, sieve: &mut Sieve, tally: &Tally, now: Instant) {
    use std::os::fd::AsRawFd;
    let file = kernel::file_of(notification.fd);
    if notification.mask & OVERFLOW != 0 {
        Tally::count(&tally.overflows);
    }
    let Some(file) = file.filter(|_| !sieve.ignores(notification.pid)) else { return };
    match std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())) {
        Ok(path) => sieve.take_open(&shown(path), &file, notification.pid, now),
        Err(_) => Tally::count(&tally.unresolved),
    }
}

impl Folders {
    fn take(&mut self, notification: &Notification<'_>, sieve: &mut Sieve, tally: &Tally, now: Instant) {
        if notification.mask & OVERFLOW != 0 {
            Tally::count(&tally.overflows);
            return;
        }
        if sieve.ignores(notification.pid) {
            return;
        }
        let Some(entry) = &notification.entry else { return };
        let from = notification.from.as_ref().and_then(|from| self.full(from, now, false));
        let mask = notification.mask;
        let Some(path) = self.full(entry, now, false) else {
            // What was made and removed in a folder that is itself gone again has no path any more.
            Tally::count(&tally.unresolved);
            return;
        };
        let act = match () {
            () if mask & (RENAMED | MOVED_TO) != 0 => Act::Renamed { from: from.map(shown) },
            () if mask & WRITTEN != 0 => Act::Written,
            () if mask & DELETED != 0 => Act::Deleted,
            () if mask & ATTRIBUTES != 0 => Act::Attributes,
            () => Act::Linked,
        };
        let seen = sieve.take(&shown(path.clone()), &act, notification.pid, now);
        if !seen && mask & DELETED != 0 && act != Act::Deleted {
            sieve.take(&shown(path), &Act::Deleted, notification.pid, now);
        } else if !seen
            && act != Act::Deleted
            && let Some(fresh) = self.full(entry, now, true).filter(|fresh| *fresh != path)
        {
            sieve.take(&shown(fresh), &act, notification.pid, now);
        }
    }

    fn full(&mut self, entry: &Entry<'_>, now: Instant, fresh: bool) -> Option<PathBuf> {
        self.path(entry, now, fresh).map(|folder| folder.join(OsStr::from_bytes(entry.name)))
    }
}

fn shown(path: PathBuf) -> String {
    path.to_string_lossy().into_owned()
}
