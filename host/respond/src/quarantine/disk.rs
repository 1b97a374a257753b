//! Writing so that a loss of power leaves the old or the new, never half: the content reaches the disk before the name
//! does, and the name before anything builds on it.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use rustix::io::Errno;

/// The ending of a file that is not yet whole; nothing but its writer looks at it.
pub(super) const UNFINISHED: &str = "new";

/// Writes a file under a name that is free or may be replaced. When this returns, it is on the disk.
pub(super) fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(".");
    unfinished.push(UNFINISHED);
    let _ = fs::remove_file(&unfinished);
    let mut file = private(Path::new(&unfinished))?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&unfinished, path)?;
    sync_folder(path.parent().unwrap_or(Path::new("/")))
}

/// A new file that its owner alone may read, and nobody may run.
pub(super) fn private(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

/// Takes a name away. When this returns, it does not come back.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        removed => removed?,
    }
    sync_folder(path.parent().unwrap_or(Path::new("/")))
}

/// Makes the names in a folder last.
pub(super) fn sync_folder(path: &Path) -> io::Result<()> {
    sync_names(&File::open(path)?)
}

/// Makes the names in an open folder last. Some file systems have nothing to sync there, and say that it makes no sense.
pub(super) fn sync_names(folder: &File) -> io::Result<()> {
    let sense = |error: &io::Error| {
        !matches!(Errno::from_io_error(error), Some(Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS))
    };
    folder.sync_all().or_else(|error| if sense(&error) { Err(error) } else { Ok(()) })
}
