//! Drills against a real agent that nothing else here plays: of what comes with miners, and of the agent itself.
#![allow(clippy::unwrap_used, missing_docs)]

use std::path::Path;
use std::process::Command;

use davy_model::Tier;
use davy_test_e2e::{Agent, davy, root_or_skip};
use davy_wire::{Command as Order, RequestBody};

#[test]
fn the_drills_of_campaign_and_tampering_hold_and_harm_nothing() {
    if !root_or_skip() {
        return;
    }
    let agent = Agent::start("").unwrap();
    let before = agent.status().unwrap();
    let tier = before.protections.iter().find(|p| p.name == "tampering").unwrap().tier;
    let Some(tier) = tier else {
        println!("SKIPPED: nothing tells of signals here");
        return;
    };
    let mut drill = Command::new(davy());
    drill.arg("--base-dir").arg(agent.base()).args(["drill", "--json", "campaign", "tampering"]);
    let said = drill.output().unwrap();
    let results: Vec<serde_json::Value> = serde_json::from_slice(&said.stdout).unwrap();
    let outcomes: Vec<_> =
        results.iter().map(|r| [&r["name"], &r["outcome"]].map(|v| v.as_str().unwrap())).collect();
    assert_eq!(outcomes, [["campaign/competitors", "held"], ["tampering/signal", "held"]], "{results:#?}");
    let campaign = results[0]["evidence"].as_str().unwrap();
    assert!(campaign.contains("ends other miners by name"), "{campaign}");
    let tampering = results[1]["evidence"].as_str().unwrap();
    if tier == Tier::Lsm {
        assert!(tampering.starts_with("refused ("), "{tampering}");
    } else {
        assert!(tampering.starts_with("delivered"), "{tampering}");
        assert!(tampering.contains(&format!("sent signal 3 to Davy ({})", agent.pid())), "{tampering}");
        assert!(agent.log().contains("SIGQUIT does not end the agent"), "{}", agent.log());
    }
    // The very agent that was there before runs on.
    let after = agent.status().unwrap();
    assert_eq!((after.pid, after.started), (before.pid, before.started));
}

#[test]
fn the_drill_of_isolation_holds_and_leaves_nothing_isolated() {
    if !root_or_skip() {
        return;
    }
    let agent = Agent::start("").unwrap();
    let mut drill = Command::new(davy());
    drill.arg("--base-dir").arg(agent.base()).args(["drill", "--json", "respond/isolate"]);
    let said = drill.output().unwrap();
    let results: Vec<serde_json::Value> = serde_json::from_slice(&said.stdout).unwrap();
    if results[0]["outcome"] == "unsupported" {
        println!("SKIPPED: {}", results[0]["evidence"]);
        return;
    }
    assert_eq!(results[0]["outcome"], "held", "{results:#?}");
    assert!(results[0]["evidence"].as_str().unwrap().contains("not permitted"), "{results:#?}");
    assert_eq!(agent.status().unwrap().isolated, []);
}

/// In a network namespace of the test's own, which the drill gives an interface for a while.
#[test]
fn the_drill_of_port_scans_holds_and_leaves_no_interface() {
    if !root_or_skip() {
        return;
    }
    let net = Namespace::make("scans");
    let folder = tempfile::tempdir().unwrap();
    let agent = Agent::start_in(folder.path(), "", net.inside(&davy()), &[]).unwrap();
    // The second is by another address, and told as well.
    for _ in 0..2 {
        let result = net.drill(&agent, "scans");
        if result["outcome"] == "unsupported" {
            println!("SKIPPED: {}", result["evidence"]);
            return;
        }
        assert_eq!(result["outcome"], "held", "{result:#?}");
        let evidence = result["evidence"].as_str().unwrap();
        assert!(
            evidence.starts_with("203.0.113.") && evidence.contains("looks for open ports"),
            "{evidence}"
        );
        net.assert_without_cable();
    }
    // From elsewhere nothing can be said of the agent.
    let elsewhere = Namespace::make("elsewhere").drill(&agent, "scans");
    assert_eq!(elsewhere["outcome"], "unsupported", "{elsewhere:#?}");
    assert!(elsewhere["evidence"].as_str().unwrap().contains("another network namespace"), "{elsewhere:#?}");

    // With the protection off nothing is played.
    std::fs::write(folder.path().join("etc/davy.toml"), "[scans]\nmode = \"off\"\n").unwrap();
    agent.ask(RequestBody::Command(Order::Reload)).unwrap();
    assert_eq!(net.drill(&agent, "scans")["outcome"], "off");
}

