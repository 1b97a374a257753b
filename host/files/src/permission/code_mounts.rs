//! The mounts that a process sees and that code can lie in.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;

use davy_model::parse_mountinfo;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, StatxFlags};

use crate::mounts::{MAX_TABLE, may_hold_code};

/// A mount, and the process through which it is reached.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CodeMount {
    /// The kernel's number of it, which another mount may have once this one is gone.
    pub id: u64,
    /// Where that process sees it.
    pub point: String,
    /// Type of its file system.
    pub kind: String,
    root: PathBuf,
}

/// The mounts that this process sees, local file systems alone: of what lies on others (FUSE, the network) opening it for
/// whoever answers can take for ever.
///
/// # Errors
/// When the process is gone, or may not be looked into.
pub fn code_mounts(pid: u32) -> io::Result<Vec<CodeMount>> {
    let mut table = Vec::new();
    File::open(format!("/proc/{pid}/mountinfo"))?.take(MAX_TABLE).read_to_end(&mut table)?;
    let root = PathBuf::from(format!("/proc/{pid}/root"));
    let worth = parse_mountinfo(&table).into_iter().filter(may_hold_code);
    Ok(worth
        .map(|mount| CodeMount { id: mount.id, point: mount.point, kind: mount.kind, root: root.clone() })
        .collect())
}

impl CodeMount {
    /// Opens its root, to be marked.
    ///
    /// # Errors
    /// When another mount hides it, or it is gone.
    pub fn open(&self) -> io::Result<OwnedFd> {
        let path = self.root.join(self.point.trim_start_matches('/'));
        let place =
            rustix::fs::openat(CWD, &path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
        let found =
            rustix::fs::statx(&place, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID | StatxFlags::TYPE)?;
        // A single file can be mounted too; a pipe or a device holds no code, and opening one does things.
        let kind = FileType::from_raw_mode(found.stx_mode.into());
        if found.stx_mnt_id != self.id || !matches!(kind, FileType::Directory | FileType::RegularFile) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let again = format!("/proc/self/fd/{}", place.as_fd().as_raw_fd());
        Ok(rustix::fs::openat(
            CWD,
            again,
            OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC,
            Mode::empty(),
        )?)
    }
}
