//! Putting a file back as it was, without writing over anything that came to its place.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File, Permissions},
    io,
    os::{
        fd::AsRawFd,
        unix::fs::{MetadataExt, PermissionsExt, fchown},
    },
    path::{Path, PathBuf},
};

use rustix::{
    fd::OwnedFd,
    fs::{
        AtFlags, CWD, IFlags, Mode, OFlags, RenameFlags, ResolveFlags, Timespec, Timestamps, futimens,
        ioctl_getflags, ioctl_setflags, linkat, open, openat, openat2, renameat_with, unlinkat,
    },
    io::Errno,
};
use xattr::FileExt;

use super::{content::Counted, disk::sync_folder, sealed_file::SealedFile, vault::Vault};

/// Names tried when the old one is taken.
const TRIES: u32 = 100;

/// How a file was put back.
pub(crate) struct Restored {
    /// Where it lies now.
    pub(crate) path: PathBuf,
    /// Whether that is not its old place, because something else is there.
    pub(crate) beside: bool,
    /// What could not be put back, such as an attribute.
    pub(crate) missing: Vec<String>,
    /// Why a loss of power soon may take it away again; `None` when it may not.
    pub(crate) not_on_disk: Option<String>,
}

/// Puts the file back, or says in plain words why not. Where the file system knows files without a name, the copy gets
/// its name when it is whole and not before, so that no moment leaves one that could be run elsewhere.
pub(crate) fn restore(vault: &Vault, record: &SealedFile) -> Result<Restored, String> {
    let Some(place) = &record.place else {
        return Err("it had no name on the host, so there is no place to put it back to".into());
    };
    let (folder_path, name) = (place.folder.to_path(), place.name.to_os());
    let told =
        |what: &str, error: &dyn std::fmt::Display| format!("{what} {}: {error}", folder_path.display());
    let folder = open_folder(&folder_path).map_err(|e| told("its folder cannot be opened,", &e))?;
    let mut copy = Copy::make(vault, &folder, &folder_path, record)
        .map_err(|e| told("nothing can be written into", &e))?;
    let filled = vault.read_into(record, &mut copy.file).map_err(|e| e.to_string());
    let dressed = filled.and_then(|()| dress(&copy.file, record));
    let placed = dressed.and_then(|missing| {
        let placed = copy.put_in_place(&name, record).map_err(|e| told("it cannot be named in", &e))?;
        Ok((placed, missing))
    });
    let ((given, file), mut missing) = placed.inspect_err(|_| copy.discard())?;
    // Last, because an immutable file could not have been named.
    if record.flags != 0 && ioctl_getflags(&file).is_ok_and(|flags| flags.bits() != record.flags) {
        let wanted = IFlags::from_bits_retain(record.flags);
        let _ = ioctl_setflags(&file, wanted);
        let special = IFlags::IMMUTABLE | IFlags::APPEND;
        if ioctl_getflags(&file).is_ok_and(|now| now & special != wanted & special) {
            missing.push("its immutable or append-only attribute".into());
        }
    }
    let not_on_disk = sync_folder(&folder_path).err().map(|error| error.to_string());
    Ok(Restored { path: folder_path.join(&given), beside: given != name, missing, not_on_disk })
}

/// Removes what a restore that was cut short may have left under a name of its own.
pub(super) fn forget_unfinished(record: &SealedFile) {
    let Some(place) = &record.place else { return };
    if let Ok(folder) = open_folder(&place.folder.to_path()) {
        let _ = unlinkat(&folder, unfinished(record).as_str(), AtFlags::empty());
    }
}

fn unfinished(record: &SealedFile) -> String {
    format!(".davy-restoring-{}", record.number)
}

/// The copy in the making.
struct Copy<'a> {
    file: File,
    folder: &'a OwnedFd,
    /// The name that it has meanwhile, on file systems that know no file without one.
    named: Option<String>,
}

