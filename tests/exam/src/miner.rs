use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::SystemTime;

use anyhow::{Context, Result};

use crate::case::{Algo, Disguise, MinerCase, Transport};
use crate::peers::Peers;
use crate::scope::{Held, Scope};

/// The name that a renamed miner takes: a kernel worker's.
const KERNEL_THREAD: &str = "[kworker/0:1]";
/// The user nobody of every Debian.
const NOBODY: &str = "65534";
/// The longest that a miner may run, its preparation included.
const LONGEST: &str = "120";

/// A miner at work in its scope.
pub(crate) struct Miner {
    pub(crate) process: Held,
    /// When every thread had computed its first hash.
    pub(crate) steady: Receiver<SystemTime>,
}

impl Miner {
    pub(crate) fn start(program: &Path, case: MinerCase, peers: &Peers, scope: &Scope) -> Result<Self> {
        let mut command = match case.disguise {
            Disguise::Container => contained(program, peers, scope),
            _ => scope.command(program),
        };
        let mut options = computation(case);
        options.extend_from_slice(disguise(case.disguise));
        options.extend_from_slice(&["--for", LONGEST]);
        let pool = peers.address.map(|address| address.to_string());
        match &pool {
            Some(address) => options.extend_from_slice(&["--pool", address]),
            None => options.push("--no-pool"),
        }
        if matches!(case.transport, Transport::Tls | Transport::Relay) {
            options.push("--tls");
        }
        if case.disguise == Disguise::Plain {
            command.args(options);
        } else {
            // Intruders do not write on the command line what they run.
            command.env("OPTIONS", format!("miner\n{}", options.join("\n")));
        }
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("start the miner")?;
        let stdout = child.stdout.take().context("the miner has no output")?;
        let (sender, steady) = channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if line == "steady" {
                    // The case may be over already.
                    let _ = sender.send(SystemTime::now());
                }
            }
        });
        Ok(Self { process: Held(child), steady })
    }
}

fn computation(case: MinerCase) -> Vec<&'static str> {
    let algo = match case.algo {
        Algo::RandomxLight => ["--algo", "randomx", "--mode", "light"],
        Algo::RandomxFast => ["--algo", "randomx", "--mode", "fast"],
        Algo::Scrypt => ["--algo", "scrypt", "--mode", "light"],
        Algo::Sha256d => ["--algo", "sha256d", "--mode", "light"],
    };
    // One thread where the disguise is to be few, else one for each of the two CPUs that test machines have.
    let threads = if matches!(case.disguise, Disguise::OneOfMany) { "1" } else { "2" };
    [&algo[..], &["--threads", threads]].concat()
}

const fn disguise(disguise: Disguise) -> &'static [&'static str] {
    match disguise {
        Disguise::Plain | Disguise::Container => &[],
        Disguise::Renamed => &["--rename", KERNEL_THREAD],
        Disguise::Memfd => &["--memfd"],
        Disguise::Deleted => &["--delete-self"],
        Disguise::Throttled => &["--throttle", "25"],
        Disguise::OneOfMany => &["--bystanders", "19"],
        Disguise::OtherUser => &["--user", NOBODY],
    }
}

/// New pid, mount and network namespaces with a private /proc, as a container runtime makes them. The network
/// namespace is the peers' where there are any.
fn contained(program: &Path, peers: &Peers, scope: &Scope) -> Command {
    let unshare = ["--pid", "--mount", "--fork", "--kill-child", "--mount-proc"];
    match &peers.namespace {
        Some(namespace) => {
            let mut command = scope.command(Path::new("nsenter"));
            command.arg(format!("--net={}", namespace.display())).arg("unshare").args(unshare).arg(program);
            command
        }
        None => {
            let mut command = scope.command(Path::new("unshare"));
            command.arg("--net").args(unshare).arg(program);
            command
        }
    }
}
