//! Goes through folders by their descriptors: a name is looked up in the folder that was read, never along a path, so that
//! nobody who may write on the way can lead it elsewhere. Symbolic links are not followed.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RawDir, Stat, fstat, openat, statat};

use crate::places;

/// Folders within folders that it goes into. Each costs an open descriptor.
const DEEPEST: usize = 512;

/// Bytes of a folder's entries that are read at once.
const ENTRIES: usize = 16 << 10;

/// A regular file on the way.
pub(crate) struct Entry<'a> {
    pub(crate) path: &'a Path,
    pub(crate) stat: Stat,
    place: Place<'a>,
}

/// How a file is opened.
enum Place<'a> {
    /// By its name in a folder.
    In(BorrowedFd<'a>, &'a CStr),
    /// It is open already.
    Open(BorrowedFd<'a>),
}

impl Entry<'_> {
    /// Opens it for reading, if it is still the file it was.
    pub(crate) fn open(&self) -> io::Result<File> {
        match self.place {
            Place::In(folder, name) => open_file(folder, name, &self.stat),
            Place::Open(fd) => fd.try_clone_to_owned().map(File::from),
        }
    }
}

/// What a walk meets.
pub(crate) enum Met<'a> {
    File(Entry<'a>),
    /// What it could not go into, and why.
    Closed(&'a Path, String),
}

/// How far a walk goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Stay on the file system of what was named.
    pub(crate) one_file_system: bool,
}

type Visit<'a> = dyn FnMut(Met<'_>) -> ControlFlow<()> + 'a;

/// Goes through `start`, a file or a folder. It is what the user named, so a symbolic link there is followed.
pub(crate) fn walk(start: &Path, limits: Limits, visit: &mut Visit<'_>) -> ControlFlow<()> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let opened = openat(CWD, start, flags, Mode::empty()).and_then(|fd| Ok((fstat(&fd)?, fd)));
    let (stat, fd) = match opened {
        Ok(opened) => opened,
        Err(error) => return visit(Met::Closed(start, io::Error::from(error).to_string())),
    };
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => {
            let mut walk = Walk { path: start.to_owned(), limits, visit };
            walk.folder(fd, &stat, 0)
        }
        FileType::RegularFile => {
            visit(Met::File(Entry { path: start, stat, place: Place::Open(fd.as_fd()) }))
        }
        _ => visit(Met::Closed(start, "it is neither a file nor a folder".to_owned())),
    }
}

struct Walk<'a, 'v> {
    path: PathBuf,
    limits: Limits,
    visit: &'a mut Visit<'v>,
}

impl Walk<'_, '_> {
    fn folder(&mut self, fd: OwnedFd, of: &Stat, depth: usize) -> ControlFlow<()> {
        // Read from the descriptor that is open already: opened once more for each folder, this was a good part of a second scan.
        let mut room = Vec::with_capacity(ENTRIES);
        let mut reading = RawDir::new(&fd, room.spare_capacity_mut());
        while let Some(entry) = reading.next() {
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => return self.closed(&io::Error::from(error)),
            };
            let name = entry.file_name();
            let kind = entry.file_type();
            if matches!(name.to_bytes(), b"." | b"..")
                || !matches!(kind, FileType::RegularFile | FileType::Directory | FileType::Unknown)
            {
                continue;
            }
            self.path.push(std::ffi::OsStr::from_bytes(name.to_bytes()));
            let flow = self.entry(fd.as_fd(), name, of, depth);
            self.path.pop();
            flow?;
        }
        ControlFlow::Continue(())
    }

    fn entry(&mut self, folder: BorrowedFd<'_>, name: &CStr, of: &Stat, depth: usize) -> ControlFlow<()> {
        let stat = match statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            // Gone since the folder was read.
            Err(rustix::io::Errno::NOENT) => return ControlFlow::Continue(()),
            Err(error) => return self.closed(&io::Error::from(error)),
        };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {
                (self.visit)(Met::File(Entry { path: &self.path, stat, place: Place::In(folder, name) }))
            }
            FileType::Directory => self.below(folder, name, &stat, of, depth),
            _ => ControlFlow::Continue(()),
        }
    }

    fn below(
        &mut self,
        folder: BorrowedFd<'_>,
        name: &CStr,
        stat: &Stat,
        of: &Stat,
        depth: usize,
    ) -> ControlFlow<()> {
        let elsewhere = stat.st_dev != of.st_dev;
        if elsewhere && self.limits.one_file_system {
            return ControlFlow::Continue(());
        }
        if depth >= DEEPEST {
            return self.closed(&io::Error::other(format!("it lies more than {DEEPEST} folders deep")));
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match openat(folder, name, flags, Mode::empty()) {
            Ok(fd) if elsewhere && places::passed_over(&fd) => ControlFlow::Continue(()),
            Ok(fd) => self.folder(fd, stat, depth + 1),
            Err(rustix::io::Errno::NOENT) => ControlFlow::Continue(()),
            Err(error) => self.closed(&io::Error::from(error)),
        }
    }

    fn closed(&mut self, error: &io::Error) -> ControlFlow<()> {
        (self.visit)(Met::Closed(&self.path, error.to_string()))
    }
}

