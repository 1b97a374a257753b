use std::{
    collections::BTreeSet,
    fs::{self, DirBuilder, File},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use davy_model::FileId;

use super::{
    content::{Counted, SealedContent},
    disk,
    original::Original,
    restore::forget_unfinished,
    seal::{self, Key},
    sealed_file::SealedFile,
};
use crate::{Error, QuarantineLimits};

/// The quarantine's folder: the key, and per file `NUMBER.sealed` with its content and `NUMBER.json` with the
/// rest. A file counts as taken when its JSON lies there, because that is written last and goes first. Files of one
/// content share the first one's `NUMBER.sealed`. `last` is the highest number that was ever given back, so that no
/// number means two files; `NUMBER.restoring` says that an unfinished copy may lie where the file is put back to.
pub(crate) struct Vault {
    folder: PathBuf,
    key: Key,
    limits: QuarantineLimits,
}

/// What the folder holds, by number.
#[derive(Default)]
struct Contents {
    records: BTreeSet<u64>,
    sealed: BTreeSet<u64>,
    restoring: BTreeSet<u64>,
    unfinished: Vec<PathBuf>,
    /// Bytes of all sealed files.
    bytes: u64,
}

impl Vault {
    /// Opens it, made with mode 0700 and a new key if missing, and clears up after an agent that was cut short.
    pub(crate) fn open(state_dir: &Path, limits: QuarantineLimits) -> Result<Self, Error> {
        let folder = state_dir.join("quarantine");
        let making = |e| Error::io("make", &folder, e);
        if !folder.is_dir() {
            DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(making)?;
            disk::sync_folder(state_dir).map_err(making)?;
        }
        let key = key(&folder.join("key"))?;
        let vault = Self { folder, key, limits };
        vault.clear_up();
        Ok(vault)
    }

    fn path(&self, number: u64, ending: &str) -> PathBuf {
        self.folder.join(format!("{number:06}.{ending}"))
    }

    fn contents(&self) -> Result<Contents, Error> {
        let entries = fs::read_dir(&self.folder).map_err(|e| Error::io("read", &self.folder, e))?;
        let mut contents = Contents::default();
        for entry in entries.flatten() {
            let name = entry.file_name();
            let Some((stem, ending)) = name.to_str().and_then(|name| name.split_once('.')) else { continue };
            match (stem.parse(), ending) {
                (Ok(number), "json") => drop(contents.records.insert(number)),
                (Ok(number), "restoring") => drop(contents.restoring.insert(number)),
                (Ok(number), "sealed") => {
                    contents.sealed.insert(number);
                    contents.bytes += entry.metadata().map_or(0, |meta| meta.len());
                }
                _ if ending.rsplit('.').next() == Some(disk::UNFINISHED) => {
                    contents.unfinished.push(entry.path())
                }
                _ => {}
            }
        }
        Ok(contents)
    }

    /// Removes what an agent left that was ended between two steps: content without a record counts as never taken, because
    /// its original was not touched before the record lay on the disk. A record that does not read is damage that no order of
    /// steps explains; then no content is removed, since it may be the record's. What cannot be removed now is tried again at
    /// the next start.
    fn clear_up(&self) {
        let (Ok(contents), Ok((held, faults))) = (self.contents(), self.list()) else { return };
        for number in &contents.restoring {
            if let Some(record) = held.iter().find(|record| record.number == *number) {
                forget_unfinished(record);
            }
            let _ = disk::remove(&self.path(*number, "restoring"));
        }
        for path in &contents.unfinished {
            let _ = disk::remove(path);
        }
        let needed: BTreeSet<u64> = held.iter().map(SealedFile::content).collect();
        for number in contents.sealed.difference(&needed).filter(|_| faults.is_empty()) {
            let _ = disk::remove(&self.path(*number, "sealed"));
        }
    }

    /// A number that no file has or had.
    pub(crate) fn next_number(&self) -> Result<u64, Error> {
        let contents = self.contents()?;
        let last =
            fs::read_to_string(self.folder.join("last")).ok().and_then(|text| text.trim().parse().ok());
        let highest = [contents.records.last().copied(), contents.sealed.last().copied(), last];
        Ok(highest.into_iter().flatten().max().unwrap_or(0).saturating_add(1))
    }

    /// Why a file of this length finds no room; `None` when it does. One that may be there already needs none.
    pub(crate) fn refuses(&self, bytes: u64) -> Result<Option<String>, Error> {
        let contents = self.contents()?;
        let QuarantineLimits { total_bytes, files, file_bytes } = self.limits;
        if bytes > file_bytes {
            return Ok(Some(format!(
                "the file has {bytes} bytes, and the quarantine takes {file_bytes} at most"
            )));
        }
        if contents.records.len() >= files {
            return Ok(Some(format!("the quarantine is full: it holds {files} files, which is its bound")));
        }
        if contents.bytes.saturating_add(bytes) > total_bytes
            && !self.list()?.0.iter().any(|held| held.bytes == bytes)
        {
            let held = contents.bytes;
            return Ok(Some(format!("the quarantine is full: it holds {held} of {total_bytes} bytes")));
        }
        Ok(None)
    }

    /// Puts a copy of the file in and makes sure that it can be read back. When this returns, it is on the disk.
    pub(crate) fn put(&self, number: u64, path: &str, original: &Original) -> Result<SealedFile, Error> {
        let record_path = self.path(number, "json");
        if record_path.exists() || self.path(number, "sealed").exists() {
            return Err(Error::Broken { path: record_path, reason: "its number is given already".into() });
        }
        let put = self.try_put(number, path, original);
        if put.is_err() {
            // What cannot be removed now is cleared up at the next start.
            let _ = disk::remove(&self.path(number, "json"));
            let _ = disk::remove(&self.path(number, "sealed"));
        }
        put
    }

    fn try_put(&self, number: u64, path: &str, original: &Original) -> Result<SealedFile, Error> {
        let content = |e| Error::io("read", path, e);
        let (bytes, sha256, shares) = match self.held_already(path, original)? {
            Some((held, sha256)) => (held.bytes, sha256, Some(held.content())),
            None => {
                let (bytes, sha256) = self.seal(number, path, original)?;
                (bytes, sha256, None)
            }
        };
        if bytes > self.limits.file_bytes || !original.unchanged().map_err(content)? {
            let reason = "the file changed while it was read".into();
            return Err(Error::Broken { path: path.into(), reason });
        }
        let meta = &original.meta;
        let record = SealedFile {
            number,
            shares,
            path: path.to_owned(),
            place: original.place(),
            file: FileId { dev: meta.dev(), ino: meta.ino() },
            bytes,
            sha256,
            taken: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs()),
            uid: meta.uid(),
            gid: meta.gid(),
            mode: meta.mode() & 0o7777,
            times: [(meta.atime(), meta.atime_nsec()), (meta.mtime(), meta.mtime_nsec())],
            xattrs: original.xattrs().map_err(content)?,
            flags: original.flags(),
            links: meta.nlink(),
        };
        // The original goes only when the copy has been read back once.
        self.read_into(&record, io::sink())?;
        let record_path = self.path(number, "json");
        let writing = |e| Error::io("write", &record_path, e);
        let json = serde_json::to_vec_pretty(&record).map_err(|e| writing(e.into()))?;
        disk::write_whole(&record_path, &json).map_err(writing)?;
        Ok(record)
    }

    /// A file in quarantine that has this content, and its digest. Only where one is as long is the content read for it.
    fn held_already(&self, path: &str, original: &Original) -> Result<Option<(SealedFile, String)>, Error> {
        let (held, _) = self.list()?;
        if !held.iter().any(|held| held.bytes == original.meta.len()) {
            return Ok(None);
        }
        let reading = |e| Error::io("read", path, e);
        let mut counted = Counted::new(original.reader(self.limits.file_bytes).map_err(reading)?);
        io::copy(&mut counted, &mut io::sink()).map_err(reading)?;
        let (bytes, sha256) = counted.finish();
        let same = |held: &SealedFile| held.sha256 == sha256 && held.bytes == bytes;
        // One whose seal no longer opens is no help.
        let sound = |held: &SealedFile| self.read_into(held, io::sink()).is_ok();
        Ok(held.into_iter().find(|held| same(held) && sound(held)).map(|held| (held, sha256)))
    }

    /// Seals the content on the disk. Gives its length and digest.
    fn seal(&self, number: u64, path: &str, original: &Original) -> Result<(u64, String), Error> {
        let sealed_path = self.path(number, "sealed");
        let sealing = |e| Error::io("write", &sealed_path, e);
        let before = self.contents()?.bytes;
        let mut file = disk::private(&sealed_path).map_err(sealing)?;
        let reader = original.reader(self.limits.file_bytes).map_err(|e| Error::io("read", path, e))?;
        let mut counted = Counted::new(reader);
        seal::seal(&self.key, number, &mut counted, io::BufWriter::new(&mut file)).map_err(sealing)?;
        file.sync_all().map_err(sealing)?;
        let length = file.metadata().map_err(sealing)?.len();
        if before.saturating_add(length) > self.limits.total_bytes {
            let reason =
                format!("the quarantine is full: it holds {before} of {} bytes", self.limits.total_bytes);
            return Err(Error::Broken { path: path.into(), reason });
        }
        Ok(counted.finish())
    }

    /// All that is in quarantine, oldest first, and what is wrong with the rest.
    pub(crate) fn list(&self) -> Result<(Vec<SealedFile>, Vec<String>), Error> {
        let (mut held, mut faults) = (Vec::new(), Vec::new());
        for number in self.contents()?.records {
            match self.record(number) {
                Ok(record) => held.extend(record),
                Err(error) => faults.push(error.to_string()),
            }
        }
        Ok((held, faults))
    }

    /// What is remembered of one file; `None` when it is not, or not wholly, in quarantine.
    pub(crate) fn record(&self, number: u64) -> Result<Option<SealedFile>, Error> {
        let path = self.path(number, "json");
        match fs::read(&path) {
            Ok(json) => match serde_json::from_slice::<SealedFile>(&json) {
                Ok(record) if record.number == number => Ok(Some(record)),
                Ok(_) => Err(Error::Broken { path, reason: "its record is another file's".into() }),
                Err(e) => Err(Error::Broken { path, reason: format!("its record does not read: {e}") }),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io("read", path, error)),
        }
    }

    /// The bytes that its content takes up sealed; 0 when it is gone.
    pub(crate) fn sealed_bytes(&self, record: &SealedFile) -> u64 {
        fs::metadata(self.path(record.content(), "sealed")).map_or(0, |meta| meta.len())
    }

    /// The content, to be read from its beginning; it goes on to read when the file is given back meanwhile.
    pub(crate) fn content(&self, record: &SealedFile) -> Result<SealedContent, Error> {
        let path = self.path(record.content(), "sealed");
        let sealed = File::open(&path).map_err(|e| Error::io("open the sealed", &path, e))?;
        SealedContent::open(&self.key, record, sealed).map_err(|e| Error::io("open the sealed", &path, e))
    }

    /// Writes the content out, and makes sure that it is what was put in.
    pub(crate) fn read_into(&self, record: &SealedFile, mut out: impl Write) -> Result<(), Error> {
        let mut content = self.content(record)?;
        let path = self.path(record.content(), "sealed");
        io::copy(&mut content, &mut out).map(drop).map_err(|e| Error::io("open the sealed", &path, e))
    }

    /// Says on the disk that an unfinished copy may lie where the file is put back to.
    pub(super) fn note_restoring(&self, number: u64) -> io::Result<()> {
        disk::write_whole(&self.path(number, "restoring"), b"")
    }

    /// Forgets a file. Its content goes with the last file that has it.
    ///
    /// # Errors
    /// When it is not certain that it is gone.
    pub(crate) fn remove(&self, number: u64) -> Result<(), Error> {
        let removing = |path: PathBuf| disk::remove(&path).map_err(|e| Error::io("remove", &path, e));
        let content = self.record(number).ok().flatten().map_or(number, |record| record.content());
        if self.next_number()? == number.saturating_add(1) {
            // On a full disk a file must be removable all the same; that a number fits its file is looked at before it is
            // given back.
            let _ = disk::write_whole(&self.folder.join("last"), format!("{number}\n").as_bytes());
        }
        // The record first: what is left by a crash in between is content that counts as never taken.
        removing(self.path(number, "json"))?;
        let (held, faults) = self.list()?;
        if faults.is_empty() && !held.iter().any(|held| held.content() == content) {
            removing(self.path(content, "sealed"))?;
        }
        removing(self.path(number, "restoring"))
    }
}

/// Reads the key, or makes one. A key of a wrong length is an error: with a new one nothing could be restored.
fn key(path: &Path) -> Result<Key, Error> {
    match fs::read(path) {
        Ok(bytes) => bytes.try_into().map_err(|_| Error::Broken {
            path: path.into(),
            reason: "the key has not 32 bytes; what is in quarantine cannot be opened without it".into(),
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let writing = |e| Error::io("write", path, e);
            let key: Key = seal::random().map_err(writing)?;
            disk::write_whole(path, &key).map_err(writing)?;
            Ok(key)
        }
        Err(error) => Err(Error::io("read", path, error)),
    }
}
