//! A miner's side of Stratum, with shares that are worth nothing.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use super::{compute, steady};

/// Gaps between shares.
const SHARE_GAP: Duration = Duration::from_secs(2);

/// How long the pool may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// The longest line that is read, in bytes.
const MAX_LINE: u64 = 4096;

/// Logs in, and submits shares until the moment given; computes on so many threads besides, if any.
pub(super) fn run(pool: SocketAddr, threads: usize, until: Instant) -> anyhow::Result<()> {
    let stream = TcpStream::connect_timeout(&pool, PATIENCE).context("reach the pool")?;
    let mut session = Session::login(stream)?;
    let computing = if threads > 0 { compute::start(threads, until)? } else { Vec::new() };
    steady();
    while Instant::now() < until {
        std::thread::sleep(SHARE_GAP);
        if session.submit().is_err() {
            // A miner whose pool is gone goes on computing, and so it can still be caught at that.
            println!("lost");
            break;
        }
    }
    computing.into_iter().for_each(|t| drop(t.join()));
    Ok(())
}

/// Says whether the pool can be reached from here.
pub(super) fn reach(pool: SocketAddr) -> anyhow::Result<()> {
    match TcpStream::connect_timeout(&pool, PATIENCE) {
        Ok(_) => println!("connected"),
        Err(why) => println!("refused {why}"),
    }
    Ok(())
}

/// A login at a pool.
struct Session {
    reader: BufReader<TcpStream>,
    writer: TcpStream,
    job: String,
    next: u64,
}

impl Session {
    fn login(stream: TcpStream) -> anyhow::Result<Self> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let reader = BufReader::new(stream.try_clone()?);
        let mut session = Self { reader, writer: stream, job: String::new(), next: 1 };
        let params = json!({"login": "davy-drill", "pass": "x", "agent": "davy-drill", "algo": ["rx/0"]});
        let answer = session.request("login", &params)?;
        let job = answer["result"]["job"]["job_id"].as_str().context("the pool gave no job")?;
        session.job = job.to_owned();
        Ok(session)
    }

    fn submit(&mut self) -> anyhow::Result<()> {
        let nonce = format!("{:08x}", self.next);
        let params =
            json!({"id": "davy-drill", "job_id": self.job, "nonce": nonce, "result": "00".repeat(32)});
        let answer = self.request("submit", &params)?;
        ensure!(answer["result"]["status"] == "OK", "the pool took no share");
        Ok(())
    }

    /// Sends a request and reads up to its answer, past jobs that are pushed between.
    fn request(&mut self, method: &str, params: &Value) -> anyhow::Result<Value> {
        let id = self.next;
        self.next += 1;
        let request = json!({"id": id, "jsonrpc": "2.0", "method": method, "params": params});
        writeln!(self.writer, "{request}").context("write to the pool")?;
        for _ in 0..8 {
            let mut line = Vec::new();
            let read = self.reader.by_ref().take(MAX_LINE).read_until(b'\n', &mut line);
            ensure!(read.context("read from the pool")? > 0, "the pool hung up");
            let answer: Value = serde_json::from_slice(&line).context("read the pool's answer")?;
            if answer["id"] == id {
                return Ok(answer);
            }
            if let Some(job) = answer["params"]["job_id"].as_str() {
                job.clone_into(&mut self.job);
            }
        }
        anyhow::bail!("the pool did not answer")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_handshake_and_a_share_go_through() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let pool = listener.local_addr().unwrap();
        let until = Instant::now() + Duration::from_secs(10);
        std::thread::spawn(move || super::super::pool::serve(&listener, until));
        let mut session = Session::login(TcpStream::connect(pool).unwrap()).unwrap();
        let first = session.job.clone();
        session.submit().unwrap();
        // A silent connection is given new jobs, which the next request reads past.
        std::thread::sleep(Duration::from_millis(3300));
        session.submit().unwrap();
        assert_ne!(session.job, first);
    }
}
