//! Where the kernel takes no programs that judge code, the agent is asked before code runs.
#![allow(clippy::unwrap_used, missing_docs)]

use std::process::Command;

use davy_model::Capability;
use davy_test_e2e::{Agent, davy, root_or_skip};
use davy_wire::{Command as Order, RequestBody};

/// Nobody but the policy vouches for anything, so that nothing has to be learned first.
const NOBODY_VOUCHES: &str = "[trust]\nsources = [\"manifests\"]\n";

#[test]
fn code_is_refused_in_a_rehearsal_and_a_shared_mount_is_not_asked_about() {
    if !root_or_skip() {
        return;
    }
    let agent = Agent::start(NOBODY_VOUCHES).unwrap();
    let works = |wanted| {
        let status = agent.status().unwrap();
        status.probes.iter().any(|probe| probe.capability == wanted && probe.works)
    };
    if works(Capability::TrustLsm) || !works(Capability::FanotifyPermission) {
        println!("SKIPPED: code is judged in the kernel here, or the kernel asks nobody");
        return;
    }
    for shared in [None, Some("/"), Some("/proc/self"), Some("/tmp")] {
        let mount = shared.map(str::to_owned);
        let order = Order::Rehearse { cgroup: "/davy-e2e-asked".to_owned(), seconds: 5, code: true, mount };
        agent.ask(RequestBody::Command(order)).unwrap_err();
        assert_eq!(keepers(agent.pid()), 0, "{shared:?}");
    }
    let mut drill = Command::new(davy());
    drill.arg("--base-dir").arg(agent.base()).args(["drill", "--json", "trust"]);
    let said = drill.output().unwrap();
    let results: Vec<serde_json::Value> = serde_json::from_slice(&said.stdout).unwrap();
    let outcomes: Vec<_> = results.iter().map(|result| result["outcome"].as_str().unwrap()).collect();
    assert_eq!(outcomes, ["held"; 4], "{results:#?}");
    for (result, word) in
        results.iter().zip(["the program ", "the library ", "the script ", "code without a file"])
    {
        let evidence = result["evidence"].as_str().unwrap();
        assert!(evidence.contains(&format!("running {word}")), "{evidence}");
    }
    assert_eq!(keepers(agent.pid()), 0, "nothing is asked about when the rehearsal is over");
}

/// How many keepers of gates the agent has.
fn keepers(agent: u32) -> usize {
    let tasks = std::fs::read_dir(format!("/proc/{agent}/task")).unwrap().flatten();
    let children: String =
        tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok()).collect();
    let is_keeper = |pid: &&str| {
        std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.ends_with(b"worker\0gate\0"))
    };
    children.split_whitespace().filter(is_keeper).count()
}
