//! Mining protocols in the clear: JSON-RPC in its dialects, by whatever carries it, and the handshake of Stratum v2.
//!
//! Sources: the miners' and pools' own messages (stratum.mining.* of Bitcoin pools, the login/job/submit dialect of Monero pools,
//! EIP-1571 for EthereumStratum 2.0, the eth_* calls of Ethereum nodes, getwork and getblocktemplate of BIP 22) and the Stratum v2
//! specification, protocol security, for the sizes of the Noise handshake.

mod json;
mod layers;
mod noise;

pub use json::{Word, words};
pub use layers::{Unwrapped, frames, unwrap};
pub use noise::looks_like_noise_handshake;

use davy_model::Direction;

/// A family of JSON-RPC mining messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
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
#[derive(Clone, Debug, Default, PartialEq, Eq)]
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
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dialogue {
    /// What this host's process sent.
    pub sent: Speech,
    /// What it received.
    pub received: Speech,
    /// The handshake of Stratum v2 was seen.
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
    /// Reads the beginning of one direction again, after it grew.
    pub fn read(&mut self, direction: Direction, text: &Unwrapped<'_>) {
        let speech = listen(&text.text);
        self.http |= text.http && speech.dialect.is_some();
        self.websocket |= text.websocket && speech.dialect.is_some();
        match direction {
            Direction::Sent => self.sent = speech,
            Direction::Received => self.received = speech,
        }
    }

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

/// The longest algorithm or agent name kept, in bytes.
const MAX_NAME: usize = 48;

/// Listens to one side's text.
#[must_use]
pub fn listen(text: &[u8]) -> Speech {
    let mut speech = Speech::default();
    let mut seen = Seen::default();
    let mut key: &[u8] = b"";
    for word in words(text) {
        match word {
            Word::Key(name) => {
                seen.key(name);
                key = name;
            }
            Word::Text(value) => {
                method(value, key, &mut speech, &mut seen);
                match key {
                    b"algo" => speech.algorithm = speech.algorithm.or_else(|| name_of(value)),
                    b"agent" => speech.agent = speech.agent.or_else(|| name_of(value)),
                    _ => {}
                }
                if key == b"status" && value.eq_ignore_ascii_case(b"OK") {
                    seen.ok = true;
                }
                // A list's further texts are no method's name, save in the list of subscriptions.
                if key != b"result" {
                    key = b"";
                }
            }
            Word::True => seen.ok |= key == b"result",
        }
    }
    seen.conclude(&mut speech);
    speech
}

#[derive(Default)]
struct Seen {
    login_method: bool,
    submit_method: bool,
    credentials: u32,
    job_method: bool,
    job: u32,
    nonce: bool,
    ok: bool,
}

impl Seen {
    fn key(&mut self, name: &[u8]) {
        match name {
            b"login" | b"pass" | b"agent" | b"rigid" | b"algo" => self.credentials += 1,
            b"blob" | b"job_id" | b"target" | b"seed_hash" | b"height" => self.job += 1,
            b"nonce" => self.nonce = true,
            _ => {}
        }
    }

    fn conclude(&self, speech: &mut Speech) {
        // "login", "submit" and "job" are words of many protocols; the fields beside them are not.
        if self.login_method && self.credentials >= 2 {
            speech.enters = true;
            speech.dialect = speech.dialect.or(Some(Dialect::Login));
        }
        if self.submit_method && self.nonce && self.job >= 1 {
            speech.submits = true;
            speech.dialect = speech.dialect.or(Some(Dialect::Login));
        } else if self.job >= 3 || (self.job_method && self.job >= 2) {
            speech.jobs = true;
            speech.dialect = speech.dialect.or(Some(Dialect::Login));
        }
        speech.accepts = self.ok || speech.jobs;
    }
}

/// Notes a method's name, which also stands as the first text of a list in some old dialects.
fn method(value: &[u8], key: &[u8], speech: &mut Speech, seen: &mut Seen) {
    if key != b"method" && key != b"result" {
        return;
    }
    let mut set =
        |dialect: Dialect| speech.dialect = Some(speech.dialect.map_or(dialect, |d| d.max(dialect)));
    match value {
        b"mining.subscribe"
        | b"mining.authorize"
        | b"mining.configure"
        | b"mining.extranonce.subscribe"
        | b"mining.suggest_difficulty"
        | b"mining.multi_version" => {
            set(Dialect::Subscribe);
            speech.enters = true;
        }
        b"mining.hello" => {
            set(Dialect::Hello);
            speech.enters = true;
        }
        b"mining.submit" | b"mining.submitblock" => {
            set(Dialect::Subscribe);
            speech.submits = true;
        }
        b"mining.notify"
        | b"mining.set_difficulty"
        | b"mining.set_target"
        | b"mining.set_extranonce"
        | b"mining.set" => {
            set(Dialect::Subscribe);
            speech.jobs = true;
        }
        b"eth_submitLogin" | b"eth_login" => {
            set(Dialect::Ethereum);
            speech.enters = true;
        }
        b"eth_submitWork" | b"eth_submitHashrate" => {
            set(Dialect::Ethereum);
            speech.submits = true;
        }
        b"eth_getWork" => {
            set(Dialect::Ethereum);
            speech.asks = true;
        }
        b"getwork" | b"getblocktemplate" | b"get_block_template" | b"getminingcandidate"
            if key == b"method" =>
        {
            set(Dialect::GetWork);
            speech.asks = true;
        }
        b"submitblock" | b"submit_block" if key == b"method" => {
            set(Dialect::GetWork);
            speech.submits = true;
        }
        b"login" if key == b"method" => seen.login_method = true,
        b"submit" if key == b"method" => seen.submit_method = true,
        b"job" if key == b"method" => seen.job_method = true,
        _ => {}
    }
}

/// The first word of a name, when it can be shown.
fn name_of(value: &[u8]) -> Option<String> {
    let value = value.split(|b| *b == b' ').next().unwrap_or(value);
    let value = &value[..value.len().min(MAX_NAME)];
    (!value.is_empty() && value.iter().all(u8::is_ascii_graphic))
        .then(|| String::from_utf8_lossy(value).into_owned())
}
