//! A test pool to try a miner against by hand, and the peers that go with it.

use std::io::Write;
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand, ValueEnum};
use davy_test_pool::{
    Algorithm, Chat, ChatConfig, Difficulty, Pool, PoolConfig, Relay, RelayConfig, Wire, talk,
};
use serde::Serialize;

/// The longest a peer may run.
const LONGEST: Duration = Duration::from_secs(3600);

#[derive(Parser)]
#[command(name = "davy-test-pool", about = "A mining pool that pays no one, for trying miners and detectors")]
#[command(args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    peer: Option<Peer>,
    #[command(flatten)]
    place: Place,
    /// The protocol; decides the default algorithm.
    #[arg(long, value_enum, default_value_t = Dialect::Monero)]
    dialect: Dialect,
    /// rx/0, rx/2, scrypt or sha256d.
    #[arg(long)]
    algo: Option<Algorithm>,
    /// Shortest and longest seconds between two jobs.
    #[arg(long, num_args = 2, value_names = ["MIN", "MAX"], default_values_t = [3.0, 10.0])]
    jobs_every: Vec<f64>,
    /// How many hashes a share takes on average.
    #[arg(long)]
    hashes_per_share: Option<u64>,
}

#[derive(clap::Args)]
struct Place {
    /// Address and port to listen on; port 0 takes a free one and prints it.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Speak TLS, with a certificate made on the spot.
    #[arg(long)]
    tls: bool,
    /// Wrap each line in a WebSocket message.
    #[arg(long)]
    websocket: bool,
    /// How long to run, such as 60s, 5m or 90; at most an hour.
    #[arg(long = "for", default_value = "60s", value_parser = duration)]
    length: Duration,
}

impl Place {
    fn wire(&self) -> Wire {
        Wire { tls: self.tls, websocket: self.websocket }
    }
}

#[derive(Clone, Copy, ValueEnum)]
enum Dialect {
    /// login, job, submit.
    Monero,
    /// mining.subscribe, mining.notify, mining.submit.
    Bitcoin,
}

#[derive(Subcommand)]
enum Peer {
    /// Take connections and carry their lines to another address.
    Relay {
        #[command(flatten)]
        place: Place,
        /// Where to carry them.
        #[arg(long)]
        to: SocketAddr,
        /// Go on in TLS.
        #[arg(long)]
        to_tls: bool,
    },
    /// A chat room: small messages both ways, and no mining at all.
    Chat {
        #[command(flatten)]
        place: Place,
    },
    /// A guest in such a room.
    Guest {
        /// The room.
        #[arg(long)]
        room: SocketAddr,
        #[command(flatten)]
        place: Place,
    },
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    match arguments.peer {
        None => pool(&arguments),
        Some(Peer::Relay { place, to, to_tls }) => {
            let outward = Wire { tls: to_tls, websocket: false };
            let config = RelayConfig {
                listen: place.listen,
                inward: place.wire(),
                outward,
                lifetime: place.length,
                ..RelayConfig::new(to)
            };
            let relay = Relay::start(config)?;
            until_over(relay.addr(), || relay.over())?;
            print(&relay.stats())
        }
        Some(Peer::Chat { place }) => {
            let config = ChatConfig {
                listen: place.listen,
                wire: place.wire(),
                lifetime: place.length,
                ..ChatConfig::new()
            };
            let chat = Chat::start(config)?;
            until_over(chat.addr(), || chat.over())?;
            print(&chat.stats())
        }
        Some(Peer::Guest { room, place }) => {
            let (said, heard) = talk(room, place.wire(), place.length)?;
            print(&serde_json::json!({"said": said, "heard": heard}))
        }
    }
}

fn pool(arguments: &Arguments) -> Result<()> {
    let algorithm = arguments.algo.unwrap_or(match arguments.dialect {
        Dialect::Monero => Algorithm::RandomX,
        Dialect::Bitcoin => Algorithm::Scrypt,
    });
    let mut config = PoolConfig::new(algorithm);
    config.listen = arguments.place.listen;
    config.wire = arguments.place.wire();
    config.lifetime = arguments.place.length;
    let seconds = |value: f64| Duration::try_from_secs_f64(value).context("--jobs-every takes seconds");
    config.jobs_every = (seconds(arguments.jobs_every[0])?, seconds(arguments.jobs_every[1])?);
    ensure!(config.jobs_every.0 <= config.jobs_every.1, "--jobs-every takes the shorter time first");
    if let Some(hashes) = arguments.hashes_per_share {
        config.difficulty = Difficulty(hashes);
    }
    let pool = Pool::start(config)?;
    until_over(pool.addr(), || pool.over())?;
    print(&pool.stats())
}

fn until_over(address: SocketAddr, over: impl Fn() -> bool) -> Result<()> {
    println!("listening {address}");
    std::io::stdout().flush()?;
    while !over() {
        thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

fn print(stats: &impl Serialize) -> Result<()> {
    println!("{}", serde_json::to_string(stats)?);
    Ok(())
}

fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = match text.strip_suffix('m') {
        Some(number) => (number, 60),
        None => (text.strip_suffix('s').unwrap_or(text), 1),
    };
    let count: u64 =
        number.parse().map_err(|_| format!("{text:?} is no time; expected such as 60s, 5m or 90"))?;
    let length = Duration::from_secs(count.saturating_mul(unit));
    if length > LONGEST { Err("at most an hour".to_owned()) } else { Ok(length) }
}
