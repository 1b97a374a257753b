//! Paths of folders from their handles.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, Mode, OFlags};

use super::kernel::open_handle;
use super::notification::Entry;
use crate::known::Known;

/// How long a folder's path is believed. A folder that is renamed meanwhile is shown under its old path so long.
const BELIEVED: Duration = Duration::from_secs(2);

/// At most twice so many folders are remembered.
const MAX_FOLDERS: usize = 2048;

/// A folder's identity: file system, handle type, handle.
type Handle = ([i32; 2], i32, Vec<u8>);

/// Finds folders. No descriptor is kept open, since one would keep its file system from being unmounted.
#[derive(Debug)]
pub(super) struct Folders {
    mounts: HashMap<[i32; 2], PathBuf>,
    known: Known<Handle, (PathBuf, Instant)>,
}

impl Folders {
    pub(super) fn new() -> Self {
        Self { mounts: HashMap::new(), known: Known::new(MAX_FOLDERS) }
    }

    /// Tells where a file system is mounted.
    pub(super) fn mounted(&mut self, fsid: [i32; 2], point: &Path) {
        self.mounts.insert(fsid, point.to_owned());
    }

    /// Forgets file systems that are not mounted at any of these points any more.
    pub(super) fn keep(&mut self, points: impl Fn(&Path) -> bool) {
        self.mounts.retain(|_, point| points(point));
        self.known.clear();
    }

    /// The folder an entry lies in; with `fresh`, asked anew whatever is remembered.
    pub(super) fn path(&mut self, entry: &Entry<'_>, now: Instant, fresh: bool) -> Option<PathBuf> {
        let handle = (entry.fsid, entry.kind, entry.handle.to_vec());
        if !fresh
            && let Some((path, asked)) = self.known.get(&handle)
            && now.saturating_duration_since(asked) < BELIEVED
        {
            return Some(path);
        }
        let path = self.ask(entry)?;
        self.known.insert(handle, (path.clone(), now));
        Some(path)
    }

    fn ask(&self, entry: &Entry<'_>) -> Option<PathBuf> {
        use std::os::fd::AsRawFd;
        let point = self.mounts.get(&entry.fsid)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mount = rustix::fs::openat(CWD, point, flags, Mode::empty()).ok()?;
        let folder = open_handle(&mount, entry.kind, entry.handle).ok()?;
        let path = std::fs::read_link(format!("/proc/self/fd/{}", folder.as_raw_fd())).ok()?;
        // A folder that was removed meanwhile has " (deleted)" behind its path, and nothing in it.
        (path.is_absolute() && !path.as_os_str().as_encoded_bytes().ends_with(b" (deleted)")).then_some(path)
    }
}
