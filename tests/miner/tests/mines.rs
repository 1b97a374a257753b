//! The miner against the pool: every algorithm, wire and disguise really mines, and the pool agrees that it does.
#![allow(missing_docs)]

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use davy_test_pool::{Algorithm, Difficulty, Pool, PoolConfig, PoolStats, Relay, RelayConfig, Wire};

/// A miner that ends with the test.
struct Miner(Child);

impl Drop for Miner {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

impl Miner {
    fn start(arguments: &[&str]) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_davy-test-miner"))
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .expect("start the miner");
        Self(child)
    }

    fn lines(&mut self) -> impl Iterator<Item = String> {
        BufReader::new(self.0.stdout.take().expect("a pipe")).lines().map_while(Result::ok)
    }
}

/// Easy enough for an unoptimised build on a busy machine.
fn pool(algorithm: Algorithm, wire: Wire) -> Pool {
    let mut config = PoolConfig { wire, ..PoolConfig::new(algorithm) };
    config.difficulty = Difficulty(match algorithm {
        Algorithm::RandomX | Algorithm::RandomXV2 => 4,
        Algorithm::Scrypt => 100,
        Algorithm::Sha256d => 200_000,
    });
    config.jobs_every = (Duration::from_millis(300), Duration::from_millis(900));
    config.lifetime = Duration::from_secs(60);
    Pool::start(config).expect("start the pool")
}

fn shares(pool: &Pool, at_least: u64) -> PoolStats {
    let deadline = Instant::now() + Duration::from_secs(30);
    while pool.stats().accepted < at_least && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(50));
    }
    pool.stats()
}

fn mines(algorithm: Algorithm, wire: Wire, extra: &[&str]) {
    let pool = pool(algorithm, wire);
    mines_at(&pool, pool.addr(), algorithm, wire, extra);
}

fn mines_at(pool: &Pool, address: SocketAddr, algorithm: Algorithm, wire: Wire, extra: &[&str]) {
    let (address, algo) = (address.to_string(), algorithm.name().replace("rx/0", "randomx"));
    let mut arguments = vec!["--algo", &algo, "--pool", &address, "--for", "40"];
    if wire.tls {
        arguments.push("--tls");
    }
    arguments.extend_from_slice(extra);
    let mut miner = Miner::start(&arguments);
    assert_eq!(miner.lines().next().as_deref(), Some("steady"));
    let stats = shares(pool, 3);
    assert!(stats.accepted >= 3, "{stats:?}");
    assert_eq!((stats.rejected, stats.malformed, stats.logins), (0, 0, 1), "{stats:?}");
}

#[test]
fn randomx_in_the_clear() {
    mines(Algorithm::RandomX, Wire::CLEAR, &["--threads", "2"]);
}

#[test]
fn randomx_in_tls_from_memory_under_another_name() {
    mines(Algorithm::RandomX, Wire::TLS, &["--memfd", "--rename", "[kworker/1:2]"]);
}

#[test]
fn scrypt_in_the_clear_from_a_deleted_file() {
    mines(Algorithm::Scrypt, Wire::CLEAR, &["--delete-self"]);
}

#[test]
fn sha256d_in_tls_among_bystanders() {
    mines(Algorithm::Sha256d, Wire::TLS, &["--bystanders", "8"]);
}

#[test]
fn scrypt_through_a_relay_into_tls() {
    let pool = pool(Algorithm::Scrypt, Wire::TLS);
    let relay =
        Relay::start(RelayConfig { outward: Wire::TLS, ..RelayConfig::new(pool.addr()) }).expect("relay");
    mines_at(&pool, relay.addr(), Algorithm::Scrypt, Wire::CLEAR, &[]);
    assert!(relay.stats().lines >= 6, "{:?}", relay.stats());
}

#[test]
fn a_throttled_miner_computes_its_part_of_the_time() {
    let mut miner = Miner::start(&["--algo", "sha256d", "--no-pool", "--for", "4", "--throttle", "25"]);
    let report = miner.lines().nth(1).expect("a report");
    let report: serde_json::Value = serde_json::from_str(&report).expect("JSON");
    assert!(report["hashes"].as_u64().expect("a number") > 0);
    // SAFETY of the measure: wait4's times are the child's own, whatever else the machine does.
    let usage = std::fs::read_to_string(format!("/proc/{}/stat", miner.0.id()));
    // The process may have ended already, and then nothing is left to measure but what it reported.
    if let Ok(stat) = usage {
        let ticks: u64 = stat
            .rsplit(") ")
            .next()
            .map_or(0, |rest| rest.split(' ').skip(11).take(2).filter_map(|n| n.parse::<u64>().ok()).sum());
        assert!(ticks < 240, "{ticks} of 400 ticks used at 25 %");
    }
}

#[test]
fn addresses_beyond_this_machine_are_refused() {
    let mut miner = Miner::start(&["--pool", "192.0.2.1:3333", "--for", "2"]);
    assert!(!miner.0.wait().expect("an end").success());
}

#[test]
fn no_limit_no_mining() {
    for arguments in [&["--no-pool"][..], &["--no-pool", "--for", "121"]] {
        assert!(!Miner::start(arguments).0.wait().expect("an end").success());
    }
}