/// The rules that close ports are in the network namespace of the test's own; of connections out of it all are only observed.
#[test]
fn the_drills_of_connections_hold_observed_and_enforced() {
    if !root_or_skip() {
        return;
    }
    let net = Namespace::make("connections");
    let folder = tempfile::tempdir().unwrap();
    let policy = |inbound: &str| format!("[inbound]\nmode = \"{inbound}\"\n[outbound]\nmode = \"observe\"\n");
    let agent = Agent::start_in(folder.path(), &policy("observe"), net.inside(&davy()), &[]).unwrap();
    let held = |room: &str, words: &str| {
        let result = net.drill(&agent, room);
        assert_eq!(result["outcome"], "held", "{result:#?}");
        assert!(result["evidence"].as_str().unwrap().contains(words), "{result:#?}");
        net.assert_without_cable();
    };
    held("inbound", "let in");
    held("outbound", "connected");
    std::fs::write(folder.path().join("etc/davy.toml"), policy("enforce")).unwrap();
    agent.ask(RequestBody::Command(Order::Reload)).unwrap();
    let davy = |words: &[&str]| {
        let mut verb = net.inside(&davy());
        let said = verb.arg("--base-dir").arg(agent.base()).args(words).output().unwrap();
        assert!(said.status.success(), "{words:?}: {}", String::from_utf8_lossy(&said.stderr));
    };
    davy(&["ports", "apply", "--confirm-within", "120s"]);
    held("inbound", "refused");
    davy(&["ports", "open"]);

    // What nobody forbids has no drill.
    std::fs::write(folder.path().join("etc/davy.toml"), "").unwrap();
    agent.ask(RequestBody::Command(Order::Reload)).unwrap();
    assert_eq!(net.drill(&agent, "inbound")["outcome"], "off");
    assert_eq!(net.drill(&agent, "outbound")["outcome"], "off");
}

struct Namespace(String);

impl Namespace {
    fn make(name: &str) -> Self {
        let net = Self(format!("davy-drill-{name}-{}", std::process::id()));
        let made = Command::new("ip").args(["netns", "add", &net.0]).status();
        assert!(made.is_ok_and(|status| status.success()), "ip netns add {}", net.0);
        // The agent tries what it attaches to connections on loopback.
        let up = Command::new("ip").args(["-n", &net.0, "link", "set", "lo", "up"]).status();
        assert!(up.is_ok_and(|status| status.success()), "lo up in {}", net.0);
        net
    }

    fn inside(&self, program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.0)).arg(program);
        command
    }

    /// What came of the only drill of a room.
    fn drill(&self, agent: &Agent, room: &str) -> serde_json::Value {
        let mut drill = self.inside(&davy());
        let said =
            drill.arg("--base-dir").arg(agent.base()).args(["drill", "--json", room]).output().unwrap();
        let results: Vec<serde_json::Value> = serde_json::from_slice(&said.stdout).unwrap();
        assert_eq!(results.len(), 1);
        results[0].clone()
    }

    fn assert_without_cable(&self) {
        let links = self.inside(Path::new("ip")).args(["-o", "link"]).output().unwrap();
        let links = String::from_utf8(links.stdout).unwrap();
        assert!(!links.contains("davydr"), "{links}");
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "delete", &self.0]).status();
    }
}
