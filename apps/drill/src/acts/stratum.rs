//! A miner's side of Stratum, with shares that are worth nothing.

use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use super::lines::{Lines, Received};
use super::{compute, steady, tls};

/// Gaps between shares.
const SHARE_GAP: Duration = Duration::from_secs(2);

/// The mean gap between shares where they are found by luck.
const LUCKY_GAP: Duration = Duration::from_secs(1);

/// How long the pool may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

/// Logs in, and submits shares until the moment given; computes on so many threads besides, if any.
pub(super) fn run(pool: SocketAddr, threads: usize, until: Instant) -> anyhow::Result<()> {
    let socket = TcpStream::connect_timeout(&pool, PATIENCE).context("reach the pool")?;
    let mut session = Session::login(Lines::clear(socket)?)?;
    let computing = if threads > 0 { compute::start(threads, until)? } else { Vec::new() };
    steady();
    session.submit_all(until, || SHARE_GAP);
    computing.into_iter().for_each(|t| drop(t.join()));
    Ok(())
}

/// The same in TLS, with shares that come as luck has it, beside computing that could be anything.
pub(super) fn run_in_tls(pool: SocketAddr, certificate: &str, until: Instant) -> anyhow::Result<()> {
    let mut session = Session::login(tls::connect(pool, certificate)?)?;
    let computing = compute::start_plain(2, until)?;
    steady();
    let mut seed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_micros() as u64;
    session.submit_all(until, || lucky_gap(&mut seed));
    computing.into_iter().for_each(|t| drop(t.join()));
    Ok(())
}

/// Gaps of a search in which every try is as good as the last are distributed exponentially. Kept within bounds: many
/// at once would look like one, and a drill has no time for a long dry spell.
fn lucky_gap(seed: &mut u64) -> Duration {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    let luck = ((*seed >> 40) as f64 + 1.0) / (1_u64 << 24) as f64;
    LUCKY_GAP.mul_f64((-luck.ln()).clamp(0.25, 3.0))
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
    lines: Lines,
    job: String,
    next: u64,
}

impl Session {
    fn login(lines: Lines) -> anyhow::Result<Self> {
        let mut session = Self { lines, job: String::new(), next: 1 };
        let params = json!({"login": "davy-drill", "pass": "x", "agent": "davy-drill", "algo": ["rx/0"]});
        let answer = session.request("login", &params)?;
        let job = answer["result"]["job"]["job_id"].as_str().context("the pool gave no job")?;
        session.job = job.to_owned();
        Ok(session)
    }

    fn submit_all(&mut self, until: Instant, mut gap: impl FnMut() -> Duration) {
        while Instant::now() < until {
            std::thread::sleep(gap());
            if self.submit().is_err() {
                // A miner whose pool is gone goes on computing, and so it can still be caught at that.
                println!("lost");
                break;
            }
        }
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
        self.lines.send(&request).context("write to the pool")?;
        for _ in 0..8 {
            let line = match self.lines.receive(PATIENCE).context("read from the pool")? {
                Received::Line(line) => line,
                Received::Nothing => break,
                Received::Closed => anyhow::bail!("the pool hung up"),
            };
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
    use std::net::TcpListener;

    use super::super::pool;
    use super::*;

    fn listen() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let pool = listener.local_addr().unwrap();
        (listener, pool)
    }

    /// Shares go through, and jobs that were pushed meanwhile are read past and taken.
    fn handshake_and_shares(mut session: Session) {
        let first = session.job.clone();
        session.submit().unwrap();
        std::thread::sleep(Duration::from_millis(3300));
        session.submit().unwrap();
        assert_ne!(session.job, first);
    }

    #[test]
    fn the_handshake_and_a_share_go_through() {
        let (listener, address) = listen();
        let until = Instant::now() + Duration::from_secs(10);
        std::thread::spawn(move || pool::serve(&listener, None, until));
        let socket = TcpStream::connect(address).unwrap();
        handshake_and_shares(Session::login(Lines::clear(socket).unwrap()).unwrap());
    }

    #[test]
    fn the_same_in_tls_and_only_with_the_stage_s_own_certificate() {
        let (listener, address) = listen();
        let until = Instant::now() + Duration::from_secs(10);
        let (config, certificate) = tls::server().unwrap();
        std::thread::spawn(move || pool::serve(&listener, Some(&config), until));
        handshake_and_shares(Session::login(tls::connect(address, &certificate).unwrap()).unwrap());
        let (_, another) = tls::server().unwrap();
        assert!(tls::connect(address, &another).and_then(Session::login).is_err());
    }

    #[test]
    fn luck_has_a_mean_and_no_rhythm() {
        let mut seed = 7;
        let gaps: Vec<f64> = (0..4000).map(|_| lucky_gap(&mut seed).as_secs_f64()).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|g| (g - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        assert!((0.8..1.2).contains(&mean), "{mean}");
        assert!(variance.sqrt() / mean > 0.5, "{variance}");
    }
}
