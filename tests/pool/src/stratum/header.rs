//! The 80-byte block header that a `mining.notify` describes, as pool and miner both must build it.

use sha2::{Digest, Sha256};

/// Where the four bytes of the nonce lie in a header.
pub const NONCE_OFFSET: usize = 76;

/// The parts of a job that decide its headers, as bytes of what the messages carry in hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    /// Block version, most significant byte first.
    pub version: [u8; 4],
    /// Previous block's hash, as eight words with the bytes of each turned round.
    pub previous: [u8; 32],
    /// The coinbase transaction up to the extra nonces.
    pub coinbase_head: Vec<u8>,
    /// And from behind them.
    pub coinbase_tail: Vec<u8>,
    /// The hashes that lead from the coinbase to the tree's root.
    pub branches: Vec<[u8; 32]>,
    /// Difficulty of the block in its compact form, most significant byte first.
    pub bits: [u8; 4],
}

impl Template {
    /// The header for one choice of extra nonces, time and nonce (the latter two most significant byte first).
    #[must_use]
    pub fn header(&self, extranonce1: &[u8], extranonce2: &[u8], time: [u8; 4], nonce: [u8; 4]) -> [u8; 80] {
        let coinbase = [&self.coinbase_head[..], extranonce1, extranonce2, &self.coinbase_tail].concat();
        let root =
            self.branches.iter().fold(sha256d(&coinbase), |node, branch| sha256d(&[node, *branch].concat()));
        let mut header = [0_u8; 80];
        header[..4].copy_from_slice(&turned(self.version));
        for (out, word) in header[4..36].chunks_exact_mut(4).zip(self.previous.chunks_exact(4)) {
            out.copy_from_slice(word);
            out.reverse();
        }
        header[36..68].copy_from_slice(&root);
        header[68..72].copy_from_slice(&turned(time));
        header[72..76].copy_from_slice(&turned(self.bits));
        header[76..].copy_from_slice(&turned(nonce));
        header
    }
}

fn turned(mut word: [u8; 4]) -> [u8; 4] {
    word.reverse();
    word
}

fn sha256d(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(Sha256::digest(bytes)).into()
}
