use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use rustls::ServerConfig;
use serde::Serialize;
use serde_json::json;

use crate::chance::Chance;
use crate::link::{Link, Received, Wire};
use crate::server::{Lease, Server, TICK};
use crate::tls;

/// An everyday service with long-lived connections and small messages both ways: a chat room. What a detector of
/// pool traffic must leave alone.
#[derive(Clone, Debug)]
pub struct ChatConfig {
    /// Where it listens; port zero takes a free one.
    pub listen: SocketAddr,
    /// How its messages travel.
    pub wire: Wire,
    /// How many people it lets in at once; further ones are hung up on.
    pub max_connections: usize,
    /// After how long it ends by itself.
    pub lifetime: Duration,
}

impl ChatConfig {
    /// A WebSocket room on a free loopback port for two minutes.
    #[must_use]
    pub fn new() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            wire: Wire { tls: false, websocket: true },
            max_connections: 64,
            lifetime: Duration::from_secs(120),
        }
    }
}

impl Default for ChatConfig {
    fn default() -> Self {
        Self::new()
    }
}

/// What a room has seen since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ChatStats {
    /// People who came.
    pub connections: u64,
    /// Messages from them.
    pub heard: u64,
    /// Messages to them.
    pub said: u64,
}

#[derive(Debug, Default)]
struct Counters {
    connections: AtomicU64,
    heard: AtomicU64,
    said: AtomicU64,
}

/// A running room. Dropping it ends it.
pub struct Chat {
    server: Server,
    counters: Arc<Counters>,
}

impl Chat {
    /// Starts to listen.
    ///
    /// # Errors
    /// When the address cannot be taken, or no certificate can be made.
    pub fn start(config: ChatConfig) -> Result<Self> {
        let counters = Arc::new(Counters::default());
        let certificate = if config.wire.tls { Some(tls::self_signed("chat.test")?) } else { None };
        let shared = Arc::clone(&counters);
        let server = Server::start(config.listen, config.max_connections, config.lifetime, {
            move |socket, lease| {
                // A guest who leaves in the middle of a sentence concerns no one else.
                drop(host(socket, lease, &config, certificate.as_ref(), &shared));
            }
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
    pub fn stats(&self) -> ChatStats {
        ChatStats {
            connections: self.counters.connections.load(Ordering::Relaxed),
            heard: self.counters.heard.load(Ordering::Relaxed),
            said: self.counters.said.load(Ordering::Relaxed),
        }
    }
}

fn host(
    socket: TcpStream,
    lease: &Lease,
    config: &ChatConfig,
    certificate: Option<&Arc<ServerConfig>>,
    counters: &Counters,
) -> Result<()> {
    let mut link = Link::answer(socket, config.wire, certificate)?;
    counters.connections.fetch_add(1, Ordering::Relaxed);
    let (said, heard) = gossip(&mut link, "room", || lease.over())?;
    counters.said.fetch_add(said, Ordering::Relaxed);
    counters.heard.fetch_add(heard, Ordering::Relaxed);
    Ok(())
}

/// A guest's side: talks with a room for so long and returns how many messages went out and came in.
///
/// # Errors
/// When the room cannot be reached.
pub fn talk(address: SocketAddr, wire: Wire, length: Duration) -> Result<(u64, u64)> {
    let end = Instant::now() + length;
    let mut link = Link::dial(address, wire)?;
    Ok(gossip(&mut link, "guest", || Instant::now() >= end)?)
}

/// Sends a message every now and then, of a length as people write, and listens in between.
fn gossip(link: &mut Link, who: &str, over: impl Fn() -> bool) -> io::Result<(u64, u64)> {
    const WORDS: [&str; 8] =
        ["well", "tomorrow", "the build", "is green", "coffee?", "no idea", "see you", "at four"];
    let mut chance = Chance::new();
    let (mut said, mut heard) = (0, 0);
    let pause = |chance: &mut Chance| chance.between(Duration::from_millis(300), Duration::from_secs(6));
    let mut next = Instant::now() + pause(&mut chance);
    while !over() {
        match link.receive(TICK)? {
            Received::Line(_) => heard += 1,
            Received::Nothing => {}
            Received::Closed => break,
        }
        if Instant::now() >= next {
            next = Instant::now() + pause(&mut chance);
            let length = 1 + chance.below(24) as usize;
            let words: Vec<_> = (0..length).map(|_| WORDS[chance.below(8) as usize]).collect();
            link.send(&json!({"type": "message", "from": who, "text": words.join(" ")}).to_string())?;
            said += 1;
        }
    }
    Ok((said, heard))
}
