//! What a sealed file holds, as it was.

use std::{
    fs::File,
    io::{self, BufReader, Read, Take},
};

use sha2::{Digest, Sha256};

use super::{
    seal::{self, Key, Unsealed},
    sealed_file::SealedFile,
};

/// The content of a file in quarantine. Reading it to its end fails when it is not what was put in.
pub struct SealedContent {
    inner: Option<Counted<Take<Unsealed<BufReader<File>>>>>,
    sha256: String,
}

impl std::fmt::Debug for SealedContent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SealedContent").field("sha256", &self.sha256).finish_non_exhaustive()
    }
}

impl SealedContent {
    pub(super) fn open(key: &Key, record: &SealedFile, sealed: File) -> io::Result<Self> {
        let content = seal::open(key, record.content(), BufReader::new(sealed))?;
        let bounded = content.take(record.bytes.saturating_add(1));
        Ok(Self { inner: Some(Counted::new(bounded)), sha256: record.sha256.clone() })
    }
}

impl Read for SealedContent {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let Some(inner) = &mut self.inner else { return Ok(0) };
        let read = inner.read(into)?;
        if read == 0
            && !into.is_empty()
            && let Some(inner) = self.inner.take()
            && inner.finish().1 != self.sha256
        {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "its content is not what was put in"));
        }
        Ok(read)
    }
}

/// Counts and hashes what is read through it.
pub(super) struct Counted<R> {
    inner: R,
    bytes: u64,
    hash: Sha256,
}

impl<R> Counted<R> {
    pub(super) fn new(inner: R) -> Self {
        Self { inner, bytes: 0, hash: Sha256::new() }
    }

    /// How many bytes were read, and their SHA-256 in hexadecimal.
    pub(super) fn finish(self) -> (u64, String) {
        (self.bytes, hex::encode(self.hash.finalize()))
    }
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(into)?;
        self.bytes += read as u64;
        self.hash.update(&into[..read]);
        Ok(read)
    }
}
