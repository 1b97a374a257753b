//! A web server behind closed ports, as clients see it.

use std::fmt::Write;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use davy_firewall::{BanKind, Bans, Sentence};
use davy_model::Prefix;
use davy_test_e2e::TwoHosts;
use tempfile::TempDir;

use super::{HOST, OTHERS, Row, agent, hosts, within};
use crate::agent::Agent;
use crate::ratio::Ratio;

const PORT: u16 = 8080;

/// Under what requests are made.
#[derive(Clone, Copy)]
enum Condition {
    /// An agent that closes nothing.
    Watched,
    /// Closed ports; entries of the policy, of which the last is the web server's.
    Closed(u16),
    /// The same with the most entries, and so many addresses that may send nothing.
    Banned(u32),
}

const CONDITIONS: [Condition; 4] =
    [Condition::Watched, Condition::Closed(1), Condition::Closed(1_000), Condition::Banned(10_000)];

/// What a request ought to cost at most.
const GOAL: f64 = 1.02;

/// How long one measurement takes.
const SECONDS: u32 = 4;

/// Loads: what is added to wrk's command line.
const LOADS: [(&str, &[&str]); 2] = [
    ("nginx, requests on 32 connections", &[]),
    ("nginx, a connection for each request", &["-H", "Connection: close"]),
];

/// The ratios, and how long the most bans took to be added, in seconds.
pub(super) fn measure(davy: &Path, rounds: u32) -> Result<(Vec<Row>, Option<f64>)> {
    for (program, package) in [("nginx", "nginx-light"), ("wrk", "wrk")] {
        if Command::new(program).arg("-v").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
            eprintln!("left out: {program} (package {package}) is not installed");
            return Ok((Vec::new(), None));
        }
    }
    let mut ratios = vec![vec![Vec::new(); LOADS.len()]; CONDITIONS.len()];
    let mut banned = Vec::new();
    // The first round warms caches and is not counted.
    for round in 0..=rounds {
        let hosts = hosts()?;
        let server = Server::start(&hosts)?;
        let (alone, with) = if round % 2 == 0 {
            let alone = load(&hosts)?;
            (alone, watched(&hosts, davy, &mut banned)?)
        } else {
            let with = watched(&hosts, davy, &mut banned)?;
            (load(&hosts)?, with)
        };
        drop(server);
        if round > 0 {
            for (condition, rates) in with.iter().enumerate() {
                for (load, rate) in rates.iter().enumerate() {
                    ratios[condition][load].push(alone[load] / rate);
                }
            }
        }
    }
    let mut rows = Vec::new();
    for (load, (name, _)) in LOADS.iter().enumerate() {
        for (condition, ratios) in CONDITIONS.into_iter().zip(&ratios) {
            let (condition, goal) = match condition {
                Condition::Watched => ("watched, no closed ports".to_owned(), None),
                Condition::Closed(entries) => (format!("closed ports, {entries} open"), Some(GOAL)),
                Condition::Banned(addresses) => (format!("the same, {addresses} banned"), Some(GOAL)),
            };
            rows.push(Row { load: (*name).to_owned(), condition, goal, ratio: Ratio::of(&ratios[load]) });
        }
    }
    Ok((rows, Ratio::of(&banned).map(|times| times.median)))
}

/// Requests a second under an agent, by condition.
fn watched(hosts: &TwoHosts, davy: &Path, banned: &mut Vec<f64>) -> Result<Vec<Vec<f64>>> {
    let agent = agent(hosts, davy, "")?;
    CONDITIONS
        .into_iter()
        .map(|condition| {
            match condition {
                Condition::Watched => {}
                Condition::Closed(entries) => close(&agent, entries)?,
                Condition::Banned(addresses) => banned.push(ban(hosts, addresses)?),
            }
            load(hosts)
        })
        .collect()
}

/// Bans addresses that nobody has, and says how long it took, in seconds.
fn ban(hosts: &TwoHosts, addresses: u32) -> Result<f64> {
    let first = u32::from(Ipv4Addr::new(198, 18, 0, 0));
    let sentences: Vec<Sentence> = (first..first + addresses)
        .map(|address| Sentence {
            who: Prefix::host(Ipv4Addr::from(address).into()),
            kind: BanKind::default(),
            length: Duration::from_secs(3600),
        })
        .collect();
    within(&hosts.namespace(0), || {
        let begin = Instant::now();
        Bans::open()?.ban(&sentences)?;
        Ok(begin.elapsed().as_secs_f64())
    })?
}

fn close(agent: &Agent, entries: u16) -> Result<()> {
    let mut policy = String::from("[inbound]\nmode = \"enforce\"\n");
    for port in (0..entries).map(|n| PORT + entries - 1 - n) {
        // Writing to a string cannot fail.
        let _ =
            write!(policy, "[[inbound.allow]]\nport = {port}\nfrom = [\"{OTHERS}\"]\nreason = \"bench\"\n");
    }
    agent.reload(&policy)?;
    agent.davy(&["ports", "apply", "--unused", "--confirm-within", "30s"])?;
    agent.davy(&["ports", "confirm"])?;
    let view: serde_json::Value = serde_json::from_str(&agent.davy(&["ports", "--json"])?)?;
    ensure!(view["state"] == "closed" && view["entries"] == entries, "the ports are not closed: {view}");
    Ok(())
}

/// Requests a second, by load.
fn load(hosts: &TwoHosts) -> Result<Vec<f64>> {
    LOADS.iter().map(|(_, more)| requests(hosts, more)).collect()
}

fn requests(hosts: &TwoHosts, more: &[&str]) -> Result<f64> {
    let mut command = hosts.command(1);
    command.args(["wrk", "-t1", "-c32", &format!("-d{SECONDS}s")]).args(more);
    let output = command.arg(format!("http://{HOST}:{PORT}/")).stdin(Stdio::null()).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success() && !text.contains("Socket errors"), "wrk: {text}");
    let rate = text.lines().find_map(|line| line.trim().strip_prefix("Requests/sec:")?.trim().parse().ok());
    rate.with_context(|| format!("no rate in {text:?}"))
}

/// nginx with one page of 1 KiB.
struct Server {
    child: Child,
    _folder: TempDir,
}

impl Server {
    fn start(hosts: &TwoHosts) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let at = folder.path().display();
        // The worker gives up root, and must still reach the page.
        ensure!(Command::new("chmod").arg("755").arg(folder.path()).status()?.success(), "chmod failed");
        std::fs::write(folder.path().join("index.html"), "x".repeat(1024))?;
        let configuration = format!(
            "daemon off; worker_processes 1; pid {at}/pid; error_log {at}/errors;\n\
             events {{ worker_connections 1024; }}\n\
             http {{ access_log off; server {{ listen {HOST}:{PORT} backlog=4096; root {at}; }} }}\n"
        );
        std::fs::write(folder.path().join("nginx.conf"), configuration)?;
        let child = hosts
            .command(0)
            .args(["nginx", "-p"])
            .arg(folder.path())
            .arg("-c")
            .arg(folder.path().join("nginx.conf"))
            .stdin(Stdio::null())
            .spawn()?;
        let mut server = Self { child, _folder: folder };
        let end = Instant::now() + Duration::from_secs(10);
        let probe = format!("exec 3<>/dev/tcp/{HOST}/{PORT}");
        while !hosts.command(1).args(["bash", "-c", &probe]).stderr(Stdio::null()).status()?.success() {
            if Instant::now() > end || server.child.try_wait()?.is_some() {
                bail!("nginx does not answer");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Its worker goes when it is told to, and not when the master is killed.
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ = self.child.wait();
    }
}
