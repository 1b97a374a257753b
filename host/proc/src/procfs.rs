use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use davy_model::{FileId, ProcessKey};
use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, Stat as FileStat};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};

use crate::stat::{Stat, parse_stat};

/// At most so many processes are listed in one go; a host with more shows the first of /proc's order.
pub const MAX_PROCESSES: usize = 262_144;

/// Room for the files that the kernel writes in one piece: a page.
const PIECE: usize = 4096;

/// At most so many threads of one process are looked at.
pub(crate) const MAX_THREADS: usize = 16_384;

/// A view of the process file system, held open as a folder.
///
/// As root it is a procfs instance of Davy's own that is mounted nowhere: what somebody mounts over `/proc/PID` to
/// hide a process does not cover it. Otherwise it is `/proc` itself. In tests it is any folder.
#[derive(Clone, Debug)]
pub struct ProcFs {
    folder: Option<Arc<OwnedFd>>,
    boot: u32,
}

impl ProcFs {
    /// The view on a host without /proc: every read gives `None`.
    const NOTHING: Self = Self { folder: None, boot: 0 };

    /// The host's view, opened once for the whole program.
    #[must_use]
    pub fn host() -> &'static Self {
        static HOST: OnceLock<ProcFs> = OnceLock::new();
        HOST.get_or_init(|| {
            let own = own_instance().ok().map(Self::new).filter(|p| p.boot != 0);
            own.or_else(|| Self::at(Path::new("/proc")).ok()).unwrap_or(Self::NOTHING)
        })
    }

    /// A view of any folder that looks like /proc.
    ///
    /// # Errors
    /// When the folder cannot be opened.
    pub fn at(root: &Path) -> std::io::Result<Self> {
        let folder = rustix::fs::openat(
            CWD,
            root,
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        Ok(Self::new(folder))
    }

    /// The first 32 bits of the boot's id; zero where it cannot be read.
    #[must_use]
    pub fn boot(&self) -> u32 {
        self.boot
    }

    /// The pids listed now, at most [`MAX_PROCESSES`].
    #[must_use]
    pub fn pids(&self) -> Vec<u32> {
        self.folder.as_ref().map_or_else(Vec::new, |folder| numbers(folder, MAX_PROCESSES))
    }

    /// The key of the process that holds this pid now.
    #[must_use]
    pub fn key(&self, pid: u32) -> Option<ProcessKey> {
        self.stat(pid).map(|stat| self.key_of(&stat))
    }

    /// The cgroup v2 path of the process that holds this pid now; `None` where there is none.
    #[must_use]
    pub fn cgroup(&self, pid: u32) -> Option<String> {
        let text = bounded(self.folder.as_ref()?, &format!("{pid}/cgroup"), 64 * 1024)?;
        let member = crate::cgroup::membership(&String::from_utf8_lossy(&text));
        member.unified.then_some(member.path)
    }

    /// One process's stat, in the fewest system calls: sweeps over all processes are made of this.
    pub(crate) fn stat(&self, pid: u32) -> Option<Stat> {
        own_stat(self.folder.as_ref()?, &format!("{pid}/stat"), pid)
    }

    /// Where a link in a process's folder leads, without opening the folder.
    pub(crate) fn link(&self, pid: u32, path: &str) -> Option<String> {
        link(self.folder.as_ref()?, &format!("{pid}/{path}"))
    }

    pub(crate) fn key_of(&self, stat: &Stat) -> ProcessKey {
        ProcessKey { pid: stat.pid, start_ticks: stat.start_ticks, boot: self.boot }
    }

    /// One process's folder. It stays the folder of that process: once the process is gone, reads in it fail, also
    /// when the pid is reused.
    pub(crate) fn open(&self, pid: u32) -> Option<ProcessFolder> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = rustix::fs::openat(self.folder.as_ref()?, pid.to_string(), flags, Mode::empty()).ok()?;
        Some(ProcessFolder { folder, pid })
    }

    /// A file at the top of the view.
    pub(crate) fn file(&self, path: &str, most: usize) -> Option<Vec<u8>> {
        bounded(self.folder.as_ref()?, path, most)
    }

    fn new(folder: OwnedFd) -> Self {
        let boot = bounded(&folder, "sys/kernel/random/boot_id", 64).map_or(0, |text| parse_boot(&text));
        Self { folder: Some(Arc::new(folder)), boot }
    }
}

