//! The file as it lies on the host, held by descriptor so that no change of names can put another in its place.

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{self, Read},
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Path, PathBuf},
};

use davy_model::{FileId, ProcessKey};
use rustix::{
    fd::{AsFd, OwnedFd},
    fs::{AtFlags, IFlags, Mode, OFlags, ioctl_getflags, ioctl_setflags, open, statat, unlinkat},
    io::Errno,
};
use xattr::FileExt;

use super::{
    content::Counted,
    disk::sync_names,
    sealed_file::{HexBytes, Place, SealedFile},
};
use crate::held::Held;

/// A file found and proven to be the one that is meant.
pub(crate) struct Original {
    /// Open for reading.
    pub(crate) content: File,
    pub(crate) meta: fs::Metadata,
    /// The folder it lies in, and its name there; `None` when it has no name that leads to it.
    named: Option<(OwnedFd, OsString)>,
}

/// How far a name was taken away.
#[derive(Debug)]
pub(crate) enum Unlinked {
    /// It had none.
    Nameless,
    /// It is gone.
    Gone,
    /// It is gone, and a loss of power soon may bring it back, because of this.
    NotYetOnDisk(String),
}

/// Why a file was not reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// There is another file at the path now.
    Another,
    /// There is none.
    Gone,
    /// It was changed while it was looked at.
    Changed,
    /// It is no ordinary file.
    Special,
    /// Its place is mounted read-only, for everybody or for the agent.
    ReadOnly,
    /// The kernel does not let us.
    Denied(String),
}

impl std::fmt::Display for Reach {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Another => f.write_str("there is another file at this path now"),
            Self::Gone => f.write_str("there is no such file any more"),
            Self::Changed => f.write_str("it was changed meanwhile"),
            Self::Special => f.write_str("it is not an ordinary file"),
            Self::ReadOnly => f.write_str(
                "its place is read-only for the agent (of an agent that is a service, ReadWritePaths= in a drop-in opens it)",
            ),
            Self::Denied(why) => write!(f, "it cannot be opened: {why}"),
        }
    }
}

impl From<Errno> for Reach {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::NOENT | Errno::NOTDIR => Self::Gone,
            Errno::ROFS => Self::ReadOnly,
            errno => Self::Denied(errno.to_string()),
        }
    }
}

impl Original {
    /// Reaches the file by its path, or through the process that runs it: then by the path where it lies now, and
    /// where it has none, by its content alone.
    pub(crate) fn reach(path: &Path, file: FileId, process: Option<&ProcessKey>) -> Result<Self, Reach> {
        let by_path = Self::at(path, file);
        let (Err(reach), Some(key)) = (&by_path, process) else { return by_path };
        match Self::run_by(key, file) {
            Ok(original) => Ok(original),
            Err(_) => Err(reach.clone()),
        }
    }

    /// The file at this path when it is the one that was sealed, whatever number its disk has now.
    pub(crate) fn again(path: &Path, sealed: &SealedFile) -> Option<Self> {
        let file = FileId { dev: fs::symlink_metadata(path).ok()?.dev(), ino: sealed.file.ino };
        let original = Self::at(path, file).ok().filter(|original| original.meta.len() == sealed.bytes)?;
        let mut content = Counted::new(original.reader(sealed.bytes).ok()?);
        io::copy(&mut content, &mut io::sink()).ok()?;
        (content.finish().1 == sealed.sha256).then_some(original)
    }

