use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use davy_model::FileId;
use sha2::{Digest, Sha256};

use super::{
    original::Original,
    seal::{self, Key},
    sealed_file::SealedFile,
};
use crate::{Error, QuarantineLimits};

/// The quarantine's folder: the key, and per file `NUMBER.sealed` with its content and `NUMBER.json` with the
/// rest. A file counts as taken when its JSON lies there, because that is written last.
pub(crate) struct Vault {
    folder: PathBuf,
    key: Key,
    limits: QuarantineLimits,
}

impl Vault {
    /// Opens it, made with mode 0700 and a new key if missing.
    pub(crate) fn open(state_dir: &Path, limits: QuarantineLimits) -> Result<Self, Error> {
        let folder = state_dir.join("quarantine");
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder)
            .map_err(|e| Error::io("make", &folder, e))?;
        let key = key(&folder.join("key"))?;
        Ok(Self { folder, key, limits })
    }

    fn sealed_path(&self, number: u64) -> PathBuf {
        self.folder.join(format!("{number:06}.sealed"))
    }

    fn record_path(&self, number: u64) -> PathBuf {
        self.folder.join(format!("{number:06}.json"))
    }

    /// The numbers in use, complete or not, and the bytes of all.
    fn contents(&self) -> Result<(Vec<u64>, u64), Error> {
        let entries = fs::read_dir(&self.folder).map_err(|e| Error::io("read", &self.folder, e))?;
        let (mut numbers, mut bytes) = (Vec::new(), 0);
        for entry in entries.flatten() {
            let name = entry.file_name();
            let Some((number, "sealed")) = name.to_str().and_then(|name| name.split_once('.')) else {
                continue;
            };
            if let Ok(number) = number.parse() {
                numbers.push(number);
                bytes += entry.metadata().map_or(0, |meta| meta.len());
            }
        }
        numbers.sort_unstable();
        Ok((numbers, bytes))
    }

    /// The next number.
    pub(crate) fn next_number(&self) -> Result<u64, Error> {
        Ok(self.contents()?.0.last().map_or(1, |last| last + 1))
    }

    /// Why a file of this length finds no room; `None` when it does.
    pub(crate) fn refuses(&self, bytes: u64) -> Result<Option<String>, Error> {
        let (numbers, held) = self.contents()?;
        let QuarantineLimits { total_bytes, files, file_bytes } = self.limits;
        Ok(if bytes > file_bytes {
            Some(format!("the file has {bytes} bytes, and the quarantine takes {file_bytes} at most"))
        } else if numbers.len() >= files {
            Some(format!("the quarantine is full: it holds {files} files, which is its bound"))
        } else if held.saturating_add(bytes) > total_bytes {
            Some(format!("the quarantine is full: it holds {held} of {total_bytes} bytes"))
        } else {
            None
        })
    }

    /// Puts a copy of the file in and makes sure that it can be read back. When this returns, it is on the disk.
    pub(crate) fn put(&self, number: u64, path: &str, original: &Original) -> Result<SealedFile, Error> {
        let put = self.try_put(number, path, original);
        if put.is_err() {
            self.remove(number);
        }
        put
    }

    fn try_put(&self, number: u64, path: &str, original: &Original) -> Result<SealedFile, Error> {
        let sealed_path = self.sealed_path(number);
        let content = |e| Error::io("read", path, e);
        let sealing = |e| Error::io("write", &sealed_path, e);

        let mut file = private_file(&sealed_path).map_err(sealing)?;
        let mut counted = Counted {
            inner: original.reader(self.limits.file_bytes).map_err(content)?,
            bytes: 0,
            hash: Sha256::new(),
        };
        seal::seal(&self.key, number, &mut counted, io::BufWriter::new(&mut file)).map_err(sealing)?;
        file.sync_all().map_err(sealing)?;
        let (bytes, sha256) = (counted.bytes, hex::encode(counted.hash.finalize()));
        if bytes > self.limits.file_bytes || !original.unchanged().map_err(content)? {
            let reason = "the file changed while it was read".into();
            return Err(Error::Broken { path: path.into(), reason });
        }

        let meta = &original.meta;
        let record = SealedFile {
            number,
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
        let record_path = self.record_path(number);
        let writing = |e| Error::io("write", &record_path, e);
        let json = serde_json::to_vec_pretty(&record).map_err(|e| writing(e.into()))?;
        let mut file = private_file(&record_path).map_err(writing)?;
        file.write_all(&json).and_then(|()| file.sync_all()).map_err(writing)?;
        self.sync();
        Ok(record)
    }

    /// All that is in quarantine, oldest first.
    pub(crate) fn list(&self) -> Result<Vec<SealedFile>, Error> {
        let (numbers, _) = self.contents()?;
        Ok(numbers.into_iter().filter_map(|number| self.record(number).ok().flatten()).collect())
    }

    /// What is remembered of one file; `None` when it is not, or not wholly, in quarantine.
    pub(crate) fn record(&self, number: u64) -> Result<Option<SealedFile>, Error> {
        let path = self.record_path(number);
        match fs::read(&path) {
            Ok(json) => serde_json::from_slice(&json)
                .map(Some)
                .map_err(|e| Error::Broken { path, reason: format!("its record does not read: {e}") }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io("read", path, error)),
        }
    }

    /// Writes the content out, and makes sure that it is what was put in.
    pub(crate) fn read_into(&self, record: &SealedFile, mut out: impl Write) -> Result<(), Error> {
        let path = self.sealed_path(record.number);
        let reading = |e| Error::io("open the sealed", &path, e);
        let sealed = File::open(&path).map_err(reading)?;
        let content = seal::open(&self.key, record.number, io::BufReader::new(sealed)).map_err(reading)?;
        let mut counted = Counted { inner: content.take(record.bytes + 1), bytes: 0, hash: Sha256::new() };
        io::copy(&mut counted, &mut out).map_err(reading)?;
        if hex::encode(counted.hash.finalize()) == record.sha256 {
            Ok(())
        } else {
            Err(Error::Broken { path, reason: "its content is not what was put in".into() })
        }
    }

    /// Forgets a file.
    pub(crate) fn remove(&self, number: u64) {
        // The record first: what is left by a crash in between is content that counts as never taken.
        let _ = fs::remove_file(self.record_path(number));
        let _ = fs::remove_file(self.sealed_path(number));
        self.sync();
    }

    fn sync(&self) {
        if let Ok(folder) = File::open(&self.folder) {
            let _ = folder.sync_all();
        }
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
            let fresh = path.with_extension("new");
            let _ = fs::remove_file(&fresh);
            let mut file = private_file(&fresh).map_err(writing)?;
            file.write_all(&key).and_then(|()| file.sync_all()).map_err(writing)?;
            fs::rename(&fresh, path).map_err(writing)?;
            Ok(key)
        }
        Err(error) => Err(Error::io("read", path, error)),
    }
}

fn private_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)
}

/// Counts and hashes what is read through it.
struct Counted<R> {
    inner: R,
    bytes: u64,
    hash: Sha256,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(into)?;
        self.bytes += read as u64;
        self.hash.update(&into[..read]);
        Ok(read)
    }
}
