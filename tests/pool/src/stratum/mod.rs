//! The server's side of two Stratum dialects, free of I/O: a line in, lines out.

mod bitcoin;
pub mod header;
mod monero;

pub use bitcoin::BitcoinSession;
pub use monero::{MoneroSession, NONCE_OFFSET};

/// What a session makes of one line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Turn {
    /// Lines to send back, in order.
    pub replies: Vec<String>,
    /// Whether the line logged a miner in.
    pub login: bool,
    /// Whether the replies carry a job.
    pub job: bool,
    /// Whether a share in the line counted.
    pub share: Option<bool>,
    /// Whether the line was no request at all, so that the connection ends.
    pub hang_up: bool,
}

impl Turn {
    fn reply(line: String) -> Self {
        Self { replies: vec![line], ..Self::default() }
    }

    fn hang_up() -> Self {
        Self { hang_up: true, ..Self::default() }
    }
}

/// One miner's conversation with the pool.
pub trait Session: Send {
    /// Takes a line from the miner.
    fn hear(&mut self, line: &str) -> Turn;

    /// A new job to push; `None` before the miner has logged in.
    fn push_job(&mut self) -> Option<String>;
}

/// How many jobs back a share is still taken for.
const JOBS_KEPT: usize = 8;
