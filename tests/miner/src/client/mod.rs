//! The miner's side of the conversation with a pool.

mod bitcoin;
mod monero;

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Result, bail};
use davy_test_pool::{Algorithm, Link, Received, Wire};
use serde_json::Value;

use crate::job::{Board, Job, Share};
use bitcoin::Bitcoin;
use monero::Monero;

/// How long to listen before looking for shares to hand in.
const TICK: Duration = Duration::from_millis(50);

/// What the pool said to the shares.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Verdicts {
    pub(crate) submitted: u64,
    pub(crate) accepted: u64,
    pub(crate) rejected: u64,
}

/// What a line from the pool means.
enum Heard {
    Job(Box<Job>),
    Verdict(bool),
    Reply(String),
    Refused(String),
    Nothing,
}

/// One dialect, free of I/O.
trait Dialect: Send {
    /// The first line to send.
    fn open(&self) -> String;
    fn hear(&mut self, line: &Value) -> Result<Heard>;
    fn submit(&mut self, share: &Share) -> String;
}

/// A conversation with a pool on a thread of its own.
pub(crate) struct Client {
    board: Arc<Board>,
    thread: JoinHandle<Verdicts>,
}

impl Client {
    pub(crate) fn start(
        pool: SocketAddr,
        tls: bool,
        algorithm: Algorithm,
        board: Arc<Board>,
    ) -> Result<Self> {
        let mut link = Link::dial(pool, Wire { tls, websocket: false })?;
        let mut dialect: Box<dyn Dialect> = match algorithm {
            Algorithm::RandomX | Algorithm::RandomXV2 => Box::new(Monero::default()),
            Algorithm::Scrypt | Algorithm::Sha256d => Box::new(Bitcoin::new(algorithm)),
        };
        let held = Arc::clone(&board);
        let thread = thread::spawn(move || {
            let mut verdicts = Verdicts::default();
            if let Err(reason) = converse(&mut link, dialect.as_mut(), &held, &mut verdicts) {
                eprintln!("pool: {reason:#}");
            }
            held.end();
            verdicts
        });
        Ok(Self { board, thread })
    }

    /// Hangs up.
    pub(crate) fn stop(self) -> Verdicts {
        self.board.end();
        self.thread.join().unwrap_or_default()
    }
}

fn converse(
    link: &mut Link,
    dialect: &mut dyn Dialect,
    board: &Board,
    verdicts: &mut Verdicts,
) -> Result<()> {
    link.send(&dialect.open())?;
    while !board.ended() {
        match link.receive(TICK)? {
            Received::Nothing => {}
            Received::Closed => bail!("hung up"),
            Received::Line(line) => match dialect.hear(&serde_json::from_str(&line)?)? {
                Heard::Job(job) => board.post(*job),
                Heard::Verdict(true) => verdicts.accepted += 1,
                Heard::Verdict(false) => verdicts.rejected += 1,
                Heard::Reply(reply) => link.send(&reply)?,
                Heard::Refused(reason) => bail!("refused: {reason}"),
                Heard::Nothing => {}
            },
        }
        while let Some(share) = board.take_share() {
            link.send(&dialect.submit(&share))?;
            verdicts.submitted += 1;
        }
    }
    Ok(())
}
