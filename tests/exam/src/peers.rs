use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use crate::case::{Algo, Transport};
use crate::scope::Held;

/// The far ends of one case's connections: a pool, perhaps a relay before it, or a chat room. They run outside the
/// case's scope, in the network namespace the case runs in.
pub(crate) struct Peers {
    pub(crate) address: Option<SocketAddr>,
    /// The network namespace of their own, where they have one.
    pub(crate) namespace: Option<PathBuf>,
    running: Vec<Held>,
}

impl Peers {
    /// What a miner's transport needs; with `apart`, in a network namespace that leads nowhere.
    pub(crate) fn of_miner(
        pool: &Path,
        algo: Algo,
        transport: Transport,
        apart: bool,
        seconds: u64,
    ) -> Result<Self> {
        let dialect: &[&str] = match algo {
            Algo::RandomxLight | Algo::RandomxFast => &["--algo", "rx/0", "--dialect", "monero"],
            Algo::Scrypt => &["--algo", "scrypt", "--dialect", "bitcoin"],
            Algo::Sha256d => &["--algo", "sha256d", "--dialect", "bitcoin"],
        };
        let mut peers = Self { address: None, namespace: None, running: Vec::new() };
        if transport == Transport::NoPool {
            return Ok(peers);
        }
        let mut arguments = dialect.to_vec();
        if transport == Transport::Tls {
            arguments.push("--tls");
        }
        peers.add(pool, &arguments, apart, seconds)?;
        if transport == Transport::Relay {
            let to = peers.address.map(|a| a.to_string()).unwrap_or_default();
            peers.add(pool, &["relay", "--to", &to, "--tls"], apart, seconds)?;
        }
        Ok(peers)
    }

    /// A chat room for the loads that talk.
    pub(crate) fn of_load(pool: &Path, seconds: u64) -> Result<Self> {
        let mut peers = Self { address: None, namespace: None, running: Vec::new() };
        peers.add(pool, &["chat", "--websocket"], false, seconds)?;
        Ok(peers)
    }

    /// Their pids.
    pub(crate) fn pids(&self) -> impl Iterator<Item = u32> + '_ {
        self.running.iter().map(|peer| peer.0.id())
    }

    fn add(&mut self, pool: &Path, arguments: &[&str], apart: bool, seconds: u64) -> Result<()> {
        let mut command = match (&self.namespace, apart) {
            (Some(namespace), _) => {
                let mut command = Command::new("nsenter");
                command.arg(format!("--net={}", namespace.display())).arg(pool);
                command
            }
            (None, true) => {
                let mut command = Command::new("unshare");
                command.args(["--net", "sh", "-c", "ip link set lo up && exec \"$0\" \"$@\""]).arg(pool);
                command
            }
            (None, false) => Command::new(pool),
        };
        let mut child = Held(
            command
                .args(arguments)
                .args(["--for", &seconds.to_string()])
                .stdout(Stdio::piped())
                .spawn()
                .context("start a peer")?,
        );
        let mut line = String::new();
        if let Some(stdout) = child.0.stdout.as_mut() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        let address =
            line.trim().strip_prefix("listening ").context("a peer did not say where it listens")?;
        self.address = Some(address.parse()?);
        if apart {
            self.namespace.get_or_insert_with(|| format!("/proc/{}/ns/net", child.0.id()).into());
        }
        self.running.push(child);
        Ok(())
    }
}
