use std::cell::OnceCell;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use davy_model::FileId;
use sha2::{Digest, Sha256};

/// Bytes read at once for a digest.
const PIECE: usize = 128 * 1024;

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
}

impl Ask {
    /// The SHA-256 of the file, computed at the first call.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn digest(&self) -> io::Result<[u8; 32]> {
        if let Some(known) = self.digest.get() {
            return Ok(*known);
        }
        let mut hash = Sha256::new();
        let mut piece = vec![0; PIECE];
        let mut at = 0;
        loop {
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
