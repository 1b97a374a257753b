//! What the two sides of a flow said of mining, as far as it was in the clear.

use serde::{Deserialize, Serialize};

/// A family of JSON-RPC mining messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dialect {
    /// `login`, `job`, `submit`: Monero and its kin.
    Login,
    /// `mining.subscribe`, `mining.authorize`, `mining.notify`: Bitcoin, Litecoin and most others.
    Subscribe,
    /// `eth_submitLogin`, `eth_getWork`, `eth_submitWork`.
    Ethereum,
    /// `mining.hello`: EthereumStratum 2.0.
    Hello,
    /// `getwork`, `getblocktemplate`: a node's own calls over HTTP.
    GetWork,
    /// Stratum v2 by its handshake.
    Version2,
}

impl Dialect {
    /// Its name for people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Login => "Stratum (login, job, submit)",
            Self::Subscribe => "Stratum (mining.subscribe, mining.notify)",
            Self::Ethereum => "Stratum (eth_submitLogin, eth_getWork)",
            Self::Hello => "EthereumStratum 2.0",
            Self::GetWork => "getwork",
            Self::Version2 => "Stratum v2 (encrypted, known by its handshake)",
        }
    }
}

/// What one side of a flow was seen to say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Speech {
    /// It logged in, subscribed or said hello as a miner does.
    pub enters: bool,
    /// It asked for work as a node's clients do.
    pub asks: bool,
    /// It handed in a solution.
    pub submits: bool,
    /// It gave out jobs or difficulties as a pool does.
    pub jobs: bool,
    /// It accepted something.
    pub accepts: bool,
    /// The dialect, once known.
    pub dialect: Option<Dialect>,
    /// The algorithm or coin, when told.
    pub algorithm: Option<String>,
    /// The miner's name for itself, when told.
    pub agent: Option<String>,
}

/// Both sides of a flow.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dialogue {
    /// What this host's process sent.
    pub sent: Speech,
    /// What it received.
    pub received: Speech,
    /// The handshake of Stratum v2 was seen, in its sizes and in its first bytes.
    pub noise: bool,
    /// It came inside HTTP.
    pub http: bool,
    /// It came inside WebSocket.
    pub websocket: bool,
}

/// How sure it is, and in which part this host's process plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Nothing was recognised.
    None,
    /// It only asks a node for work.
    Work,
    /// It gives work to miners.
    Server,
    /// It began a Stratum v2 session.
    Noise,
    /// It gets jobs; how it entered was not seen.
    Jobs,
    /// It entered as a miner or handed in a solution; the other side was not seen to take part.
    Client,
    /// It entered or handed in as a miner, and the other side took part.
    Session,
}

impl Dialogue {
    /// The part this host's process plays.
    #[must_use]
    pub fn part(&self) -> Part {
        let client = self.sent.enters || self.sent.submits;
        let served = self.received.jobs || (self.received.accepts && self.sent.enters);
        // A reply alone may be anything; it is heard as a pool's only when the other side spoke as a miner.
        if client && served {
            Part::Session
        } else if client {
            Part::Client
        } else if self.received.enters || self.received.submits || self.sent.jobs {
            Part::Server
        } else if self.received.jobs {
            Part::Jobs
        } else if self.noise {
            Part::Noise
        } else if self.sent.asks {
            Part::Work
        } else {
            Part::None
        }
    }

    /// The dialect, from whichever side told it.
    #[must_use]
    pub fn dialect(&self) -> Option<Dialect> {
        self.sent.dialect.or(self.received.dialect).or(self.noise.then_some(Dialect::Version2))
    }

    /// The algorithm of the jobs, when told. What a miner offers when it logs in is a list of all it can.
    #[must_use]
    pub fn algorithm(&self) -> Option<&str> {
        [&self.received, &self.sent].into_iter().filter(|s| s.jobs).find_map(|s| s.algorithm.as_deref())
    }

    /// The miner's name for itself, when told.
    #[must_use]
    pub fn agent(&self) -> Option<&str> {
        self.sent.agent.as_deref().or(self.received.agent.as_deref())
    }
}