    fn at(path: &Path, file: FileId) -> Result<Self, Reach> {
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else { return Err(Reach::Gone) };
        let folder = open(folder, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let seen = rustix::fs::openat(&folder, name, flags, Mode::empty())?;
        let (content, meta) = reopened(&seen, file)?;
        Ok(Self { content, meta, named: Some((folder, name.to_owned())) })
    }

    /// Through `/proc/PID/exe`, which leads to the file itself whatever became of its name.
    fn run_by(key: &ProcessKey, file: FileId) -> Result<Self, Reach> {
        let link = PathBuf::from(format!("/proc/{}/exe", key.pid));
        let seen = open(&link, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        if Held::take(key).is_none() {
            return Err(Reach::Gone);
        }
        if let Ok(path) = fs::read_link(&link)
            && let Ok(named) = Self::at(&path, file)
        {
            return Ok(named);
        }
        let (content, meta) = reopened(&seen, file)?;
        Ok(Self { content, meta, named: None })
    }

    pub(crate) fn place(&self) -> Option<Place> {
        let (folder, name) = self.named.as_ref()?;
        // The kernel's own word for the folder, without symbolic links.
        let folder = fs::read_link(descriptor_path(folder)).ok()?;
        let folder = HexBytes(folder.as_os_str().as_bytes().to_vec());
        Some(Place { folder, name: HexBytes(name.as_bytes().to_vec()) })
    }

    pub(crate) fn xattrs(&self) -> io::Result<Vec<(HexBytes, HexBytes)>> {
        let mut xattrs = Vec::new();
        let names = match self.content.list_xattr() {
            Ok(names) => names,
            Err(error) if error.raw_os_error() == Some(Errno::OPNOTSUPP.raw_os_error()) => return Ok(xattrs),
            Err(error) => return Err(error),
        };
        for name in names {
            if let Some(value) = self.content.get_xattr(&name)? {
                xattrs.push((HexBytes(name.as_bytes().to_vec()), HexBytes(value)));
            }
        }
        Ok(xattrs)
    }

    pub(crate) fn flags(&self) -> u32 {
        ioctl_getflags(&self.content).map_or(0, |flags| flags.bits())
    }

    /// Whether nobody changed it since it was reached. The time of change cannot be set back, as that of the content can.
    pub(crate) fn unchanged(&self) -> io::Result<bool> {
        let now = self.content.metadata()?;
        let mark = |meta: &fs::Metadata| {
            (meta.size(), meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec())
        };
        Ok(mark(&now) == mark(&self.meta))
    }

    /// Takes its name away, and makes sure that it does not come back with the power. The attributes that forbid it are
    /// lifted first.
    pub(crate) fn unlink(&self) -> Result<Unlinked, Reach> {
        let Some((folder, name)) = &self.named else { return Ok(Unlinked::Nameless) };
        if !self.unchanged().map_err(|error| Reach::Denied(error.to_string()))? {
            return Err(Reach::Changed);
        }
        let flags = IFlags::from_bits_retain(self.flags());
        let forbidding = IFlags::IMMUTABLE | IFlags::APPEND;
        let lifted = flags.intersects(forbidding);
        if lifted {
            ioctl_setflags(&self.content, flags.difference(forbidding))?;
        }
        let gone =
            self.is_still_named(folder, name).and_then(|()| Ok(unlinkat(folder, name, AtFlags::empty())?));
        if gone.is_err() && lifted {
            let _ = ioctl_setflags(&self.content, flags);
        }
        gone?;
        let readable = open(descriptor_path(folder), OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        match readable.map_err(io::Error::from).and_then(|folder| sync_names(&folder.into())) {
            Ok(()) => Ok(Unlinked::Gone),
            Err(error) => Ok(Unlinked::NotYetOnDisk(error.to_string())),
        }
    }

    fn is_still_named(&self, folder: &OwnedFd, name: &OsString) -> Result<(), Reach> {
        let stat = statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let same = (stat.st_dev, stat.st_ino) == (self.meta.dev(), self.meta.ino());
        if same { Ok(()) } else { Err(Reach::Another) }
    }

    /// The content from its beginning, at most `limit` bytes and one.
    pub(crate) fn reader(&self, limit: u64) -> io::Result<impl Read> {
        Ok(read_only(&descriptor_path(&self.content))?.take(limit.saturating_add(1)))
    }
}

fn descriptor_path(fd: &impl AsFd) -> PathBuf {
    use rustix::fd::AsRawFd;
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd()))
}

/// Opens without moving the access time, which is to be restored one day.
fn read_only(path: &Path) -> Result<File, Errno> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    open(path, flags | OFlags::NOATIME, Mode::empty())
        .or_else(|_| open(path, flags, Mode::empty()))
        .map(File::from)
}

/// Opens for reading what was reached by O_PATH, when it is the file that is meant.
fn reopened(seen: &OwnedFd, file: FileId) -> Result<(File, fs::Metadata), Reach> {
    let stat = rustix::fs::fstat(seen)?;
    if (stat.st_dev, stat.st_ino) != (file.dev, file.ino) {
        return Err(Reach::Another);
    }
    if !rustix::fs::FileType::from_raw_mode(stat.st_mode).is_file() {
        return Err(Reach::Special);
    }
    let path = descriptor_path(seen);
    let content = read_only(&path)?;
    let meta = content.metadata().map_err(|error| Reach::Denied(error.to_string()))?;
    Ok((content, meta))
}
