//! What was clean, so that a second sweep need not look again: by device, inode, size, modification and change time to the
//! nanosecond, together with a digest of all that is looked for.
//!
//! A change of content sets the change time, which nobody but root can set back, by the clock. That is sound against
//! accidents and against users, not against root.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::Stat;

/// The most files that are remembered. When there are more, those that were not met for longest are forgotten.
const MOST: usize = 1 << 20;

/// A change is only told from one before it when the clock that stamps files has moved on: what changed this shortly before
/// it was looked at is not remembered. In nanoseconds.
const FRESH: i128 = 2_000_000_000;

const MAGIC: &[u8; 8] = b"davyscn1";
const HEADER: usize = 8 + 32 + 4 + 4 + 8;
const RECORD: usize = 8 + 8 + 8 + 12 + 12 + 4;

/// A file as it was, without its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    size: u64,
    modified: (i64, u32),
    changed: (i64, u32),
}

impl Shape {
    /// The shape of a file now.
    #[must_use]
    pub fn of(stat: &Stat) -> Self {
        let nanos = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
        Self {
            size: stat.st_size.cast_unsigned(),
            modified: (stat.st_mtime, nanos(stat.st_mtime_nsec)),
            changed: (stat.st_ctime, nanos(stat.st_ctime_nsec)),
        }
    }

    /// Whether a change after `looked`, nanoseconds since 1970, would give the file another shape: only then may what was seen
    /// of it be remembered.
    #[must_use]
    pub fn had_settled(&self, looked: i128) -> bool {
        i128::from(self.changed.0) * 1_000_000_000 + i128::from(self.changed.1) + FRESH <= looked
    }
}

/// The time now in nanoseconds since 1970.
#[must_use]
pub fn nanoseconds() -> i128 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    i128::from(now.tv_sec) * 1_000_000_000 + i128::from(now.tv_nsec)
}

/// Files that were clean.
#[derive(Debug)]
pub struct Clean {
    place: Option<PathBuf>,
    digest: [u8; 32],
    files: HashMap<(u64, u64), (Shape, u32)>,
    /// Counts sweeps, so that it is known which of them met a file last.
    run: u32,
    /// Whether the last sweep came to its end.
    ended: bool,
    /// Only what this run met counts.
    anew: bool,
    most: usize,
}

impl Clean {
    /// What an earlier sweep left in the file `place`, if it looked for the same; nothing otherwise. With `anew`, only what
    /// this run has looked at counts, and with `resume` also what the last one had that was cut short.
    #[must_use]
    pub fn load(place: Option<PathBuf>, digest: [u8; 32], anew: bool, resume: bool) -> Self {
        let mut clean = Self { place, digest, files: HashMap::new(), run: 0, ended: true, anew, most: MOST };
        // A cache that is not there or not ours is no cache: everything is looked at.
        if clean.place.clone().is_some_and(|place| clean.read(&place).is_err()) {
            clean.files.clear();
            clean.ended = true;
        }
        if !resume || clean.ended {
            clean.run = clean.run.wrapping_add(1).max(1);
        }
        clean.ended = false;
        clean
    }

    /// Remembers no more than so many files; without it a million.
    #[must_use]
    pub fn at_most(mut self, most: usize) -> Self {
        self.most = most.clamp(1, MOST);
        if self.files.len() > self.most {
            self.forget();
        }
        self
    }

    /// Whether this file was clean and is as it was.
    pub fn has(&mut self, stat: &Stat) -> bool {
        let (run, anew) = (self.run, self.anew);
        match self.files.get_mut(&(stat.st_dev, stat.st_ino)) {
            Some((shape, met)) if *shape == Shape::of(stat) && (!anew || *met == run) => {
                *met = run;
                true
            }
            _ => false,
        }
    }

    /// Remembers a file as clean that was looked at as it was at `looked`, the time in nanoseconds since 1970.
    pub fn remember(&mut self, stat: &Stat, looked: i128) {
        let shape = Shape::of(stat);
        if self.place.is_none() || !shape.had_settled(looked) {
            return;
        }
        if self.files.len() >= self.most {
            self.forget();
        }
        self.files.insert((stat.st_dev, stat.st_ino), (shape, self.run));
    }

    /// Forgets what was not met in this run; when that is nothing, a part of what was.
    fn forget(&mut self) {
        let run = self.run;
        self.files.retain(|_, (_, met)| *met == run);
        while self.files.len() >= self.most {
            let mut keep = false;
            self.files.retain(|_, _| {
                keep = !keep;
                keep
            });
        }
    }

    /// Writes it down; `ended` says whether the sweep came to its end.
    ///
    /// # Errors
    /// When the file cannot be written; what was remembered before stays there.
    pub fn save(&mut self, ended: bool) -> io::Result<()> {
        let Some(place) = &self.place else { return Ok(()) };
        let folder = place.parent().unwrap_or(Path::new("/"));
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        // Two scans at once must not write into one another's.
        let new = place.with_extension(format!("new-{}", std::process::id()));
        let file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        let mut out = BufWriter::new(file);
        out.write_all(MAGIC)?;
        out.write_all(&self.digest)?;
        out.write_all(&self.run.to_le_bytes())?;
        out.write_all(&u32::from(ended).to_le_bytes())?;
        out.write_all(&(self.files.len() as u64).to_le_bytes())?;
        for ((device, inode), (shape, met)) in &self.files {
            for number in [*device, *inode, shape.size] {
                out.write_all(&number.to_le_bytes())?;
            }
            for (seconds, nanos) in [shape.modified, shape.changed] {
                out.write_all(&seconds.to_le_bytes())?;
                out.write_all(&nanos.to_le_bytes())?;
            }
            out.write_all(&met.to_le_bytes())?;
        }
        out.into_inner().map_err(io::IntoInnerError::into_error)?;
        fs::rename(&new, place)
    }

