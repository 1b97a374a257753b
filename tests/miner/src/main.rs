//! A real miner for tests: it computes RandomX, scrypt or SHA-256d on a pool's jobs (or on its own), submits the
//! shares it finds, and can disguise itself as intruders' miners do.
//!
//! It is harmless by construction: it stops after at most two minutes, dies with its parent, and dials nothing
//! but loopback and link-local addresses.

mod arguments;
mod bystanders;
mod client;
mod disguise;
mod hasher;
mod job;
mod randomx;
mod worker;

use std::io::Write;
use std::process;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::{Signal, set_parent_process_death_signal};
use serde_json::json;

use crate::arguments::Arguments;
use crate::client::Client;
use crate::hasher::Kernel;
use crate::job::{Board, Job};
use crate::worker::Crew;

fn main() -> Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL)).context("ask to die with the parent")?;
    let arguments = disguise::put_on(Arguments::read()?)?;
    let deadline = Instant::now() + Duration::from_secs(arguments.seconds);
    thread::spawn(move || {
        // Whatever hangs, building a dataset included: the limit holds.
        thread::sleep(deadline.saturating_duration_since(Instant::now()) + Duration::from_secs(3));
        process::exit(3);
    });
    mine(&arguments, deadline)
}

fn mine(arguments: &Arguments, deadline: Instant) -> Result<()> {
    let board = Arc::new(Board::default());
    let client = match arguments.pool {
        Some(address) => {
            Some(Client::start(address, arguments.tls, arguments.algorithm(), Arc::clone(&board))?)
        }
        None => {
            board.post(Job::alone(arguments.algorithm()));
            None
        }
    };
    let first = board.wait(deadline).context("no job came from the pool")?;
    let kernel = Kernel::prepare(arguments.algorithm(), arguments.mode, &first.seed, arguments.threads)?;
    bystanders::start(arguments.bystanders);
    let crew = Crew::start(&kernel, &board, arguments.threads, arguments.throttle)?;
    ensure!(crew.wait_until_steady(deadline), "the time was over before every thread had its first hash");
    let (steady, before) = (Instant::now(), crew.hashes());
    println!("steady");
    std::io::stdout().flush()?;

    while Instant::now() < deadline && !board.ended() {
        thread::sleep(Duration::from_millis(20));
    }
    let seconds = steady.elapsed().as_secs_f64();
    let hashes = crew.hashes() - before;
    crew.stop();
    let verdicts = client.map(Client::stop).unwrap_or_default();
    println!(
        "{}",
        json!({
            "algorithm": arguments.algorithm().name(), "mode": arguments.mode.name(),
            "threads": arguments.threads, "throttle": arguments.throttle,
            "seconds": seconds, "hashes": hashes, "hashes_per_second": hashes as f64 / seconds.max(1e-3),
            "shares": verdicts.submitted, "accepted": verdicts.accepted, "rejected": verdicts.rejected,
        })
    );
    Ok(())
}
