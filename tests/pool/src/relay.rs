use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;
use rustls::ServerConfig;
use serde::Serialize;

use crate::link::{Link, Received, Wire};
use crate::server::{Lease, Server};
use crate::tls;

/// How long one direction of a relayed connection waits before it looks at the other.
const TURN: Duration = Duration::from_millis(5);

/// A relay that takes lines on one side and sends them on to another.
#[derive(Clone, Debug)]
pub struct RelayConfig {
    /// Where it listens; port zero takes a free one.
    pub listen: SocketAddr,
    /// How lines arrive.
    pub inward: Wire,
    /// Where they go.
    pub to: SocketAddr,
    /// How they go on.
    pub outward: Wire,
    /// How many connections it takes at once; further ones are hung up on.
    pub max_connections: usize,
    /// After how long it ends by itself.
    pub lifetime: Duration,
}

impl RelayConfig {
    /// A relay in the clear on a free loopback port for two minutes.
    #[must_use]
    pub fn new(to: SocketAddr) -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            inward: Wire::CLEAR,
            to,
            outward: Wire::CLEAR,
            max_connections: 64,
            lifetime: Duration::from_secs(120),
        }
    }
}

/// What a relay has carried since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RelayStats {
    /// Connections it joined.
    pub connections: u64,
    /// Lines it carried, both ways.
    pub lines: u64,
}

#[derive(Debug, Default)]
struct Counters {
    connections: AtomicU64,
    lines: AtomicU64,
}

/// A running relay. Dropping it ends it.
pub struct Relay {
    server: Server,
    counters: Arc<Counters>,
}

impl Relay {
    /// Starts to listen.
    ///
    /// # Errors
    /// When the address cannot be taken, or no certificate can be made.
    pub fn start(config: RelayConfig) -> Result<Self> {
        let counters = Arc::new(Counters::default());
        let certificate = if config.inward.tls { Some(tls::self_signed("relay.test")?) } else { None };
        let shared = Arc::clone(&counters);
        let server = Server::start(config.listen, config.max_connections, config.lifetime, {
            move |socket, lease| {
                // Either side may hang up at any moment; that ends this connection and nothing else.
                drop(carry(socket, lease, &config, certificate.as_ref(), &shared));
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

    /// What it has carried so far.
    #[must_use]
    pub fn stats(&self) -> RelayStats {
        RelayStats {
            connections: self.counters.connections.load(Ordering::Relaxed),
            lines: self.counters.lines.load(Ordering::Relaxed),
        }
    }
}

fn carry(
    socket: TcpStream,
    lease: &Lease,
    config: &RelayConfig,
    certificate: Option<&Arc<ServerConfig>>,
    counters: &Counters,
) -> Result<()> {
    let mut inward = Link::answer(socket, config.inward, certificate)?;
    let mut outward = Link::dial(config.to, config.outward)?;
    counters.connections.fetch_add(1, Ordering::Relaxed);
    while !lease.over() {
        let open = pass(&mut inward, &mut outward, counters)? && pass(&mut outward, &mut inward, counters)?;
        if !open {
            break;
        }
    }
    Ok(())
}

/// Carries what is there in one direction; `false` when that side is closed.
fn pass(from: &mut Link, to: &mut Link, counters: &Counters) -> io::Result<bool> {
    match from.receive(TURN) {
        Ok(Received::Line(line)) => {
            to.send(&line)?;
            counters.lines.fetch_add(1, Ordering::Relaxed);
            Ok(true)
        }
        Ok(Received::Nothing) => Ok(true),
        Ok(Received::Closed) => Ok(false),
        Err(e) if e.kind() == ErrorKind::InvalidData => Ok(false),
        Err(e) => Err(e),
    }
}