    fn read(&mut self, place: &Path) -> io::Result<()> {
        let file = File::open(place)?;
        let length = file.metadata()?.len();
        let mut from = BufReader::new(file);
        let mut header = [0; HEADER];
        from.read_exact(&mut header)?;
        let mut header = Fields(&header);
        let foreign = || io::Error::from(io::ErrorKind::InvalidData);
        let known = header.bytes::<8>() == *MAGIC;
        let same = header.bytes::<32>() == self.digest;
        self.run = header.u32();
        self.ended = header.u32() != 0;
        let count = header.u64();
        if !known || count > MOST as u64 || length != HEADER as u64 + count * RECORD as u64 {
            return Err(foreign());
        }
        if !same {
            self.ended = true;
            return Ok(());
        }
        self.files.reserve(usize::try_from(count).unwrap_or(0));
        let mut record = [0; RECORD];
        for _ in 0..count {
            from.read_exact(&mut record)?;
            let mut fields = Fields(&record);
            let file = (fields.u64(), fields.u64());
            let size = fields.u64();
            let modified = (fields.u64().cast_signed(), fields.u32());
            let changed = (fields.u64().cast_signed(), fields.u32());
            self.files.insert(file, (Shape { size, modified, changed }, fields.u32()));
        }
        Ok(())
    }
}

/// Fields of fixed length, one after the other.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let Some((field, rest)) = self.0.split_first_chunk::<N>() else { return [0; N] };
        self.0 = rest;
        *field
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.bytes())
    }

    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.bytes())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const DIGEST: [u8; 32] = [7; 32];
    const LATER: i128 = i128::MAX / 2;

    fn place(folder: &tempfile::TempDir) -> Option<PathBuf> {
        Some(folder.path().join("scan/clean"))
    }

    fn stat(file: &Path) -> Stat {
        rustix::fs::stat(file).unwrap()
    }

    #[test]
    fn what_was_clean_is_known_until_it_changes() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "one").unwrap();
        let mut clean = Clean::load(place(&folder), DIGEST, false, false);
        assert!(!clean.has(&stat(&file)));
        clean.remember(&stat(&file), LATER);
        clean.save(true).unwrap();
        let mut again = Clean::load(place(&folder), DIGEST, false, false);
        assert!(again.has(&stat(&file)));
        // Same length and same modification time; the change time tells.
        let was = fs::metadata(&file).unwrap().modified().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(20));
        fs::write(&file, "two").unwrap();
        File::options().write(true).open(&file).unwrap().set_modified(was).unwrap();
        assert!(!again.has(&stat(&file)));
    }

    #[test]
    fn other_rules_a_cut_file_and_one_just_written_are_not_believed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "one").unwrap();
        let mut clean = Clean::load(place(&folder), DIGEST, false, false);
        let now = i128::from(stat(&file).st_ctime) * 1_000_000_000;
        clean.remember(&stat(&file), now);
        assert!(!clean.has(&stat(&file)), "its clock may not have moved on");
        clean.remember(&stat(&file), LATER);
        clean.save(true).unwrap();
        assert!(!Clean::load(place(&folder), [8; 32], false, false).has(&stat(&file)));
        let kept = folder.path().join("scan/clean");
        let bytes = fs::read(&kept).unwrap();
        fs::write(&kept, &bytes[..bytes.len() - 1]).unwrap();
        assert!(!Clean::load(place(&folder), DIGEST, false, false).has(&stat(&file)));
    }

    #[test]
    fn no_more_than_so_many_are_remembered() {
        let folder = tempfile::tempdir().unwrap();
        let mut clean = Clean::load(place(&folder), DIGEST, false, false).at_most(8);
        for number in 0..100 {
            let file = folder.path().join(number.to_string());
            fs::write(&file, "x").unwrap();
            clean.remember(&stat(&file), LATER);
            assert!(clean.has(&stat(&file)) && clean.files.len() <= 8);
        }
        clean.save(true).unwrap();
        assert!(Clean::load(place(&folder), DIGEST, false, false).at_most(3).files.len() <= 3);
    }

    #[test]
    fn a_scan_of_everything_goes_on_where_it_was_cut_short() {
        let folder = tempfile::tempdir().unwrap();
        let (first, second) = (folder.path().join("first"), folder.path().join("second"));
        fs::write(&first, "one").unwrap();
        fs::write(&second, "two").unwrap();
        let mut clean = Clean::load(place(&folder), DIGEST, false, false);
        clean.remember(&stat(&first), LATER);
        clean.remember(&stat(&second), LATER);
        clean.save(true).unwrap();
        let mut all = Clean::load(place(&folder), DIGEST, true, false);
        assert!(!all.has(&stat(&first)), "all is looked at, whatever was clean");
        all.remember(&stat(&first), LATER);
        all.save(false).unwrap();
        let mut resumed = Clean::load(place(&folder), DIGEST, true, true);
        assert!(resumed.has(&stat(&first)) && !resumed.has(&stat(&second)));
    }
}