/// A procfs instance that is attached to no mount tree.
fn own_instance() -> rustix::io::Result<OwnedFd> {
    let context = rustix::mount::fsopen("proc", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_create(&context)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let mount = rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    rustix::fs::openat(&mount, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

/// `/proc/PID`, opened.
#[derive(Debug)]
pub(crate) struct ProcessFolder {
    folder: OwnedFd,
    pid: u32,
}

impl ProcessFolder {
    /// `stat`, when it is this process's: a folder mounted over another's tells another pid.
    pub(crate) fn stat(&self) -> Option<Stat> {
        own_stat(&self.folder, "stat", self.pid)
    }

    /// A file that the kernel writes in one piece of at most [`PIECE`] bytes, such as a thread's stat.
    pub(crate) fn piece(&self, path: &str) -> Option<Vec<u8>> {
        piece(&self.folder, path)
    }

    pub(crate) fn file(&self, path: &str, most: usize) -> Option<Vec<u8>> {
        bounded(&self.folder, path, most)
    }

    /// A file as text; what is not UTF-8 is replaced.
    pub(crate) fn text(&self, path: &str, most: usize) -> Option<String> {
        self.file(path, most).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    /// A small file that holds one number.
    pub(crate) fn number<T: std::str::FromStr>(&self, path: &str) -> Option<T> {
        self.text(path, 64)?.trim().parse().ok()
    }

    /// Where a symbolic link leads, as the kernel words it.
    pub(crate) fn link(&self, path: &str) -> Option<String> {
        link(&self.folder, path)
    }

    /// What a link leads to, followed by the kernel into whatever mount namespace it is in.
    pub(crate) fn target(&self, path: &str) -> Option<FileStat> {
        rustix::fs::statat(&self.folder, path, AtFlags::empty()).ok()
    }

    /// The numbered entries of a folder such as `task` or `fd`, at most `most`.
    pub(crate) fn numbers(&self, path: &str, most: usize) -> Vec<u32> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::openat(&self.folder, path, flags, Mode::empty())
            .map_or_else(|_| Vec::new(), |folder| numbers(&folder, most))
    }

    /// An open descriptor for a link's target, such as `ns/net`.
    pub(crate) fn open(&self, path: &str) -> Option<OwnedFd> {
        rustix::fs::openat(&self.folder, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()
    }
}

/// Device and inode of a file as the model has them.
pub(crate) fn file_id(stat: &FileStat) -> FileId {
    FileId { dev: stat.st_dev, ino: stat.st_ino }
}

fn numbers(folder: &OwnedFd, most: usize) -> Vec<u32> {
    let Ok(entries) = Dir::read_from(folder) else { return Vec::new() };
    entries
        .map_while(Result::ok)
        .filter_map(|entry| entry.file_name().to_str().ok()?.parse().ok())
        .take(most)
        .collect()
}

fn own_stat(folder: &OwnedFd, path: &str, pid: u32) -> Option<Stat> {
    parse_stat(&piece(folder, path)?).filter(|stat| stat.pid == pid)
}

fn link(folder: &OwnedFd, path: &str) -> Option<String> {
    let target = rustix::fs::readlinkat(folder, path, Vec::with_capacity(256)).ok()?;
    Some(String::from_utf8_lossy(target.as_bytes()).into_owned())
}

/// Opens for reading. Only what opens without waiting is read: in a real /proc nothing waits, but a folder mounted over
/// it may hold a pipe.
fn open(folder: &OwnedFd, path: &str) -> Option<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    rustix::fs::openat(folder, path, flags, Mode::empty()).ok()
}

/// What one read gives.
fn piece(folder: &OwnedFd, path: &str) -> Option<Vec<u8>> {
    let file = open(folder, path)?;
    let mut bytes = vec![0; PIECE];
    let length = rustix::io::read(&file, &mut bytes[..]).ok()?;
    bytes.truncate(length);
    Some(bytes)
}

/// The first `most` bytes of a file.
fn bounded(folder: &OwnedFd, path: &str, most: usize) -> Option<Vec<u8>> {
    let file = open(folder, path)?;
    let mut bytes = Vec::new();
    while bytes.len() < most {
        let before = bytes.len();
        bytes.resize(most.min((before * 2).max(PIECE)), 0);
        let length = rustix::io::read(&file, &mut bytes[before..]).ok()?;
        bytes.truncate(before + length);
        if length == 0 {
            break;
        }
    }
    Some(bytes)
}

fn parse_boot(text: &[u8]) -> u32 {
    let digits = text.get(..8).and_then(|d| std::str::from_utf8(d).ok());
    digits.and_then(|d| u32::from_str_radix(d, 16).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_boot_is_the_first_eight_digits() {
        assert_eq!(parse_boot(b"0a1b2c3d-0000-4000-8000-000000000000\n"), 0x0a1b_2c3d);
        assert_eq!(parse_boot(b"zz"), 0);
    }

    #[test]
    fn the_host_has_this_process_in_it() {
        let proc = ProcFs::host();
        assert!(proc.boot() != 0);
        assert!(proc.pids().contains(&std::process::id()));
        let key = proc.key(std::process::id()).unwrap();
        assert!(key.start_ticks > 0);
    }

    #[test]
    fn a_folder_of_another_process_is_not_believed() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("7")).unwrap();
        let other = "8 (sh) S 1 8 8 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 5 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 17 0 0 0";
        std::fs::write(root.path().join("7/stat"), other).unwrap();
        assert_eq!(ProcFs::at(root.path()).unwrap().key(7), None);
    }
}
