use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::{Lacks, Started};

const DAVY: &str = "/usr/sbin/davy";
const BASE: &str = "/tmp/davy";

/// How long agent and detection may take on an emulated CPU.
const PATIENCE: Duration = Duration::from_secs(90);

/// The whole program: an agent in observe mode finds a load that changes the rounding mode as RandomX does.
pub(super) fn agent_finds_a_randomx_shape() -> Result<()> {
    with_agent(|deadline| {
        let load = Started::act(&["spin", "rounding"])?;
        wait_for(deadline, || mining_of(load.pid())).context("no mining finding")
    })
}

/// Root outside the agent's cgroup cannot signal it, by the drill's word.
pub(super) fn drills_of_campaign_and_tampering_hold() -> Result<()> {
    with_agent(|_| {
        let results = davy(&["drill", "--json", "campaign", "tampering"])?;
        println!("{results}");
        let results = results.as_array().context("no results")?;
        ensure!(results.len() == 2 && results.iter().all(|result| result["outcome"] == "held"));
        let tampering = results.iter().find(|result| result["name"] == "tampering/signal");
        let tampering = tampering.context("nothing of tampering")?;
        ensure!(tampering["tier"] == "lsm", "{tampering}");
        let said = tampering["evidence"].as_str().unwrap_or_default();
        ensure!(said.starts_with("refused (") && said.contains("signal 3 to "), "{said}");
        Ok(())
    })
}

/// An agent in observe mode that has the lsm tier, and what it says when this fails.
fn with_agent<T>(then: impl FnOnce(Instant) -> Result<T>) -> Result<()> {
    if !Path::new(DAVY).exists() {
        return Err(Lacks("the release binary, target/release/davy (make build)".to_owned()).into());
    }
    fs::create_dir_all(BASE)?;
    let log = File::create("/tmp/agent.out")?;
    let mut agent = Command::new(DAVY);
    agent.args(["--base-dir", BASE, "agent"]).stdout(log.try_clone()?).stderr(log);
    let agent = Started(agent.spawn()?);
    let deadline = Instant::now() + PATIENCE;
    let result = wait_for(deadline, || davy(&["status", "--json"]).ok())
        .context("the agent does not answer")
        .and_then(|status| {
            println!("tier {}", status["tier"]);
            ensure!(status["tier"] == "lsm", "a stock kernel gives the lsm tier, not {}", status["tier"]);
            then(deadline)
        });
    if let Err(error) = result {
        println!("{}", fs::read_to_string("/tmp/agent.out").unwrap_or_default());
        println!("{:?}", davy(&["findings", "--json"]));
        return Err(error);
    }
    drop(agent);
    Ok(())
}

/// A mining finding whose subject or part is this process.
fn mining_of(pid: u32) -> Option<Value> {
    let findings = davy(&["findings", "--json"]).ok()?;
    let found = findings.as_array()?.iter().find(|finding| {
        finding["kind"] == "mining"
            && finding["processes"]
                .as_array()
                .is_some_and(|all| all.iter().any(|process| process["pid"] == pid))
    })?;
    println!("{}", found["summary"]);
    Some(found.clone())
}

fn davy(arguments: &[&str]) -> Result<Value> {
    let output = Command::new(DAVY).args(["--base-dir", BASE]).args(arguments).output()?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn wait_for<T>(deadline: Instant, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    while Instant::now() < deadline {
        if let Some(found) = look() {
            return Some(found);
        }
        std::thread::sleep(Duration::from_millis(500));
    }
    None
}
