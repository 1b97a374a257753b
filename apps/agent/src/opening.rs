//! Opens files by paths that strangers choose: what is there may be a pipe, a terminal or another file by now, and opening it
//! never waits.

use std::fs::File;
use std::io;

use davy_model::FileId;
use rustix::fs::{CWD, FileType, Mode, OFlags, Stat, fstat, openat};

/// The longest file that is read to tell what it is, in bytes.
pub(crate) const LONGEST: u64 = davy_files::permission::LONGEST;

/// Opens whatever regular file lies there, if it is not longer than [`LONGEST`].
///
/// # Errors
/// When it cannot be opened, is no regular file, or is longer.
pub(crate) fn regular(path: &str) -> io::Result<File> {
    let (file, stat) = open(path, OFlags::empty())?;
    match stat.st_size.cast_unsigned() {
        0..=LONGEST => Ok(file),
        _ => Err(io::ErrorKind::FileTooLarge.into()),
    }
}

/// Opens this very file, of any length; `None` when it is not there, or something else took its place.
pub(crate) fn itself(path: &str, more: OFlags, wanted: FileId) -> Option<(File, Stat)> {
    open(path, more).ok().filter(|(_, stat)| is(stat, wanted))
}

/// Whether it is this very file, and a regular one.
pub(crate) fn is(stat: &Stat, wanted: FileId) -> bool {
    let regular = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
    regular && (stat.st_dev, stat.st_ino) == (wanted.dev, wanted.ino)
}

fn open(path: &str, more: OFlags) -> io::Result<(File, Stat)> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC | more;
    let fd = openat(CWD, path, flags | OFlags::NOATIME, Mode::empty())
        .or_else(|_| openat(CWD, path, flags, Mode::empty()))?;
    let stat = fstat(&fd)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"));
    }
    Ok((File::from(fd), stat))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn what_took_a_files_place_is_not_opened_and_never_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("program");
        std::fs::write(&path, "one").unwrap();
        let found = std::fs::metadata(&path).unwrap();
        let wanted = FileId { dev: found.dev(), ino: found.ino() };
        let name = path.to_str().unwrap();
        assert_eq!(itself(name, OFlags::empty(), wanted).unwrap().1.st_size, 3);
        assert!(regular(name).is_ok());
        std::fs::File::options().write(true).open(&path).unwrap().set_len(LONGEST + 1).unwrap();
        assert_eq!(regular(name).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        std::fs::remove_file(&path).unwrap();
        // Opening a pipe that nobody writes to would wait for ever.
        rustix::fs::mknodat(CWD, &path, FileType::Fifo, Mode::RWXU, 0).unwrap();
        assert!(itself(name, OFlags::empty(), wanted).is_none());
        assert_eq!(regular(name).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert!(regular(folder.path().to_str().unwrap()).is_err(), "a folder is no file");
    }
}
