use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use rustls::ServerConfig;
use serde::Serialize;

use crate::chance::Chance;
use crate::link::{Link, Received, Wire};
use crate::server::{Lease, Server, TICK};
use crate::stratum::{BitcoinSession, MoneroSession, Session};
use crate::tls;
use crate::work::{Algorithm, Difficulty};

/// How a test pool behaves.
#[derive(Clone, Debug)]
pub struct PoolConfig {
    /// Where it listens; port zero takes a free one.
    pub listen: SocketAddr,
    /// What it asks for, which decides the dialect too.
    pub algorithm: Algorithm,
    /// How its lines travel.
    pub wire: Wire,
    /// The shortest and the longest time between two jobs.
    pub jobs_every: (Duration, Duration),
    /// How hard a share is.
    pub difficulty: Difficulty,
    /// How many miners it takes at once; further ones are hung up on.
    pub max_connections: usize,
    /// After how long it ends by itself.
    pub lifetime: Duration,
}

impl PoolConfig {
    /// A pool in the clear on a free loopback port for two minutes, a job every 3 to 10 s, and shares that one
    /// core finds every few seconds.
    #[must_use]
    pub fn new(algorithm: Algorithm) -> Self {
        let hashes = match algorithm {
            Algorithm::RandomX | Algorithm::RandomXV2 => 150,
            Algorithm::Scrypt => 6_000,
            Algorithm::Sha256d => 10_000_000,
        };
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            algorithm,
            wire: Wire::CLEAR,
            jobs_every: (Duration::from_secs(3), Duration::from_secs(10)),
            difficulty: Difficulty(hashes),
            max_connections: 64,
            lifetime: Duration::from_secs(120),
        }
    }
}

/// What a pool has seen since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PoolStats {
    /// Connections taken, handshake done.
    pub connections: u64,
    /// Miners that logged in or were authorised.
    pub logins: u64,
    /// Jobs sent, first ones included.
    pub jobs: u64,
    /// Shares that counted.
    pub accepted: u64,
    /// Shares that did not.
    pub rejected: u64,
    /// Lines that were no request of the dialect, after which the pool hangs up.
    pub malformed: u64,
}

/// Counters shared by a pool's connections.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) connections: AtomicU64,
    pub(crate) logins: AtomicU64,
    pub(crate) jobs: AtomicU64,
    pub(crate) accepted: AtomicU64,
    pub(crate) rejected: AtomicU64,
    pub(crate) malformed: AtomicU64,
}

/// A running pool. Dropping it ends it.
pub struct Pool {
    server: Server,
    counters: Arc<Counters>,
}

impl Pool {
    /// Starts to listen.
    ///
    /// # Errors
    /// When the address cannot be taken, or no certificate can be made.
    pub fn start(config: PoolConfig) -> Result<Self> {
        let counters = Arc::new(Counters::default());
        let certificate = if config.wire.tls { Some(tls::self_signed("pool.test")?) } else { None };
        let shared = Arc::clone(&counters);
        let server = Server::start(config.listen, config.max_connections, config.lifetime, {
            move |socket, lease| serve(socket, lease, &config, certificate.as_ref(), &shared)
        })?;
        Ok(Self { server, counters })
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.server.address()
    }

    /// Whether its time is over.
    #[must_use]
    pub fn over(&self) -> bool {
        self.server.over()
    }

    /// What it has seen so far.
    #[must_use]
    pub fn stats(&self) -> PoolStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        PoolStats {
            connections: read(&self.counters.connections),
            logins: read(&self.counters.logins),
            jobs: read(&self.counters.jobs),
            accepted: read(&self.counters.accepted),
            rejected: read(&self.counters.rejected),
            malformed: read(&self.counters.malformed),
        }
    }
}

fn serve(
    socket: TcpStream,
    lease: &Lease,
    config: &PoolConfig,
    certificate: Option<&Arc<ServerConfig>>,
    counters: &Counters,
) {
    // A client that fails its handshake or hangs up in the middle concerns no one else.
    let Ok(mut link) = Link::answer(socket, config.wire, certificate) else { return };
    counters.connections.fetch_add(1, Ordering::Relaxed);
    let mut session: Box<dyn Session> = match config.algorithm {
        Algorithm::RandomX | Algorithm::RandomXV2 => {
            Box::new(MoneroSession::new(config.algorithm, config.difficulty))
        }
        Algorithm::Scrypt | Algorithm::Sha256d => {
            Box::new(BitcoinSession::new(config.algorithm, config.difficulty))
        }
    };
    drop(converse(&mut link, lease, config, session.as_mut(), counters));
}

fn converse(
    link: &mut Link,
    lease: &Lease,
    config: &PoolConfig,
    session: &mut dyn Session,
    counters: &Counters,
) -> std::io::Result<()> {
    let mut chance = Chance::new();
    let (low, high) = config.jobs_every;
    let mut next_job = Instant::now() + chance.between(low, high);
    while !lease.over() {
        match link.receive(TICK)? {
            Received::Closed => break,
            Received::Nothing => {}
            Received::Line(line) if line.is_empty() => {}
            Received::Line(line) => {
                let turn = session.hear(&line);
                counters.logins.fetch_add(u64::from(turn.login), Ordering::Relaxed);
                counters.jobs.fetch_add(u64::from(turn.job), Ordering::Relaxed);
                counters.accepted.fetch_add(u64::from(turn.share == Some(true)), Ordering::Relaxed);
                counters.rejected.fetch_add(u64::from(turn.share == Some(false)), Ordering::Relaxed);
                counters.malformed.fetch_add(u64::from(turn.hang_up), Ordering::Relaxed);
                for reply in turn.replies {
                    link.send(&reply)?;
                }
                if turn.hang_up {
                    break;
                }
            }
        }
        if Instant::now() >= next_job {
            next_job = Instant::now() + chance.between(low, high);
            if let Some(job) = session.push_job() {
                counters.jobs.fetch_add(1, Ordering::Relaxed);
                link.send(&job)?;
            }
        }
    }
    Ok(())
}
