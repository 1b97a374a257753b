//! A root folder, from which no path leads out.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use davy_packages::Aliases;
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, Stat, fstat, openat, openat2};
use rustix::io::Errno;

use crate::error::Error;

/// Folders in the root that distributions have replaced by links.
const MERGED: [&str; 6] = ["bin", "sbin", "lib", "lib32", "lib64", "libx32"];

/// The root of a system.
#[derive(Debug)]
pub(crate) struct Root {
    folder: OwnedFd,
    /// The root of this process. No path leads out of it, so that kernels without openat2 (before 5.6) will do.
    is_own: bool,
}

/// When a file last changed, as far as its inode tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp([u64; 7]);

impl Stamp {
    pub(crate) fn of(stat: &Stat) -> Self {
        Self([
            stat.st_dev,
            stat.st_ino,
            stat.st_size as u64,
            stat.st_mtime as u64,
            stat.st_mtime_nsec,
            stat.st_ctime as u64,
            stat.st_ctime_nsec,
        ])
    }

    /// Without the time of the last change of owner and mode.
    pub(crate) fn of_content(self) -> Self {
        let [dev, ino, size, seconds, nanoseconds, ..] = self.0;
        Self([dev, ino, size, seconds, nanoseconds, 0, 0])
    }

    pub(crate) fn bytes(&self) -> impl Iterator<Item = u8> {
        self.0.iter().flat_map(|number| number.to_le_bytes())
    }
}

/// What lies at the path of a packaged file.
pub(crate) enum Found {
    /// A regular file: a handle that can only be looked at, until [`Looked::open`].
    Regular(Looked),
    /// A folder, a link, a device.
    Other,
    /// Nothing.
    Nothing,
}

/// A regular file that was looked at and not opened.
pub(crate) struct Looked {
    handle: OwnedFd,
    pub(crate) stat: Stat,
}

impl Looked {
    /// Opens that very file for reading, without a trace in its access time where that is allowed.
    pub(crate) fn open(&self) -> Result<OwnedFd, Errno> {
        let path = format!("/proc/self/fd/{}", self.handle.as_raw_fd());
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY;
        match openat(CWD, &path, flags | OFlags::NOATIME, Mode::empty()) {
            Err(Errno::PERM) => openat(CWD, &path, flags, Mode::empty()),
            other => other,
        }
    }
}

impl Root {
    /// Opens the folder.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = openat(CWD, path, flags, Mode::empty())
            .map_err(|e| Error::io("opening the root", path.display().to_string(), e))?;
        let is_own = std::fs::canonicalize(path).is_ok_and(|real| real == Path::new("/"));
        Ok(Self { folder, is_own })
    }

    fn at(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        let start = path.iter().position(|b| *b != b'/').unwrap_or(path.len());
        let below = if start == path.len() { b"." } else { &path[start..] };
        let below = OsStr::from_bytes(below);
        if self.is_own {
            openat(&self.folder, below, flags | OFlags::CLOEXEC, Mode::empty())
        } else {
            let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
            openat2(&self.folder, below, flags | OFlags::CLOEXEC, Mode::empty(), inside)
        }
    }

    /// What lies at a packaged path. Nothing is opened: opening a device does things.
    pub(crate) fn look(&self, path: &[u8]) -> Result<Found, Errno> {
        let handle = match self.at(path, OFlags::PATH | OFlags::NOFOLLOW) {
            Ok(handle) => handle,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(Found::Nothing),
            Err(error) => return Err(error),
        };
        let stat = fstat(&handle)?;
        Ok(if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile {
            Found::Regular(Looked { handle, stat })
        } else {
            Found::Other
        })
    }

    /// The stamp of a file or folder of the database, if it is there.
    pub(crate) fn stamp(&self, path: &str) -> Option<Stamp> {
        let handle = self.at(path.as_bytes(), OFlags::PATH).ok()?;
        Some(Stamp::of(&fstat(&handle).ok()?))
    }

    /// A file of the database; `None` when it is not there.
    pub(crate) fn read(&self, path: &str, limit: u64) -> Result<Option<Vec<u8>>, Error> {
        let failed = |e: Errno| Error::io("reading", path, e);
        let handle = match self.at(path.as_bytes(), OFlags::PATH) {
            Ok(handle) => handle,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let stat = fstat(&handle).map_err(failed)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(failed(Errno::INVAL));
        }
        let file = File::from(Looked { handle, stat }.open().map_err(failed)?);
        let mut bytes = Vec::with_capacity(usize::try_from(stat.st_size).unwrap_or(0).min(1 << 20));
        file.take(limit + 1).read_to_end(&mut bytes).map_err(|e| Error::io("reading", path, e))?;
        if bytes.len() as u64 > limit {
            return Err(Error::TooLarge { object: path.to_owned(), limit });
        }
        Ok(Some(bytes))
    }

    /// The names in a folder, sorted; none when there is no such folder.
    pub(crate) fn names(&self, path: &str) -> Result<Vec<String>, Error> {
        let failed = |e: Errno| Error::io("listing", path, e);
        let folder = match self.at(path.as_bytes(), OFlags::RDONLY | OFlags::DIRECTORY) {
            Ok(folder) => folder,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(Vec::new()),
            Err(error) => return Err(failed(error)),
        };
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&folder).map_err(failed)? {
            if let Ok(name) = entry.map_err(failed)?.file_name().to_str()
                && name != "."
                && name != ".."
            {
                names.push(name.to_owned());
            }
        }
        names.sort();
        Ok(names)
    }

    /// Where a folder of this root lies on the host; `None` when it is not there.
    pub(crate) fn host_path(&self, path: &str) -> Option<PathBuf> {
        let folder = self.at(path.as_bytes(), OFlags::PATH | OFlags::DIRECTORY).ok()?;
        std::fs::read_link(format!("/proc/self/fd/{}", folder.as_raw_fd())).ok()
    }

    /// The top-level folders that are links.
    pub(crate) fn aliases(&self) -> Aliases {
        let target = |name: &str| {
            let link = rustix::fs::readlinkat(&self.folder, name, Vec::new()).ok()?;
            let link = std::ffi::OsString::from_vec(link.into_bytes());
            Some((name.as_bytes().to_vec(), link.into_vec()))
        };
        Aliases::new(MERGED.iter().filter_map(|name| target(name)))
    }
}
