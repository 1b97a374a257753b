//! Drills against a real agent that nothing else here plays: of what comes with miners, and of the agent itself.
#![allow(clippy::unwrap_used, missing_docs)]

use std::process::Command;

use davy_model::Tier;
use davy_test_e2e::{Agent, davy, root_or_skip};

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
