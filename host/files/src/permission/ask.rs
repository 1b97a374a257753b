use std::cell::OnceCell;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::time::Instant;

use davy_model::FileId;
use sha2::{Digest, Sha256};

/// Bytes read at once for a digest.
const PIECE: usize = 128 * 1024;

/// The longest file that is read, in bytes. What packages hold of code is shorter; longer files are made to be slow to read.
pub const LONGEST: u64 = 1 << 30;

/// What is about to be done with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AskKind {
    /// It is executed, or is the interpreter or loader of what is executed.
    Program,
    /// The dynamic loader opens it, which maps it next.
    Library,
    /// An interpreter opens what its own command line names as its script.
    Script,
}

/// Whether a file's bytes can change between the decision and its use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Steadiness {
    /// A read lease is held: nobody has the file open for writing, and nobody gets it open before this is decided.
    Held,
    /// Somebody has it open for writing. What is read of it now may not be what runs.
    Written,
    /// This file system has no leases that see every writer (overlays, the network, FUSE).
    Unknown,
}

/// What the judge says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// This one may.
    Allow,
    /// And so may everybody, for as long as the bytes are the same. Holds only where [`Steadiness::Held`].
    AllowAnyone,
    /// It gets EPERM.
    Deny,
}

/// A question to the judge.
#[derive(Debug)]
pub struct Ask {
    /// What for.
    pub kind: AskKind,
    /// The file by device and inode.
    pub file: FileId,
    /// Its path as this process sees it, for people.
    pub path: String,
    /// Who wants it: the process, which waits for the answer.
    pub pid: u32,
    /// Whether its bytes can still change.
    pub steadiness: Steadiness,
    /// What is opened. Reading it asks nobody.
    pub content: File,
    pub(super) digest: OnceCell<[u8; 32]>,
    /// Its length when it was asked for, in bytes.
    pub(super) length: u64,
    /// When reading stops: whoever decides then still decides in time.
    pub(super) by: Instant,
}

impl Ask {
    /// The SHA-256 of the file, computed at the first call.
    ///
    /// # Errors
    /// When the file cannot be read, is longer than [`LONGEST`], or is not read whole in three quarters of the time in which
    /// this must be decided. A judge that refuses what it cannot read then still refuses it in time, so that no file is let
    /// through for its length.
    pub fn digest(&self) -> io::Result<[u8; 32]> {
        if let Some(known) = self.digest.get() {
            return Ok(*known);
        }
        if self.length > LONGEST {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let mut hash = Sha256::new();
        let mut piece = vec![0; PIECE];
        let mut at = 0;
        loop {
            if at > LONGEST {
                return Err(io::ErrorKind::FileTooLarge.into());
            }
            if Instant::now() >= self.by {
                return Err(io::ErrorKind::TimedOut.into());
            }
            match self.content.read_at(&mut piece, at)? {
                0 => break,
                got => {
                    hash.update(&piece[..got]);
                    at += got as u64;
                }
            }
        }
        Ok(*self.digest.get_or_init(|| hash.finalize().into()))
    }
}
