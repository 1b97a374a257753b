//! What the protections of the network cost, between two hosts of the bench's own: two network namespaces and a cable.

mod flood;
mod inbound;
mod outbound;

use std::fs::File;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use davy_test_e2e::TwoHosts;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde::Serialize;

use crate::agent::Agent;
use crate::ratio::Ratio;

pub(crate) use flood::send as send_flood;
pub(crate) use outbound::dial;

/// The host with the agent, and everybody else.
const HOST: Ipv4Addr = Ipv4Addr::new(10, 90, 0, 1);
const OTHERS: Ipv4Addr = Ipv4Addr::new(10, 90, 0, 2);

/// One load under one condition, against nothing.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    /// The load.
    load: String,
    /// The condition.
    condition: String,
    /// The ratio that it should stay within; none where the condition is there to compare with.
    goal: Option<f64>,
    /// Time, or what is left of a rate, against nothing.
    ratio: Option<Ratio>,
}

/// What was measured.
#[derive(Debug, Serialize)]
pub(crate) struct NetworkCost {
    rows: Vec<Row>,
    /// How long 10,000 bans took, in seconds; none where that was left out.
    bans_seconds: Option<f64>,
    flood: flood::Outcome,
}

/// Measures all of it; `None` without root, who alone may make network namespaces.
pub(crate) fn measure(davy: &Path, rounds: u32) -> Result<Option<NetworkCost>> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    eprintln!("the outbound allow-list against nothing, {rounds} rounds");
    let mut rows = outbound::measure(davy, rounds)?;
    eprintln!("closed ports against nothing, {rounds} rounds");
    let (inbound, bans_seconds) = inbound::measure(davy, rounds)?;
    rows.extend(inbound);
    eprintln!("a flood");
    let flood = flood::measure(davy)?;
    Ok(Some(NetworkCost { rows, bans_seconds, flood }))
}

impl NetworkCost {
    /// Tables for people.
    pub(crate) fn write(&self, out: &mut String) -> std::fmt::Result {
        use std::fmt::Write;
        writeln!(
            out,
            "\n| between two hosts, time against nothing, median (quartiles) | | goal | |\n|---|---|---|---|"
        )?;
        for Row { load, condition, goal, ratio } in &self.rows {
            let goal = goal.map_or_else(String::new, |goal| format!("{goal:.2}"));
            write!(out, "| {load} | {condition} | {goal} |")?;
            match ratio {
                Some(r) => writeln!(out, " {:.3} ({:.3} to {:.3}) |", r.median, r.lower, r.upper)?,
                None => writeln!(out, " |")?,
            }
        }
        if let Some(seconds) = self.bans_seconds {
            writeln!(out, "\n10,000 bans in one transaction: {:.0} ms (goal 500).", seconds * 1e3)?;
        }
        self.flood.write(out)
    }
}

fn hosts() -> Result<TwoHosts> {
    TwoHosts::make(&[&format!("{HOST}/24")], &[&format!("{OTHERS}/24")])
}

/// An agent in the first host's network, with a BPF file system of its own: what it pins is not on the machine's.
fn agent(hosts: &TwoHosts, davy: &Path, policy: &str) -> Result<Agent> {
    let mut command: Command = hosts.command(0);
    command.args(["unshare", "--mount", "--propagation", "private", "sh", "-c"]);
    command.arg("mount -t bpf davy-bench /sys/fs/bpf && exec \"$@\"").arg("sh").arg(davy);
    Agent::start_by(command, davy, policy)
}

/// Moves the calling thread into a network namespace.
fn enter(namespace: &Path) -> Result<()> {
    let file = File::open(namespace).with_context(|| namespace.display().to_string())?;
    Ok(move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?)
}

/// Does something in a network namespace, in a thread that ends with it.
fn within<T: Send>(namespace: &Path, task: impl FnOnce() -> T + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| enter(namespace).map(|()| task()));
        thread.join().map_err(|_| anyhow::anyhow!("what was tried in another network panicked"))?
    })
}
