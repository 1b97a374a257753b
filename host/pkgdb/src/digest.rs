//! Content of files, digested in one pass.

use std::io::IoSliceMut;
use std::num::NonZeroU64;
use std::os::fd::AsFd;

use davy_packages::FileDigest;
use md5::Md5;
use rustix::fs::{Advice, fadvise};
use rustix::io::{Errno, ReadWriteFlags, pread, preadv2};
use sha2::{Digest, Sha256, Sha512};

use crate::budget::Pace;

/// Bytes read at once: few system calls, and every digest finds them still in the processor's cache.
const CHUNK: usize = 128 * 1024;

/// What a file's content is.
#[derive(Clone, Copy)]
pub(crate) struct Digested {
    pub(crate) sha256: [u8; 32],
    /// Whether it is what was expected, if anything was.
    pub(crate) as_expected: Option<bool>,
    pub(crate) bytes: u64,
}

/// Reads files and digests them.
pub(crate) struct Digester {
    buffer: Vec<u8>,
    pace: Pace,
}

enum Expected {
    Nothing,
    Md5(Md5, [u8; 16]),
    Sha256([u8; 32]),
    Sha512(Box<Sha512>, [u8; 64]),
    Anything,
}

impl Digester {
    pub(crate) fn new(pace: Pace) -> Self {
        Self { buffer: vec![0; CHUNK], pace }
    }

    /// The first bytes of a file, and no more of it from the disk than the page they are on.
    pub(crate) fn head(&mut self, file: impl AsFd, bytes: usize) -> Result<&[u8], Errno> {
        let _ = fadvise(&file, 0, None, Advice::Random);
        let read = pread(&file, &mut self.buffer[..bytes], 0)?;
        let _ = fadvise(&file, 0, None, Advice::Normal);
        self.pace.rest();
        Ok(&self.buffer[..read])
    }

    /// Digests a file from its beginning to its end.
    ///
    /// What was not in the page cache leaves it again: learning reads gigabytes once, and the host's own files are to
    /// stay where they are.
    pub(crate) fn digest(
        &mut self,
        file: impl AsFd,
        expected: Option<FileDigest>,
        stop: &dyn Fn() -> bool,
    ) -> Result<Option<Digested>, Errno> {
        let mut sha256 = Sha256::new();
        let mut expected = match expected {
            None => Expected::Nothing,
            Some(FileDigest::Md5(digest)) => Expected::Md5(<Md5 as md5::Digest>::new(), digest),
            Some(FileDigest::Sha256(digest)) => Expected::Sha256(digest),
            Some(FileDigest::Sha512(digest)) => Expected::Sha512(Box::default(), digest),
            Some(FileDigest::Own) => Expected::Anything,
        };
        let mut at = 0;
        let mut cold_from = None;
        loop {
            let read = self.read(&file, at, &mut cold_from)?;
            if read == 0 {
                break;
            }
            let chunk = &self.buffer[..read];
            sha256.update(chunk);
            match &mut expected {
                Expected::Md5(md5, _) => md5::Digest::update(md5, chunk),
                Expected::Sha512(sha512, _) => sha512.update(chunk),
                Expected::Nothing | Expected::Sha256(_) | Expected::Anything => {}
            }
            at += read as u64;
            self.pace.rest();
            if stop() {
                return Ok(None);
            }
        }
        if let Some(from) = cold_from {
            let _ = fadvise(&file, from, NonZeroU64::new(at.saturating_sub(from)), Advice::DontNeed);
        }
        let sha256: [u8; 32] = sha256.finalize().into();
        let as_expected = match expected {
            Expected::Nothing => None,
            Expected::Anything => Some(true),
            Expected::Md5(md5, digest) => Some(md5::Digest::finalize(md5).as_slice() == digest),
            Expected::Sha256(digest) => Some(sha256 == digest),
            Expected::Sha512(sha512, digest) => Some(sha512.finalize().as_slice() == digest),
        };
        Ok(Some(Digested { sha256, as_expected, bytes: at }))
    }

    /// Reads a chunk, and notes from where on the file was not in the page cache. Once the disk was asked, what follows
    /// is there by read-ahead and says nothing.
    fn read(&mut self, file: impl AsFd, at: u64, cold_from: &mut Option<u64>) -> Result<usize, Errno> {
        if cold_from.is_none() {
            let mut slices = [IoSliceMut::new(&mut self.buffer)];
            match preadv2(&file, &mut slices, at, ReadWriteFlags::NOWAIT) {
                Ok(read) => return Ok(read),
                Err(Errno::AGAIN) => *cold_from = Some(at),
                // File systems that cannot tell.
                Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {}
                Err(error) => return Err(error),
            }
        }
        pread(&file, &mut self.buffer[..], at)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::Budget;

    fn digested(content: &[u8], expected: Option<FileDigest>) -> Digested {
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(content).expect("written");
        let mut digester = Digester::new(Budget::unpaced(1).pace());
        digester.digest(&file, expected, &|| false).expect("read").expect("not stopped")
    }

    #[test]
    fn known_answers_over_chunks_of_every_length() {
        let million = vec![b'a'; 1_000_000];
        let all = digested(&million, Some(FileDigest::Md5(hex16("7707d6ae4e027c70eea2a935c2296f21"))));
        assert_eq!(
            hex::encode(all.sha256),
            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"
        );
        assert_eq!((all.as_expected, all.bytes), (Some(true), 1_000_000));
        let sha512: [u8; 64] = Sha512::digest(&million).into();
        assert_eq!(digested(&million, Some(FileDigest::Sha512(sha512))).as_expected, Some(true));
        assert_eq!(digested(&million, Some(FileDigest::Sha256(all.sha256))).as_expected, Some(true));
        assert_eq!(digested(b"", None).as_expected, None);
    }

    #[test]
    fn one_bit_of_difference_is_seen_by_each_digest() {
        let mut content = vec![7; CHUNK + 1];
        let (md5, sha256): ([u8; 16], [u8; 32]) =
            (<Md5 as md5::Digest>::digest(&content).into(), Sha256::digest(&content).into());
        let sha512: [u8; 64] = Sha512::digest(&content).into();
        content[CHUNK] ^= 1;
        for expected in [FileDigest::Md5(md5), FileDigest::Sha256(sha256), FileDigest::Sha512(sha512)] {
            assert_eq!(digested(&content, Some(expected)).as_expected, Some(false), "{expected}");
        }
    }

    fn hex16(digits: &str) -> [u8; 16] {
        let mut bytes = [0; 16];
        hex::decode_to_slice(digits, &mut bytes).expect("hex");
        bytes
    }
}