fn open_file(folder: BorrowedFd<'_>, name: &CStr, known: &Stat) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    // Reading is not to change when a file was last read, where the kernel lets us say so.
    let fd = openat(folder, name, flags | OFlags::NOATIME, Mode::empty())
        .or_else(|_| openat(folder, name, flags, Mode::empty()))?;
    let stat = fstat(&fd)?;
    if (stat.st_dev, stat.st_ino) != (known.st_dev, known.st_ino) {
        return Err(io::Error::other("another file took its place just now"));
    }
    Ok(File::from(fd))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;
    use std::io::Read;
    use std::os::unix::fs::symlink;

    use super::*;

    fn met(start: &Path) -> (Vec<String>, Vec<String>) {
        let (mut files, mut closed) = (Vec::new(), Vec::new());
        let _ = walk(start, Limits { one_file_system: false }, &mut |met| {
            match met {
                Met::File(entry) => {
                    let mut text = String::new();
                    entry.open().unwrap().read_to_string(&mut text).unwrap();
                    files.push(text);
                }
                Met::Closed(path, _) => closed.push(path.display().to_string()),
            }
            ControlFlow::Continue(())
        });
        files.sort();
        (files, closed)
    }

    #[test]
    fn links_and_pipes_are_passed_over_and_what_is_named_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("secret"), "outside").unwrap();
        fs::create_dir_all(folder.path().join("a/b")).unwrap();
        fs::write(folder.path().join("a/b/one"), "one").unwrap();
        fs::write(folder.path().join("two"), "two").unwrap();
        symlink(outside.path(), folder.path().join("link")).unwrap();
        symlink(outside.path().join("secret"), folder.path().join("a/link")).unwrap();
        rustix::fs::mknodat(CWD, folder.path().join("pipe"), FileType::Fifo, Mode::RUSR, 0).unwrap();
        let inside = vec!["one".to_owned(), "two".to_owned()];
        assert_eq!(met(folder.path()), (inside, vec![]));
        assert_eq!(met(&folder.path().join("link")).0, ["outside"]);
        assert_eq!(met(&folder.path().join("two")).0, ["two"]);
        assert_eq!(met(&folder.path().join("none")).1.len(), 1);
    }

    #[test]
    fn a_file_that_was_exchanged_meanwhile_is_not_opened() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("file"), "old").unwrap();
        fs::write(folder.path().join("other"), "new").unwrap();
        let mut opened = Vec::new();
        let _ = walk(folder.path(), Limits { one_file_system: true }, &mut |met| {
            if let Met::File(entry) = met
                && entry.path.ends_with("file")
            {
                fs::rename(folder.path().join("other"), folder.path().join("file")).unwrap();
                opened.push(entry.open().is_ok());
                fs::remove_file(folder.path().join("file")).unwrap();
                symlink("/etc/passwd", folder.path().join("file")).unwrap();
                opened.push(entry.open().is_ok());
            }
            ControlFlow::Continue(())
        });
        assert_eq!(opened, [false, false]);
    }
}
