//! Putting a file back as it was, without writing over anything that came to its place.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File, Permissions},
    os::unix::fs::{MetadataExt, PermissionsExt, fchown},
    path::PathBuf,
};

use rustix::{
    fd::OwnedFd,
    fs::{
        AtFlags, CWD, IFlags, Mode, OFlags, RenameFlags, ResolveFlags, Timespec, Timestamps, fsync, futimens,
        ioctl_getflags, ioctl_setflags, linkat, open, openat, openat2, renameat_with, unlinkat,
    },
    io::Errno,
};
use sha2::{Digest, Sha256};
use xattr::FileExt;

use super::{sealed_file::SealedFile, vault::Vault};

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
}

/// Puts the file back, or says in plain words why not.
pub(crate) fn restore(vault: &Vault, record: &SealedFile) -> Result<Restored, String> {
    let Some(place) = &record.place else {
        return Err("it had no name on the host, so there is no place to put it back to".into());
    };
    let (folder_path, name) = (place.folder.to_path(), place.name.to_os());
    let told =
        |what: &str, error: &dyn std::fmt::Display| format!("{what} {}: {error}", folder_path.display());
    let folder = open_folder(&folder_path).map_err(|e| told("its folder cannot be opened,", &e))?;

    let temporary = format!(".davy-restoring-{}", record.number);
    let _ = unlinkat(&folder, temporary.as_str(), AtFlags::empty());
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = openat(&folder, temporary.as_str(), flags, Mode::RUSR | Mode::WUSR)
        .map_err(|e| told("nothing can be written into", &e))?;
    let mut file = File::from(file);
    let filled = vault.read_into(record, &mut file).map_err(|e| e.to_string());
    let dressed = filled.and_then(|()| dress(&file, record));
    let placed = dressed.and_then(|missing| {
        let name = put_in_place(&folder, &temporary, &name, record)
            .map_err(|e| told("it cannot be named in", &e))?;
        Ok((name, missing))
    });
    let (given, mut missing) = match placed {
        Ok(placed) => placed,
        Err(reason) => {
            let _ = unlinkat(&folder, temporary.as_str(), AtFlags::empty());
            return Err(reason);
        }
    };
    // Last, because an immutable file could not have been renamed.
    if record.flags != 0 && ioctl_getflags(&file).is_ok_and(|flags| flags.bits() != record.flags) {
        let wanted = IFlags::from_bits_retain(record.flags);
        let _ = ioctl_setflags(&file, wanted);
        let special = IFlags::IMMUTABLE | IFlags::APPEND;
        if ioctl_getflags(&file).is_ok_and(|now| now & special != wanted & special) {
            missing.push("its immutable or append-only attribute".into());
        }
    }
    if let Ok(readable) = open(&folder_path, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
        let _ = fsync(&readable);
    }
    Ok(Restored { path: folder_path.join(&given), beside: given != name, missing })
}

/// The folder under the very path it had: a symbolic link that was put in the way is not followed.
fn open_folder(path: &std::path::Path) -> Result<OwnedFd, Errno> {
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

/// Gives the finished file its name, or one beside it. Gives the name.
fn put_in_place(
    folder: &OwnedFd,
    temporary: &str,
    name: &OsStr,
    record: &SealedFile,
) -> Result<OsString, Errno> {
    for attempt in 0..TRIES {
        let mut candidate = name.to_owned();
        match attempt {
            0 => {}
            1 => candidate.push(".davy-restored"),
            n => candidate.push(format!(".davy-restored-{n}")),
        }
        match rename_to_free(folder, temporary, &candidate) {
            Err(Errno::EXIST) => {
                if is_restored(folder, &candidate, record) {
                    let _ = unlinkat(folder, temporary, AtFlags::empty());
                    return Ok(candidate);
                }
            }
            renamed => return renamed.map(|()| candidate),
        }
    }
    Err(Errno::EXIST)
}

fn rename_to_free(folder: &OwnedFd, from: &str, to: &OsStr) -> Result<(), Errno> {
    match renameat_with(folder, from, folder, to, RenameFlags::NOREPLACE) {
        // The file system does not know the flag; a link does not replace either.
        Err(Errno::INVAL | Errno::NOSYS) => {
            linkat(folder, from, folder, to, AtFlags::empty())?;
            unlinkat(folder, from, AtFlags::empty())
        }
        renamed => renamed,
    }
}

/// Whether what lies there is the file itself, put back by an undo that died before it could say so.
fn is_restored(folder: &OwnedFd, name: &OsStr, record: &SealedFile) -> bool {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let Ok(file) = openat(folder, name, flags, Mode::empty()) else { return false };
    let mut file = File::from(file);
    let same = file.metadata().is_ok_and(|meta: fs::Metadata| {
        meta.is_file()
            && meta.len() == record.bytes
            && (meta.uid(), meta.gid(), meta.mode() & 0o7777) == (record.uid, record.gid, record.mode)
    });
    let mut hash = Sha256::new();
    same && std::io::copy(&mut file, &mut hash).is_ok() && hex::encode(hash.finalize()) == record.sha256
}