impl<'a> Copy<'a> {
    fn make(vault: &Vault, folder: &'a OwnedFd, folder_path: &Path, record: &SealedFile) -> io::Result<Self> {
        let mode = Mode::RUSR | Mode::WUSR;
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        // By a descriptor, so that the folder is the one that was opened without following links.
        match openat(folder, ".", flags | OFlags::TMPFILE, mode) {
            Ok(file) => return Ok(Self { file: file.into(), folder, named: None }),
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL | Errno::NOENT) => {}
            Err(errno) => return Err(errno.into()),
        }
        vault.note_restoring(record.number)?;
        let name = unfinished(record);
        let _ = unlinkat(folder, name.as_str(), AtFlags::empty());
        let flags = flags | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let file = openat(folder, name.as_str(), flags, mode)
            .map_err(|errno| io::Error::other(format!("{}: {errno}", folder_path.join(&name).display())))?;
        Ok(Self { file: file.into(), folder, named: Some(name) })
    }

    /// Gives the finished file its name, or one beside it. Gives the name, and what has it.
    fn put_in_place(&self, name: &OsStr, record: &SealedFile) -> Result<(OsString, File), Errno> {
        for attempt in 0..TRIES {
            let mut candidate = name.to_owned();
            match attempt {
                0 => {}
                1 => candidate.push(".davy-restored"),
                n => candidate.push(format!(".davy-restored-{n}")),
            }
            match self.name(&candidate) {
                Err(Errno::EXIST) => {
                    if let Some(file) = restored_before(self.folder, &candidate, record) {
                        self.discard();
                        return Ok((candidate, file));
                    }
                }
                named => {
                    let file = self.file.try_clone().map_err(|_| Errno::MFILE);
                    return named.and_then(|()| Ok((candidate, file?)));
                }
            }
        }
        Err(Errno::EXIST)
    }

    /// Gives it a name that nothing has.
    fn name(&self, to: &OsStr) -> Result<(), Errno> {
        let Some(from) = &self.named else {
            let from = format!("/proc/self/fd/{}", self.file.as_raw_fd());
            return linkat(CWD, from, self.folder, to, AtFlags::SYMLINK_FOLLOW);
        };
        match renameat_with(self.folder, from.as_str(), self.folder, to, RenameFlags::NOREPLACE) {
            // The file system does not know the flag; a link does not replace either.
            Err(Errno::INVAL | Errno::NOSYS) => {
                linkat(self.folder, from.as_str(), self.folder, to, AtFlags::empty())?;
                unlinkat(self.folder, from.as_str(), AtFlags::empty())
            }
            renamed => renamed,
        }
    }

    fn discard(&self) {
        if let Some(name) = &self.named {
            let _ = unlinkat(self.folder, name.as_str(), AtFlags::empty());
        }
    }
}

/// The folder under the very path it had: a symbolic link that was put in the way is not followed.
fn open_folder(path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS) {
        // Before Linux 5.6, or where a sandbox does not know the call.
        Err(Errno::NOSYS | Errno::PERM) => open(path, flags | OFlags::NOFOLLOW, Mode::empty()),
        opened => opened,
    }
}

/// Owner, mode, attributes and times, in the order in which none undoes another: a change of owner clears
/// set-user-id and capabilities, and every change moves the times.
fn dress(file: &File, record: &SealedFile) -> Result<Vec<String>, String> {
    let mut missing = Vec::new();
    let mut note = |what: String, error: &dyn std::fmt::Display| missing.push(format!("{what} ({error})"));
    if let Err(error) = fchown(file, Some(record.uid), Some(record.gid)) {
        let own = file.metadata().map_err(|e| e.to_string())?;
        if (own.uid(), own.gid()) != (record.uid, record.gid) {
            // With another owner, set-user-id would lend that owner's rights.
            return Err(format!("its owner {}:{} cannot be given back: {error}", record.uid, record.gid));
        }
    }
    if let Err(error) = file.set_permissions(Permissions::from_mode(record.mode)) {
        note("its mode".into(), &error);
    }
    for (name, value) in &record.xattrs {
        if let Err(error) = file.set_xattr(name.to_os(), &value.0) {
            note(name.to_os().to_string_lossy().into_owned(), &error);
        }
    }
    let [access, change] = record.times.map(|(tv_sec, nanos)| Timespec { tv_sec, tv_nsec: nanos as _ });
    let times = Timestamps { last_access: access, last_modification: change };
    if let Err(error) = futimens(file, &times) {
        note("its times".into(), &error);
    }
    file.sync_all().map_err(|e| e.to_string())?;
    Ok(missing)
}

/// What lies there, when it is the file itself, put back by an undo that died before it could say so.
fn restored_before(folder: &OwnedFd, name: &OsStr, record: &SealedFile) -> Option<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(openat(folder, name, flags, Mode::empty()).ok()?);
    let same = file.metadata().is_ok_and(|meta: fs::Metadata| {
        meta.is_file()
            && meta.len() == record.bytes
            && (meta.uid(), meta.gid(), meta.mode() & 0o7777) == (record.uid, record.gid, record.mode)
    });
    let mut content = Counted::new(&file);
    let read = same && io::copy(&mut content, &mut io::sink()).is_ok();
    (read && content.finish().1 == record.sha256).then_some(file)
}
