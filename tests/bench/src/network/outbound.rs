//! Connections that the allow-list of `[outbound]` decides about.

use std::fmt::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use davy_test_e2e::{Scope, TwoHosts};

use super::{OTHERS, Row, agent, enter, hosts};
use crate::agent::Agent;
use crate::loads::Ends;
use crate::ratio::Ratio;

const CONNECTS: u32 = 8_000;
const DATAGRAMS: u32 = 40_000;

/// Destinations that the policy allows; the last of them is the one that is talked to.
const RULES: [usize; 3] = [1, 100, 10_000];

/// Destinations of one entry, once there are more of them than a policy takes entries.
const TOGETHER: usize = 20;

/// What connections ought to cost at most, with the most rules.
const GOAL: f64 = 1.05;

/// Seconds that the connections of TCP and the datagrams of UDP took.
type Times = [f64; 2];

pub(super) fn measure(davy: &Path, rounds: u32) -> Result<Vec<Row>> {
    let scope = Scope::make("bench-outbound")?;
    let mut ratios = vec![[Vec::new(), Vec::new()]; RULES.len() + 1];
    // The first round warms caches and is not counted.
    for round in 0..=rounds {
        let hosts = hosts()?;
        let (alone, with) = if round % 2 == 0 {
            let alone = load(&hosts, &scope)?;
            (alone, watched(&hosts, &scope, davy)?)
        } else {
            let with = watched(&hosts, &scope, davy)?;
            (load(&hosts, &scope)?, with)
        };
        if round > 0 {
            for (condition, times) in with.iter().enumerate() {
                for load in 0..2 {
                    ratios[condition][load].push(times[load] / alone[load]);
                }
            }
        }
    }
    let mut rows = Vec::new();
    for (load, name) in ["TCP connect+close", "UDP connect+send+close"].into_iter().enumerate() {
        for (condition, ratios) in ratios.iter().enumerate() {
            let rules = condition.checked_sub(1).map(|of| RULES[of]);
            rows.push(Row {
                load: name.to_owned(),
                condition: rules.map_or_else(
                    || "watched, no allow-list".to_owned(),
                    |rules| format!("allow-list, {rules} destinations"),
                ),
                goal: rules.map(|_| GOAL),
                ratio: Ratio::of(&ratios[load]),
            });
        }
    }
    Ok(rows)
}

/// Under an agent: without an allow-list, and then with each.
fn watched(hosts: &TwoHosts, scope: &Scope, davy: &Path) -> Result<Vec<Times>> {
    let agent = agent(hosts, davy, "")?;
    let mut all = vec![load(hosts, scope)?];
    for rules in RULES {
        enforce(&agent, scope, rules)?;
        all.push(load(hosts, scope)?);
    }
    let refused = refused(&agent)?;
    ensure!(refused == 0, "{refused} connections were refused that the policy allows");
    // What no entry allows is refused, or it was not judged.
    agent.reload(&policy(scope, &["192.0.2.1".to_owned()]))?;
    let error = load(hosts, scope).err().map(|error| error.to_string()).unwrap_or_default();
    ensure!(error.contains("Operation not permitted"), "the allow-list does not hold: {error}");
    Ok(all)
}

fn enforce(agent: &Agent, scope: &Scope, rules: usize) -> Result<()> {
    let mut destinations: Vec<String> =
        (1..rules).map(|n| format!("100.{}.{}.{}", 64 + n / 60_000, n / 250 % 240, n % 250 + 1)).collect();
    destinations.push(OTHERS.to_string());
    agent.reload(&policy(scope, &destinations))?;
    let summary: serde_json::Value = serde_json::from_str(&agent.davy(&["outbound", "status", "--json"])?)?;
    let faults = summary["faults"].as_array().is_some_and(|faults| !faults.is_empty());
    ensure!(summary["mode"] == "enforce" && !faults, "the allow-list is not in force: {summary}");
    Ok(())
}

fn refused(agent: &Agent) -> Result<u64> {
    let summary: serde_json::Value = serde_json::from_str(&agent.davy(&["outbound", "status", "--json"])?)?;
    summary["refused"].as_u64().context("no count of what was refused")
}

fn policy(scope: &Scope, destinations: &[String]) -> String {
    let mut policy = format!("[scope]\ncgroups = [\"{}\"]\n[outbound]\nmode = \"enforce\"\n", scope.name());
    let together = if destinations.len() > 500 { TOGETHER } else { 1 };
    for some in destinations.chunks(together) {
        // Writing to a string cannot fail.
        let _ = write!(policy, "[[outbound.allow]]\nto = {some:?}\nreason = \"bench\"\n");
    }
    policy
}

/// The loads, in the scope.
fn load(hosts: &TwoHosts, scope: &Scope) -> Result<Times> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("dial").arg(hosts.namespace(0)).arg(hosts.namespace(1));
    let output = scope.enclose(&command).stdin(Stdio::null()).output()?;
    ensure!(output.status.success(), "the load failed: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout)?;
    let mut times = text.split_whitespace().map(str::parse::<f64>);
    match (times.next(), times.next()) {
        (Some(Ok(tcp)), Some(Ok(udp))) => Ok([tcp, udp]),
        _ => anyhow::bail!("no times in {text:?}"),
    }
}

/// `dial FROM TO`: talks from one network namespace to the other and prints how long it took, in seconds.
pub(crate) fn dial(from: &Path, to: &Path) -> Result<()> {
    enter(to)?;
    let ends = Ends::open(OTHERS)?;
    enter(from)?;
    let times: [Duration; 2] = [ends.connect(CONNECTS)?, ends.send(DATAGRAMS)?];
    println!("{} {}", times[0].as_secs_f64(), times[1].as_secs_f64());
    Ok(())
}
